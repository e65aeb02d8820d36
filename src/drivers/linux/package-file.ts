import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Behind src/drivers/linux/ here, and behind dist/src/drivers/linux/ once compiled. */
const ROOTS = ['../../../', '../../../../'];

/** The path of a file of this package, such as `package.json`; undefined when it is not there. */
export function packageFile(name: string): string | undefined {
  return ROOTS.map((root) => fileURLToPath(new URL(root + name, import.meta.url))).find((path) =>
    existsSync(path),
  );
}
