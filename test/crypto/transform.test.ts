import { createCipheriv, createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ALGORITHMS, type Algorithm } from '../../src/crypto/algorithms.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import { ahOf, espOf, hex, type Named, octets, someKey, specOf } from './make.ts';

/** What holds for every transform, whatever the algorithm. */

const MAC_KEY = '0f0e0d0c0b0a09080706050403020100';
const here = ALGORITHMS.filter((row) => nodeCrypto.supports(row) && row.name !== 'null');
const ciphers = here.filter((row) => row.kind !== 'mac');
const espMacs = here.filter((row) => row.kind === 'mac' && row.ivLen === 0);
const macs = here.filter((row) => row.kind === 'mac');

interface Suite {
  readonly name: string;
  readonly algorithms: Named;
}

const suites: readonly Suite[] = [
  ...ciphers.map((row) => ({ name: row.name, algorithms: cipherOf(row) })),
  ...ciphers
    .filter((row) => row.kind === 'cipher')
    .map((row) => ({
      name: `${row.name} and aes-cmac`,
      algorithms: { ...cipherOf(row), mac: 'aes-cmac', macKey: MAC_KEY },
    })),
  ...espMacs.map((row) => ({
    name: `null and ${row.name}`,
    algorithms: { cipher: 'null', mac: row.name, macKey: someKey(row) },
  })),
];

test('the suites cover the table', () => {
  expect(suites.length).toBeGreaterThanOrEqual(27);
});

describe.each(suites)('ESP by $name', ({ algorithms }) => {
  const shape = espOf(algorithms);
  const blocks = fc.integer({ min: 1, max: 40 });
  const seqHigh = fc.constantFrom(-1, 0, 1, 0x7fffffff, 0xffffffff);

  test('packets of any length, one after the other, come back as they were', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(blocks, seqHigh), { minLength: 1, maxLength: 5 }), (sent) => {
        const outbound = espOf(algorithms);
        const inbound = espOf(algorithms);
        for (const [n, [blockCount, high]] of sent.entries()) {
          const packet = makePacket(shape, blockCount, n);
          const p = packet.bytes.slice();
          outbound.seal(p, packet.at, packet.end, high);
          const sealed = p.slice();
          expect(inbound.open(p, packet.at, packet.end + shape.icvLen, high)).toBe(true);
          expect(hex(p.subarray(packet.at, packet.end))).toBe(
            hex(packet.bytes.subarray(packet.at, packet.end)),
          );
          expectUntouched(sealed, packet, shape.icvLen);
        }
      }),
      { numRuns: 20 },
    );
  });
});

const authentic = suites.filter((suite) => espOf(suite.algorithms).authenticates);

describe.each(authentic)('integrity of ESP by $name', ({ algorithms }) => {
  const shape = espOf(algorithms);

  test('one wrong bit anywhere, and it does not open', () => {
    const inbound = espOf(algorithms);
    const packet = makePacket(shape, 3, 1);
    espOf(algorithms).seal(packet.bytes, packet.at, packet.end, -1);
    const end = packet.end + shape.icvLen;
    for (let at = packet.at; at < end; at++) {
      const p = packet.bytes.slice();
      p[at]! ^= 1 << (at & 7);
      expect(inbound.open(p, packet.at, end, -1), `octet ${at - packet.at}`).toBe(false);
    }
    expect(inbound.open(packet.bytes, packet.at, end, -1)).toBe(true);
  });

  test.each([
    [5, [-1, 0, 4, 6, 0x05000000]],
    [0, [-1, 1]],
    [-1, [0, 0xffffffff]],
  ])('the high half of the sequence number, %d, must be right', (right, wrong) => {
    const inbound = espOf(algorithms);
    const packet = makePacket(shape, 2, 1);
    const end = packet.end + shape.icvLen;
    espOf(algorithms).seal(packet.bytes, packet.at, packet.end, right);
    for (const high of wrong) {
      const p = packet.bytes.slice();
      expect(inbound.open(p, packet.at, end, high), `${high}`).toBe(false);
    }
    expect(inbound.open(packet.bytes, packet.at, end, right)).toBe(true);
  });

  test('nothing of a forged packet is decrypted', () => {
    const packet = makePacket(shape, 3, 1);
    espOf(algorithms).seal(packet.bytes, packet.at, packet.end, -1);
    const end = packet.end + shape.icvLen;
    packet.bytes[end - 1]! ^= 1;
    const p = packet.bytes.slice();
    espOf(algorithms).open(p, packet.at, end, -1);
    expect(hex(p)).toBe(hex(packet.bytes));
  });

  test('whoever has another key cannot open it', () => {
    const packet = makePacket(shape, 3, 1);
    espOf(algorithms).seal(packet.bytes, packet.at, packet.end, -1);
    const other = espOf(withOtherKeys(algorithms));
    expect(other.open(packet.bytes, packet.at, packet.end + shape.icvLen, -1)).toBe(false);
  });
});

