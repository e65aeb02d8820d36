import type { Algorithm } from '../../crypto/algorithms.ts';
import { nodeCrypto } from '../../crypto/node-provider.ts';
import type { CryptoProvider, TransformSpec } from '../../crypto/provider.ts';
import type { AhTransform, EspTransform } from '../../crypto/transform.ts';

/** The provider under test; its queue is empty. */
export type Tested = Pick<CryptoProvider, 'esp' | 'ah'>;

/** Octets in front of and behind a packet, which must stay as they are. */
const MARGIN = 70;
/** A block or so, and a packet that fills a frame; with and without extended sequence numbers. */
const CASES = [48, 1392].flatMap((len) => [-1, 0x01020304].map((high) => ({ len, high })));
/** So many jobs in a batch that all lanes of intel-ipsec-mb are used. */
const COPIES = 4;

/**
 * Whether a native algorithm seals, opens and refuses as node:crypto does, octet by octet: at once
 * and in batches, with keys of all lengths. It is asked before an SA depends on it.
 */
export function passesTest(tested: Tested, row: Algorithm): boolean {
  return keyLens(row).every((len) => agrees(tested, row, len));
}

function keyLens({ keyBits }: Algorithm): readonly number[] {
  const lens: number[] = [];
  for (let bits = keyBits.min; bits <= keyBits.max; bits += keyBits.step) lens.push(bits / 8);
  return lens;
}

/** An exception is a wrong answer. */
function agrees(tested: Tested, row: Algorithm, keyLen: number): boolean {
  const spec = specOf(row, keyLen);
  try {
    const isEspRight =
      (row.ivLen > 0 && row.kind === 'mac') || checkEsp(tested, spec, row.kind !== 'cipher');
    return isEspRight && (row.kind !== 'mac' || checkAh(tested, spec));
  } catch {
    return false;
  }
}

function specOf(row: Algorithm, keyLen: number): TransformSpec {
  const key = pattern(keyLen, 37);
  const none = new Uint8Array();
  const isMac = row.kind === 'mac';
  return {
    cipher: isMac ? undefined : row,
    cipherKey: isMac ? none : key,
    mac: isMac ? row : undefined,
    macKey: isMac ? key : none,
    allowLegacy: true,
  };
}

function checkEsp(tested: Tested, spec: TransformSpec, hasIcv: boolean): boolean {
  const expected = nodeCrypto.esp(spec);
  const esp = tested.esp(spec);
  try {
    const packets = CASES.map(({ len, high }) => packetOf(expected, len, high));
    return isSealing(esp, packets) && isOpening(esp, packets) && (!hasIcv || refuses(esp, packets));
  } finally {
    expected.wipe();
    esp.wipe();
  }
}

/** A packet before and after; from `MARGIN` to `end` without its ICV, to `limit` with it. */
interface Known {
  readonly plain: Uint8Array;
  readonly sealed: Uint8Array;
  readonly end: number;
  readonly limit: number;
  readonly high: number;
}

function packetOf(expected: EspTransform, textLen: number, high: number): Known {
  const end = MARGIN + 8 + expected.ivLen + textLen;
  const limit = end + expected.icvLen;
  const plain = pattern(limit + MARGIN, 13);
  const sealed = plain.slice();
  expected.seal(sealed, MARGIN, end, high);
  return { plain, sealed, end, limit, high };
}

/** At once, and a batch. */
function isSealing(esp: EspTransform, packets: readonly Known[]): boolean {
  const { queue } = esp;
  const jobs = copies(packets).map((known) => {
    const p = known.plain.slice();
    return { p, known, job: esp.sealLater!(p, MARGIN, known.end, known.high) };
  });
  queue!.run();
  const isBatchRight = jobs.every(({ p, known, job }) => queue!.ok(job) && isSame(p, known.sealed));
  return (
    isBatchRight &&
    packets.every(({ plain, sealed, end, high }) => {
      const p = plain.slice();
      esp.seal(p, MARGIN, end, high);
      return isSame(p, sealed);
    })
  );
}

