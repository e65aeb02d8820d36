import type * as Koffi from 'koffi';
import { assert } from '../../base/assert.ts';
import { REGION } from './layout.ts';
import { addressOf, longAt, type NativeBlock, nativeBlock, setLong } from './memory.ts';

/**
 * Smaller arrays lie inside of V8's heap, where the garbage collector moves them: their address is
 * never taken.
 */
export const SMALL_MAX = 64;

/** Arrays that are remembered from one batch to the next. */
const KEPT_MAX = 16;
/** The first ones are for what is done at once, when there is no other. */
const SPARES = 2;

/**
 * The memory that jobs may point into: whole arrays, each known by a number, with its address and
 * length in a table that native code checks offsets against. They stay referenced while they are in
 * it.
 */
export class Regions {
  readonly table: NativeBlock;
  readonly #koffi: typeof Koffi;
  readonly #capacity: number;
  readonly #arrays: (Uint8Array | undefined)[] = [undefined, undefined];
  readonly #numbers = new Map<Uint8Array, number>();
  /** Most packets of a batch, and of all batches, lie in one arena. */
  #last: Uint8Array | undefined;
  #lastNumber = 0;

  /** `capacity`: how many arrays the jobs of a batch can have. */
  constructor(koffi: typeof Koffi, capacity: number) {
    this.#koffi = koffi;
    this.#capacity = SPARES + KEPT_MAX + capacity;
    this.table = nativeBlock(koffi, this.#capacity * REGION.len);
  }

  get count(): number {
    return this.#arrays.length;
  }

  array(region: number): Uint8Array {
    return this.#arrays[region]!;
  }

  address(region: number): number {
    return longAt(this.table.words, region * REGION.len + REGION.base);
  }

  /** The number of an array, which is longer than SMALL_MAX, until the next `trim`. */
  numberOf(bytes: Uint8Array): number {
    if (bytes === this.#last) return this.#lastNumber;
    const number = this.#numbers.get(bytes) ?? this.#add(bytes);
    this.#last = bytes;
    this.#lastNumber = number;
    return number;
  }

  /** As `numberOf`, until the next call with this `spare`: no number of calls uses all the room. */
  numberAtOnce(bytes: Uint8Array, spare: 0 | 1): number {
    if (bytes === this.#last || this.#numbers.has(bytes)) return this.numberOf(bytes);
    if (this.#arrays.length < SPARES + KEPT_MAX) return this.numberOf(bytes);
    this.#set(spare, bytes);
    return spare;
  }

  /** Between batches: forgets, so that arrays that nobody uses any more are not kept for ever. */
  trim(): void {
    if (this.#arrays.length <= SPARES + KEPT_MAX) return;
    this.#arrays.length = SPARES;
    this.#numbers.clear();
    this.#last = undefined;
  }

  #add(bytes: Uint8Array): number {
    const number = this.#arrays.length;
    assert(number < this.#capacity, 'there is room for the arrays of all jobs');
    this.#set(number, bytes);
    this.#numbers.set(bytes, number);
    return number;
  }

  #set(number: number, bytes: Uint8Array): void {
    assert(bytes.length > SMALL_MAX, 'an array that does not move');
    const { words } = this.table;
    setLong(words, number * REGION.len + REGION.base, addressOf(this.#koffi, bytes));
    setLong(words, number * REGION.len + REGION.size, bytes.length);
    this.#arrays[number] = bytes;
  }
}
