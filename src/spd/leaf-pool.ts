import type { RuleTable } from './rule-table.ts';

/** Rooms are of 4, 8, 16, … entries. */
const ROOM_MIN = 4;

/**
 * Lists of rules, each in one stretch of memory together with the words that are compared, so that
 * a scan reads forward. An entry is the words of a rule and its slot.
 */
export class LeafPool {
  readonly entryLen: number;
  data: Int32Array;
  readonly #rules: RuleTable;
  readonly #wordsLen: number;
  /** Rooms given back, by the logarithm of their size. */
  readonly #free: number[][] = [];
  #used = 0;

  constructor(rules: RuleTable) {
    this.#rules = rules;
    this.#wordsLen = 2 * rules.keyWords;
    this.entryLen = this.#wordsLen + 1;
    this.data = new Int32Array(64 * this.entryLen);
  }

  /** The room that `len` entries get, in entries. */
  roomFor(len: number): number {
    let room = ROOM_MIN;
    while (room < len) room *= 2;
    return room;
  }

  /** Where a room of this size begins, in words. */
  take(room: number): number {
    const free = this.#free[31 - Math.clz32(room)]?.pop();
    if (free !== undefined) return free;
    const at = this.#used;
    this.#used += room * this.entryLen;
    if (this.#used > this.data.length) {
      const { data } = this;
      this.data = new Int32Array(Math.max(this.#used, 2 * data.length));
      this.data.set(data);
    }
    return at;
  }

  give(at: number, room: number): void {
    const size = 31 - Math.clz32(room);
    this.#free[size] ??= [];
    this.#free[size].push(at);
  }

  write(at: number, slot: number): void {
    const from = slot * this.#wordsLen;
    const { words } = this.#rules;
    for (let i = 0; i < this.#wordsLen; i++) this.data[at + i] = words[from + i]!;
    this.data[at + this.#wordsLen] = slot;
  }

  slotAt(at: number): number {
    return this.data[at + this.#wordsLen]!;
  }
}
