import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, test } from 'vitest';
import { FAST_VARIABLE } from './natives.ts';

/**
 * native/fast built with AddressSanitizer and UndefinedBehaviorSanitizer, driven by tests that hand
 * it random batches, large packets and hostile descriptors: one build and one run of vitest for all
 * of them, since both take seconds to begin with.
 */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** All that there is in them. */
const JOBS = ['differential', 'bounds', 'queue'].map((name) => `test/drivers/native/${name}`);
/** Those that compare the loops with their plain versions, and those that are hostile to them. */
const LOOPS = ['test/drivers/linux/segments', 'test/drivers/native/search-loops', 'test/fuzz/fuzz'];
/** The tests of JOBS are named after their providers; of LOOPS only some meet compiled code. */
const DRIVING = 'openssl|ipsec-mb|compiled|segments|search|tun ';

/** What the run said of each test, by file; undefined: nothing was built. */
let statuses: ReadonlyMap<string, readonly string[]> | undefined;

beforeAll(() => {
  const folder = mkdtempSync(join(tmpdir(), 'testudo-fast-'));
  try {
    statuses = runSanitized(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
  if (statuses !== undefined) return;
  if (process.env.CI === 'true') throw new Error('CI needs a compiler with sanitizers');
  console.log('sanitized.test.ts: no compiler with sanitizers, not tested');
}, 120_000);

test('random batches and descriptors, with sanitizers', () => {
  for (const file of statuses === undefined ? [] : JOBS) {
    expect(new Set(statuses?.get(file)), file).toEqual(new Set(['passed']));
  }
});

test('the compiled loops, with sanitizers', () => {
  for (const file of statuses === undefined ? [] : LOOPS) {
    const passed = statuses?.get(file)?.filter((status) => status === 'passed');
    // Both tests of both targets, and some for each loop.
    expect(passed?.length, file).toBeGreaterThanOrEqual(4);
    expect(statuses?.get(file), file).not.toContain('failed');
  }
});

function runSanitized(folder: string): Map<string, string[]> | undefined {
  const library = join(folder, 'sanitized.so');
  const build = ['native/build.mjs', '--sanitize', library, 'fast'];
  const first = sanitizer();
  if (first === undefined) return undefined;
  if (spawnSync(process.execPath, build, { cwd: ROOT }).status !== 0) return undefined;
  const results = join(folder, 'results.json');
  const files = [...JOBS, ...LOOPS].map((file) => `${file}.test.ts`);
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [
      ...['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', '--maxWorkers', '1'],
      ...['--reporter', 'default', '--reporter', 'json', '--outputFile.json', results],
      ...[...files, '-t', DRIVING],
    ],
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
  return statusesIn(results);
}

function statusesIn(results: string): Map<string, string[]> {
  const { testResults } = JSON.parse(readFileSync(results, 'utf8')) as Results;
  return new Map(
    testResults.map(({ name, assertionResults }) => [
      name.slice(ROOT.length).replace('.test.ts', ''),
      assertionResults.map((one) => one.status),
    ]),
  );
}

interface Results {
  readonly testResults: readonly {
    readonly name: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

/** What must be loaded before everything else. */
function sanitizer(): string | undefined {
  const { stdout } = spawnSync('cc', ['-print-file-name=libasan.so'], { encoding: 'utf8' });
  const path = stdout?.trim() ?? '';
  return existsSync(path) ? path : undefined;
}
