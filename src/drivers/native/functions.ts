import type { IpsecMb } from './ipsec-mb.ts';
import { FUNCTIONS } from './layout.ts';
import { type NativeBlock, nativeBlock, setLong } from './memory.ts';
import { HASHES, type OpenSsl } from './openssl.ts';

/** `struct functions` of jobs.h: where everything is that native code may call. */
export function functionTable(openSsl: OpenSsl, imb: IpsecMb | undefined): NativeBlock {
  const block = nativeBlock(openSsl.koffi, FUNCTIONS.len);
  const { words } = block;
  const { cipherInit, cipherUpdate, cipherFinal, cipherCtrl } = openSsl.addresses;
  setLong(words, FUNCTIONS.cipherInit, cipherInit);
  setLong(words, FUNCTIONS.cipherUpdate, cipherUpdate);
  setLong(words, FUNCTIONS.cipherFinal, cipherFinal);
  setLong(words, FUNCTIONS.cipherCtrl, cipherCtrl);
  HASHES.forEach((name, i) => {
    const { addresses, stateLen, digestLen } = openSsl.hashes[name];
    const at = FUNCTIONS.hash + i * FUNCTIONS.hashLen;
    [addresses.update, addresses.final, stateLen, digestLen].forEach((value, field) => {
      setLong(words, at + 8 * field, value);
    });
  });
  if (imb) setImb(words, imb);
  return block;
}

function setImb(words: Uint32Array, { manager, addresses, gcm }: IpsecMb): void {
  setLong(words, FUNCTIONS.imb, manager.address);
  setLong(words, FUNCTIONS.imbNext, addresses.next);
  setLong(words, FUNCTIONS.imbSubmit, addresses.submit);
  setLong(words, FUNCTIONS.imbFlush, addresses.flush);
  gcm.forEach((calls, size) => {
    const at = FUNCTIONS.gcm + size * FUNCTIONS.gcmLen;
    calls.addresses.forEach((address, field) => {
      setLong(words, at + 8 * field, address);
    });
  });
}
