import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/**
 * Compiles native/fast/segments_*.c into the WebAssembly module beside it, which is kept with its
 * source so that nobody needs a compiler. Needs clang and wasm-ld (Debian: `clang lld`).
 *
 *     node native/build-wasm.mjs [FILE]
 */
const ARGS = [
  '--target=wasm32',
  '-std=gnu11',
  '-O3',
  '-msimd128',
  '-nostdlib',
  '-ffreestanding',
  '-fno-builtin',
  // Memory begins at address 0, which is an address like any other here.
  '-fno-delete-null-pointer-checks',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-Wl,--no-entry',
  '-Wl,--import-memory',
  // The stack comes first, so that running out of it is an error and not somebody's packet.
  '-Wl,--stack-first',
  '-Wl,-z,stack-size=16384',
  '-Wl,--strip-all',
];

const sources = ['base', 'cut', 'join'].map((name) =>
  fileURLToPath(new URL(`fast/segments_${name}.c`, import.meta.url)),
);
const output = process.argv[2] ?? fileURLToPath(new URL('fast/segments.wasm', import.meta.url));
const compiler = process.env.WASM_CC ?? 'clang';
const { status, error } = spawnSync(compiler, [...ARGS, ...sources, '-o', output], {
  stdio: 'inherit',
});
if (error !== undefined) process.stderr.write(`${compiler}: ${error.message}\n`);
process.exitCode = status ?? 1;
