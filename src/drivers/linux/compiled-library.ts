import { packageFile } from './package-file.ts';

/** Where an installation leaves it, seen from the root of the package. */
export const COMPILED_LIBRARY = 'native/build/testudo_fast.so';
/** The variable that says "off" when an installation shall do without it. */
export const COMPILED_VARIABLE = 'TESTUDO_COMPILED';

/**
 * The path of what was compiled at installation, for the byte loops and the loop over jobs of
 * cryptography; or why the host does without it.
 */
export function compiledLibrary(
  environment: NodeJS.ProcessEnv = process.env,
  find = packageFile,
): { readonly path: string } | { readonly why: string } {
  if (environment[COMPILED_VARIABLE] === 'off') {
    return { why: `${COMPILED_VARIABLE}=off: what was compiled at installation is not used` };
  }
  const path = find(COMPILED_LIBRARY);
  if (path !== undefined) return { path };
  return { why: `${COMPILED_LIBRARY} was not built, for want of a C compiler at installation` };
}