describe.each(macs.map((row) => ({ name: row.name, row })))('AH by $name', ({ row }) => {
  const algorithms = { mac: row.name, macKey: someKey(row) };

  test('what was signed verifies, and one wrong bit anywhere does not', () => {
    const signer = ahOf(algorithms);
    const verifier = ahOf(algorithms);
    for (const high of [-1, 0, 9]) {
      const p = Uint8Array.from({ length: 75 }, (_, i) => i * 7);
      const icv = new Uint8Array(signer.icvLen + 6).fill(0xee);
      icv.fill(3, 2, 2 + signer.ivLen);
      signer.sign(p, 4, 71, high, icv, 2);
      expect([...icv.slice(0, 2), ...icv.slice(2 + signer.icvLen)]).toEqual(Array(6).fill(0xee));
      const good = () => verifier.verify(p, 4, 71, high, icv, 2);
      expect(good()).toBe(true);
      expect(verifier.verify(p, 4, 71, high + 1, icv, 2)).toBe(false);
      for (let at = 4; at < 71; at++) {
        p[at]! ^= 0x80;
        expect(good(), `octet ${at}`).toBe(false);
        p[at]! ^= 0x80;
      }
      for (let at = 2; at < 2 + signer.icvLen; at++) {
        icv[at]! ^= 1;
        expect(good(), `ICV octet ${at}`).toBe(false);
        icv[at]! ^= 1;
      }
      expect(good()).toBe(true);
    }
  });
});

/** One cipher object for all packets must be the same as a new one for each. */
describe('CBC against a new cipher object for every packet', () => {
  test.each([
    ['aes-cbc', 'aes-128-cbc', 128],
    ['aes-cbc', 'aes-256-cbc', 256],
    ['camellia-cbc', 'camellia-192-cbc', 192],
    ['3des-cbc', 'des-ede3-cbc', 192],
  ])('%s as %s', (name, openSsl, bits) => {
    const cipherKey = someKey(specOf({ cipher: name }).cipher!, bits);
    const macKey = octets('aa'.repeat(20));
    const esp = espOf({ cipher: name, cipherKey, mac: 'hmac-sha1', macKey });
    for (let n = 0; n < 20; n++) {
      const { bytes, at, end } = makePacket(esp, 1 + (n % 7), n);
      const textAt = at + 8 + esp.ivLen;
      const iv = bytes.slice(at + 8, textAt);
      const twin = createCipheriv(openSsl, cipherKey, iv).setAutoPadding(false);
      const text = hex(twin.update(bytes.slice(textAt, end)));
      esp.seal(bytes, at, end, -1);
      expect(hex(bytes.subarray(textAt, end)), `packet ${n}`).toBe(text);
      const icv = createHmac('sha1', macKey).update(bytes.subarray(at, end)).digest('hex');
      expect(hex(bytes.subarray(end, end + 12))).toBe(icv.slice(0, 24));
    }
  });
});

test('packets may be opened out of order, twice, and with gaps', () => {
  const algorithms = { cipher: 'aes-cbc', cipherKey: MAC_KEY, mac: 'aes-cmac', macKey: MAC_KEY };
  const outbound = espOf(algorithms);
  const inbound = espOf(algorithms);
  const packets = Array.from({ length: 8 }, (_, n) => {
    const packet = makePacket(outbound, 2 + (n % 3), n);
    const plain = hex(packet.bytes.subarray(packet.at, packet.end));
    outbound.seal(packet.bytes, packet.at, packet.end, -1);
    return { ...packet, plain };
  });
  for (const n of [7, 0, 3, 3, 6, 1]) {
    const { bytes, at, end, plain } = packets[n]!;
    const p = bytes.slice();
    expect(inbound.open(p, at, end + inbound.icvLen, -1)).toBe(true);
    expect(hex(p.subarray(at, end)), `packet ${n}`).toBe(plain);
  }
});

test('one transform may seal and open in turns', () => {
  const esp = espOf({ cipher: 'aes-cbc', cipherKey: MAC_KEY, mac: 'aes-cmac', macKey: MAC_KEY });
  for (let n = 0; n < 5; n++) {
    const { bytes, at, end } = makePacket(esp, 1 + n, n);
    const plain = hex(bytes.subarray(at, end));
    esp.seal(bytes, at, end, -1);
    expect(esp.open(bytes, at, end + esp.icvLen, -1)).toBe(true);
    expect(hex(bytes.subarray(at, end)), `packet ${n}`).toBe(plain);
  }
});

test('text that is not whole blocks is a mistake of ours, and does not upset the cipher', () => {
  const esp = espOf({ cipher: 'aes-cbc', cipherKey: MAC_KEY });
  const p = new Uint8Array(128);
  expect(() => esp.seal(p, 0, 24 + 20, -1)).toThrow('whole blocks');
  expect(() => esp.seal(p, 0, 24, -1)).toThrow('whole blocks');
});

interface Made {
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly end: number;
}

/** A packet in the middle of a larger array that is full of 0xee, so that writes beside it show. */
function makePacket(
  shape: { readonly ivLen: number; readonly icvLen: number; readonly alignLen: number },
  blockCount: number,
  n: number,
): Made {
  const at = 13;
  const end = at + 8 + shape.ivLen + blockCount * shape.alignLen;
  const bytes = new Uint8Array(end + shape.icvLen + 9).fill(0xee);
  for (let i = at; i < end; i++) bytes[i] = i * 13 + n * 5;
  return { bytes, at, end };
}

function expectUntouched(sealed: Uint8Array, { at, end }: Made, icvLen: number): void {
  const beside = [...sealed.subarray(0, at), ...sealed.subarray(end + icvLen)];
  expect(beside.every((octet) => octet === 0xee)).toBe(true);
}

function cipherOf(row: Algorithm): Named {
  return { cipher: row.name, cipherKey: someKey(row) };
}

function withOtherKeys(algorithms: Named): Named {
  const cipherKey = octets(algorithms.cipherKey ?? '').map((octet) => octet ^ 0x55);
  const macKey = octets(algorithms.macKey ?? '').map((octet) => octet ^ 0x55);
  return { ...algorithms, cipherKey, macKey };
}