function isOpening(esp: EspTransform, packets: readonly Known[]): boolean {
  const { queue } = esp;
  const jobs = copies(packets).map((known) => {
    const p = known.sealed.slice();
    return { p, known, job: esp.openLater!(p, MARGIN, known.limit, known.high) };
  });
  queue!.run();
  const isBatchRight = jobs.every(
    ({ p, known, job }) => queue!.ok(job) && isSame(p, opened(known)),
  );
  return (
    isBatchRight &&
    packets.every((known) => {
      const p = known.sealed.slice();
      return esp.open(p, MARGIN, known.limit, known.high) && isSame(p, opened(known));
    })
  );
}

/** The text as it was, and the ICV as it came. */
function opened({ plain, sealed, end, limit }: Known): Uint8Array {
  const p = plain.slice();
  p.set(sealed.subarray(end, limit), end);
  return p;
}

/** One bit of the ICV is wrong: nothing changes. */
function refuses(esp: EspTransform, packets: readonly Known[]): boolean {
  const { queue } = esp;
  const jobs = copies(packets).map(({ sealed, limit, high }) => {
    const p = sealed.slice();
    p[limit - 1]! ^= 1;
    return { p, came: p.slice(), job: esp.openLater!(p, MARGIN, limit, high) };
  });
  queue!.run();
  if (!jobs.every(({ p, came, job }) => !queue!.ok(job) && isSame(p, came))) return false;
  return packets.every(({ sealed, limit, high }) => {
    const p = sealed.slice();
    p[limit - 1]! ^= 1;
    const came = p.slice();
    return !esp.open(p, MARGIN, limit, high) && isSame(p, came);
  });
}

function copies<T>(of: readonly T[]): readonly T[] {
  return Array.from({ length: COPIES }, () => of).flat();
}

function checkAh(tested: Tested, spec: TransformSpec): boolean {
  const expected = nodeCrypto.ah(spec);
  const ah = tested.ah(spec);
  try {
    const signed = CASES.map(({ len, high }) => {
      const covered = pattern(len + MARGIN, 29);
      const icv = pattern(ah.icvLen + 2 * MARGIN, 7);
      expected.sign(covered, 1, len, high, icv, MARGIN);
      return { covered, len, high, icv };
    });
    return isSigning(ah, signed) && isVerifying(ah, signed);
  } finally {
    expected.wipe();
    ah.wipe();
  }
}

interface Signed {
  readonly covered: Uint8Array;
  readonly len: number;
  readonly high: number;
  /** The ICV field, between margins. */
  readonly icv: Uint8Array;
}

function isSigning(ah: AhTransform, signed: readonly Signed[]): boolean {
  const { queue } = ah;
  const jobs = copies(signed).map(({ covered, len, high, icv }) => {
    const own = pattern(icv.length, 7);
    return { own, icv, job: ah.signLater!(covered, 1, len, high, own, MARGIN) };
  });
  queue!.run();
  if (!jobs.every(({ own, icv, job }) => queue!.ok(job) && isSame(own, icv))) return false;
  return signed.every(({ covered, len, high, icv }) => {
    const own = pattern(icv.length, 7);
    ah.sign(covered, 1, len, high, own, MARGIN);
    return isSame(own, icv);
  });
}

function isVerifying(ah: AhTransform, signed: readonly Signed[]): boolean {
  const { queue } = ah;
  const jobs = copies(signed).map(({ covered, len, high, icv }, i) => {
    const forged = icv.slice();
    forged[MARGIN + ah.icvLen - 1]! ^= i & 1;
    const job = ah.verifyLater!(covered, 1, len, high, forged, MARGIN);
    return { job, isRight: (i & 1) === 0 };
  });
  queue!.run();
  if (!jobs.every(({ job, isRight }) => queue!.ok(job) === isRight)) return false;
  return signed.every(({ covered, len, high, icv }) => {
    const forged = icv.slice();
    forged[MARGIN + ah.icvLen - 1]! ^= 0x80;
    return (
      ah.verify(covered, 1, len, high, icv, MARGIN) &&
      !ah.verify(covered, 1, len, high, forged, MARGIN)
    );
  });
}

function pattern(len: number, step: number): Uint8Array {
  const octets = new Uint8Array(len);
  for (let i = 0; i < len; i++) octets[i] = i * step + (i >> 5) + 11;
  return octets;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
