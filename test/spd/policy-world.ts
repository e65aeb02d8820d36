import { type Address, addressFrom, isLoopback, prefixHas } from '../../src/base/address.ts';
import { seededRandom } from '../../src/drivers/seeded-random.ts';
import { PORT_ANY, type Policy, type PolicySpec, PROTOCOL_ANY } from '../../src/spd/policy.ts';
import type { Spd } from '../../src/spd/spd.ts';
import { setU16, u8, u32 } from '../../src/wire/bytes.ts';
import { type Cursor, isExtension } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { policy } from '../engine/rig.ts';
import { fragmentHeader } from '../wire/octets.ts';

export type Verdict = Policy | 'none' | 'ports-unknown';

/** The dumbest possible version: every policy in its order, one by one. */
export function slowLookup(policies: readonly Policy[], p: Uint8Array, cursor: Cursor): Verdict {
  const src = addressFrom(cursor.family, p, cursor.srcAt);
  const dst = addressFrom(cursor.family, p, cursor.dstAt);
  const hidden =
    cursor.family === 6 && cursor.isFragment && isExtension(u8(p, cursor.fragmentHeaderAt));
  for (const one of policies) {
    const { selector } = one;
    const names = [selector.src, selector.dst].some(
      (it) => it.length >= 8 && isLoopback(it.address),
    );
    if ((isLoopback(src) || isLoopback(dst)) && !names) continue;
    if (!prefixHas(selector.src, src) || !prefixHas(selector.dst, dst)) continue;
    if (selector.protocol !== PROTOCOL_ANY && hidden) return 'ports-unknown';
    if (selector.protocol !== PROTOCOL_ANY && selector.protocol !== cursor.protocol) continue;
    if (selector.sport === PORT_ANY && selector.dport === PORT_ANY) return one;
    if (cursor.isFragment) return 'ports-unknown';
    if (!cursor.portsKnown) continue;
    if (selector.sport !== PORT_ANY && selector.sport !== cursor.sport) continue;
    if (selector.dport !== PORT_ANY && selector.dport !== cursor.dport) continue;
    return one;
  }
  return 'none';
}

/** A small world, so that everything overlaps: `spread` says how small. */
export class World {
  readonly #random: ReturnType<typeof seededRandom>;
  readonly #octets = new Uint8Array(4);
  readonly #spread: number;

  constructor(seed: number, spread: number) {
    this.#random = seededRandom(seed);
    this.#spread = spread;
  }

  below(limit: number): number {
    this.#random.fill(this.#octets);
    return u32(this.#octets, 0) % limit;
  }

  pick<T>(...choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  address(family: 4 | 6): Uint8Array {
    const octets = new Uint8Array(family === 4 ? 4 : 16);
    if (this.below(20) === 0) {
      octets.set(family === 4 ? [127, 0, 0, 1] : [1], family === 4 ? 0 : 15);
      return octets;
    }
    octets.set(family === 4 ? [10] : [0x20, 1]);
    for (let i = 0; i < 3; i++) octets[this.below(octets.length)] = this.below(this.#spread);
    return octets;
  }

  spec(family: 4 | 6): PolicySpec {
    const net = () => {
      const octets = this.address(family);
      const length = this.below(8 * octets.length + 1);
      for (let i = 0; i < octets.length; i++) {
        octets[i]! &= 0xff00 >> Math.min(8, Math.max(0, length - 8 * i));
      }
      const address: Address = { family, bytes: octets };
      return { address, length };
    };
    const port = () => this.pick(PORT_ANY, PORT_ANY, this.below(3), 0x5000 + this.below(0x800));
    return {
      ...policy('out', family === 4 ? '0.0.0.0/0' : '::/0', family === 4 ? '0.0.0.0/0' : '::/0'),
      selector: {
        src: net(),
        dst: net(),
        protocol: this.pick(PROTOCOL_ANY, 6, 17, family === 4 ? 1 : 58, 50),
        sport: port(),
        dport: port(),
      },
      type: 'none',
      priority: this.pick(0, 0, this.below(50), 2 ** 31),
    };
  }

  /** Whole, without room for ports, first and later fragments, and with a hidden protocol. */
  packet(family: 4 | 6): Uint8Array {
    const kind = this.pick('whole', 'whole', 'whole', 'cut', 'first', 'later', 'hidden');
    const protocol = this.pick(6, 17, family === 4 ? 1 : 58, 50, 89);
    const upper = new Uint8Array(kind === 'cut' ? 1 : 24);
    if (upper.length > 4) {
      setU16(upper, 0, this.pick(this.below(3), 0x5000 + this.below(0x800)));
      setU16(upper, 2, this.pick(this.below(3), 0x5000 + this.below(0x800)));
    }
    return family === 4 ? this.#ipv4(kind, protocol, upper) : this.#ipv6(kind, protocol, upper);
  }

  #ipv4(kind: string, protocol: number, upper: Uint8Array): Uint8Array {
    const p = new Uint8Array(20 + upper.length);
    ipv4.write(p, 0, 0, p.length, 1, 0, 64, protocol);
    if (kind === 'first') ipv4.setFragment(p, 0, ipv4.FLAG_MF, 0);
    if (kind === 'later') ipv4.setFragment(p, 0, 0, 64);
    p.set(this.address(4), ipv4.SRC_AT);
    p.set(this.address(4), ipv4.DST_AT);
    p.set(upper, 20);
    return p;
  }

  #ipv6(kind: string, protocol: number, upper: Uint8Array): Uint8Array {
    const later = kind === 'later' || kind === 'hidden';
    const isFragment = later || kind === 'first';
    const next = kind === 'hidden' ? 60 : protocol;
    const extension = isFragment
      ? fragmentHeader(next, later ? 64 : 0, kind === 'first' ? 1 : 0, 7)
      : new Uint8Array(0);
    const p = new Uint8Array(40 + extension.length + upper.length);
    ipv6.write(p, 0, 0, 0, p.length - 40, isFragment ? 44 : protocol, 64);
    p.set(this.address(6), ipv6.SRC_AT);
    p.set(this.address(6), ipv6.DST_AT);
    p.set(extension, 40);
    p.set(upper, 40 + extension.length);
    return p;
  }
}

/** Changes of all kinds; the index must be right after each, so it is asked all along. */
export function change(spd: Spd, world: World, family: 4 | 6): void {
  const policies = spd.list('out');
  const victim = policies[world.below(Math.max(1, policies.length))];
  const action = world.below(10);
  if (victim && action < 3) spd.remove(victim);
  else if (victim && action < 5)
    spd.update({ ...victim, priority: world.pick(victim.priority, 3) });
  else {
    const spec = world.spec(family);
    if (!spd.find('out', spec.selector)) spd.add(spec);
  }
}
