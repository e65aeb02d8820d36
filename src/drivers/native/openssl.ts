import type * as Koffi from 'koffi';
import { type Absent, isAbsent, loadKoffi } from './koffi.ts';

type Native = number;

/** The hashes, in the order of `functions.hash` in jobs.h. */
export const HASHES = ['md5', 'sha1', 'sha256', 'sha384', 'sha512', 'ripemd160'] as const;
export type HashName = (typeof HASHES)[number];

/** A hash whose state is `stateLen` octets of plain memory (MD5_CTX, SHA_CTX and so on). */
export interface NativeHash {
  readonly init: (state: Native) => number;
  readonly update: (state: Native, data: Native, len: number) => number;
  readonly final: (digest: Native, state: Native) => number;
  readonly stateLen: number;
  readonly digestLen: number;
  readonly blockLen: number;
  readonly addresses: { readonly update: number; readonly final: number };
}

/**
 * The functions of the OpenSSL that is inside of the Node.js binary. Never a second OpenSSL of the
 * system beside it: both would answer to the same names.
 */
export interface OpenSsl {
  readonly koffi: typeof Koffi;
  /** `OpenSSL 3.0.19 27 Jan 2026`. */
  readonly version: string;
  readonly newContext: () => Native;
  /** Zeroes what is in it. */
  readonly freeContext: (ctx: Native) => void;
  /** 0 if there is none. */
  readonly cipherByName: (name: string) => Native;
  readonly cipherInit: (
    ctx: Native,
    cipher: Native,
    engine: Native,
    key: Native,
    iv: Native,
    encrypt: number,
  ) => number;
  readonly cipherUpdate: (
    ctx: Native,
    out: Native,
    outLen: Native,
    input: Native,
    len: number,
  ) => number;
  readonly cipherFinal: (ctx: Native, out: Native, outLen: Native) => number;
  readonly cipherCtrl: (ctx: Native, what: number, number: number, pointer: Native) => number;
  readonly setPadding: (ctx: Native, on: number) => number;
  /** In constant time; 0: the same. */
  readonly compare: (a: Native, b: Native, len: number) => number;
  readonly hashes: Readonly<Record<HashName, NativeHash>>;
  readonly addresses: {
    readonly cipherInit: number;
    readonly cipherUpdate: number;
    readonly cipherFinal: number;
    readonly cipherCtrl: number;
  };
}

/** EVP_CTRL_AEAD_*. */
export const CTRL_SET_IV_LEN = 0x9;
export const CTRL_GET_TAG = 0x10;
export const CTRL_SET_TAG = 0x11;

/** Octets of state, digest and block; the structs are public and as old as the functions. */
const SHAPES: Readonly<Record<HashName, readonly [string, number, number, number]>> = {
  md5: ['MD5', 92, 16, 64],
  sha1: ['SHA1', 96, 20, 64],
  sha256: ['SHA256', 112, 32, 64],
  sha384: ['SHA384', 216, 48, 128],
  sha512: ['SHA512', 216, 64, 128],
  ripemd160: ['RIPEMD160', 96, 20, 64],
};

let loaded: OpenSsl | Absent | undefined;

/** Node's OpenSSL; absent where the binary does not export it. */
export function loadOpenSsl(): OpenSsl | Absent {
  loaded ??= load();
  return loaded;
}

function load(): OpenSsl | Absent {
  const koffi = loadKoffi();
  if (isAbsent(koffi)) return koffi;
  try {
    const library = koffi.load(null);
    const openSsl = declare(koffi, library);
    if (openSsl.version.startsWith('OpenSSL 3.')) return openSsl;
    return { why: `this is ${openSsl.version}, and not OpenSSL 3` };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { why: `this build of Node.js does not export its OpenSSL: ${reason}` };
  }
}

function declare(koffi: typeof Koffi, library: Koffi.LibraryHandle): OpenSsl {
  const define = <F>(definition: string): F => library.func(definition) as unknown as F;
  const address = (name: string) => Number(koffi.address(library.symbol(name)));
  const hash = ([name, stateLen, digestLen, blockLen]: (typeof SHAPES)[HashName]): NativeHash => ({
    init: define(`int ${name}_Init(uintptr_t state)`),
    update: define(`int ${name}_Update(uintptr_t state, uintptr_t data, size_t len)`),
    final: define(`int ${name}_Final(uintptr_t digest, uintptr_t state)`),
    ...{ stateLen, digestLen, blockLen },
    addresses: { update: address(`${name}_Update`), final: address(`${name}_Final`) },
  });
  return {
    koffi,
    version: define<(what: number) => string>('const char *OpenSSL_version(int what)')(0),
    newContext: define('uintptr_t EVP_CIPHER_CTX_new()'),
    freeContext: define('void EVP_CIPHER_CTX_free(uintptr_t ctx)'),
    cipherByName: define('uintptr_t EVP_get_cipherbyname(const char *name)'),
    cipherInit: define(
      'int EVP_CipherInit_ex(uintptr_t ctx, uintptr_t cipher, uintptr_t engine, uintptr_t key, ' +
        'uintptr_t iv, int encrypt)',
    ),
    cipherUpdate: define(
      'int EVP_CipherUpdate(uintptr_t ctx, uintptr_t out, uintptr_t outl, uintptr_t in, int len)',
    ),
    cipherFinal: define('int EVP_CipherFinal_ex(uintptr_t ctx, uintptr_t out, uintptr_t outl)'),
    cipherCtrl: define('int EVP_CIPHER_CTX_ctrl(uintptr_t ctx, int what, int n, uintptr_t p)'),
    setPadding: define('int EVP_CIPHER_CTX_set_padding(uintptr_t ctx, int on)'),
    compare: define('int CRYPTO_memcmp(uintptr_t a, uintptr_t b, size_t len)'),
    hashes: {
      md5: hash(SHAPES.md5),
      sha1: hash(SHAPES.sha1),
      sha256: hash(SHAPES.sha256),
      sha384: hash(SHAPES.sha384),
      sha512: hash(SHAPES.sha512),
      ripemd160: hash(SHAPES.ripemd160),
    },
    addresses: {
      cipherInit: address('EVP_CipherInit_ex'),
      cipherUpdate: address('EVP_CipherUpdate'),
      cipherFinal: address('EVP_CipherFinal_ex'),
      cipherCtrl: address('EVP_CIPHER_CTX_ctrl'),
    },
  };
}
