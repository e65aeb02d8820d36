import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ALGORITHMS, type Algorithm } from '../../../src/crypto/algorithms.ts';
import { CONTEXT } from '../../../src/drivers/native/layout.ts';
import { addressOf } from '../../../src/drivers/native/memory.ts';
import type { NativeProvider } from '../../../src/drivers/native/provider.ts';
import { compiled, natives, openSsl } from './natives.ts';

const NATIVES = natives();
const COMPILED = compiled(NATIVES);

/**
 * After `wipe`, no octet of memory tells the key: neither the key itself (which begins the round
 * keys of AES) nor what was made of it. The whole memory of this process is looked through, as it
 * stands, from the outside.
 */

/** For block MACs, node:crypto derives keys, and forgets its own when it collects garbage. */
const IN_KEYOBJECTS = ['aes-xcbc-mac', 'aes-cmac'];
const MASK = 0x5a;
const PIECE = 1 << 20;
const OVERLAP = 64;

/** Keys lie in the same places with a compiler and without. */
const TESTED = COMPILED.length > 0 ? COMPILED : NATIVES;

let serial = 0;

describe.skipIf(process.platform !== 'linux').each(TESTED)('$name', ({ provider }) => {
  test('no key is left', () => {
    const rows = ALGORITHMS.filter((row) => isTested(provider, row));
    expect(rows.length).toBeGreaterThan(18);
    const wipes: (() => void)[] = [];
    const secrets: Uint8Array[] = [];
    for (const row of rows) {
      const before = indices(provider);
      wipes.push(used(provider, row, secrets));
      for (const index of indices(provider)) {
        if (!before.has(index)) secrets.push(...derived(provider, index));
      }
    }
    provider.queue.run();
    const found = places(secrets);
    // Otherwise nothing would be shown by their absence.
    expect(found.filter((count) => count > 0).length).toBeGreaterThan(rows.length);
    for (const wipe of wipes) wipe();
    expect(places(secrets).filter((count) => count > 0)).toEqual([]);
  });
});

function isTested(provider: NativeProvider, row: Algorithm): boolean {
  // DES has no round keys that look like the key.
  if (IN_KEYOBJECTS.includes(row.name) || row.name === 'des-cbc') return false;
  return provider.isNative(row);
}

function indices({ queue }: NativeProvider): ReadonlySet<number> {
  return new Set([...Array(300).keys()].filter((i) => queue.contexts.at(i) !== undefined));
}

/** Makes a transform, sends a batch of packets through it; its masked key goes to `secrets`. */
function used(provider: NativeProvider, row: Algorithm, secrets: Uint8Array[]): () => void {
  // Not a small array, which would leave traces where V8 moves it from.
  const key = new Uint8Array(new ArrayBuffer(512), 0, row.keyBits.min / 8);
  serial++;
  for (let i = 0; i < key.length; i++) key[i] = (i + 3) * (i + serial) * 67 + serial * 101;
  secrets.push(masked(key.subarray(0, Math.min(16, key.length - row.saltLen))));
  const none = new Uint8Array();
  const p = new Uint8Array(20 * 200);
  if (row.kind === 'mac') {
    const ah = provider.ah({ cipherKey: none, mac: row, macKey: key, allowLegacy: true });
    key.fill(0);
    for (let i = 0; i < 20; i++) ah.signLater!(p, 0, 120, i, p, 140 + 100 * i);
    provider.queue.run();
    return () => ah.wipe();
  }
  const esp = provider.esp({ cipher: row, cipherKey: key, macKey: none, allowLegacy: true });
  key.fill(0);
  for (let i = 0; i < 20; i++) esp.sealLater!(p, 200 * i, 200 * i + 8 + esp.ivLen + 96, i);
  provider.queue.run();
  return () => esp.wipe();
}

/** What the context holds: states of hashes, round keys, hash keys of GCM. */
function derived({ queue }: NativeProvider, index: number): Uint8Array[] {
  const { bytes } = queue.contexts.at(index)!;
  return [CONTEXT.inner, CONTEXT.outer, CONTEXT.schedule + 64, CONTEXT.schedule + 240]
    .map((at) => bytes.subarray(at, at + 16))
    .filter((some) => new Set(some).size > 8)
    .map(masked);
}

function masked(octets: Uint8Array): Uint8Array {
  return Uint8Array.from(octets, (octet) => octet ^ MASK);
}

/**
 * How often each secret stands in the memory that this process may write to, wherever it begins.
 * Memory is looked through a word at a time: one of the first four words that begin within a secret
 * is at a multiple of four.
 */
function places(secrets: readonly Uint8Array[]): number[] {
  const counts = secrets.map(() => 0);
  const words = wordsOf(secrets);
  const isThere = new Uint8Array(1 << 16);
  for (const word of words.keys()) isThere[word & 0xffff] = 1;
  const piece = new Uint8Array(new ArrayBuffer(PIECE + OVERLAP));
  const inWords = new Uint32Array(piece.buffer);
  const own = addressOf(openSsl!.koffi, piece);
  const memory = openSync('/proc/self/mem', 'r');
  for (const [begin, end] of writable()) {
    for (let at = begin; at < end; at += PIECE) {
      // What was just read is no find.
      if (at < own + piece.length && at + piece.length > own) continue;
      const count = read(memory, piece, at, Math.min(piece.length, end - at)) >>> 2;
      for (let i = 0; i < count; i++) {
        if (isThere[inWords[i]! & 0xffff] === 0) continue;
        for (const { which, skipped } of words.get(inWords[i]!) ?? []) {
          const from = 4 * i - skipped;
          const isCounted = from >= 0 && from < PIECE && stands(piece, from, secrets[which]!);
          if (isCounted) counts[which]!++;
        }
      }
    }
  }
  piece.fill(0);
  closeSync(memory);
  return counts;
}

/** By the four octets that are looked for: in which secret, behind how many of its octets. */
function wordsOf(secrets: readonly Uint8Array[]) {
  const words = new Map<number, { readonly which: number; readonly skipped: number }[]>();
  for (const [which, secret] of secrets.entries()) {
    for (const skipped of [0, 1, 2, 3]) {
      const octets = secret.slice(skipped, skipped + 4).map((octet) => octet ^ MASK);
      const word = new Uint32Array(octets.buffer)[0]!;
      words.set(word, [...(words.get(word) ?? []), { which, skipped }]);
    }
  }
  return words;
}

function stands(piece: Uint8Array, at: number, secret: Uint8Array): boolean {
  for (let i = 0; i < secret.length; i++) {
    if (((piece[at + i] ?? 0) ^ MASK) !== secret[i]) return false;
  }
  return true;
}

function read(memory: number, to: Uint8Array, at: number, len: number): number {
  try {
    return readSync(memory, to, 0, len, at);
  } catch {
    return 0;
  }
}

/** Pieces of memory from /proc/self/maps; not what belongs to devices. */
function writable(): [number, number][] {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .map((line) => /^([0-9a-f]+)-([0-9a-f]+) rw.p \S+ \S+ \S+ *(.*)$/.exec(line))
    .filter((found) => found !== null && !found[3]!.startsWith('/dev'))
    .map((found) => [Number.parseInt(found![1]!, 16), Number.parseInt(found![2]!, 16)]);
}
