import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { ALGORITHMS, type Algorithm } from '../../../src/crypto/algorithms.ts';
import { nodeCrypto } from '../../../src/crypto/node-provider.ts';
import type { TransformSpec } from '../../../src/crypto/provider.ts';
import type { AhTransform, EspTransform } from '../../../src/crypto/transform.ts';
import { hex } from '../../crypto/make.ts';
import { natives } from './natives.ts';

const NATIVES = natives();

/**
 * Random batches, which mix SAs, lengths, good and bad packets, and jobs done at once in between:
 * every octet and every verdict is that of node:crypto, one packet at a time.
 */

const usable = ALGORITHMS.filter((row) => nodeCrypto.supports(row) && row.name !== 'null');
const encryptions = usable.filter((row) => row.kind !== 'mac');
const plainMacs = usable.filter((row) => row.kind === 'mac' && row.ivLen === 0);
const macs = usable.filter((row) => row.kind === 'mac');

const keyOf = (row: Algorithm) =>
  fc.integer({ min: 0, max: (row.keyBits.max - row.keyBits.min) / row.keyBits.step }).chain((i) => {
    const bytes = (row.keyBits.min + i * row.keyBits.step) / 8;
    // Not a weak or degenerate key of DES, whatever is drawn: no two octets in a row alike.
    return fc.nat(255).map((seed) => Uint8Array.from({ length: bytes }, (_, n) => n * 37 + seed));
  });

const NONE = new Uint8Array();
const keyed = (row: Algorithm) => keyOf(row).map((key) => ({ row, key }));
const someEspSpec: fc.Arbitrary<TransformSpec> = fc
  .tuple(
    fc.option(fc.constantFrom(...encryptions).chain(keyed)),
    fc.option(fc.constantFrom(...plainMacs).chain(keyed)),
  )
  .map(([cipher, mac]) => {
    const withMac = cipher?.row.kind === 'aead' ? undefined : mac;
    return {
      cipher: cipher?.row,
      cipherKey: cipher?.key ?? NONE,
      mac: withMac?.row,
      macKey: withMac?.key ?? NONE,
      allowLegacy: true,
    };
  });
const someAhSpec: fc.Arbitrary<TransformSpec> = fc
  .constantFrom(...macs)
  .chain(keyed)
  .map(({ row, key }) => ({ cipherKey: NONE, mac: row, macKey: key, allowLegacy: true }));

const fate = fc.constantFrom('good', 'good', 'good', 'icv', 'text', 'high', 'twice');
const high = fc.constantFrom(-1, -1, 0, 1, 0xffffffff);
const len = fc.oneof(fc.nat(8), fc.nat(120), fc.nat(2200));
const manner = fc.constantFrom('later', 'later', 'later', 'at once');
const some = fc.record({
  sa: fc.nat(5),
  fate,
  high,
  len,
  manner,
  seed: fc.nat(255),
  at: fc.nat(40),
});
const batch = fc.oneof(
  fc.array(some, { maxLength: 20 }),
  fc.array(some, { minLength: 40, maxLength: 90, size: 'max' }),
);
type Some = typeof some extends fc.Arbitrary<infer T> ? T : never;

describe.each(NATIVES)('$name', ({ provider }) => {
  const { queue } = provider;

  // What gives wrong answers is done by node:crypto, which would agree with itself.
  afterEach(() => expect(provider.faults).toEqual([]));

  test('ESP', () => {
    fc.assert(
      fc.property(fc.array(someEspSpec, { minLength: 1, maxLength: 6 }), batch, (specs, jobs) => {
        const expected = specs.map((spec) => nodeCrypto.esp(spec));
        const tested = specs.map((spec) => provider.esp(spec));
        const packets = jobs.map((job) => packetOf(job, expected[job.sa % specs.length]!));
        const sealed = packets.map(({ plain }) => plain.slice());
        const answers = packets.map((packet, i) => {
          const esp = tested[packet.job.sa % specs.length]!;
          return noted(
            packet.job,
            esp.queue,
            () => {
              esp.seal(sealed[i]!, packet.at, packet.end, packet.job.high);
              return true;
            },
            () => esp.sealLater!(sealed[i]!, packet.at, packet.end, packet.job.high),
          );
        });
        queue.run();
        expect(answers.map((answer) => answer())).toEqual(packets.map(() => true));
        expect(sealed.map(hex)).toEqual(packets.map((packet) => hex(packet.sealed)));
        openAll(packets, expected, tested, () => queue.run());
        for (const esp of [...expected, ...tested]) esp.wipe();
      }),
      { numRuns: 40 },
    );
    expect(queue.contexts.count).toBeLessThan(40);
  });

  test('AH', () => {
    fc.assert(
      fc.property(fc.array(someAhSpec, { minLength: 1, maxLength: 6 }), batch, (specs, jobs) => {
        const expected = specs.map((spec) => nodeCrypto.ah(spec));
        const tested = specs.map((spec) => provider.ah(spec));
        const packets = jobs.map((job) => signedOf(job, expected[job.sa % specs.length]!));
        const fields = packets.map(({ field }) => field.slice());
        const signed = packets.map(({ job, covered, from, to }, i) => {
          const ah = tested[job.sa % specs.length]!;
          const args = [covered, from, to, job.high, fields[i]!, job.at] as const;
          return noted(
            job,
            ah.queue,
            () => {
              ah.sign(...args);
              return true;
            },
            () => ah.signLater!(...args),
          );
        });
        queue.run();
        expect(signed.map((answer) => answer())).toEqual(packets.map(() => true));
        expect(fields.map(hex)).toEqual(packets.map(({ right }) => hex(right)));
        verifyAll(packets, expected, tested, () => queue.run());
        for (const ah of [...expected, ...tested]) ah.wipe();
      }),
      { numRuns: 40 },
    );
  });
});

