import type { Family } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import type { DropReason } from '../base/drop.ts';
import { copy, equal, setU8, toHex, u8 } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';

export interface ReassemblyOptions {
  /** Where whole datagrams are built; undefined when no packet is left. */
  readonly take: () => Packet | undefined;
  /** Told of everything that is thrown away: why, and how many fragments. */
  readonly dropped: (reason: DropReason, fragments: number, family: Family) => void;
  /** Told how many fragments became one datagram. */
  readonly joined?: (fragments: number, family: Family) => void;
  /** Datagrams that wait; the oldest makes room for a new one. 64. */
  readonly datagramsMax?: number;
  /** Memory of all fragments that wait, in octets. 4 MiB. */
  readonly octetsMax?: number;
  /** Fragments of one datagram. 128: 64 kB in the 576 octets that every IPv4 host takes. */
  readonly fragmentsMax?: number;
  /** From the first fragment to arrive, in milliseconds. 30 s. */
  readonly timeoutMs?: number;
}

interface Piece {
  readonly offset: number;
  readonly data: Uint8Array;
}

interface Datagram {
  readonly key: string;
  readonly family: Family;
  readonly dueMs: number;
  /** Ordered by offset, without overlap. */
  readonly pieces: Piece[];
  /** Octets of data in `pieces`. */
  received: number;
  /** What it counts against `octetsMax`. */
  octets: number;
  /** Octets of data in the whole, known from the last fragment; -1 before. */
  total: number;
  /**
   * All headers of the first fragment that go in front of the whole; undefined until it arrives.
   */
  header: Uint8Array | undefined;
  /** IPv6: what the fragment header of the first fragment named. */
  next: number;
  /** One bit for each of the four ECN codepoints that were seen. */
  ecn: number;
  /** Octets of its largest fragment, headers included. */
  largest: number;
  /** Its fragments overlapped: what still comes is dropped too. */
  poisoned: boolean;
}

/** What a fragment costs besides its octets, so that many tiny ones are bounded too. */
const PIECE_OVERHEAD = 128;
/** Neither family can say a longer length. */
const DATA_LEN_MAX = 65_535;
const ECN_CE = 3;

/**
 * Puts fragments together again, for both families (RFC 791 §3.2, RFC 8200 §4.5). Everything in it
 * is bounded, and nobody can keep others out for longer than it takes `datagramsMax` newer
 * datagrams to begin.
 */
export class Reassembly {
  readonly #take: () => Packet | undefined;
  readonly #dropped: ReassemblyOptions['dropped'];
  readonly #joined: ReassemblyOptions['joined'] | undefined;
  readonly #datagramsMax: number;
  readonly #octetsMax: number;
  readonly #fragmentsMax: number;
  readonly #timeoutMs: number;
  /** In the order of arrival, which is also the order in which they are due. */
  readonly #waiting = new Map<string, Datagram>();
  #octets = 0;

  constructor(options: ReassemblyOptions) {
    this.#take = options.take;
    this.#dropped = options.dropped;
    this.#joined = options.joined;
    this.#datagramsMax = options.datagramsMax ?? 64;
    this.#octetsMax = options.octetsMax ?? 4 * 1024 * 1024;
    this.#fragmentsMax = options.fragmentsMax ?? 128;
    this.#timeoutMs = options.timeoutMs ?? 30_000;
  }

  /** Datagrams that wait for fragments. */
  get size(): number {
    return this.#waiting.size;
  }

