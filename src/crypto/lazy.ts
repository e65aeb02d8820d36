import { assert } from '../base/assert.ts';
import type { Algorithm } from './algorithms.ts';
import type { CryptoProvider, TransformSpec } from './provider.ts';
import { checkAhSpec, checkEspSpec } from './spec.ts';
import type { AhTransform, EspTransform, JobPacket, JobQueue } from './transform.ts';

/**
 * A provider whose transforms are made at their first packet: what node:crypto or a native library
 * needs for an SA takes ten times the room of the SA, and most SAs of a large table are idle. A
 * spec is refused at once, as ever: its keys are looked at each time, and the first transform of
 * each combination of algorithms and key lengths is really made.
 *
 * Unlike those of other providers, these transforms use the keys of the spec and not copies:
 * whoever passes them keeps them until `wipe`, and zeroes them.
 */
export class LazyCrypto implements CryptoProvider {
  readonly name: string;
  readonly #eager: CryptoProvider;
  readonly #supported = new Map<Algorithm, boolean>();
  readonly #espKinds = new Map<string, EspKind>();
  readonly #ahKinds = new Map<string, AhKind>();

  constructor(eager: CryptoProvider) {
    this.name = eager.name;
    this.#eager = eager;
  }

  /** The provider itself, if it is lazy already. */
  static around(provider: CryptoProvider): LazyCrypto {
    return provider instanceof LazyCrypto ? provider : new LazyCrypto(provider);
  }

  supports(algorithm: Algorithm): boolean {
    // Asked for every algorithm at each REGISTER; a library does not change while it is loaded.
    const known = this.#supported.get(algorithm);
    if (known !== undefined) return known;
    const isSupported = this.#eager.supports(algorithm);
    this.#supported.set(algorithm, isSupported);
    return isSupported;
  }

  /** With `keys`, those are used and not the ones of the spec, which must be equal. */
  esp(spec: TransformSpec, keys: KeySource = keysOf(spec)): EspTransform {
    checkEspSpec(spec);
    const name = nameOf(spec);
    let kind = this.#espKinds.get(name);
    if (kind === undefined) {
      const algorithms = algorithmsOf(spec);
      const made = this.#eager.esp(spec);
      const { ivLen, icvLen, alignLen, iv, authenticates } = made;
      made.wipe();
      const shape = { ivLen, icvLen, alignLen, iv, authenticates };
      kind = { ...shape, make: (of) => this.#eager.esp({ ...algorithms, ...partsOf(of) }) };
      this.#espKinds.set(name, kind);
    }
    return new LazyEsp(kind, keys);
  }

  /** As `esp`. */
  ah(spec: TransformSpec, keys: KeySource = keysOf(spec)): AhTransform {
    checkAhSpec(spec);
    const name = nameOf(spec);
    let kind = this.#ahKinds.get(name);
    if (kind === undefined) {
      const algorithms = algorithmsOf(spec);
      const made = this.#eager.ah(spec);
      const { icvLen, ivLen } = made;
      made.wipe();
      const make = (of: KeySource) => this.#eager.ah({ ...algorithms, ...partsOf(of) });
      kind = { icvLen, ivLen, make };
      this.#ahKinds.set(name, kind);
    }
    return new LazyAh(kind, keys);
  }
}

/** Where a transform finds its keys when it is made. */
export interface KeySource {
  readonly authKey: Uint8Array;
  readonly encryptKey: Uint8Array;
}

/** What all transforms of one combination of algorithms and key lengths have in common. */
interface EspKind
  extends Pick<EspTransform, 'ivLen' | 'icvLen' | 'alignLen' | 'iv' | 'authenticates'> {
  readonly make: (keys: KeySource) => EspTransform;
}

interface AhKind extends Pick<AhTransform, 'ivLen' | 'icvLen'> {
  readonly make: (keys: KeySource) => AhTransform;
}

class LazyEsp implements EspTransform {
  readonly #kind: EspKind;
  #keys: KeySource | undefined;
  #made: EspTransform | undefined;

  constructor(kind: EspKind, keys: KeySource) {
    this.#kind = kind;
    this.#keys = keys;
  }

  get ivLen(): number {
    return this.#kind.ivLen;
  }

  get icvLen(): number {
    return this.#kind.icvLen;
  }

