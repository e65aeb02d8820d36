import type { Address } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import type { Moments } from '../base/moments.ts';
import { digest } from '../crypto/digest.ts';
import type { AhTransform, EspTransform } from '../crypto/transform.ts';
import { u32 } from '../wire/bytes.ts';
import { type Lifetime, NO_LIMIT, staysBelow, type Usage } from './lifetime.ts';
import { ReplayWindow } from './replay.ts';
import type { SequenceLease, SequenceStore } from './sequence.ts';

export type SaProtocol = 'esp' | 'ah';
/** `any` serves policies of both modes (KAME's default for setkey's `add`). */
export type SaMode = 'any' | 'transport' | 'tunnel';
export type SaState = 'larval' | 'mature' | 'dying' | 'dead';

/** UDP encapsulation (RFC 3948): the ports of the outer datagrams as this host sees them. */
export interface Encapsulation {
  readonly srcPort: number;
  readonly dstPort: number;
  /** The address that a peer behind a NAT believes to have. */
  readonly original?: Address;
}

/**
 * What was asked for, in PF_KEY's numbers: kept for GET and DUMP. Keys are zeroed when the SA dies.
 */
export interface SaKeys {
  readonly auth: number;
  readonly encrypt: number;
  readonly authKey: Uint8Array;
  readonly encryptKey: Uint8Array;
}

export interface SaIdentity {
  readonly type: 'IDENTITY_SRC' | 'IDENTITY_DST';
  readonly idType: number;
  readonly id: number;
  readonly text: string;
}

/** How the outer header of a tunnel is made; what is absent follows the host's setting. */
export interface SaTunnelOptions {
  readonly df?: 'clear' | 'set' | 'copy';
  readonly ecn?: boolean;
}

export interface SaSpec {
  readonly protocol: SaProtocol;
  readonly spi: number;
  readonly src: Address;
  readonly dst: Address;
  readonly mode: SaMode;
  readonly reqid: number;
  readonly keys: SaKeys;
  /** One of them, by `protocol`. */
  readonly esp?: EspTransform | undefined;
  readonly ah?: AhTransform | undefined;
  /** Packets; 0 turns the check off. */
  readonly replayPackets: number;
  readonly esn: boolean;
  /** SADB_SAFLAGS_* as given. */
  readonly flags: number;
  readonly padding: 'sequential' | 'random' | 'zero';
  /** What an AH header on IPv4 is padded to: 4 octets by RFC 4302 §3.3.3.2.1, 8 as Linux has it. */
  readonly ahAlignLen: 4 | 8;
  readonly encapsulation?: Encapsulation | undefined;
  readonly tunnel: SaTunnelOptions;
  readonly hard: Lifetime;
  readonly soft: Lifetime;
  readonly identities: readonly SaIdentity[];
  /** Who made it: the pid of the PF_KEY message, and its sequence number. */
  readonly pid: number;
  readonly seq: number;
  /** `file`: from the host's configuration, replaced when that is read again. */
  readonly origin: 'file' | 'client';
}

/** Knows what has become of SAs that another shard of the host uses (see `Sa.owner`). */
export interface SaKeeper {
  usage(sa: Sa, addedMs: number): Usage;
  firstUseWallMs(sa: Sa): number;
  sentSeq(sa: Sa): number;
  /** The highest sequence number that has come in. */
  replayTop(sa: Sa): number;
}

const SEQ_SOFT = 0.8;

