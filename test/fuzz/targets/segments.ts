import { libc } from '../../../src/drivers/linux/libc.ts';
import { addressOf } from '../../../src/drivers/linux/native-memory.ts';
import { PacketMemory } from '../../../src/drivers/linux/packet-memory.ts';
import { FAILURE, type Segments } from '../../../src/drivers/linux/segments.ts';
import { u16, u32 } from '../../../src/wire/bytes.ts';
import { FLAG } from '../../../src/wire/tcp.ts';
import { ANOTHER_LIBRARY, LOOPS } from '../../drivers/linux/segment-rig.ts';
import { join, packetOf } from '../../drivers/linux/segment-twin.ts';
import { concat, counting } from '../../wire/octets.ts';
import { must, type Target } from '../target.ts';

/** The loops see octets `WINDOW_AT` on of a memory; what is around must stay as it is. */
const WINDOW_AT = 131_072;
const WINDOW_LEN = 32_768;
const CANARY = 0xa5;
const UNTOUCHED = Buffer.alloc(WINDOW_AT, CANARY);
const JOB = 0;
const LISTS = 64;
const STATES = 1024;
const HEADS = 2048;
const LARGE = 8192;
const PLACES = 16_384;
const PLACE_LEN = 1024;
const PLACE_COUNT = 8;
const KINDS = 4;

const segment = (number: number) =>
  packetOf({
    ...{ family: 4, protocol: 'tcp', flags: FLAG.ACK, id: number, seq: number * 400 },
    payload: counting(400),
  });
const packets = [0, 1, 2, 3].map(segment);
const large = join(packets);

/**
 * Jobs whose words are wrong in every way: nothing outside of the memory may change. An input is
 * the kind of the job, and then changes of six octets to a good one: which word, and what it is.
 */
export class HostileJobs {
  readonly #bytes: Uint8Array;
  readonly #segments: Segments | undefined;
  /** Where the memory that the loops see begins: WebAssembly sees it from its begin. */
  readonly #at: number;

  constructor(name: keyof typeof LOOPS) {
    const isCompiled = name === 'compiled';
    // Behind memory of its own a sanitizer sees every access.
    const behind = isCompiled && ANOTHER_LIBRARY !== undefined ? 0 : WINDOW_AT;
    const len = WINDOW_AT + WINDOW_LEN + behind;
    const c = libc('a test');
    const memory = isCompiled ? undefined : new PacketMemory(c, 2 * WINDOW_AT);
    this.#bytes = memory?.bytes ?? new Uint8Array(len);
    this.#at = isCompiled ? WINDOW_AT : 0;
    const size = WINDOW_AT + WINDOW_LEN - this.#at;
    const base = addressOf(c, this.#bytes) + this.#at;
    const segments = LOOPS[name]!({ base, size, wasm: memory?.wasm });
    this.#segments = typeof segments === 'string' ? undefined : segments;
    this.#bytes.fill(CANARY);
  }

  run(input: Uint8Array): void {
    if (this.#segments === undefined || input.length === 0) return;
    const kind = input[0]! % KINDS;
    this.#prepare(kind);
    const words = new Uint32Array(this.#bytes.buffer, WINDOW_AT, WINDOW_LEN / 4);
    for (let at = 1; at + 6 <= input.length; at += 6) {
      words[u16(input, at) % words.length] = u32(input, at + 2);
    }
    const result = this.#perform(kind, words);
    must(result >= FAILURE.tooLarge && result <= WINDOW_LEN, 'a job ends as it may');
    const bytes = this.#bytes;
    const behind = Buffer.from(bytes.buffer, WINDOW_AT + WINDOW_LEN);
    must(
      UNTOUCHED.compare(behind, 0, behind.length, 0, behind.length) === 0,
      'behind is untouched',
    );
    if (this.#at === 0) return;
    const before = Buffer.from(bytes.buffer, 0, WINDOW_AT);
    must(UNTOUCHED.equals(before), 'in front is untouched');
  }

  #perform(kind: number, words: Uint32Array): number {
    const segments = this.#segments!;
    const job = WINDOW_AT - this.#at + JOB;
    if (kind === 0) return segments.cut(job);
    if (kind === 1) return segments.deal(job);
    if (kind === 2) return segments.join(job);
    return segments.complete(words[0]!, words[1]!, words[2]!, words[3]!);
  }

  /** A job that is right. */
  #prepare(kind: number): void {
    const bytes = this.#bytes;
    const words = new Uint32Array(bytes.buffer, WINDOW_AT, WINDOW_LEN / 4);
    const at = WINDOW_AT - this.#at;
    words.fill(0);
    bytes.set(large, WINDOW_AT + LARGE);
    const [begin, end] = [at + LARGE, at + LARGE + large.length];
    const places = [at + LISTS, PLACE_COUNT, PLACE_LEN];
    if (kind === 0) words.set([begin, end, 4, 6, 400, 0, ...places]);
    if (kind === 1) words.set([begin, end, at + HEADS, 4, 300, 0, ...places]);
    if (kind === 2) words.set([at + LISTS, packets.length, at + STATES, 1, at + HEADS, 128]);
    if (kind === 3) words.set([begin, large.length, 20, 36]);
    if (kind === 2) this.#putPackets(at);
    else
      for (let i = 0; i < PLACE_COUNT; i++) words[LISTS / 4 + 2 * i] = at + PLACES + i * PLACE_LEN;
  }

  #putPackets(at: number): void {
    const words = new Uint32Array(this.#bytes.buffer, WINDOW_AT, WINDOW_LEN / 4);
    for (const [i, packet] of packets.entries()) {
      this.#bytes.set(packet, WINDOW_AT + PLACES + i * PLACE_LEN);
      words[LISTS / 4 + 2 * i] = at + PLACES + i * PLACE_LEN;
      words[LISTS / 4 + 2 * i + 1] = at + PLACES + i * PLACE_LEN + packet.length;
    }
  }
}

function change(word: number, value: number): Uint8Array {
  return Uint8Array.of(word >> 8, word, value >>> 24, value >>> 16, value >>> 8, value);
}

export const segments: Target = {
  name: 'segments',
  lenMax: 60,
  seeds: () => [
    ...[0, 1, 2, 3].map((kind) => Uint8Array.of(kind)),
    concat(Uint8Array.of(0), change(1, WINDOW_AT + WINDOW_LEN), change(8, 4096)),
    concat(Uint8Array.of(1), change(LISTS / 4, WINDOW_LEN - PLACE_LEN), change(4, 1)),
    concat(Uint8Array.of(2), change(1, 5000), change(4, WINDOW_LEN - 256)),
    concat(Uint8Array.of(3), change(2, 0xffff_ffff)),
  ],
  words: [0, 1, WINDOW_LEN, WINDOW_AT + WINDOW_LEN, 0x7fff_ffff, 0xffff_ffff].map((value) =>
    change(0, value).subarray(2),
  ),
  create: () => {
    if (process.platform !== 'linux') return () => {};
    const both = [new HostileJobs('compiled'), new HostileJobs('WebAssembly')];
    return (input) => {
      for (const jobs of both) jobs.run(input);
    };
  },
};
