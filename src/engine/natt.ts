import { type Address, addressFrom } from '../base/address.ts';
import type { Sa } from '../sad/sa.ts';
import { equal } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import { type Core, nextId, type UdpEndpoint } from './core.ts';
import { writeKeepalive } from './esp.ts';
import type { Flight } from './flight.ts';

const TTL = 64;
/** How late a keep-alive may be, and a change of its setting may be noticed. */
const LOOK_AGAIN_MS = 5_000;

/**
 * An authenticated packet came in UDP. If it is the newest and its source is not where the peer
 * was, the peer's NAT has a new mapping (RFC 3948 §5.1, RFC 7296 §2.23): listeners are told, and if
 * the host follows, the SAs to that peer send there from now on. Without a replay window a recorded
 * packet would do the same, and without an ICV any packet, so then nothing moves.
 */
export function noteMapping(core: Core, flight: Flight, sa: Sa): void {
  const { packet, cursor, udpSport } = flight;
  if (!sa.spec.esp!.authenticates || sa.replay.size === 0) return;
  if (flight.seq !== sa.replay.top) return;
  const address = sa.seenAt?.address ?? sa.spec.src;
  const port = sa.seenAt?.port ?? sa.spec.encapsulation!.srcPort;
  if (udpSport === port && isAt(address, cursor, packet)) return;
  const known = { address, port };
  const now = { address: addressFrom(cursor.family, packet.bytes, cursor.srcAt), port: udpSport };
  core.stats.natMappings++;
  core.events.natMapping?.(sa, known, now);
  follow(core, sa, now);
}

/** From now on the peer that an SA receives from is known to be there. */
export function follow(core: Core, sa: Sa, now: UdpEndpoint): void {
  sa.seenAt = now;
  if (core.settings.followNat) moveTo(core, sa, now);
}

/** The SAs towards the peer, in the other direction between the same addresses and ports. */
function moveTo(core: Core, sa: Sa, peer: UdpEndpoint): void {
  const { src, dst, encapsulation } = sa.spec;
  for (const outbound of core.sad.between('esp', dst, src)) {
    if (outbound.spec.encapsulation?.dstPort !== encapsulation!.srcPort) continue;
    outbound.peer = peer;
    core.shard?.peerMoved(outbound);
  }
}

/**
 * Sends a keep-alive for every NAT that was not sent anything for a while; returns when to look
 * again.
 */
export function sendKeepalives(core: Core, nowMs: number, send: (packet: Packet) => void): number {
  const { keepaliveSeconds } = core.settings;
  if (keepaliveSeconds === 0) return nowMs + LOOK_AGAIN_MS;
  const intervalMs = keepaliveSeconds * 1000;
  for (const sa of core.sad.encapsulated()) {
    // Only SAs that are sent with; the other direction is the peer's to keep alive.
    if (!sa.isUsable || sa.lastSentMs === 0) continue;
    if (nowMs - sa.lastSentMs < intervalMs) continue;
    const packet = core.arena.take();
    if (packet === undefined) break;
    writePacket(packet, sa, core);
    sa.lastSentMs = nowMs;
    core.stats.keepalivesSent++;
    send(packet);
  }
  return nowMs + Math.min(intervalMs, LOOK_AGAIN_MS);
}

function writePacket(packet: Packet, sa: Sa, core: Core): void {
  const { src, dst, encapsulation } = sa.spec;
  const p = packet.bytes;
  const to: Address = sa.peer?.address ?? dst;
  const header = src.family === 4 ? ipv4 : ipv6;
  const udpAt = packet.at + header.HEADER_LEN;
  packet.end = writeKeepalive(
    p,
    udpAt,
    encapsulation!.srcPort,
    sa.peer?.port ?? encapsulation!.dstPort,
  );
  if (src.family === 4) {
    ipv4.write(p, packet.at, 0, packet.len, nextId(core), 0, TTL, PROTO.UDP);
  } else {
    ipv6.write(p, packet.at, 0, 0, packet.end - udpAt, PROTO.UDP, TTL);
  }
  p.set(src.bytes, packet.at + header.SRC_AT);
  p.set(to.bytes, packet.at + header.DST_AT);
  if (src.family === 4) {
    ipv4.updateChecksum(p, packet.at);
  } else {
    const cursor = new Cursor();
    decode(p, packet.at, packet.end, cursor);
    checksum.updateTransportChecksum(p, cursor);
  }
}

function isAt(address: Address, cursor: Cursor, packet: Packet): boolean {
  const { bytes } = address;
  return (
    address.family === cursor.family && equal(bytes, 0, packet.bytes, cursor.srcAt, bytes.length)
  );
}