  /** Fragments that wait. */
  get fragments(): number {
    let count = 0;
    for (const datagram of this.#waiting.values()) count += datagram.pieces.length;
    return count;
  }

  /** Octets that they occupy. */
  get octets(): number {
    return this.#octets;
  }

  /**
   * Takes a copy of the fragment that `cursor` was decoded from. Returns the whole datagram with
   * the fragment that completes it, in a packet that belongs to the caller; undefined: it waits, or
   * was dropped. An exact duplicate does no harm. Only fragments of the same `context` are put
   * together.
   */
  add(p: Uint8Array, cursor: Cursor, nowMs: number, context = ''): Packet | undefined {
    assert(cursor.isFragment, 'only fragments are reassembled');
    const dataAt = dataAtOf(cursor);
    const offset = cursor.fragmentOffset;
    if (badLength(cursor, dataAt)) {
      this.#dropped('fragment-bad-length', 1, cursor.family);
      return undefined;
    }
    // RFC 6946 §4: an atomic fragment is whole, and has nothing to do with others of its
    // identification.
    const atomic = offset === 0 && !cursor.moreFragments;
    const datagram = atomic
      ? newDatagram('', nowMs, cursor.family)
      : this.#find(p, cursor, nowMs, context);
    if (datagram.poisoned) {
      this.#dropped('fragment-overlap', 1, cursor.family);
      return undefined;
    }
    const end = offset + cursor.end - dataAt;
    if (isDuplicate(p, dataAt, datagram, offset, end)) {
      this.#dropped('fragment-duplicate', 1, cursor.family);
      return undefined;
    }
    const bad = this.#conflict(datagram, cursor, offset, end);
    if (bad !== undefined) {
      if (bad === 'fragment-overlap' && cursor.family === 6) this.#poison(datagram);
      else this.#discard(datagram, bad, 1);
      return undefined;
    }
    note(p, cursor, datagram, dataAt, end);
    datagram.largest = Math.max(datagram.largest, cursor.end - cursor.at);
    if (atomic) return this.#build(datagram);
    const cost = cursor.end - (offset === 0 ? cursor.at : dataAt) + PIECE_OVERHEAD;
    datagram.octets += cost;
    this.#octets += cost;
    if (datagram.received === datagram.total) {
      this.#forget(datagram);
      return this.#build(datagram);
    }
    while (this.#octets > this.#octetsMax) this.#discardOldest();
    return undefined;
  }

  /** Drops what waited too long; returns when that is next due, Infinity if nothing waits. */
  poll(nowMs: number): number {
    for (const datagram of this.#waiting.values()) {
      if (datagram.dueMs > nowMs) return datagram.dueMs;
      this.#discard(datagram, 'fragment-timeout', 0);
    }
    return Number.POSITIVE_INFINITY;
  }

  #find(p: Uint8Array, cursor: Cursor, nowMs: number, context: string): Datagram {
    const key = keyOf(p, cursor) + context;
    const known = this.#waiting.get(key);
    if (known !== undefined && known.dueMs > nowMs) return known;
    if (known !== undefined) this.#discard(known, 'fragment-timeout', 0);
    if (this.#waiting.size >= this.#datagramsMax) this.#discardOldest();
    const datagram = newDatagram(key, nowMs + this.#timeoutMs, cursor.family);
    this.#waiting.set(key, datagram);
    return datagram;
  }

  /** Whether the fragment contradicts what arrived before. */
  #conflict(
    datagram: Datagram,
    cursor: Cursor,
    offset: number,
    end: number,
  ): DropReason | undefined {
    const { pieces, total } = datagram;
    if (total >= 0 && end > total) return 'fragment-bad-length';
    const at = placeOf(pieces, offset);
    const before = pieces[at - 1];
    const after = pieces[at];
    if (before !== undefined && before.offset + before.data.length > offset) {
      return 'fragment-overlap';
    }
    if (after !== undefined) {
      if (after.offset < end) return 'fragment-overlap';
      if (!cursor.moreFragments) return 'fragment-bad-length';
    }
    return pieces.length >= this.#fragmentsMax ? 'fragment-queue-full' : undefined;
  }

  /**
   * Header and data into one packet. The first fragment's header is that of the whole (RFC 791
   * §3.2).
   */
  #build(datagram: Datagram): Packet | undefined {
    const { header, pieces, total, family } = datagram;
    assert(header !== undefined, 'a whole datagram has a first fragment');
    const fixed = family === 4 ? 0 : ipv6.HEADER_LEN;
    const bad = header.length - fixed + total > DATA_LEN_MAX ? 'fragment-bad-length' : undefined;
    const reason = bad ?? ecnConflict(datagram);
    const packet = reason === undefined ? this.#take() : undefined;
    if (packet === undefined) {
      this.#dropped(reason ?? 'no-room', pieces.length, family);
      return undefined;
    }
    const to = packet.bytes;
    copy(header, 0, to, packet.at, header.length);
    const dataAt = packet.at + header.length;
    for (const piece of pieces) copy(piece.data, 0, to, dataAt + piece.offset, piece.data.length);
    packet.end = dataAt + total;
    packet.fragmentMax = datagram.largest;
    this.#joined?.(pieces.length, family);
    finishHeader(packet, datagram, family, dataAt);
    return packet;
  }

  #discard(datagram: Datagram, reason: DropReason, more: number): void {
    this.#forget(datagram);
    const fragments = datagram.pieces.length + more;
    if (fragments > 0) this.#dropped(reason, fragments, datagram.family);
  }

  #discardOldest(): void {
    for (const oldest of this.#waiting.values()) {
      this.#discard(oldest, 'fragment-queue-full', 0);
      return;
    }
  }

  #forget(datagram: Datagram): void {
    if (!this.#waiting.delete(datagram.key)) return;
    this.#octets -= datagram.octets;
  }

  /**
   * RFC 5722 §4: fragments that have not arrived yet are dropped as well. Not for IPv4, whose
   * 16-bit identification comes round within the timeout on a fast path: there one lost fragment
   * would go on to cost datagrams that are sound.
   */
  #poison(datagram: Datagram): void {
    this.#dropped('fragment-overlap', datagram.pieces.length + 1, datagram.family);
    this.#octets -= datagram.octets;
    datagram.octets = 0;
    datagram.pieces.length = 0;
    datagram.header = undefined;
    datagram.poisoned = true;
  }
}

