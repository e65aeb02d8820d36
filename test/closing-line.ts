import type { TestModule } from 'vitest/node';

/** One line at the very end that counts all tests, for whoever reads only the end of a log. */
export class ClosingLine {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = { passed: 0, failed: 0, skipped: 0, pending: 0 };
    for (const one of modules) {
      if (one.state() === 'failed' && one.children.size === 0) counts.failed++;
      for (const test of one.children.allTests()) counts[test.result().state]++;
    }
    process.stdout.write(
      `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped + counts.pending} skipped\n`,
    );
  }
}
