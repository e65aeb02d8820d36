import { parseArgs } from 'node:util';
import { runSeed } from './seed.ts';

/**
 * Runs many seeds: `node dist/test/simulation/run.js --from 1 --to 10000`. Ends with status 1 after
 * the first that fails.
 */
const { values } = parseArgs({
  options: { from: { type: 'string', default: '1' }, to: { type: 'string', default: '1000' } },
});

for (let seed = Number(values.from); seed <= Number(values.to); seed++) {
  const wrong = runSeed(seed);
  if (wrong.length > 0) {
    console.log(`seed ${seed}:\n  ${wrong.slice(0, 20).join('\n  ')}`);
    process.exit(1);
  }
  if (seed % 500 === 0) console.log(`seed ${seed}: sound so far`);
}
