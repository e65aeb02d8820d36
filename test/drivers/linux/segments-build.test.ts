import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { libc } from '../../../src/drivers/linux/libc.ts';
import { packageFile } from '../../../src/drivers/linux/package-file.ts';
import { PacketMemory } from '../../../src/drivers/linux/packet-memory.ts';
import { compiledSegments, segments, wasmSegments } from '../../../src/drivers/linux/segments.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** Whose clang has made the module that is kept with its source. */
const CLANG = '14';

/** Runs `use` with a folder of its own. */
function inFolder(use: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'testudo-segments-'));
  try {
    use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('the WebAssembly module', () => {
  test('is what its source compiles to', () => {
    const version = spawnSync('clang', ['--version'], { encoding: 'utf8' }).stdout ?? '';
    const hasLinker = spawnSync('wasm-ld', ['--version']).status === 0;
    if (!version.includes(`version ${CLANG}.`) || !hasLinker) {
      console.log(`segments-build.test.ts: no clang ${CLANG} with wasm-ld, module not compared`);
      return;
    }
    inFolder((folder) => {
      const file = join(folder, 'segments.wasm');
      const args = ['native/build-wasm.mjs', file];
      const { status, stderr } = spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' });
      expect(status, stderr).toBe(0);
      const kept = readFileSync(join(ROOT, 'native/fast/segments.wasm'));
      expect(Buffer.compare(readFileSync(file), kept)).toBe(0);
    });
  });

  test('wants nothing but memory', () => {
    const module = readFileSync(join(ROOT, 'native/fast/segments.wasm'));
    const { Module } = (globalThis as unknown as { WebAssembly: WebAssemblyReflection })
      .WebAssembly;
    const made = new Module(module);
    expect(Module.imports(made)).toEqual([{ module: 'env', name: 'memory', kind: 'memory' }]);
    expect(Module.exports(made).map(({ name }) => name)).toEqual([
      'testudo_complete',
      'testudo_cut',
      'testudo_deal',
      'testudo_join',
    ]);
  });
});

interface WebAssemblyReflection {
  readonly Module: {
    new (code: Uint8Array): object;
    imports(module: object): object[];
    exports(module: object): { readonly name: string }[];
  };
}

describe.skipIf(process.platform !== 'linux')('which loops', () => {
  const memory = new PacketMemory(libc('a test'), 131_072);

  test('the compiled ones where they were built, WebAssembly otherwise', () => {
    const found = segments(libc('a test'), memory);
    const isBuilt = packageFile('native/build/testudo_fast.so') !== undefined;
    expect(found).toMatchObject({ name: isBuilt ? 'compiled loops' : 'WebAssembly loops' });
  });

  test('those that are not there say why', () => {
    const file = packageFile('package.json')!;
    expect(compiledSegments(libc('a test'), memory, file)).toMatch(/package.json cannot be loaded/);
    const { base, size } = memory;
    expect(wasmSegments({ base, size, wasm: undefined })).toBe('WebAssembly is switched off');
  });
});

/** Those that compare the loops with their plain versions, and those that are hostile to them. */
const DRIVING = ['test/drivers/linux/segments.test.ts', 'test/fuzz/fuzz.test.ts'];

test('the compiled loops, with sanitizers', { timeout: 120_000 }, () => {
  inFolder((folder) => {
    const library = join(folder, 'sanitized.so');
    const { stdout } = spawnSync('cc', ['-print-file-name=libasan.so'], { encoding: 'utf8' });
    const build = ['native/build.mjs', '--sanitize', library, 'fast'];
    const first = stdout?.trim() ?? '';
    if (!existsSync(first) || spawnSync(process.execPath, build, { cwd: ROOT }).status !== 0) {
      if (process.env.CI === 'true') throw new Error('CI needs a compiler with sanitizers');
      console.log('segments-build.test.ts: no compiler with sanitizers, not tested with them');
      return;
    }
    const vitest = ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', ...DRIVING];
    const run = spawnSync(process.execPath, [...vitest, '-t', 'compiled|segments|tun '], {
      cwd: ROOT,
      encoding: 'utf8',
      env: {
        ...process.env,
        TESTUDO_TEST_FAST: library,
        LD_PRELOAD: first,
        // Node itself frees nothing at its end, and V8 reserves more than there is.
        ASAN_OPTIONS: 'detect_leaks=0:allocator_may_return_null=1',
      },
    });
    expect(run.status, run.stdout + run.stderr).toBe(0);
    expect(run.stdout).toMatch(/^[1-9]\d+ passed, 0 failed/m);
  });
});
