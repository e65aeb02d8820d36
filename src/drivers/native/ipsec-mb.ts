import type * as Koffi from 'koffi';
import { type Absent, isAbsent, loadKoffi } from './koffi.ts';
import { longAt, type NativeBlock, nativeBlock } from './memory.ts';

type Native = number;

/** GCM and GMAC for one length of key: the functions, and where they are. */
export interface ImbGcm {
  /** Expands a key into the 1024 octets of a schedule. */
  readonly prepare: (key: Native, schedule: Native) => void;
  readonly seal: GcmCall;
  /** Writes the tag that would be right; whoever calls compares. */
  readonly open: GcmCall;
  readonly gmacInit: (schedule: Native, state: Native, iv: Native, ivLen: number) => void;
  readonly gmacUpdate: (schedule: Native, state: Native, data: Native, len: number) => void;
  readonly gmacFinal: (schedule: Native, state: Native, tag: Native, tagLen: number) => void;
  /** In the order of `functions.gcm` in jobs.h. */
  readonly addresses: readonly number[];
}

type GcmCall = (
  schedule: Native,
  state: Native,
  out: Native,
  input: Native,
  len: number,
  iv: Native,
  aad: Native,
  aadLen: number,
  tag: Native,
  tagLen: number,
) => void;

type Burst = (manager: Native, count: number, jobs: Native) => number;

/** intel-ipsec-mb, with one manager in memory of our own, so that its jobs can be written here. */
export interface IpsecMb {
  readonly koffi: typeof Koffi;
  /** Referenced for as long as its functions are called by address. */
  readonly library: Koffi.LibraryHandle;
  /** `1.3.0`. */
  readonly version: string;
  /** What it runs on, for people: `AVX512 with VAES`. */
  readonly processor: string;
  readonly manager: NativeBlock;
  /** For keys of 128, 192 and 256 bits. */
  readonly gcm: readonly [ImbGcm, ImbGcm, ImbGcm];
  /** Expands an AES key into round keys for encryption and for decryption, 240 octets at most. */
  readonly expandKey: readonly ((key: Native, encrypt: Native, decrypt: Native) => void)[];
  readonly nextBurst: Burst;
  readonly submitBurst: Burst;
  readonly flushBurst: Burst;
  readonly addresses: { readonly next: number; readonly submit: number; readonly flush: number };
}

/**
 * Where the fields of IMB_MGR are, in octets: its function pointers are not exported otherwise. For
 * keys of 128, 192 and 256 bits there are three in a row. Version 1.3; others lay it out in other
 * ways, and IMB_JOB too, so that no other is used.
 */
const MANAGER = {
  version: /^1\.3(\.|$)/,
  len: 52_520,
  features: 8,
  architecture: 56,
  error: 60,
  next: 64,
  submit: 80,
  flush: 96,
  expandKey: 112,
  gcmSeal: 256,
  gcmOpen: 280,
  gcmPrepare: 448,
  gmacInit: 720,
  gmacUpdate: 744,
  gmacFinal: 768,
  nextBurst: 952,
  submitBurst: 968,
  flushBurst: 976,
} as const;

/** IMB_ARCH; the first two do without the instructions that it is there for. */
const ARCHITECTURES = ['none', 'no AES-NI', 'SSE', 'AVX', 'AVX2', 'AVX512'];
const ARCHITECTURE_MIN = 2;

/** IMB_FEATURE_*. */
const FEATURE_VAES = 1 << 12;
const FEATURE_SELF_TEST = 1 << 20;
const FEATURE_SELF_TEST_PASS = 1 << 21;

/** Never the plain `.so`, which belongs to the development package and may be of any version. */
const FILE = 'libIPSec_MB.so.1';

let loaded: IpsecMb | Absent | undefined;

/** The library, if it is installed, known, and suits the processor. */
export function loadIpsecMb(): IpsecMb | Absent {
  loaded ??= load();
  return loaded;
}

function load(): IpsecMb | Absent {
  const koffi = loadKoffi();
  if (isAbsent(koffi)) return koffi;
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    return { why: `not on this system (${process.platform} on ${process.arch})` };
  }
  let library: Koffi.LibraryHandle;
  try {
    library = koffi.load(FILE);
  } catch {
    return { why: `${FILE} is not installed (Debian: libipsec-mb1)` };
  }
  try {
    return start(koffi, library);
  } catch (error) {
    return { why: `${FILE}: ${error instanceof Error ? error.message : String(error)}` };
  }
}

