import { type Address, addressFrom, type Family, formatAddress } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import type { Policy } from '../spd/policy.ts';
import { equal, u16 } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as icmp from '../wire/icmp.ts';
import { PROTO } from '../wire/protocol.ts';
import type { Flight } from './flight.ts';
import {
  ENTRUST,
  SOCKET_POLICY_ID_MIN,
  type SocketDirection,
  type SocketRule,
  socketPolicy,
} from './socket-rule.ts';
import { UsedLayers } from './socket-use.ts';
import type { Side } from './stats.ts';

/** Which packets are a socket's own. Absent and 0: not fixed, so every one. */
export interface SocketEnds {
  readonly family: Family;
  readonly protocol: number;
  readonly local?: Address;
  /** Of ICMP echo sockets the identifier. 0: the socket has no port yet, and so no packets. */
  readonly localPort: number;
  readonly remote?: Address;
  readonly remotePort: number;
  /** SOCK_RAW: it has no ports, and others get copies of its packets. */
  readonly raw?: boolean;
}

export interface SocketOptions {
  /** Whether who opened the socket may go around the policies of the host (KAME: root). */
  readonly privileged: boolean;
  readonly in?: SocketRule;
  readonly out?: SocketRule;
  /** Whatever the caller knows the socket by. */
  readonly owner?: unknown;
}

export interface SocketPoliciesOptions {
  /** 65,536. */
  readonly max?: number;
  /**
   * Whether the address at `at` is one of this host's, so that packets to it can be for a socket
   * that is bound to none. All are, unless it says otherwise.
   */
  readonly isLocal?: (family: Family, p: Uint8Array, at: number) => boolean;
}

/** Who a packet that came in is for. */
export interface Takers {
  readonly sockets: readonly SocketEntry[];
  /** Whether it is for everybody else who wants it, too: sockets that are not in the table. */
  readonly others: boolean;
}

/** A socket as the table has it. */
export class SocketEntry {
  readonly id: number;
  readonly privileged: boolean;
  readonly owner: unknown;
  readonly used = { in: new UsedLayers(), out: new UsedLayers() };
  /** This one and nobody else. */
  readonly alone: Takers = { sockets: [this], others: false };
  /** Packets that came in for it and were not as it wants them. */
  refused = 0;
  ends: SocketEnds;
  readonly rules: Record<SocketDirection, SocketRule>;
  /** The rules in the form of policies; undefined for `entrust`. */
  readonly policies: Record<SocketDirection, Policy | undefined> = {
    in: undefined,
    out: undefined,
  };

  /** @internal */
  constructor(id: number, ends: SocketEnds, options: SocketOptions) {
    this.id = id;
    this.ends = ends;
    this.privileged = options.privileged;
    this.owner = options.owner;
    this.rules = { in: options.in ?? ENTRUST.in, out: options.out ?? ENTRUST.out };
  }
}

/** The side of who opened the socket. */
export interface SocketHandle {
  readonly entry: SocketEntry;
  /** It was bound, connected, or both. */
  move(ends: SocketEnds): void;
  /** EACCES: a bypass needs privilege. */
  setRule(direction: SocketDirection, rule: SocketRule): void;
  /** A socket with the same rules and privilege: accepted by this one. ENOBUFS as `open`. */
  inherit(ends: SocketEnds, owner?: unknown): SocketHandle;
  /** Packets that wait for an SA still go by its rules. */
  close(): void;
}

/** Each has two policies, whose ids are up to 32 bits. */
const IDS = 0x4000_0000;

const NOBODY: readonly SocketEntry[] = [];

/**
 * The sockets that have a policy of their own, and whose packets are whose: the most specific
 * socket is the one that the packet belongs to, as in any IP stack (connected, bound to an address,
 * bound to a port alone). Which rule then decides is said in `socket-rule.ts`.
 *
 * They are not in dumps of the SPD: FreeBSD leaves them out too, and programs that dump policies
 * want those that they can delete.
 */