function newDatagram(key: string, dueMs: number, family: Family): Datagram {
  return {
    key,
    family,
    dueMs,
    pieces: [],
    received: 0,
    octets: 0,
    total: -1,
    header: undefined,
    next: 0,
    ecn: 0,
    largest: 0,
    poisoned: false,
  };
}

/**
 * RFC 791 adds the protocol; RFC 8200 does not, since fragments may name different next headers.
 */
function keyOf(p: Uint8Array, cursor: Cursor): string {
  if (cursor.family === 4) {
    const id = ipv4.id(p, cursor.at);
    return `${toHex(p, cursor.srcAt, cursor.srcAt + 8)}/${id}/${cursor.protocol}`;
  }
  const id = ipv6.fragmentId(p, cursor.fragmentHeaderAt);
  return `${toHex(p, cursor.srcAt, cursor.srcAt + 32)}/${id}`;
}

function dataAtOf(cursor: Cursor): number {
  return cursor.family === 4 ? cursor.upperAt : cursor.fragmentHeaderAt + ipv6.FRAGMENT_HEADER_LEN;
}

function badLength(cursor: Cursor, dataAt: number): boolean {
  const len = cursor.end - dataAt;
  if (cursor.moreFragments && len % 8 !== 0) return true;
  // Nothing at all: only an atomic fragment may be empty.
  if (len === 0 && (cursor.moreFragments || cursor.fragmentOffset !== 0)) return true;
  return cursor.fragmentOffset + len > DATA_LEN_MAX;
}

/** The index of the first piece at or behind an offset. */
function placeOf(pieces: readonly Piece[], offset: number): number {
  let low = 0;
  let high = pieces.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (pieces[middle]!.offset < offset) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * The same octets in the same place: sent twice, or copied by the network. RFC 8200 §4.5 lets us
 * ignore it.
 */
function isDuplicate(
  p: Uint8Array,
  dataAt: number,
  datagram: Datagram,
  offset: number,
  end: number,
): boolean {
  const known = datagram.pieces[placeOf(datagram.pieces, offset)];
  if (known === undefined || known.offset !== offset) return false;
  return known.data.length === end - offset && equal(p, dataAt, known.data, 0, end - offset);
}

/** Adds a fragment that fits to what is known of its datagram. */
function note(
  p: Uint8Array,
  cursor: Cursor,
  datagram: Datagram,
  dataAt: number,
  end: number,
): void {
  const offset = cursor.fragmentOffset;
  const data = p.slice(dataAt, cursor.end);
  datagram.pieces.splice(placeOf(datagram.pieces, offset), 0, { offset, data });
  datagram.received += data.length;
  if (!cursor.moreFragments) datagram.total = end;
  const tos = cursor.family === 4 ? ipv4.tos(p, cursor.at) : ipv6.trafficClass(p, cursor.at);
  datagram.ecn |= 1 << (tos & 3);
  if (offset !== 0) return;
  const headerEnd = cursor.family === 4 ? cursor.upperAt : cursor.fragmentHeaderAt;
  datagram.header = p.slice(cursor.at, headerEnd);
  if (cursor.family === 6) datagram.next = u8(p, cursor.fragmentHeaderAt);
}

/**
 * RFC 3168 §5.3: congestion must not be forgotten, and a sender that cannot be told of it loses the
 * packet.
 */
function ecnConflict(datagram: Datagram): DropReason | undefined {
  const congested = (datagram.ecn & (1 << ECN_CE)) !== 0;
  return congested && (datagram.ecn & 1) !== 0 ? 'ecn-invalid' : undefined;
}

/** Lengths, flags, checksum and next header of the whole. */
function finishHeader(packet: Packet, datagram: Datagram, family: 4 | 6, dataAt: number): void {
  const { bytes, at } = packet;
  const congestion = (datagram.ecn & (1 << ECN_CE)) === 0 ? 0 : ECN_CE;
  if (family === 4) {
    ipv4.setTos(bytes, at, ipv4.tos(bytes, at) | congestion);
    ipv4.setTotalLen(bytes, at, packet.len);
    ipv4.setFragment(bytes, at, ipv4.dontFragment(bytes, at) ? ipv4.FLAG_DF : 0, 0);
    ipv4.updateChecksum(bytes, at);
    return;
  }
  ipv6.setTrafficClass(bytes, at, ipv6.trafficClass(bytes, at) | congestion);
  ipv6.setPayloadLen(bytes, at, packet.len - ipv6.HEADER_LEN);
  setU8(bytes, ipv6.namesHeaderAt(bytes, at, dataAt), datagram.next);
}