/** Throws an Error when a function is missing. */
function start(koffi: typeof Koffi, library: Koffi.LibraryHandle): IpsecMb | Absent {
  const version = (library.func('const char *imb_get_version_str()') as () => string)();
  if (!MANAGER.version.test(version)) return { why: `${FILE} is version ${version}, not 1.3` };
  const len = (library.func('size_t imb_get_mb_mgr_size()') as () => number)();
  if (len < MANAGER.len) return { why: `${FILE} ${version} is laid out in a way we do not know` };
  const manager = nativeBlock(koffi, 8 * Math.ceil(len / 8));
  const place = library.func('uintptr_t imb_set_pointers_mb_mgr(uintptr_t, uint64_t, uint)');
  if (place(manager.address, 0, 1) !== manager.address) return { why: `${FILE} does not start` };
  (library.func('void init_mb_mgr_auto(uintptr_t, uintptr_t)') as (m: Native, a: Native) => void)(
    manager.address,
    0,
  );
  const absent = suits(manager);
  if (absent) return absent;
  return declare(koffi, library, version, manager);
}

function suits({ words }: NativeBlock): Absent | undefined {
  const error = words[MANAGER.error / 4]!;
  if (error !== 0) return { why: `${FILE} does not start: its error ${error}` };
  const features = words[MANAGER.features / 4]!;
  if ((features & FEATURE_SELF_TEST) !== 0 && (features & FEATURE_SELF_TEST_PASS) === 0) {
    return { why: `${FILE} fails its own test` };
  }
  if (words[MANAGER.architecture / 4]! < ARCHITECTURE_MIN) {
    return { why: 'the processor has no AES instructions' };
  }
  return undefined;
}

type Call = <F>(field: number, result: string, takes: readonly string[]) => F;

const POINTER = 'uintptr_t';

function declare(
  koffi: typeof Koffi,
  library: Koffi.LibraryHandle,
  version: string,
  manager: NativeBlock,
): IpsecMb {
  const { words } = manager;
  const at = (field: number) => longAt(words, field);
  const call: Call = <F>(field: number, result: string, takes: readonly string[]): F =>
    koffi.decode(BigInt(at(field)), koffi.proto(result, [...takes])) as F;
  const burst = (field: number): Burst => call(field, 'uint32_t', [POINTER, 'uint32_t', POINTER]);
  const key = (size: number): IpsecMb['expandKey'][number] =>
    call(MANAGER.expandKey + 8 * size, 'void', [POINTER, POINTER, POINTER]);
  const usesVaes = (words[MANAGER.features / 4]! & FEATURE_VAES) !== 0;
  const architecture = ARCHITECTURES[words[MANAGER.architecture / 4]!] ?? 'unknown';
  return {
    koffi,
    library,
    version,
    processor: usesVaes ? `${architecture} with VAES` : architecture,
    manager,
    gcm: [gcmOf(call, at, 0), gcmOf(call, at, 1), gcmOf(call, at, 2)],
    expandKey: [key(0), key(1), key(2)],
    nextBurst: burst(MANAGER.nextBurst),
    submitBurst: burst(MANAGER.submitBurst),
    flushBurst: burst(MANAGER.flushBurst),
    addresses: { next: at(MANAGER.next), submit: at(MANAGER.submit), flush: at(MANAGER.flush) },
  };
}

function gcmOf(call: Call, at: (field: number) => number, size: number): ImbGcm {
  const skip = 8 * size;
  const whole = [
    ...[POINTER, POINTER, POINTER, POINTER, 'uint64_t'],
    ...[POINTER, POINTER, 'uint64_t', POINTER, 'uint64_t'],
  ];
  const part = [POINTER, POINTER, POINTER, 'uint64_t'];
  const fields = [
    ...[MANAGER.gcmSeal, MANAGER.gcmOpen],
    ...[MANAGER.gmacInit, MANAGER.gmacUpdate, MANAGER.gmacFinal],
  ];
  return {
    prepare: call(MANAGER.gcmPrepare + skip, 'void', [POINTER, POINTER]),
    seal: call(MANAGER.gcmSeal + skip, 'void', whole),
    open: call(MANAGER.gcmOpen + skip, 'void', whole),
    gmacInit: call(MANAGER.gmacInit + skip, 'void', part),
    gmacUpdate: call(MANAGER.gmacUpdate + skip, 'void', part),
    gmacFinal: call(MANAGER.gmacFinal + skip, 'void', part),
    addresses: fields.map((field) => at(field + skip)),
  };
}
