import { ADDRESS_LEN, type Address, type Family } from '../base/address.ts';
import { equal, u8, u32 } from '../wire/bytes.ts';

/**
 * The addresses of this machine, for one question about each packet that comes in: may it be for a
 * socket that is bound to none of them?
 */
export class LocalAddresses {
  /** By the last 32 bits. */
  readonly #known = new Map<number, Address[]>();

  set(addresses: readonly Address[]): void {
    this.#known.clear();
    for (const one of addresses) {
      const key = u32(one.bytes, one.bytes.length - 4);
      const list = this.#known.get(key);
      if (list) list.push(one);
      else this.#known.set(key, [one]);
    }
  }

  /** Groups count as ours: which ones were joined, the kernel knows. */
  has(family: Family, p: Uint8Array, at: number): boolean {
    if (isGroup(family, p, at)) return true;
    const len = ADDRESS_LEN[family];
    for (const one of this.#known.get(u32(p, at + len - 4)) ?? []) {
      if (one.family === family && equal(one.bytes, 0, p, at, len)) return true;
    }
    return false;
  }
}

/** Multicast (RFC 5771, RFC 4291 §2.7), and IPv4's limited broadcast. */
function isGroup(family: Family, p: Uint8Array, at: number): boolean {
  const first = u8(p, at);
  if (family === 6) return first === 0xff;
  return (first >= 224 && first < 240) || u32(p, at) === 0xffff_ffff;
}
