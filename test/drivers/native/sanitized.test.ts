import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { FAST_VARIABLE } from './natives.ts';

/**
 * native/fast built with AddressSanitizer and UndefinedBehaviorSanitizer, driven by the tests that
 * hand it random batches and hostile descriptors.
 */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const DRIVING = ['differential', 'bounds', 'queue'].map(
  (name) => `test/drivers/native/${name}.test.ts`,
);

test('random batches and descriptors, with sanitizers', { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'testudo-fast-'));
  try {
    const library = join(folder, 'sanitized.so');
    const first = sanitizer();
    const build = ['native/build.mjs', '--sanitize', library, 'fast'];
    if (first === undefined || spawnSync(process.execPath, build, { cwd: ROOT }).status !== 0) {
      if (process.env.CI === 'true') throw new Error('CI needs a compiler with sanitizers');
      console.log('sanitized.test.ts: no compiler with sanitizers, not tested');
      return;
    }
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', ...DRIVING],
      {
        cwd: ROOT,
        encoding: 'utf8',
        env: {
          ...process.env,
          [FAST_VARIABLE]: library,
          LD_PRELOAD: first,
          // Node itself frees nothing at its end, and V8 reserves more than there is.
          ASAN_OPTIONS: 'detect_leaks=0:allocator_may_return_null=1',
        },
      },
    );
    expect(status, stdout + stderr).toBe(0);
    expect(stdout).toMatch(/^\d+ passed, 0 failed/m);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** What must be loaded before everything else. */
function sanitizer(): string | undefined {
  const { stdout } = spawnSync('cc', ['-print-file-name=libasan.so'], { encoding: 'utf8' });
  const path = stdout?.trim() ?? '';
  return existsSync(path) ? path : undefined;
}