  get alignLen(): number {
    return this.#kind.alignLen;
  }

  get iv(): EspTransform['iv'] {
    return this.#kind.iv;
  }

  get authenticates(): boolean {
    return this.#kind.authenticates;
  }

  seal(p: Uint8Array, at: number, end: number, seqHigh: number): void {
    (this.#made ?? this.#make()).seal(p, at, end, seqHigh);
  }

  open(p: Uint8Array, at: number, end: number, seqHigh: number): boolean {
    return (this.#made ?? this.#make()).open(p, at, end, seqHigh);
  }

  /** Not what the kind has: a provider may run out of room for its own transforms. */
  get queue(): JobQueue | undefined {
    return (this.#made ?? this.#make()).queue;
  }

  sealLater(p: Uint8Array, at: number, end: number, seqHigh: number): number {
    return (this.#made ?? this.#make()).sealLater!(p, at, end, seqHigh);
  }

  openLater(p: Uint8Array, at: number, end: number, seqHigh: number): number {
    return (this.#made ?? this.#make()).openLater!(p, at, end, seqHigh);
  }

  sealRowLater(
    packets: readonly JobPacket[],
    from: number,
    count: number,
    by: number,
    len: number,
    seqHigh: number,
  ): number {
    const made = this.#made ?? this.#make();
    return made.sealRowLater!(packets, from, count, by, len, seqHigh);
  }

  openRowLater(
    packets: readonly JobPacket[],
    from: number,
    count: number,
    by: number,
    len: number,
    seqHigh: number,
  ): number {
    const made = this.#made ?? this.#make();
    return made.openRowLater!(packets, from, count, by, len, seqHigh);
  }

  wipe(): void {
    this.#made?.wipe();
    this.#keys = undefined;
  }

  #make(): EspTransform {
    assert(this.#keys !== undefined, 'a transform is not used after it was wiped');
    this.#made = this.#kind.make(this.#keys);
    return this.#made;
  }
}

class LazyAh implements AhTransform {
  readonly #kind: AhKind;
  #keys: KeySource | undefined;
  #made: AhTransform | undefined;

  constructor(kind: AhKind, keys: KeySource) {
    this.#kind = kind;
    this.#keys = keys;
  }

  get icvLen(): number {
    return this.#kind.icvLen;
  }

  get ivLen(): number {
    return this.#kind.ivLen;
  }

  /** Not what the kind has: a provider may run out of room for its own transforms. */
  get queue(): JobQueue | undefined {
    return (this.#made ?? this.#make()).queue;
  }

  sign(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): void {
    (this.#made ?? this.#make()).sign(p, at, end, seqHigh, icv, icvAt);
  }

  verify(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): boolean {
    return (this.#made ?? this.#make()).verify(p, at, end, seqHigh, icv, icvAt);
  }

  signLater(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): number {
    return (this.#made ?? this.#make()).signLater!(p, at, end, seqHigh, icv, icvAt);
  }

  verifyLater(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): number {
    return (this.#made ?? this.#make()).verifyLater!(p, at, end, seqHigh, icv, icvAt);
  }

  wipe(): void {
    this.#made?.wipe();
    this.#keys = undefined;
  }

  #make(): AhTransform {
    assert(this.#keys !== undefined, 'a transform is not used after it was wiped');
    this.#made = this.#kind.make(this.#keys);
    return this.#made;
  }
}

/** The spec without keys: those of the first SA are not to be kept. */
function algorithmsOf({ cipher, mac, allowLegacy }: TransformSpec) {
  return { cipher, mac, allowLegacy };
}

function keysOf({ macKey, cipherKey }: TransformSpec): KeySource {
  return { authKey: macKey, encryptKey: cipherKey };
}

function partsOf({ authKey, encryptKey }: KeySource): Pick<TransformSpec, 'macKey' | 'cipherKey'> {
  return { macKey: authKey, cipherKey: encryptKey };
}

/** What besides the octets of the keys decides whether a transform can be made. */
function nameOf({ cipher, cipherKey, mac, macKey, allowLegacy }: TransformSpec): string {
  const legacy = allowLegacy ? ' legacy' : '';
  return `${cipher?.name} ${cipherKey.length} ${mac?.name} ${macKey.length}${legacy}`;
}
