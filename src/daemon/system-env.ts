import { randomFillSync } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import type { Env, LogLevel } from '../base/env.ts';

const ORDER: readonly LogLevel[] = ['error', 'warn', 'info', 'debug'];

/**
 * The real world: this machine's clocks, its random octets, and lines on standard error up to a
 * level.
 */
export function systemEnv(level: LogLevel): Env {
  return {
    clock: { monotonicMs: () => performance.now(), wallMs: () => Date.now() },
    random: {
      fill(bytes) {
        randomFillSync(bytes);
      },
    },
    log(of, message) {
      if (ORDER.indexOf(of) <= ORDER.indexOf(level))
        process.stderr.write(`testudo: ${of}: ${message}\n`);
    },
  };
}