export class SocketPolicies {
  /** Changes with every change. */
  generation = 1;
  /** How often there was no room for another one. */
  refused = 0;
  readonly #max: number;
  readonly #isLocal: NonNullable<SocketPoliciesOptions['isLocal']>;
  readonly #entries = new Set<SocketEntry>();
  /** Fixed at both ends but for the local address; by everything else. */
  readonly #connected = new Map<number, SocketEntry[]>();
  /** By family, protocol and local port; each list with the most specific first. */
  readonly #bound = new Map<number, SocketEntry[]>();
  /** By family and protocol. */
  readonly #raw = new Map<number, SocketEntry[]>();
  #opened = 0;

  constructor(options: SocketPoliciesOptions = {}) {
    this.#max = options.max ?? 65_536;
    this.#isLocal = options.isLocal ?? (() => true);
  }

  get size(): number {
    return this.#entries.size;
  }

  /** All of them, in the order in which they were opened. */
  all(): Iterable<SocketEntry> {
    return this.#entries;
  }

  /** ENOBUFS: the table is full. EACCES: a bypass needs privilege. */
  open(ends: SocketEnds, options: SocketOptions): SocketHandle {
    if (this.#entries.size >= this.#max) {
      this.refused++;
      throw new KeyError('ENOBUFS', `there is room for ${this.#max} sockets with policies`);
    }
    const entry = new SocketEntry(this.#opened++ % IDS, ends, options);
    for (const direction of ['in', 'out'] as const) {
      this.#setRule(entry, direction, entry.rules[direction]);
    }
    this.#entries.add(entry);
    this.#index(entry);
    this.generation++;
    return {
      entry,
      move: (to) => this.#move(entry, to),
      setRule: (direction, rule) => {
        this.#setRule(entry, direction, rule);
        this.generation++;
      },
      inherit: (accepted, owner) => {
        const { privileged, rules } = entry;
        return this.open(accepted, { privileged, ...rules, owner: owner ?? entry.owner });
      },
      close: () => this.#close(entry),
    };
  }

  /**
   * The socket that sends the packet (`out`) or that it is for (`in`), if it has ports: ICMP echo
   * counts its identifier as one. Fragments have none. Where two sockets are equally specific, the
   * one whose rule is stricter, then the older one.
   */
  find(direction: Side, p: Uint8Array, cursor: Cursor): SocketEntry | undefined {
    const port = localPort(direction, p, cursor);
    if (port === 0) return undefined;
    const { family, protocol } = cursor;
    const remoteAt = direction === 'in' ? cursor.srcAt : cursor.dstAt;
    const remotePort = direction === 'in' ? cursor.sport : cursor.dport;
    if (this.#connected.size > 0) {
      const len = family === 4 ? 4 : 16;
      const key = connectedKey(family, protocol, port, remotePort, p, remoteAt, len);
      const found = this.#first(this.#connected.get(key), direction, port, p, cursor);
      if (found !== undefined) return found;
    }
    return this.#first(
      this.#bound.get(boundKey(family, protocol, port)),
      direction,
      port,
      p,
      cursor,
    );
  }

