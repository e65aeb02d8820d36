import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nodeCrypto } from '../../../src/crypto/node-provider.ts';
import { testWith } from '../../crypto/under-test.ts';
import { compiled, natives } from './natives.ts';

const NATIVES = natives();
const COMPILED = compiled(NATIVES);

/**
 * The vectors and the tests of transforms once more, on each native provider of this machine: what
 * holds for node:crypto holds for all.
 */
const CRYPTO = [
  '../../crypto/transform.test.ts',
  '../../vectors/crypto-rfc.test.ts',
  '../../vectors/crypto-wycheproof.test.ts',
  '../../vectors/rfc3602.test.ts',
  '../../vectors/esp-body.test.ts',
  '../../vectors/ah-body.test.ts',
];
/** Whole packets, by an engine that hands over batches. */
const ENGINE = [
  '../../vectors/packets.test.ts',
  '../../vectors/dpdk.test.ts',
  '../../engine/protect.test.ts',
  '../../engine/tunnel.test.ts',
];
const LONG = ['../../engine/batch.test.ts', '../../engine/row.test.ts'];

for (const { name, provider } of NATIVES) {
  const isCompiled = COMPILED.some((one) => one.name === name);
  const suites = [
    ...CRYPTO,
    ...(isCompiled ? ENGINE : []),
    ...(name === NATIVES.at(-1)!.name ? LONG : []),
  ];
  describe.each(suites)(`${name}: %s`, { timeout: 120_000 }, async (suite) => {
    // Tests ask for the provider while they run, and suites for shapes while they are read.
    testWith(provider);
    beforeAll(() => testWith(provider));
    afterAll(() => testWith(nodeCrypto));
    // Another name for the same file, which is read once for each name.
    await import(`${suite}?${encodeURIComponent(name)}`);
    testWith(nodeCrypto);
  });
}

test('no algorithm that native code has gave a wrong answer', () => {
  for (const { name, provider } of NATIVES) expect(provider.faults, name).toEqual([]);
});
