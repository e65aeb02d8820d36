import { spawnSync } from 'node:child_process';
import { describe, test } from 'vitest';

/**
 * A group of tests that needs a program which this project does not bring along. Without it they
 * are skipped, and the reason is printed; in CI its absence is a failure, since there a skipped
 * test would go unnoticed for ever.
 */
export function describeWithPeer(
  name: string,
  missing: string | undefined,
  tests: () => void,
): void {
  if (missing === undefined) {
    describe(name, tests);
    return;
  }
  if (process.env.CI === 'true') throw new Error(`${name}: ${missing}`);
  console.info(`skipped: ${name}: ${missing}`);
  // The group's own code is not run: it may need the peer, too.
  test.skip(name, () => {});
}

/**
 * What is missing if the program cannot be run with these arguments, with the command that installs
 * it.
 */
export function missingProgram(
  program: string,
  args: readonly string[],
  debianPackage: string,
): string | undefined {
  const run = spawnSync(program, args, { stdio: 'ignore' });
  if (run.status === 0) return undefined;
  return `${program} is missing: apt-get install --no-install-recommends ${debianPackage}`;
}