/** A security association: one direction, one protocol, one pair of addresses. */
export class Sa {
  spec: SaSpec;
  state: SaState;
  /** Wall-clock milliseconds, for what people are shown. */
  readonly addedWallMs: number;
  /** Packets dropped because of this SA, by what was wrong. */
  replays = 0;
  badIcvs = 0;
  /** The order of arrival: the newest usable SA is preferred. */
  readonly serial: number;
  /**
   * Its neighbours in the chains of `SaIndex`, which alone changes them: by SPI, and among those
   * that are the same for who wants to send; and in that of `SaList`.
   */
  nextOfSpi: Sa | undefined;
  newerOfGroup: Sa | undefined;
  olderOfGroup: Sa | undefined;
  newerOfAll: Sa | undefined;
  olderOfAll: Sa | undefined;
  /** Its place in `DueHeap`, which alone changes it; -1: none. */
  heapAt = -1;
  /** See `Moments`. */
  moment: number;
  /** See `Sad.retire`. */
  isRetired = false;
  /**
   * Which shard of a host uses it: nobody else takes its sequence numbers, moves its window or
   * counts for it. And the number by which all shards know it; -1: there is one shard.
   */
  owner = 0;
  slot = -1;
  /** Tells what its owner has done with it, where that is another shard. */
  keeper: SaKeeper | undefined;

  /** Where a peer behind a NAT is now, if not where `spec` says: the outer datagrams go there. */
  peer: { readonly address: Address; readonly port: number } | undefined;
  /** Coming in: where the newest datagram of the peer came from, if not from where `spec` says. */
  seenAt: { readonly address: Address; readonly port: number } | undefined;
  /** Coming in: how wrong the last transport checksum was, because of a NAT; -1 is not known. */
  checksumBy = -1;
  /** When a datagram last went to it, in monotonic milliseconds. */
  lastSentMs = 0;

  readonly #addedMs: number;
  readonly #world: SaWorld;
  // What an SA needs from its first packet on is made then: most of a large table are idle.
  #usage: Counting | undefined;
  #firstUseWallMs = 0;
  #replay: ReplayWindow | undefined;
  #lease: SequenceLease | undefined;
  #nextSeq = 1;
  #seqLimit = 0;
  /** The last attempt to reserve sequence numbers failed. */
  #isRefused = false;
  #ivMask: Uint32Array | undefined;

  constructor(spec: SaSpec, state: SaState, at: SaBirth) {
    assert(
      state === 'larval' || (spec.esp !== undefined) === (spec.protocol === 'esp'),
      'transform',
    );
    this.spec = spec;
    this.state = state;
    this.addedWallMs = at.wallMs;
    this.serial = at.serial;
    this.#world = at.world;
    this.moment = at.world.moments.now;
    this.#addedMs = at.monotonicMs;
  }

