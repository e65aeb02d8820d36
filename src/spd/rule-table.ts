import { ADDRESS_BITS, type Family, type Prefix } from '../base/address.ts';
import { u32 } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import { namesLoopback, PORT_ANY, type Policy, PROTOCOL_ANY, type Selector } from './policy.ts';

/** Words of 32 bits in a key: both addresses, a word of ports, and the protocol in 8 bits. */
export const KEY_WORDS = { 4: 4, 6: 10 } as const;

/**
 * The selectors of one direction and family as ternary words: a packet with the key `k` is meant by
 * a rule when `(k ^ value) & mask` is 0 in every word.
 *
 *     word     0 …           … n - 3    n - 2                n - 1
 *           +-------------+-----------+--------------------+---------------------+
 *           | source      | destin.   | sport 16, dport 16 | protocol 8, zero 24 |
 *           +-------------+-----------+--------------------+---------------------+
 */
export class RuleTable {
  readonly family: Family;
  readonly keyWords: number;
  /** Of rule `slot`, from `slot * 2 * keyWords`: value and mask of each word in turn. */
  words: Int32Array;
  /** Order of the rules: by priority (of 32 bits), then by serial. */
  priorities: Uint32Array;
  serials: Float64Array;
  /** 1: the rule names the loopback network, and so covers packets of it. */
  loopback: Uint8Array;
  readonly policies: (Policy | undefined)[] = [];
  readonly #free: number[] = [];
  #size = 0;

  constructor(family: Family) {
    this.family = family;
    this.keyWords = KEY_WORDS[family];
    this.words = new Int32Array(64 * 2 * this.keyWords);
    this.priorities = new Uint32Array(64);
    this.serials = new Float64Array(64);
    this.loopback = new Uint8Array(64);
  }

  get size(): number {
    return this.#size;
  }

  /** Octets of memory. */
  get octets(): number {
    const { words, priorities, serials, loopback, policies } = this;
    const tables = [words, priorities, serials, loopback];
    return tables.reduce((sum, table) => sum + table.byteLength, 8 * policies.length);
  }

  /** Every rule, in no order. */
  slots(): number[] {
    const slots: number[] = [];
    for (let slot = 0; slot < this.policies.length; slot++) {
      if (this.policies[slot] !== undefined) slots.push(slot);
    }
    return slots;
  }

  add(policy: Policy, serial: number): number {
    const slot = this.#free.pop() ?? this.policies.length;
    if (slot === this.priorities.length) this.#grow();
    const { selector } = policy;
    this.policies[slot] = policy;
    this.priorities[slot] = policy.priority;
    this.serials[slot] = serial;
    this.loopback[slot] = namesLoopback(selector) ? 1 : 0;
    this.#writeWords(slot * 2 * this.keyWords, selector);
    this.#size++;
    return slot;
  }

  remove(slot: number): void {
    this.policies[slot] = undefined;
    this.#free.push(slot);
    this.#size--;
  }

  /** Negative: rule `a` is looked at before rule `b`. */
  compare(a: number, b: number): number {
    return this.priorities[a]! - this.priorities[b]! || this.serials[a]! - this.serials[b]!;
  }

  #writeWords(at: number, { src, dst, protocol, sport, dport }: Selector): void {
    const { words, keyWords } = this;
    const addressWords = (keyWords - 2) / 2;
    writePrefix(words, at, src);
    writePrefix(words, at + 2 * addressWords, dst);
    const portsAt = at + 2 * (keyWords - 2);
    const sportBits = sport === PORT_ANY ? 0 : 0xffff;
    const dportBits = dport === PORT_ANY ? 0 : 0xffff;
    words[portsAt] = ((sport & sportBits) << 16) | (dport & dportBits);
    words[portsAt + 1] = (sportBits << 16) | dportBits;
    words[portsAt + 2] = protocol === PROTOCOL_ANY ? 0 : protocol << 24;
    words[portsAt + 3] = protocol === PROTOCOL_ANY ? 0 : 0xff << 24;
  }

  #grow(): void {
    const length = 2 * this.priorities.length;
    const { words, priorities, serials, loopback } = this;
    this.words = new Int32Array(length * 2 * this.keyWords);
    this.words.set(words);
    this.priorities = new Uint32Array(length);
    this.priorities.set(priorities);
    this.serials = new Float64Array(length);
    this.serials.set(serials);
    this.loopback = new Uint8Array(length);
    this.loopback.set(loopback);
  }
}

/** The key of a decoded packet, from `at` on; of one without ports they are 0. */
export function writeKey(key: Int32Array, at: number, p: Uint8Array, cursor: Cursor): void {
  const { srcAt, dstAt } = cursor;
  let portsAt = at + 2;
  if (cursor.family === 4) {
    key[at] = u32(p, srcAt);
    key[at + 1] = u32(p, dstAt);
  } else {
    for (let i = 0; i < 4; i++) {
      key[at + i] = u32(p, srcAt + 4 * i);
      key[at + 4 + i] = u32(p, dstAt + 4 * i);
    }
    portsAt = at + 8;
  }
  key[portsAt] = (cursor.sport << 16) | cursor.dport;
  key[portsAt + 1] = cursor.protocol << 24;
}

function writePrefix(words: Int32Array, at: number, { address, length }: Prefix): void {
  for (let i = 0; i < ADDRESS_BITS[address.family] / 32; i++) {
    const bits = Math.min(32, Math.max(0, length - 32 * i));
    const mask = bits === 0 ? 0 : -1 << (32 - bits);
    words[at + 2 * i] = u32(address.bytes, 4 * i) & mask;
    words[at + 2 * i + 1] = mask;
  }
}
