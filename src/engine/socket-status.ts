import { formatAddress } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import { authenticationById, encryptionById } from '../crypto/algorithms.ts';
import type { Sa } from '../sad/sa.ts';
import { describeRequest, type Policy } from '../spd/policy.ts';
import { setU16 } from '../wire/bytes.ts';
import { decode } from '../wire/cursor.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import { packetFrom } from '../wire/packet.ts';
import type { Core } from './core.ts';
import { decideOutput } from './decide.ts';
import { Flight } from './flight.ts';
import type { SocketEnds, SocketEntry } from './socket-policies.ts';
import { policyOfSocket, type SocketDirection } from './socket-rule.ts';

/**
 * Whether the packets of a socket or flow are protected, and how: plain data, which survives JSON,
 * and holds no keys.
 */
export interface Protection {
  readonly in: DirectionProtection;
  readonly out: DirectionProtection;
}

export interface DirectionProtection {
  /**
   *     protected   the last packet had the protection in `layers`
   *     clear       the last packet had none
   *     ready       there was no packet yet, and the next one will get `layers`
   *     lacking     there was no packet yet, and an SA is missing that policy asks for
   *     open        there was no packet yet, and policy asks for no protection
   *     blocked     there was no packet yet, and policy lets none through
   *
   * Of flows that no socket of the table has, packets are not remembered.
   */
  readonly state: 'protected' | 'clear' | 'ready' | 'lacking' | 'open' | 'blocked';
  /** Coming in outermost first, going out innermost first. */
  readonly layers: readonly ProtectionLayer[];
  /** Packets sent or handed on, and when the last one was, by the wall clock; 0: there was none. */
  readonly packets: number;
  readonly lastWallMs: number;
  /** What applies now; undefined: no policy, or which one depends on the other end. */
  readonly policy?: ProtectionPolicy;
}

export interface ProtectionLayer {
  readonly protocol: 'esp' | 'ah';
  readonly spi: number;
  readonly mode: 'transport' | 'tunnel';
  readonly src: string;
  readonly dst: string;
  /** Names as setkey(8) has them. */
  readonly algorithms: readonly string[];
}

export interface ProtectionPolicy {
  /** Whether the socket has set it itself. */
  readonly of: 'socket' | 'host';
  readonly id: number;
  readonly type: 'discard' | 'none' | 'ipsec';
  readonly requests: readonly string[];
}

/** For a socket of the table, or for whatever has these ends. */
export function protectionOf(
  core: Core,
  ends: SocketEnds,
  socket: SocketEntry | undefined,
): Protection {
  return { in: direction(core, 'in', ends, socket), out: direction(core, 'out', ends, socket) };
}

function direction(
  core: Core,
  side: SocketDirection,
  ends: SocketEnds,
  socket: SocketEntry | undefined,
): DirectionProtection {
  const flight = flightOf(side, ends, socket);
  const policy = policyOf(core, side, socket, flight);
  const about = policy ? { policy: policyText(policy, socket?.policies[side]) } : {};
  const used = socket?.used[side];
  if (used !== undefined && used.packets > 0) {
    const layers = used.sas.map((sa, i) => layerOf(sa, used.tunnels[i]!));
    const state = layers.length > 0 ? 'protected' : 'clear';
    return { state, layers, packets: used.packets, lastWallMs: used.atWallMs, ...about };
  }
  const none = { packets: 0, lastWallMs: 0, layers: [], ...about } as const;
  if (policy === undefined || policy.type === 'none') return { state: 'open', ...none };
  if (policy.type === 'discard') return { state: 'blocked', ...none };
  // Which SAs the other side will use is its own choice.
  if (side === 'in' || flight === undefined) return { state: 'lacking', ...none };
  const verdict = decideOutput(core, flight);
  const layers = flight.layers
    .slice(0, flight.layerCount)
    .map((layer) => layerOf(layer!.sa, layer!.tunnel));
  if (typeof verdict === 'object') return { state: 'lacking', ...none };
  return layers.length > 0 ? { state: 'ready', ...none, layers } : { state: 'open', ...none };
}

function policyOf(
  core: Core,
  side: SocketDirection,
  socket: SocketEntry | undefined,
  flight: Flight | undefined,
): Policy | undefined {
  if (flight === undefined) {
    const isFirst = socket?.privileged === true || core.spd.count(side) === 0;
    return isFirst ? socket?.policies[side] : undefined;
  }
  const { packet, cursor } = flight;
  const found =
    socket === undefined
      ? core.spd.lookup(side, packet.bytes, cursor)
      : policyOfSocket(core.spd, socket, side, packet.bytes, cursor);
  return typeof found === 'object' ? found : undefined;
}

/** A packet as the flow has them; undefined when an end is not known. */
function flightOf(
  side: SocketDirection,
  { family, protocol, local, localPort, remote, remotePort }: SocketEnds,
  socket: SocketEntry | undefined,
): Flight | undefined {
  if (local === undefined || remote === undefined) return undefined;
  const header = family === 4 ? ipv4 : ipv6;
  const p = new Uint8Array(header.HEADER_LEN + 8);
  if (family === 4) ipv4.write(p, 0, 0, p.length, 0, 0, 64, protocol);
  else ipv6.write(p, 0, 0, 0, 8, protocol, 64);
  const [src, dst] = side === 'out' ? [local, remote] : [remote, local];
  p.set(src.bytes, header.SRC_AT);
  p.set(dst.bytes, header.DST_AT);
  const upperAt = header.HEADER_LEN;
  if (protocol === icmp.protocolOf(family)) {
    const kinds = family === 4 ? icmp.TYPE4 : icmp.TYPE6;
    icmp.write(p, upperAt, side === 'out' ? kinds.ECHO : kinds.ECHO_REPLY, 0, localPort << 16);
  } else {
    setU16(p, upperAt, side === 'out' ? localPort : remotePort);
    setU16(p, upperAt + 2, side === 'out' ? remotePort : localPort);
  }
  const flight = new Flight();
  flight.begin(packetFrom(p), false);
  const { packet, cursor } = flight;
  const bad = decode(packet.bytes, packet.at, packet.end, cursor);
  assert(bad === undefined, 'the packet is as it was just made');
  flight.socket = socket;
  return flight;
}

function layerOf({ spec }: Sa, isTunnel: boolean): ProtectionLayer {
  const { protocol, spi, src, dst, keys } = spec;
  const names = [encryptionById(keys.encrypt)?.name, authenticationById(keys.auth)?.name];
  return {
    ...{ protocol, spi, mode: isTunnel ? 'tunnel' : 'transport' },
    ...{ src: formatAddress(src), dst: formatAddress(dst) },
    algorithms: names.filter((name) => name !== undefined),
  };
}

function policyText(policy: Policy, own: Policy | undefined): ProtectionPolicy {
  const { id, type, requests } = policy;
  const of = policy === own ? 'socket' : 'host';
  return { of, id, type, requests: requests.map(describeRequest) };
}
