import type { Address } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import type { AhTransform, EspTransform } from '../crypto/transform.ts';
import { type Lifetime, NO_LIMIT, type Usage } from './lifetime.ts';
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
  readonly esp?: EspTransform;
  readonly ah?: AhTransform;
  /** Packets; 0 turns the check off. */
  readonly replayPackets: number;
  readonly esn: boolean;
  /** SADB_SAFLAGS_* as given. */
  readonly flags: number;
  readonly padding: 'sequential' | 'random' | 'zero';
  /** What an AH header on IPv4 is padded to: 4 octets by RFC 4302 §3.3.3.2.1, 8 as Linux has it. */
  readonly ahAlignLen: 4 | 8;
  readonly encapsulation?: Encapsulation;
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

/** A security association: one direction, one protocol, one pair of addresses. */
export class Sa {
  spec: SaSpec;
  state: SaState;
  readonly replay: ReplayWindow;
  /** Wall-clock milliseconds, for what people are shown; 0 is never. */
  readonly addedWallMs: number;
  firstUseWallMs = 0;
  /** Packets dropped because of this SA, by what was wrong. */
  replays = 0;
  badIcvs = 0;
  /** The order of arrival: the newest usable SA is preferred. */
  readonly serial: number;
  /** What makes the counter IVs of two SAs that share a key differ (see `engine/esp.ts`). */
  readonly ivMask: Uint32Array;

  /** Where a peer behind a NAT is now, if not where `spec` says: the outer datagrams go there. */
  peer: { readonly address: Address; readonly port: number } | undefined;
  /** Coming in: where the newest datagram of the peer came from, if not from where `spec` says. */
  seenAt: { readonly address: Address; readonly port: number } | undefined;
  /** When a datagram last went to it, in monotonic milliseconds. */
  lastSentMs = 0;

  readonly #usage: { packets: number; bytes: number; addedMs: number; firstUseMs: number };
  readonly #store: SequenceStore;
  #lease: SequenceLease | undefined;
  #nextSeq = 1;
  #seqLimit = 0;

  constructor(spec: SaSpec, state: SaState, at: SaBirth) {
    assert(
      state === 'larval' || (spec.esp !== undefined) === (spec.protocol === 'esp'),
      'transform',
    );
    this.spec = spec;
    this.state = state;
    this.replay = new ReplayWindow(spec.replayPackets, spec.esn);
    this.addedWallMs = at.wallMs;
    this.serial = at.serial;
    this.ivMask = at.ivMask;
    this.#store = at.sequences;
    this.#usage = { packets: 0, bytes: 0, addedMs: at.monotonicMs, firstUseMs: -1 };
  }

  get usage(): Usage {
    return this.#usage;
  }

  /** The last sequence number sent; 0 before the first. */
  get sentSeq(): number {
    return this.#lease ? this.#nextSeq - 1 : 0;
  }

  get isUsable(): boolean {
    return this.state === 'mature' || this.state === 'dying';
  }

  /**
   * Takes `count` sequence numbers in a row and returns the first; -1 when the SA has not that many
   * left (they never wrap, RFC 4303 §3.3.3), -2 when they could not be reserved durably.
   */
  takeSeq(count: number): number {
    if (!this.#lease) {
      this.#lease = this.#store.lease(this.#seqMaterial());
      this.#nextSeq = this.#lease.start;
      this.#seqLimit = this.#lease.start;
    }
    const first = this.#nextSeq;
    const next = first + count;
    if (next - 1 > (this.spec.esn ? Number.MAX_SAFE_INTEGER - 1 : 0xffff_ffff)) return -1;
    if (next > this.#seqLimit) {
      this.#seqLimit = this.#lease.extend(next);
      if (this.#seqLimit < next) return -2;
    }
    this.#nextSeq = next;
    return first;
  }

  account(packets: number, bytes: number, nowMs: number, wallMs: number): void {
    const usage = this.#usage;
    if (usage.firstUseMs < 0) {
      usage.firstUseMs = nowMs;
      this.firstUseWallMs = wallMs;
    }
    usage.packets += packets;
    usage.bytes += bytes;
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

/** What the world adds to a new SA. */
export interface SaBirth {
  readonly serial: number;
  readonly monotonicMs: number;
  readonly wallMs: number;
  readonly ivMask: Uint32Array;
  readonly sequences: SequenceStore;
}

/** A spec with the usual values for what is not given. */
export function saSpec(
  given: Pick<SaSpec, 'protocol' | 'spi' | 'src' | 'dst' | 'keys'> & Partial<SaSpec>,
): SaSpec {
  return {
    mode: 'any',
    reqid: 0,
    replayPackets: 0,
    esn: false,
    flags: 0,
    padding: 'sequential',
    ahAlignLen: 4,
    tunnel: {},
    hard: NO_LIMIT,
    soft: NO_LIMIT,
    identities: [],
    pid: 0,
    seq: 0,
    origin: 'client',
    ...given,
  };
}
