import { assert } from '../base/assert.ts';
import type { CryptoProvider, TransformSpec } from './provider.ts';
import { checkAhSpec, checkEspSpec } from './spec.ts';
import type { AhTransform, EspTransform } from './transform.ts';

/**
 * A provider whose transforms are made at their first packet: what node:crypto or a native library
 * needs for an SA takes ten times the room of the SA, and most SAs of a large table are idle. A
 * spec is refused at once, as ever: its keys are looked at each time, and the first transform of
 * each combination of algorithms and key lengths is really made.
 *
 * Unlike those of other providers, these transforms use the keys of the spec and not copies: whoever
 * passes them keeps them until `wipe`, and zeroes them.
 */
export class LazyCrypto implements CryptoProvider {
  readonly name: string;
  readonly #eager: CryptoProvider;
  readonly #espShapes = new Map<string, EspShape>();
  readonly #ahShapes = new Map<string, AhShape>();

  constructor(eager: CryptoProvider) {
    this.name = eager.name;
    this.#eager = eager;
  }

  /** The provider itself, if it is lazy already. */
  static around(provider: CryptoProvider): LazyCrypto {
    return provider instanceof LazyCrypto ? provider : new LazyCrypto(provider);
  }

  supports(algorithm: Parameters<CryptoProvider['supports']>[0]): boolean {
    return this.#eager.supports(algorithm);
  }

  esp(spec: TransformSpec): EspTransform {
    checkEspSpec(spec);
    const name = combination(spec);
    let shape = this.#espShapes.get(name);
    if (shape === undefined) {
      const made = this.#eager.esp(spec);
      const { ivLen, icvLen, alignLen, iv, authenticates } = made;
      shape = { ivLen, icvLen, alignLen, iv, authenticates };
      made.wipe();
      this.#espShapes.set(name, shape);
    }
    return new LazyEsp(this.#eager, spec, shape);
  }

  ah(spec: TransformSpec): AhTransform {
    checkAhSpec(spec);
    const name = combination(spec);
    let shape = this.#ahShapes.get(name);
    if (shape === undefined) {
      const made = this.#eager.ah(spec);
      shape = { icvLen: made.icvLen, ivLen: made.ivLen };
      made.wipe();
      this.#ahShapes.set(name, shape);
    }
    return new LazyAh(this.#eager, spec, shape);
  }
}

type EspShape = Omit<EspTransform, 'seal' | 'open' | 'wipe'>;
type AhShape = Omit<AhTransform, 'sign' | 'verify' | 'wipe'>;

class LazyEsp implements EspTransform {
  readonly #eager: CryptoProvider;
  readonly #shape: EspShape;
  #spec: TransformSpec | undefined;
  #made: EspTransform | undefined;

  constructor(eager: CryptoProvider, spec: TransformSpec, shape: EspShape) {
    this.#eager = eager;
    this.#spec = spec;
    this.#shape = shape;
  }

  get ivLen(): number {
    return this.#shape.ivLen;
  }

  get icvLen(): number {
    return this.#shape.icvLen;
  }

  get alignLen(): number {
    return this.#shape.alignLen;
  }

  get iv(): EspTransform['iv'] {
    return this.#shape.iv;
  }

  get authenticates(): boolean {
    return this.#shape.authenticates;
  }

  seal(p: Uint8Array, at: number, end: number, seqHigh: number): void {
    (this.#made ?? this.#make()).seal(p, at, end, seqHigh);
  }

  open(p: Uint8Array, at: number, end: number, seqHigh: number): boolean {
    return (this.#made ?? this.#make()).open(p, at, end, seqHigh);
  }

  wipe(): void {
    this.#made?.wipe();
    this.#spec = undefined;
  }

  #make(): EspTransform {
    assert(this.#spec !== undefined, 'a transform is not used after it was wiped');
    this.#made = this.#eager.esp(this.#spec);
    return this.#made;
  }
}

class LazyAh implements AhTransform {
  readonly #eager: CryptoProvider;
  readonly #shape: AhShape;
  #spec: TransformSpec | undefined;
  #made: AhTransform | undefined;

  constructor(eager: CryptoProvider, spec: TransformSpec, shape: AhShape) {
    this.#eager = eager;
    this.#spec = spec;
    this.#shape = shape;
  }

  get icvLen(): number {
    return this.#shape.icvLen;
  }

  get ivLen(): number {
    return this.#shape.ivLen;
  }

  sign(...packet: Parameters<AhTransform['sign']>): void {
    (this.#made ?? this.#make()).sign(...packet);
  }

  verify(...packet: Parameters<AhTransform['verify']>): boolean {
    return (this.#made ?? this.#make()).verify(...packet);
  }

  wipe(): void {
    this.#made?.wipe();
    this.#spec = undefined;
  }

  #make(): AhTransform {
    assert(this.#spec !== undefined, 'a transform is not used after it was wiped');
    this.#made = this.#eager.ah(this.#spec);
    return this.#made;
  }
}

/** What besides the octets of the keys decides whether a transform can be made. */
function combination({ cipher, cipherKey, mac, macKey, allowLegacy }: TransformSpec): string {
  const legacy = allowLegacy ? ' legacy' : '';
  return `${cipher?.name} ${cipherKey.length} ${mac?.name} ${macKey.length}${legacy}`;
}