/** Does a job, or notes it down; the answer is there after `run`. */
function noted(
  job: Some,
  queue: EspTransform['queue'],
  atOnce: () => boolean,
  later: () => number,
): () => boolean {
  if (!queue || job.manner === 'at once') {
    const answer = atOnce();
    return () => answer;
  }
  const number = later();
  return () => queue.ok(number);
}

interface Packet {
  readonly job: Some;
  readonly at: number;
  /** Of the text, and of the ICV behind it. */
  readonly end: number;
  readonly limit: number;
  readonly plain: Uint8Array;
  readonly sealed: Uint8Array;
}

function packetOf(job: Some, esp: EspTransform): Packet {
  const textLen = esp.alignLen * (1 + Math.floor(job.len / esp.alignLen));
  const end = job.at + 8 + esp.ivLen + textLen;
  const limit = end + esp.icvLen;
  const plain = octets(limit + (job.seed % 70), job.seed);
  const sealed = plain.slice();
  esp.seal(sealed, job.at, end, job.high);
  return { job, at: job.at, end, limit, plain, sealed };
}

function openAll(
  packets: readonly Packet[],
  expected: readonly EspTransform[],
  tested: readonly EspTransform[],
  run: () => void,
): void {
  const received = packets.flatMap((packet) =>
    (packet.job.fate === 'twice' ? [0, 1] : [0]).map(() => ({ packet, p: arrived(packet) })),
  );
  const copies = received.map(({ p }) => p.slice());
  const answers = received.map(({ packet: { job, at, limit }, p }) => {
    const esp = tested[job.sa % tested.length]!;
    const seen = job.fate === 'high' ? otherHigh(job.high) : job.high;
    return noted(
      job,
      esp.queue,
      () => esp.open(p, at, limit, seen),
      () => esp.openLater!(p, at, limit, seen),
    );
  });
  run();
  const verdicts = received.map(({ packet: { job, at, limit } }, i) => {
    const seen = job.fate === 'high' ? otherHigh(job.high) : job.high;
    return expected[job.sa % expected.length]!.open(copies[i]!, at, limit, seen);
  });
  expect(answers.map((answer) => answer())).toEqual(verdicts);
  expect(received.map(({ p }) => hex(p))).toEqual(copies.map(hex));
}

function arrived({ job, at, end, limit, sealed }: Packet): Uint8Array {
  const p = sealed.slice();
  if (job.fate === 'icv' && limit > end) p[end + (job.seed % (limit - end))]! ^= 1 << (job.len & 7);
  if (job.fate === 'text') p[at + (job.seed % (end - at))]! ^= 0x80;
  return p;
}

interface Signed {
  readonly job: Some;
  readonly covered: Uint8Array;
  readonly from: number;
  readonly to: number;
  /** The array with the ICV field at `job.at`, before and after. */
  readonly field: Uint8Array;
  readonly right: Uint8Array;
}

function signedOf(job: Some, ah: AhTransform): Signed {
  const covered = octets(job.len + 3, job.seed);
  const field = octets(job.at + ah.icvLen + (job.seed % 70), job.seed + 1);
  const right = field.slice();
  const [from, to] = [job.seed % 3, job.len + (job.seed % 4)];
  const end = Math.max(from, to);
  ah.sign(covered, from, end, job.high, right, job.at);
  return { job, covered, from, to: end, field, right };
}

function verifyAll(
  packets: readonly Signed[],
  expected: readonly AhTransform[],
  tested: readonly AhTransform[],
  run: () => void,
): void {
  const received = packets.map((one) => {
    const field = one.right.slice();
    const { icvLen } = expected[one.job.sa % expected.length]!;
    if (one.job.fate === 'icv') field[one.job.at + (one.job.seed % icvLen)]! ^= 1;
    return {
      ...one,
      field,
      seen: one.job.fate === 'high' ? otherHigh(one.job.high) : one.job.high,
    };
  });
  const answers = received.map(({ job, covered, from, to, field, seen }) => {
    const ah = tested[job.sa % tested.length]!;
    const args = [covered, from, to, seen, field, job.at] as const;
    return noted(
      job,
      ah.queue,
      () => ah.verify(...args),
      () => ah.verifyLater!(...args),
    );
  });
  run();
  const verdicts = received.map(({ job, covered, from, to, field, seen }) =>
    expected[job.sa % expected.length]!.verify(covered, from, to, seen, field, job.at),
  );
  expect(answers.map((answer) => answer())).toEqual(verdicts);
}

function otherHigh(of: number): number {
  return of === -1 ? 7 : (of + 1) >>> 0;
}

function octets(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i * 13 + (i >> 6) + seed);
}
