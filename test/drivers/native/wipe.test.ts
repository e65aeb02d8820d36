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

/** How often each secret stands in the memory that this process may write to. */
function places(secrets: readonly Uint8Array[]): number[] {
  const counts = secrets.map(() => 0);
  const first = new Map<number, number[]>();
  secrets.forEach((secret, i) => {
    const start = ((secret[0]! ^ MASK) << 8) | (secret[1]! ^ MASK);
    first.set(start, [...(first.get(start) ?? []), i]);
  });
  const isFirst = new Uint8Array(1 << 16);
  for (const start of first.keys()) isFirst[start] = 1;
  const piece = new Uint8Array(new ArrayBuffer(PIECE + OVERLAP));
  const own = addressOf(openSsl!.koffi, piece);
  const memory = openSync('/proc/self/mem', 'r');
  for (const [begin, end] of writable()) {
    for (let at = begin; at < end; at += PIECE) {
      // What was just read is no find.
      if (at < own + piece.length && at + piece.length > own) continue;
      const len = read(memory, piece, at, Math.min(piece.length, end - at));
      for (let i = 0; i + 16 <= len; i++) {
        if (isFirst[(piece[i]! << 8) | piece[i + 1]!] === 0) continue;
        for (const which of first.get((piece[i]! << 8) | piece[i + 1]!)!) {
          const isCounted = i < PIECE && stands(piece, i, secrets[which]!);
          if (isCounted) counts[which]!++;
        }
      }
    }
  }
  piece.fill(0);
  closeSync(memory);
  return counts;
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