  /** The socket that sends a packet, whichever kind it is. */
  sender(p: Uint8Array, cursor: Cursor): SocketEntry | undefined {
    const found = this.find('out', p, cursor);
    if (found !== undefined || this.#raw.size === 0) return found;
    const raws = this.#raw.get(boundKey(cursor.family, cursor.protocol, 0));
    return this.#first(raws, 'out', 0, p, cursor);
  }

  /** A packet of the socket was sent or handed on, with these layers. */
  noteUse(entry: SocketEntry, direction: Side, flight: Flight, nowWallMs: number): void {
    entry.used[direction].note(flight, nowWallMs);
  }

  /** What came in was not as the socket wants it. */
  noteRefusal(entry: SocketEntry): void {
    entry.refused++;
  }

  /**
   * The raw sockets that the packet is of, or for.
   */
  raws(direction: Side, p: Uint8Array, cursor: Cursor): readonly SocketEntry[] {
    if (this.#raw.size === 0) return NOBODY;
    const list = this.#raw.get(boundKey(cursor.family, cursor.protocol, 0));
    if (list === undefined) return NOBODY;
    return list.filter((entry) => this.#matches(entry, direction, 0, p, cursor));
  }

  /** Whether a fragment that came in may be for one of the sockets, so that its ports matter. */
  concerns(p: Uint8Array, cursor: Cursor): boolean {
    return this.#entries.size > 0 && this.#isLocal(cursor.family, p, cursor.dstAt);
  }

  /** The socket with exactly these ends. */
  get(ends: SocketEnds): SocketEntry | undefined {
    for (const entry of this.#listOf(ends) ?? NOBODY) if (sameEnds(entry.ends, ends)) return entry;
    return undefined;
  }

  #first(
    list: readonly SocketEntry[] | undefined,
    direction: Side,
    port: number,
    p: Uint8Array,
    cursor: Cursor,
  ): SocketEntry | undefined {
    if (list === undefined) return undefined;
    let best: SocketEntry | undefined;
    for (const entry of list) {
      if (best !== undefined && rank(entry.ends) < rank(best.ends)) break;
      if (best !== undefined && strictness(entry, direction) <= strictness(best, direction))
        continue;
      if (this.#matches(entry, direction, port, p, cursor)) best = entry;
    }
    return best;
  }

  #matches(
    { ends }: SocketEntry,
    direction: Side,
    port: number,
    p: Uint8Array,
    cursor: Cursor,
  ): boolean {
    const { family, protocol } = cursor;
    if (ends.family !== family || ends.protocol !== protocol) return false;
    if (ends.localPort !== port && port !== 0) return false;
    const localAt = direction === 'in' ? cursor.dstAt : cursor.srcAt;
    const remoteAt = direction === 'in' ? cursor.srcAt : cursor.dstAt;
    const remotePort = direction === 'in' ? cursor.sport : cursor.dport;
    const { local, remote } = ends;
    if (remote !== undefined && !equal(remote.bytes, 0, p, remoteAt, remote.bytes.length))
      return false;
    if (ends.remotePort !== 0 && ends.remotePort !== remotePort) return false;
    if (local !== undefined) return equal(local.bytes, 0, p, localAt, local.bytes.length);
    return direction === 'out' || this.#isLocal(family, p, localAt);
  }

  #setRule(entry: SocketEntry, direction: SocketDirection, rule: SocketRule): void {
    if (rule.type === 'bypass' && !entry.privileged) {
      throw new KeyError('EACCES', 'only a privileged socket may bypass the policies of the host');
    }
    entry.rules[direction] = rule;
    const id = SOCKET_POLICY_ID_MIN + 2 * entry.id + (direction === 'in' ? 0 : 1);
    entry.policies[direction] = socketPolicy(id, direction, rule, entry.ends);
  }

  #move(entry: SocketEntry, ends: SocketEnds): void {
    if (!this.#entries.has(entry)) return;
    this.#unindex(entry);
    entry.ends = ends;
    for (const direction of ['in', 'out'] as const) {
      this.#setRule(entry, direction, entry.rules[direction]);
    }
    this.#index(entry);
    this.generation++;
  }

  #close(entry: SocketEntry): void {
    if (!this.#entries.delete(entry)) return;
    this.#unindex(entry);
    this.generation++;
  }

  #index(entry: SocketEntry): void {
    const place = placeOf(entry.ends);
    if (place === undefined) return;
    const table = this.#tableOf(place);
    const list = table.get(place.key);
    if (list === undefined) {
      table.set(place.key, [entry]);
      return;
    }
    let at = list.length;
    while (at > 0 && rank(list[at - 1]!.ends) < rank(entry.ends)) at--;
    list.splice(at, 0, entry);
  }

  #unindex(entry: SocketEntry): void {
    const place = placeOf(entry.ends);
    if (place === undefined) return;
    const table = this.#tableOf(place);
    const list = table.get(place.key)!;
    list.splice(list.indexOf(entry), 1);
    if (list.length === 0) table.delete(place.key);
  }

  #listOf(ends: SocketEnds): readonly SocketEntry[] | undefined {
    const place = placeOf(ends);
    return place && this.#tableOf(place).get(place.key);
  }

  #tableOf({ kind }: Place): Map<number, SocketEntry[]> {
    if (kind === 'raw') return this.#raw;
    return kind === 'connected' ? this.#connected : this.#bound;
  }
}

interface Place {
  readonly kind: 'connected' | 'bound' | 'raw';
  readonly key: number;
}

