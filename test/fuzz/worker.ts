import { parentPort, workerData } from 'node:worker_threads';
import { seededRandom } from '../../src/drivers/seeded-random.ts';
import { toHex } from '../../src/wire/bytes.ts';
import { Coverage } from './coverage.ts';
import { Fuzzer } from './fuzzer.ts';
import { Dice } from './mutate.ts';
import { TARGETS } from './targets.ts';
import { type Order, type Report, Watched } from './watched.ts';

/** How long one target goes on before it is another's turn. */
const TURN_MS = 2000;

const { seed, names, seconds, shared } = workerData as Order;
const watched = new Watched(shared);
const dice = new Dice(seededRandom(seed));
const coverage = new Coverage('/dist/src/');
const fuzzers = TARGETS.filter(({ name }) => names.includes(name)).map(
  (target) => new Fuzzer(target, dice, coverage, (input) => watched.note(input)),
);
const endMs = performance.now() + seconds * 1000;
const told = new Set<string>();

while (performance.now() < endMs) {
  for (const fuzzer of fuzzers) {
    watched.name(names.indexOf(fuzzer.target.name));
    const turn = turnOf(fuzzer);
    parentPort!.postMessage({ kind: 'turn', ...turn } satisfies Report);
    for (const [key, crash] of fuzzer.crashes) {
      if (told.has(key)) continue;
      told.add(key);
      const inputs = crash.inputs.map((input) => toHex(input));
      parentPort!.postMessage({ kind: 'crash', ...crash, inputs } satisfies Report);
    }
  }
}
for (const { target, corpus } of fuzzers) {
  const inputs = corpus.map((input) => toHex(input));
  parentPort!.postMessage({ kind: 'corpus', target: target.name, inputs } satisfies Report);
}
coverage.close();

function turnOf(fuzzer: Fuzzer) {
  const startMs = performance.now();
  const before = fuzzer.execs;
  const end = Math.min(endMs, startMs + TURN_MS);
  do fuzzer.step();
  while (performance.now() < end);
  return {
    target: fuzzer.target.name,
    execs: fuzzer.execs - before,
    ms: performance.now() - startMs,
    corpus: fuzzer.corpus.length,
    signatures: fuzzer.signatures,
  };
}
