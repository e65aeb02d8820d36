import { ADDRESS_LEN } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import { Sa } from '../sad/sa.ts';
import * as ahHeader from '../wire/ah.ts';
import { u8, u32 } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as espHeader from '../wire/esp.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';
import * as ah from './ah.ts';
import type { Core } from './core.ts';
import * as esp from './esp.ts';
import type { Flight } from './flight.ts';
import { isEncapsulationPort } from './settings.ts';

/**
 * What to do next with a packet: open its outermost layer, or hand it on because it has none for
 * us.
 */
export type Step = 'open' | 'done' | 'wait' | 'elsewhere' | { readonly drop: DropReason };

/** Is the packet IPsec to us? Then its SA is found and the job described. */
export function nextLayer(core: Core, flight: Flight): Step {
  const { packet, cursor } = flight;
  const p = packet.bytes;
  flight.sa = undefined;
  flight.udpSport = 0;
  flight.udpDport = 0;
  if (cursor.isFragment) return 'done';
  if (cursor.protocol === PROTO.ESP) return prepareEsp(core, flight, cursor.upperAt, packet.end);
  if (cursor.protocol === PROTO.AH) return prepareAh(core, flight, cursor.upperAt);
  if (cursor.protocol === PROTO.IPCOMP && flight.layerCount === 0)
    return { drop: 'ipcomp-unsupported' };
  if (cursor.protocol !== PROTO.UDP || !cursor.portsKnown) return 'done';
  if (!isEncapsulationPort(core.settings, cursor.dport)) return 'done';
  return prepareUdp(core, flight, p, cursor);
}

/** RFC 3948 §2: ESP, a keep-alive, or behind four zero octets IKE, which is not ours. */
function prepareUdp(core: Core, flight: Flight, p: Uint8Array, cursor: Cursor): Step {
  const { upperAt, end } = cursor;
  const bad = udp.check(p, upperAt, end);
  if (bad !== undefined) return dropOutermost(flight, bad);
  const dataAt = upperAt + udp.HEADER_LEN;
  const dataLen = udp.len(p, upperAt) - udp.HEADER_LEN;
  if (dataLen === 1 && u8(p, dataAt) === 0xff) return dropOutermost(flight, 'natt-keepalive');
  if (dataLen < 4) return dropOutermost(flight, 'natt-not-esp');
  if (u32(p, dataAt) === 0) return 'done';
  // Over IPv6 a datagram without checksum is not one (RFC 8200 §8.1); over IPv4 ESP needs none,
  // and has 0.
  if (!checksum.transportChecksumOk(p, cursor)) return dropOutermost(flight, 'bad-udp-checksum');
  flight.udpSport = cursor.sport;
  flight.udpDport = cursor.dport;
  return prepareEsp(core, flight, dataAt, dataAt + dataLen);
}

/** `end`: of ESP, which in UDP may be before that of the packet. */
function prepareEsp(core: Core, flight: Flight, espAt: number, end: number): Step {
  const p = flight.packet.bytes;
  const bad = espHeader.check(p, espAt, end);
  if (bad !== undefined) return { drop: bad };
  const sa = find(core, flight, 'esp', espHeader.spi(p, espAt));
  if (!(sa instanceof Sa)) return sa;
  if ((sa.spec.encapsulation !== undefined) !== (flight.udpDport !== 0)) {
    return { drop: 'sa-wrong-encapsulation' };
  }
  flight.packet.end = end;
  const wrong = esp.prepareOpen(flight, sa, espAt);
  return wrong === undefined ? 'open' : { drop: wrong };
}

function prepareAh(core: Core, flight: Flight, ahAt: number): Step {
  const p = flight.packet.bytes;
  const bad = ahHeader.check(p, ahAt, flight.packet.end);
  if (bad !== undefined) return { drop: bad };
  const sa = find(core, flight, 'ah', ahHeader.spi(p, ahAt));
  if (!(sa instanceof Sa)) return sa;
  const wrong = ah.prepareOpen(flight, sa, ahAt);
  return wrong === undefined ? 'open' : { drop: wrong };
}

function find(core: Core, flight: Flight, protocol: 'esp' | 'ah', spi: number): Sa | Step {
  const { packet, cursor } = flight;
  const len = ADDRESS_LEN[cursor.family];
  const sa = core.sad.inbound(protocol, spi, packet.bytes, cursor.dstAt, len);
  if (sa === undefined) return dropOutermost(flight, 'no-sa-for-spi');
  const { shard } = core;
  if (sa.isUsable) {
    flight.sa = sa;
    return shard !== undefined && shard.self !== sa.owner ? 'elsewhere' : sa;
  }
  // Whoever answered a key exchange may use the new keys before they are here (RFC 7296 §2.8).
  if (sa.state === 'larval' && flight.layerCount === 0) return 'wait';
  return { drop: 'sa-not-usable' };
}

/** What a tunnel carries may be between others, and is then none of our business. */
function dropOutermost(flight: Flight, reason: DropReason): Step {
  return flight.layerCount > 0 ? 'done' : { drop: reason };
}
