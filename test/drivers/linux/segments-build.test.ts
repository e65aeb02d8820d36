import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
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