  get usage(): Usage {
    if (this.keeper !== undefined) return this.keeper.usage(this, this.#addedMs);
    return this.#usage ?? noUsage(this.#addedMs);
  }

  /** Wall-clock milliseconds; 0: never. */
  get firstUseWallMs(): number {
    return this.keeper?.firstUseWallMs(this) ?? this.#firstUseWallMs;
  }

  /** The highest sequence number that has come in. */
  get replayTop(): number {
    return this.keeper?.replayTop(this) ?? this.#replay?.top ?? 0;
  }

  /**
   * Which packets have come in. Of an SA that another shard owns: a window that has seen all up to
   * the top.
   */
  get replay(): ReplayWindow {
    if (this.keeper !== undefined) return this.#replaySeen();
    this.#replay ??= new ReplayWindow(this.spec.replayPackets, this.spec.esn);
    return this.#replay;
  }

  /** The last sequence number sent; 0 before the first. */
  get sentSeq(): number {
    if (this.keeper !== undefined) return this.keeper.sentSeq(this);
    return this.#lease ? this.#nextSeq - 1 : 0;
  }

  /**
   * Whether so few sequence numbers are left that it is time for another SA: FreeBSD's 80 %. They
   * never wrap (RFC 4303 §3.3.3), and key exchange takes its time.
   */
  get runsOutOfSeq(): boolean {
    return this.sentSeq >= SEQ_SOFT * seqMax(this.spec);
  }

  /** Whether the last sequence number has been used: it can never send again. */
  get isOutOfSeq(): boolean {
    return this.sentSeq >= seqMax(this.spec);
  }

  /**
   * What makes the counter IVs of two SAs that share a key differ (see `engine/iv.ts`): decided by
   * the SA's identity at its first use, and kept when its addresses change, or the counter would
   * come by the same IVs again.
   */
  get ivMask(): Uint32Array {
    this.#ivMask ??= ivMaskOf(this.spec);
    return this.#ivMask;
  }

  get isUsable(): boolean {
    return this.state === 'mature' || this.state === 'dying';
  }

  /**
   * Takes `count` sequence numbers in a row and returns the first; -1 when the SA has not that many
   * left (they never wrap, RFC 4303 §3.3.3), -2 when they could not be reserved durably.
   */
  takeSeq(count: number): number {
    assert(this.keeper === undefined, 'sequence numbers are taken by their owner');
    this.changing();
    if (!this.#lease) {
      this.#lease = this.#world.sequences.lease(this.#seqMaterial());
      this.#nextSeq = this.#lease.start;
      this.#seqLimit = this.#lease.start;
    }
    const first = this.#nextSeq;
    const next = first + count;
    if (next - 1 > seqMax(this.spec)) {
      if (this.isOutOfSeq) this.#world.outOfSeq(this);
      return -1;
    }
    if (next > this.#seqLimit) {
      this.#seqLimit = this.#lease.extend(next);
      this.#isRefused = this.#seqLimit < next;
      if (this.#isRefused) return -2;
    }
    this.#nextSeq = next;
    return first;
  }

  /**
   * Whether it has so many sequence numbers that nothing happens when they are taken, not even to
   * their high half.
   */
  hasSeqFor(count: number): boolean {
    const first = this.#nextSeq;
    const next = first + count;
    if (next > this.#seqLimit || next >= SEQ_SOFT * seqMax(this.spec)) return false;
    return (first >>> 0) + count <= 2 ** 32;
  }

  /**
   * Whether it is far from its limits: so many packets, of so many octets together, reach none that
   * was not reached before.
   */
  staysBelowLimits(packets: number, bytes: number): boolean {
    const { hard, soft } = this.spec;
    const { usage } = this;
    if (!staysBelow(hard, usage, packets, bytes)) return false;
    return this.state === 'dying' || staysBelow(soft, usage, packets, bytes);
  }

  /** To be called before anything changes that others are shown. */
  changing(): void {
    const { moments } = this.#world;
    if (this.moment !== moments.now) moments.changing(this);
  }

  account(packets: number, bytes: number, nowMs: number, wallMs: number): void {
    this.changing();
    this.#usage ??= noUsage(this.#addedMs);
    const usage = this.#usage;
    if (usage.firstUseMs < 0) {
      usage.firstUseMs = nowMs;
      this.#firstUseWallMs = wallMs;
    }
    usage.packets += packets;
    usage.bytes += bytes;
  }

  /**
   * An SA in the same state that can be used without a trace on this one: no sequence number is
   * taken, no window moves. `spec` has the transforms to use instead; `freshWindow`: as if nothing
   * had come in yet.
   */
  copy(spec: SaSpec, freshWindow: boolean): Sa {
    const isKept = this.keeper !== undefined;
    const hasSent = this.#lease !== undefined || this.sentSeq > 0;
    const lease = { start: hasSent ? this.sentSeq + 1 : 1, release: () => {} };
    const isRefused = this.#isRefused;
    const other = new Sa(spec, this.state, {
      serial: this.serial,
      monotonicMs: this.#addedMs,
      wallMs: this.addedWallMs,
      world: {
        sequences: { lease: () => ({ ...lease, extend: (next) => (isRefused ? -1 : next) }) },
        moments: NO_MOMENTS,
        outOfSeq: () => {},
      },
    });
    if (this.#usage !== undefined || isKept) other.#usage = { ...this.usage };
    if (isKept && !freshWindow) other.#replay = this.#replaySeen();
    else if (this.#replay !== undefined && !freshWindow) other.#replay = this.#replay.copy();
    if (hasSent) {
      // What was sent before is known of the copy too.
      other.#lease = other.#world.sequences.lease([]);
      other.#nextSeq = lease.start;
      other.#seqLimit = lease.start;
    }
    other.#ivMask = this.#ivMask;
    other.#firstUseWallMs = this.firstUseWallMs;
    other.peer = this.peer;
    other.seenAt = this.seenAt;
    return other;
  }

  /** The end: keys are zeroed, and the sequence numbers not used are given back. */
  die(): void {
    if (this.state === 'dead') return;
    this.state = 'dead';
    this.#lease?.release(this.#nextSeq);
    this.spec.esp?.wipe();
    this.spec.ah?.wipe();
    this.spec.keys.authKey.fill(0);
    this.spec.keys.encryptKey.fill(0);
  }

  #replaySeen(): ReplayWindow {
    const window = new ReplayWindow(this.spec.replayPackets, this.spec.esn);
    if (this.replayTop > 0) window.startAt(this.replayTop);
    return window;
  }

  /** Everything that decides whether two packets would be sealed under the same key and nonce. */
  #seqMaterial(): Uint8Array[] {
    const { protocol, spi, src, dst, keys } = this.spec;
    const head = new Uint8Array([
      protocol === 'esp' ? 50 : 51,
      spi >>> 24,
      spi >>> 16,
      spi >>> 8,
      spi,
      keys.auth,
      keys.encrypt,
    ]);
    return [head, src.bytes, dst.bytes, keys.encryptKey, keys.authKey];
  }
}

interface Counting {
  packets: number;
  bytes: number;
  readonly addedMs: number;
  firstUseMs: number;
}

function noUsage(addedMs: number): Counting {
  return { packets: 0, bytes: 0, addedMs, firstUseMs: -1 };
}

/** What the world adds to a new SA. */
export interface SaBirth {
  readonly serial: number;
  readonly monotonicMs: number;
  readonly wallMs: number;
  readonly world: SaWorld;
}

/** What all SAs of a table share. */
export interface SaWorld {
  readonly sequences: SequenceStore;
  readonly moments: Pick<Moments<Sa, unknown>, 'now' | 'changing'>;
  /** It was asked for a sequence number, and has none. */
  readonly outOfSeq: (sa: Sa) => void;
}

/** For copies, which nobody is shown. */
const NO_MOMENTS: SaWorld['moments'] = { now: 0, changing: () => {} };

/** Shared, because most SAs have none. */
const NO_IDENTITIES: readonly SaIdentity[] = [];
const NO_OPTIONS: SaTunnelOptions = {};

/** A spec with the usual values for what is not given. */
export function saSpec(
  given: Pick<SaSpec, 'protocol' | 'spi' | 'src' | 'dst' | 'keys'> & Partial<SaSpec>,
): SaSpec {
  // One literal with every field: V8 makes a table of what is put together from parts, four times
  // as large.
  return {
    protocol: given.protocol,
    spi: given.spi,
    src: given.src,
    dst: given.dst,
    mode: given.mode ?? 'any',
    reqid: given.reqid ?? 0,
    keys: given.keys,
    esp: given.esp,
    ah: given.ah,
    replayPackets: given.replayPackets ?? 0,
    esn: given.esn ?? false,
    flags: given.flags ?? 0,
    padding: given.padding ?? 'sequential',
    ahAlignLen: given.ahAlignLen ?? 4,
    encapsulation: given.encapsulation,
    tunnel: given.tunnel ?? NO_OPTIONS,
    hard: given.hard ?? NO_LIMIT,
    soft: given.soft ?? NO_LIMIT,
    identities: given.identities ?? NO_IDENTITIES,
    pid: given.pid ?? 0,
    seq: given.seq ?? 0,
    origin: given.origin ?? 'client',
  };
}

/** The last sequence number that an SA may send. */
function seqMax({ esn }: SaSpec): number {
  return esn ? Number.MAX_SAFE_INTEGER - 1 : 0xffff_ffff;
}

function ivMaskOf({ spi, src, dst }: SaSpec): Uint32Array {
  const octets = digest([
    Uint8Array.of(spi >>> 24, spi >>> 16, spi >>> 8, spi),
    src.bytes,
    dst.bytes,
  ]);
  return Uint32Array.of(u32(octets, 0), u32(octets, 4));
}
