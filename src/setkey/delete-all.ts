import { sameAddress } from '../base/address.ts';
import { extension, type Message } from '../wire/pfkey-message.ts';
import type { Pair } from './requests.ts';

/**
 * The pair of addresses that a dumped SA has, if it is one of these; its ports do not matter.
 * deleteall dumps and then deletes one by one, because Linux refuses a DELETE without an SPI.
 */
export function dumpedPair(sa: Message, pairs: readonly Pair[]): Pair | undefined {
  const src = extension(sa, 'ADDRESS_SRC');
  const dst = extension(sa, 'ADDRESS_DST');
  if (!src || !dst) return undefined;
  return pairs.find(
    (pair) =>
      sameAddress(pair.src.address, src.address) && sameAddress(pair.dst.address, dst.address),
  );
}
