import {
  type FastLibrary,
  loadFast,
  loadFastFrom,
} from '../../../src/drivers/native/fast-library.ts';
import { type IpsecMb, loadIpsecMb } from '../../../src/drivers/native/ipsec-mb.ts';
import { isAbsent } from '../../../src/drivers/native/koffi.ts';
import { loadOpenSsl, type OpenSsl } from '../../../src/drivers/native/openssl.ts';
import { NativeProvider } from '../../../src/drivers/native/provider.ts';

/** The native providers of this machine. Where CI=true all of them have to be there. */
export interface Native {
  readonly name: string;
  readonly provider: NativeProvider;
}

/** Another build of native/fast than that of the installation: with sanitizers. */
export const FAST_VARIABLE = 'TESTUDO_TEST_FAST';
const another = process.env[FAST_VARIABLE];

export const openSsl = present<OpenSsl>(loadOpenSsl());
export const ipsecMb = present<IpsecMb>(loadIpsecMb());
export const fast = present<FastLibrary>(another ? loadFastFrom(another) : loadFast());

/** Those that are done by native/fast. */
export function compiled(of: readonly Native[]): readonly Native[] {
  return of.filter(({ name }) => !name.includes('no compiler'));
}

/** Of its own for each file: transforms that are not wiped stay in their tables. */
export function natives(): readonly Native[] {
  if (!openSsl) return [];
  const compilers = fast ? [undefined, fast] : [undefined];
  const libraries = ipsecMb ? [undefined, ipsecMb] : [undefined];
  return libraries.flatMap((imb) =>
    compilers.map((library) => ({
      name: `${imb ? 'ipsec-mb' : 'openssl'}${library ? '' : ', no compiler'}`,
      provider: new NativeProvider({ openSsl, imb, fast: library }),
    })),
  );
}

function present<T extends object>(found: T | { readonly why: string }): T | undefined {
  if (!isAbsent(found)) return found;
  if (process.env.CI === 'true') throw new Error(`CI needs it: ${found.why}`);
  console.log(`native crypto is tested without something: ${found.why}`);
  return undefined;
}
