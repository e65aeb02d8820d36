/**
 * The structs of native/fast/jobs.h, in octets, and its numbers. JavaScript writes them whether
 * that library is there or not: without it, `KoffiRunner` reads them. `LAYOUT` says them in the
 * order of `testudo_jobs_layout`.
 */

export const OP_NONE = 0;
export const OP_SEAL = 1;
export const OP_OPEN = 2;
export const OP_SIGN = 3;
export const OP_VERIFY = 4;

export const STATUS_NEW = 0;
export const STATUS_OK = 1;
export const STATUS_WRONG_ICV = 2;
export const STATUS_FAILED = 3;
export const STATUS_REFUSED = 4;
export const STATUS_SUBMITTED = 5;

export const CIPHER_NONE = 0;
export const CIPHER_AEAD = 1;
export const CIPHER_CCM = 2;
export const CIPHER_GMAC = 3;
export const CIPHER_CBC = 4;
export const CIPHER_CTR = 5;

export const MAC_NONE = 0;
export const MAC_HMAC = 1;
export const MAC_BLOCK = 2;

/** `imbCipher`; `imbMac` is a number of intel-ipsec-mb. */
export const IMB_NONE = 0;
export const IMB_GCM = 1;
export const IMB_CHACHA = 2;
export const IMB_CCM = 3;
export const IMB_CBC = 4;
export const IMB_CTR = 5;

/** `lanes`: which parts of a job are multi-buffer jobs. */
export const LANES_CIPHER = 1;
export const LANES_MAC = 2;

/** The longest message of a multi-buffer job. */
export const IMB_LEN_MAX = 65_534;
export const BLOCK_LEN = 16;

export const JOB = {
  len: 64,
  op: 0,
  context: 4,
  region: 8,
  at: 12,
  end: 16,
  seqHigh: 20,
  extended: 24,
  icvRegion: 28,
  icvAt: 32,
  status: 36,
  lanes: 40,
} as const;

export const CONTEXT = {
  len: 1664,
  cipher: 0,
  mac: 4,
  ivLen: 8,
  icvLen: 12,
  saltLen: 16,
  keyLen: 20,
  blockLen: 24,
  hash: 28,
  imbCipher: 32,
  imbMac: 36,
  salt: 40,
  sealing: 48,
  opening: 56,
  chaining: 64,
  imbCipherMin: 72,
  imbMacMin: 76,
  inner: 128,
  outer: 384,
  schedule: 640,
} as const;

/** In a schedule: where the round keys for decryption stand. */
export const DECRYPTION_AT = 512;

export const WORK = { len: 128, iv: 0, aad: 16, tag: 32, saved: 96 } as const;

export const REGION = { len: 16, base: 0, size: 8 } as const;

/** Function pointers, all of 8 octets. */
export const FUNCTIONS = {
  len: 376,
  cipherInit: 0,
  cipherUpdate: 8,
  cipherFinal: 16,
  cipherCtrl: 24,
  hash: 32,
  hashLen: 32,
  imb: 224,
  imbNext: 232,
  imbSubmit: 240,
  imbFlush: 248,
  gcm: 256,
  gcmLen: 40,
} as const;

export const QUEUE = {
  len: 80,
  functions: 0,
  regions: 8,
  contexts: 16,
  jobs: 24,
  works: 32,
  scratch: 40,
  state: 48,
  scratchLen: 56,
  regionCount: 64,
  contextCount: 68,
  jobCount: 72,
} as const;

export const LAYOUT: readonly number[] = [
  ...[JOB.len, JOB.context, JOB.region, JOB.at, JOB.end, JOB.seqHigh, JOB.extended, JOB.icvRegion],
  ...[JOB.icvAt, JOB.status, JOB.lanes],
  ...[CONTEXT.len, CONTEXT.mac, CONTEXT.ivLen, CONTEXT.icvLen, CONTEXT.saltLen, CONTEXT.keyLen],
  ...[CONTEXT.blockLen, CONTEXT.hash, CONTEXT.imbCipher, CONTEXT.imbMac, CONTEXT.salt],
  ...[CONTEXT.sealing, CONTEXT.opening, CONTEXT.chaining, CONTEXT.imbCipherMin],
  ...[CONTEXT.imbMacMin, CONTEXT.inner, CONTEXT.outer],
  ...[CONTEXT.schedule, WORK.len, FUNCTIONS.len, FUNCTIONS.hash, FUNCTIONS.imb, FUNCTIONS.gcm],
  ...[QUEUE.len, QUEUE.scratchLen, QUEUE.regionCount, QUEUE.contextCount, QUEUE.jobCount],
  DECRYPTION_AT,
];
