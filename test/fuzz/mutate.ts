import type { Random } from '../../src/base/env.ts';

const INTERESTING = [0, 1, 2, 4, 7, 8, 16, 20, 32, 40, 59, 63, 64, 127, 128, 254, 255];
const WORDS_16 = [0, 1, 8, 20, 28, 40, 1280, 1500, 0x7fff, 0x8000, 0xffff, 0xfffe];

/** Random integers by a given source of octets. */
export class Dice {
  readonly #random: Random;
  readonly #pool = new Uint8Array(1024);
  #at = 1024;

  constructor(random: Random) {
    this.#random = random;
  }

  /** 0 to `bound` - 1; `bound` up to 2^24. */
  below(bound: number): number {
    if (this.#at + 3 > this.#pool.length) {
      this.#random.fill(this.#pool);
      this.#at = 0;
    }
    const p = this.#pool;
    const value = (p[this.#at]! << 16) | (p[this.#at + 1]! << 8) | p[this.#at + 2]!;
    this.#at += 3;
    return value % bound;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }
}

/** Makes new inputs from old ones. */
export class Mutator {
  readonly #dice: Dice;
  readonly #words: readonly Uint8Array[];
  readonly #lenMax: number;

  constructor(dice: Dice, words: readonly Uint8Array[], lenMax: number) {
    this.#dice = dice;
    this.#words = words;
    this.#lenMax = lenMax;
  }

  /** A copy of an input with 1 to 4 changes; `other` is what parts are taken from. */
  mutate(input: Uint8Array, other: Uint8Array): Uint8Array {
    let octets: Uint8Array = input.slice();
    for (let left = 1 << this.#dice.below(3); left > 0; left--)
      octets = this.#change(octets, other);
    return octets.length > this.#lenMax ? octets.slice(0, this.#lenMax) : octets;
  }

  #change(p: Uint8Array, other: Uint8Array): Uint8Array {
    const dice = this.#dice;
    if (p.length === 0) return Uint8Array.of(dice.below(256));
    const at = dice.below(p.length);
    switch (dice.below(11)) {
      case 0:
        p[at]! ^= 1 << dice.below(8);
        return p;
      case 1:
        p[at] = dice.below(256);
        return p;
      case 2:
        p[at] = dice.pick(INTERESTING);
        return p;
      case 3:
        p[at]! += dice.below(33) - 16;
        return p;
      case 4:
        return put16(p, at, dice.pick(WORDS_16), dice.below(2) === 0);
      case 5:
        return cut(p, at, at + 1 + dice.below(Math.min(p.length - at, 1 + dice.below(64))));
      case 6:
        return insert(p, at, p.slice(at, at + 1 + dice.below(32)));
      case 7:
        return insert(p, at, this.#part(other));
      case 8:
        return overwrite(p, at, this.#part(other));
      case 9:
        return dice.below(8) === 0 ? p.slice(0, at) : this.#word(p, at);
      default:
        return this.#word(p, at);
    }
  }

  #word(p: Uint8Array, at: number): Uint8Array {
    const words = this.#words;
    if (words.length === 0) {
      p[at] = this.#dice.below(256);
      return p;
    }
    const word = this.#dice.pick(words);
    return this.#dice.below(2) === 0 ? overwrite(p, at, word) : insert(p, at, word);
  }

  #part(of: Uint8Array): Uint8Array {
    if (of.length === 0) return of;
    const at = this.#dice.below(of.length);
    return of.slice(at, at + 1 + this.#dice.below(of.length - at));
  }
}

function put16(p: Uint8Array, at: number, value: number, little: boolean): Uint8Array {
  p[at] = little ? value : value >> 8;
  if (at + 1 < p.length) p[at + 1] = little ? value >> 8 : value;
  return p;
}

function cut(p: Uint8Array, from: number, to: number): Uint8Array {
  const left = new Uint8Array(p.length - (to - from));
  left.set(p.subarray(0, from));
  left.set(p.subarray(to), from);
  return left;
}

function insert(p: Uint8Array, at: number, what: Uint8Array): Uint8Array {
  const all = new Uint8Array(p.length + what.length);
  all.set(p.subarray(0, at));
  all.set(what, at);
  all.set(p.subarray(at), at + what.length);
  return all;
}

function overwrite(p: Uint8Array, at: number, what: Uint8Array): Uint8Array {
  p.set(what.subarray(0, p.length - at), at);
  return p;
}
