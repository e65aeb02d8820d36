import { defineConfig } from 'vitest/config';
import { ClosingLine } from './test/closing-line.ts';

// One process per suite of tests: the files share no state, and isolation costs six times the run.
export default defineConfig({
  test: {
    reporters: ['default', new ClosingLine()],
    isolate: false,
    fileParallelism: false,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/interop/**', 'test/hosts/**'],
          testTimeout: 30_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'hosts',
          include: ['test/hosts/**/*.test.ts', 'test/interop/**/*.test.ts'],
          testTimeout: 180_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
