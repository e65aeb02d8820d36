import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { toHex } from '../../src/wire/bytes.ts';
import { TARGETS } from './targets.ts';
import { type Order, type Report, Watched } from './watched.ts';

/**
 * Runs the fuzzer for some time: `node dist/test/fuzz/run.js --seconds 60 --seed 7 [--target host]
 * [--out dist/fuzz-out]`. A crash is written to the folder as hexadecimal, a line for each input,
 * with its stack; at the end also the inputs that reached something new. Ends with status 1 if
 * anything crashed.
 */
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: '1' },
    target: { type: 'string', multiple: true },
    out: { type: 'string', default: 'dist/fuzz-out' },
  },
});
const out = values.out;
const names = values.target ?? TARGETS.map(({ name }) => name);
const unknown = names.find((name) => !TARGETS.some((target) => target.name === name));
if (unknown !== undefined) throw new Error(`there is no target ${unknown}`);
mkdirSync(out, { recursive: true });

/** No input runs that long; a worker that does not go on is ended. */
const STUCK_MS = 20_000;

const watched = new Watched();
const order: Order = {
  seed: Number(values.seed),
  names,
  seconds: Number(values.seconds),
  shared: watched.shared,
};
const totals = new Map<string, { execs: number; ms: number }>();
let crashes = 0;

console.log(`seed ${order.seed}, ${order.seconds} s, targets ${names.join(', ')}`);
const script = new URL(import.meta.url.replace(/run(\.[jt]s)$/, 'worker$1'));
const worker = new Worker(script, { workerData: order });
worker.on('message', (report: Report) => {
  if (report.kind === 'turn') turn(report);
  else if (report.kind === 'crash') crash(report.target, report.key, report.stack, report.inputs);
  else writeFileSync(join(out, `${report.target}.corpus`), `${report.inputs.join('\n')}\n`);
});
worker.on('error', (error) => {
  console.error('the fuzzer itself failed:', error);
  process.exitCode = 2;
});

let begun = -1;
const watch = setInterval(() => {
  if (watched.begun !== begun) {
    begun = watched.begun;
    return;
  }
  const { target, input } = watched.current;
  crash(names[target]!, 'hang', `no answer within ${STUCK_MS} ms`, [toHex(input)]);
  void worker.terminate();
}, STUCK_MS);
worker.on('exit', () => {
  clearInterval(watch);
  const execs = [...totals.values()].reduce((sum, one) => sum + one.execs, 0);
  console.log(`${execs} inputs, ${crashes} crashes`);
  if (crashes > 0) process.exitCode = 1;
});

function turn(report: Report & { kind: 'turn' }): void {
  const total = totals.get(report.target) ?? { execs: 0, ms: 0 };
  total.execs += report.execs;
  total.ms += report.ms;
  totals.set(report.target, total);
  const rate = Math.round((1000 * total.execs) / total.ms);
  const counts = `${total.execs} inputs, ${rate}/s`;
  const found = `corpus ${report.corpus}, signatures ${report.signatures}`;
  console.log(`${report.target.padEnd(10)} ${counts}, ${found}, crashes ${crashes}`);
}

function crash(target: string, key: string, stack: string, inputs: readonly string[]): void {
  crashes++;
  const name = `${target}-${createHash('sha256').update(key).digest('hex').slice(0, 12)}`;
  writeFileSync(join(out, `${name}.hex`), `${inputs.join('\n')}\n`);
  writeFileSync(join(out, `${name}.txt`), `${stack}\n`);
  console.log(`CRASH ${name}: ${key}`);
}
