import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { findProgram, whyNotPreloadable } from '../../src/cli/exec-program.ts';

describe.skipIf(process.platform !== 'linux')('programs to run', () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'testudo-program-'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  function make(name: string, content: Uint8Array | string, mode = 0o755): string {
    const path = join(dir, name);
    writeFileSync(path, content);
    chmodSync(path, mode);
    return path;
  }

  /** The head of an ELF program with program headers of these types. */
  function elf(types: readonly number[], { bits = 64 } = {}): Uint8Array {
    const head = Buffer.alloc(64 + 56 * types.length);
    head.set([0x7f, 0x45, 0x4c, 0x46, bits === 64 ? 2 : 1, 1]);
    head.writeBigUInt64LE(64n, 32);
    head.writeUInt16LE(56, 54);
    head.writeUInt16LE(types.length, 56);
    for (const [i, type] of types.entries()) head.writeUInt32LE(type, 64 + 56 * i);
    return head;
  }

  test('are found as a shell finds them', () => {
    const path = make('found', '');
    make('data', '', 0o644);
    expect(findProgram('found', `/nowhere:${dir}`)).toBe(path);
    expect(findProgram(path, '')).toBe(path);
    expect(() => findProgram('data', dir)).toThrow('there is no program "data"');
    expect(() => findProgram(dir, '')).toThrow('there is no program');
  });

  test('can be preloaded into if they have a dynamic linker', () => {
    expect(whyNotPreloadable(process.execPath)).toBeUndefined();
    expect(whyNotPreloadable(make('dynamic', elf([6, 3, 1])))).toBeUndefined();
    expect(whyNotPreloadable(make('static', elf([1, 1])))).toContain('statically');
    expect(whyNotPreloadable(make('none', elf([])))).toContain('statically');
    expect(whyNotPreloadable(make('short', elf([3]).subarray(0, 20)))).toContain('word size');
    if (process.arch === 'x64' || process.arch === 'arm64') {
      expect(whyNotPreloadable(make('small', elf([3], { bits: 32 })))).toContain('word size');
    }
  });

  test('of a script, the interpreter counts', () => {
    const linked = make('linked', elf([1]));
    const script = make('script', `#! ${linked} -x\n`);
    expect(whyNotPreloadable(script)).toBe(`${linked}: ${whyNotPreloadable(linked)}`);
    expect(whyNotPreloadable(make('shell', '#!/bin/sh\n'))).toBeUndefined();
    expect(whyNotPreloadable(make('nothing', '#!/no/such/interpreter\n'))).toBeUndefined();
    expect(whyNotPreloadable(make('text', 'echo hello\n'))).toBeUndefined();
  });

  test('that change their user are refused, unless it is ours', () => {
    const path = make('setuid', elf([3]), 0o4755);
    expect(whyNotPreloadable(path)).toBeUndefined();
    if (process.getuid?.() === 0) expect(whyNotPreloadable('/usr/bin/env')).toBeUndefined();
    else expect(whyNotPreloadable('/bin/su')).toContain('set-user-ID');
  });
});