/** Undefined: without a port it has no packets, and must not be taken for those of others. */
function placeOf({
  family,
  protocol,
  localPort,
  remote,
  remotePort,
  raw,
}: SocketEnds): Place | undefined {
  if (raw === true) return { kind: 'raw', key: boundKey(family, protocol, 0) };
  if (localPort === 0) return undefined;
  if (remote === undefined || remotePort === 0) {
    return { kind: 'bound', key: boundKey(family, protocol, localPort) };
  }
  const { bytes } = remote;
  const key = connectedKey(family, protocol, localPort, remotePort, bytes, 0, bytes.length);
  return { kind: 'connected', key };
}

function boundKey(family: Family, protocol: number, port: number): number {
  return (family === 4 ? 0 : 1 << 24) | (protocol << 16) | port;
}

/** A hash: who looks something up by it compares. */
function connectedKey(
  family: Family,
  protocol: number,
  port: number,
  remotePort: number,
  p: Uint8Array,
  remoteAt: number,
  len: number,
): number {
  let hash = Math.imul(boundKey(family, protocol, port) ^ (remotePort << 8), 0x9e3779b1);
  for (let i = 0; i < len; i += 2)
    hash = Math.imul(hash ^ (hash >>> 15) ^ u16(p, remoteAt + i), 0x85ebca6b);
  return hash | 0;
}

/** 0: the packet has none that a socket is known by. */
function localPort(direction: Side, p: Uint8Array, cursor: Cursor): number {
  if (!cursor.portsKnown || cursor.isFragment) return 0;
  const { family, protocol, upperAt, end } = cursor;
  if (protocol !== PROTO.ICMP && protocol !== PROTO.ICMPV6) {
    return direction === 'in' ? cursor.dport : cursor.sport;
  }
  // A request that comes in has the identifier of the peer's socket.
  const echo = direction === 'in' ? echoReply(family) : echoRequest(family);
  const isEcho = protocol === icmp.protocolOf(family) && cursor.sport === echo;
  return isEcho && end - upperAt >= icmp.HEADER_LEN ? icmp.echoId(p, upperAt) : 0;
}

function echoRequest(family: Family): number {
  return family === 4 ? icmp.TYPE4.ECHO : icmp.TYPE6.ECHO;
}

function echoReply(family: Family): number {
  return family === 4 ? icmp.TYPE4.ECHO_REPLY : icmp.TYPE6.ECHO_REPLY;
}

/** The more is fixed, the higher. */
function rank({ local, remote }: SocketEnds): number {
  return (remote === undefined ? 0 : 2) + (local === undefined ? 0 : 1);
}

function strictness(entry: SocketEntry, direction: SocketDirection): number {
  const { type } = entry.rules[direction];
  if (type === 'ipsec') return 2;
  return type === 'entrust' ? 1 : 0;
}

function sameEnds(a: SocketEnds, b: SocketEnds): boolean {
  return (
    a.family === b.family &&
    a.protocol === b.protocol &&
    a.localPort === b.localPort &&
    a.remotePort === b.remotePort &&
    (a.raw ?? false) === (b.raw ?? false) &&
    sameOptional(a.local, b.local) &&
    sameOptional(a.remote, b.remote)
  );
}

function sameOptional(a: Address | undefined, b: Address | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.family === b.family && equal(a.bytes, 0, b.bytes, 0, a.bytes.length);
}

/** `protocol 17 10.0.0.1[5000] any[any]`, the socket's own end first. */
export function describeEnds(ends: SocketEnds): string {
  const end = (address: Address | undefined, port: number) => {
    return `${address ? formatAddress(address) : 'any'}[${port === 0 ? 'any' : port}]`;
  };
  const [near, far] = [end(ends.local, ends.localPort), end(ends.remote, ends.remotePort)];
  return `protocol ${ends.protocol} ${near} ${far}`;
}

/** The ends that the packet has itself, for questions about it. */
export function endsOfPacket(direction: Side, p: Uint8Array, cursor: Cursor): SocketEnds {
  const { family, protocol, srcAt, dstAt, sport, dport } = cursor;
  const [src, dst] = [addressFrom(family, p, srcAt), addressFrom(family, p, dstAt)];
  return direction === 'in'
    ? { family, protocol, local: dst, localPort: dport, remote: src, remotePort: sport }
    : { family, protocol, local: src, localPort: sport, remote: dst, remotePort: dport };
}
