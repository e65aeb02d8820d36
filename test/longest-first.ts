import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take seconds, the longest first. */
const LONG = [
  'test/drivers/native/sanitized.test.ts',
  'test/drivers/native/suites.test.ts',
  'test/fuzz/fuzz.test.ts',
  'test/spd/policy-index.test.ts',
  'test/simulation/simulation.test.ts',
  'test/engine/batch.test.ts',
  'test/engine/row.test.ts',
  'test/drivers/linux/netlink.test.ts',
];

/**
 * Long files first, or the last one would run alone, on one processor. vitest knows by itself only
 * what it has measured before, which a fresh installation has not.
 */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const rank = ({ moduleId }: TestSpecification) => {
      const at = LONG.findIndex((file) => moduleId.endsWith(`/${file}`));
      return at < 0 ? LONG.length : at;
    };
    return sorted.sort((a, b) => rank(a) - rank(b));
  }
}
