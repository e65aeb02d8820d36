import { createHmac } from 'node:crypto';
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import type { Log, Random } from '../base/env.ts';
import type { SequenceLease, SequenceStore } from '../sad/sequence.ts';
import { toHex } from '../wire/bytes.ts';

/**
 * The file in which a host writes down, ahead of time, which sequence numbers it may use, so that
 * none is used twice under one key even after a crash:
 *
 *     "TESTUDO1"   salt (16)   then records: fingerprint (16), next number (8, little endian)
 *
 * The fingerprint is an HMAC of the SA's identity and keys under the file's own salt, so the file
 * tells nothing about keys to who does not have them. Records are updated in place; an aligned
 * record of 24 octets is written by one system call.
 */
const MAGIC = Buffer.from('TESTUDO1');
const SALT_LEN = 16;
const HEADER_LEN = MAGIC.length + SALT_LEN;
const FINGERPRINT_LEN = 16;
const RECORD_LEN = FINGERPRINT_LEN + 8;
/**
 * Numbers reserved at a time: a crash costs so many of the 2^32, and a busy SA writes once in so
 * many packets.
 */
const BLOCK = 2 ** 17;
/**
 * Then the oldest record makes room. Only keys that are used by hand come back, and nobody has so
 * many of them.
 */
const RECORDS_MAX = 65_536;

export interface SequenceFile extends SequenceStore {
  /** How often a record had to make room for another. */
  readonly evicted: number;
  close(): void;
}

/**
 * Opens or creates the file, private to its owner. Throws when it is there and is something else.
 */
export function openSequenceFile(path: string, random: Random, log: Log): SequenceFile {
  const fd = openSync(path, openFlags(), 0o600);
  try {
    const size = fstatSync(fd).size;
    if (size === 0) create(fd, path, random);
    return new Store(fd, load(fd, path), log);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

interface Loaded {
  readonly salt: Buffer;
  /** Fingerprint in hexadecimal to where its record is; in the order of their last lease. */
  readonly slots: Map<string, Slot>;
}

interface Slot {
  readonly at: number;
  next: number;
}

class Store implements SequenceFile {
  evicted = 0;
  readonly #fd: number;
  readonly #salt: Buffer;
  readonly #slots: Map<string, Slot>;
  readonly #log: Log;

  constructor(fd: number, loaded: Loaded, log: Log) {
    this.#fd = fd;
    this.#salt = loaded.salt;
    this.#slots = loaded.slots;
    this.#log = log;
  }

  lease(material: readonly Uint8Array[]): SequenceLease {
    const fingerprint = this.#fingerprint(material);
    const slot = this.#slots.get(fingerprint) ?? { at: this.#freeAt(), next: 1 };
    this.#slots.delete(fingerprint);
    this.#slots.set(fingerprint, slot);
    return {
      start: slot.next,
      extend: (needed) => {
        const limit = needed + BLOCK;
        return this.#write(fingerprint, slot, limit) ? limit : -1;
      },
      release: (next) => {
        this.#write(fingerprint, slot, next);
      },
    };
  }

  close(): void {
    closeSync(this.#fd);
  }

  #fingerprint(material: readonly Uint8Array[]): string {
    const hmac = createHmac('sha256', this.#salt);
    for (const part of material) {
      hmac.update(Uint8Array.of(part.length >> 8, part.length));
      hmac.update(part);
    }
    return toHex(hmac.digest(), 0, FINGERPRINT_LEN);
  }

  #freeAt(): number {
    if (this.#slots.size < RECORDS_MAX) return HEADER_LEN + this.#slots.size * RECORD_LEN;
    const [oldest, slot] = this.#slots.entries().next().value!;
    this.#slots.delete(oldest);
    this.evicted++;
    return slot.at;
  }

  #write(fingerprint: string, slot: Slot, next: number): boolean {
    const record = Buffer.alloc(RECORD_LEN);
    record.write(fingerprint, 'hex');
    record.writeBigUInt64LE(BigInt(next), FINGERPRINT_LEN);
    try {
      if (writeSync(this.#fd, record, 0, RECORD_LEN, slot.at) !== RECORD_LEN)
        throw new Error('short write');
      fdatasyncSync(this.#fd);
      slot.next = next;
      return true;
    } catch (error) {
      this.#log('error', `sequence numbers could not be written down: ${String(error)}`);
      return false;
    }
  }
}

function openFlags(): number {
  // Read and write, create, never follow a link that somebody else put there.
  return constants.O_RDWR | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0);
}

function create(fd: number, path: string, random: Random): void {
  const salt = new Uint8Array(SALT_LEN);
  random.fill(salt);
  writeSync(fd, Buffer.concat([MAGIC, salt]), 0, HEADER_LEN, 0);
  fsyncSync(fd);
  const directory = openSync(dirname(path), 'r');
  fsyncSync(directory);
  closeSync(directory);
}

function load(fd: number, path: string): Loaded {
  const size = fstatSync(fd).size;
  const octets = Buffer.alloc(size);
  readSync(fd, octets, 0, size, 0);
  if (size < HEADER_LEN || !octets.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw new Error(
      `${path} is not a file of sequence numbers; move it away, and change manual keys that were used`,
    );
  }
  const slots = new Map<string, Slot>();
  for (let at = HEADER_LEN; at + RECORD_LEN <= size; at += RECORD_LEN) {
    const fingerprint = toHex(octets, at, at + FINGERPRINT_LEN);
    const next = Number(octets.readBigUInt64LE(at + FINGERPRINT_LEN));
    slots.set(fingerprint, { at, next });
  }
  return { salt: octets.subarray(MAGIC.length, HEADER_LEN), slots };
}
