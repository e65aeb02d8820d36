import type { Family } from '../base/address.ts';
import type { Cursor } from '../wire/cursor.ts';
import { isLoopbackPacket } from '../wire/loopback.ts';
import type { Policy } from './policy.ts';
import { hidesProtocol } from './policy-index.ts';
import { RuleTable, writeKey } from './rule-table.ts';

/** The first thing about a packet that is not as a policy's selector wants it. */
export type Mismatch = 'source' | 'destination' | 'protocol' | 'ports' | 'loopback';

/** Words of the key as `RuleTable` has them, in the order in which people read a selector. */
const LAST_WORDS = { ports: 2, protocol: 1 } as const;

/**
 * Says of single policies why they are not for a packet, by the words that the index goes by: each
 * word of a key is one field of the selector. For explanations; `Spd.lookup` is what decides.
 */
export class MismatchFinder {
  readonly #rules: RuleTable;
  readonly #key: Int32Array;
  readonly #loopback: boolean;
  readonly #cursor: Cursor;
  readonly #hidesProtocol: boolean;

  /** For one decoded packet, which must stay as it is meanwhile. */
  constructor(p: Uint8Array, cursor: Cursor) {
    this.#rules = new RuleTable(cursor.family);
    this.#key = new Int32Array(this.#rules.keyWords);
    writeKey(this.#key, 0, p, cursor);
    this.#loopback = isLoopbackPacket(p, cursor);
    this.#cursor = cursor;
    this.#hidesProtocol = hidesProtocol(p, cursor);
  }

  get family(): Family {
    return this.#rules.family;
  }

  /** The policy must be of the packet's family. Undefined: it means the packet. */
  of(policy: Policy): Mismatch | undefined {
    const rules = this.#rules;
    const slot = rules.add(policy, 0);
    const found = this.#ofSlot(slot);
    rules.remove(slot);
    return found;
  }

  #ofSlot(slot: number): Mismatch | undefined {
    const words = this.#rules.keyWords;
    const addressWords = (words - LAST_WORDS.ports) / 2;
    for (let word = 0; word < 2 * addressWords; word++) {
      if (this.#differs(slot, word)) return word < addressWords ? 'source' : 'destination';
    }
    const protocolWord = words - LAST_WORDS.protocol;
    if (!this.#hidesProtocol && this.#differs(slot, protocolWord)) return 'protocol';
    if (!this.#portsFit(slot, words - LAST_WORDS.ports)) return 'ports';
    return this.#loopback && this.#rules.loopback[slot] === 0 ? 'loopback' : undefined;
  }

  #portsFit(slot: number, word: number): boolean {
    // A fragment gets the policy of its datagram, whose ports are not known yet.
    if (this.#cursor.isFragment || this.#mask(slot, word) === 0) return true;
    return this.#cursor.portsKnown && !this.#differs(slot, word);
  }

  #differs(slot: number, word: number): boolean {
    const value = this.#rules.words[2 * (slot * this.#rules.keyWords + word)]!;
    return ((this.#key[word]! ^ value) & this.#mask(slot, word)) !== 0;
  }

  #mask(slot: number, word: number): number {
    return this.#rules.words[2 * (slot * this.#rules.keyWords + word) + 1]!;
  }
}
