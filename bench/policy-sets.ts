import type { Prefix } from '../src/base/address.ts';
import { maskPrefix } from '../src/base/address.ts';
import { seededRandom } from '../src/drivers/seeded-random.ts';
import { PORT_ANY, type PolicySpec, PROTOCOL_ANY, type Selector } from '../src/spd/policy.ts';
import { u32 } from '../src/wire/bytes.ts';

/** Numbers that depend on the seed alone. */
export class Dice {
  readonly #random: ReturnType<typeof seededRandom>;
  readonly #octets = new Uint8Array(4);

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  below(limit: number): number {
    this.#random.fill(this.#octets);
    return u32(this.#octets, 0) % limit;
  }

  octets(len: number): Uint8Array {
    const octets = new Uint8Array(len);
    this.#random.fill(octets);
    return octets;
  }
}

export interface PolicySet {
  readonly name: string;
  readonly family: 4 | 6;
  /** The selector and priority of policy `i` of `count`. */
  make(dice: Dice, i: number, count: number): { selector: Selector; priority: number };
}

/** Tables that a host may have, and such as are made to hurt. */
export const POLICY_SETS: readonly PolicySet[] = [
  {
    name: 'random networks and ports, IPv4',
    family: 4,
    make: (dice) => randomPolicy(dice, 4, 8, 32),
  },
  {
    name: 'random networks and ports, IPv6',
    family: 6,
    make: (dice) => randomPolicy(dice, 6, 32, 128),
  },
  {
    name: 'sites with networks of their own, all to all',
    family: 4,
    make: (dice, _, count) => {
      const sites = Math.ceil(Math.sqrt(2 * count));
      const net = () => {
        const site = dice.below(sites);
        return maskPrefix({ family: 4, bytes: Uint8Array.of(10, site >> 8, site & 255, 0) }, 24);
      };
      return { selector: { src: net(), dst: net(), ...ANY }, priority: 0 };
    },
  },
  {
    name: 'adversarial: every pair of prefix lengths, the longest first',
    family: 4,
    make: (dice) => {
      const { selector } = randomPolicy(dice, 4, 0, 32);
      return { selector, priority: 64 - selector.src.length - selector.dst.length };
    },
  },
  {
    name: 'adversarial: every pair of prefix lengths, at random priorities',
    family: 4,
    make: (dice) => randomPolicy(dice, 4, 0, 32),
  },
  {
    name: 'adversarial: from one host to all, and from all to one host',
    family: 4,
    make: (dice, i) => {
      const host = net(dice, 4, 32);
      const all = net(dice, 4, 0);
      const ends = i % 2 === 0 ? { src: host, dst: all } : { src: all, dst: host };
      return { selector: { ...ends, ...ANY }, priority: dice.below(1000) };
    },
  },
  {
    name: 'adversarial: one network, and only ports differ',
    family: 4,
    make: (dice) => {
      const one = maskPrefix({ family: 4, bytes: Uint8Array.of(10, 0, 0, 0) }, 8);
      const ports = { sport: dice.below(65_536), dport: dice.below(65_536) };
      return { selector: { src: one, dst: one, protocol: 6, ...ports }, priority: 0 };
    },
  },
  {
    name: 'adversarial: nested around one address, the longest first, ports that match nothing',
    family: 4,
    make: (dice) => {
      const inner = { family: 4, bytes: Uint8Array.of(10, 1, 2, 3) } as const;
      const src = maskPrefix(inner, dice.below(33));
      const dst = maskPrefix(inner, dice.below(33));
      const ports = { protocol: 6, sport: PORT_ANY, dport: dice.below(65_536) };
      return { selector: { src, dst, ...ports }, priority: 64 - src.length - dst.length };
    },
  },
];

const ANY = { protocol: PROTOCOL_ANY, sport: PORT_ANY, dport: PORT_ANY };

export function specOf({ selector, priority }: { selector: Selector; priority: number }) {
  const spec: PolicySpec = {
    direction: 'out',
    selector,
    type: 'none',
    priority,
    requests: [],
    lifetimeSeconds: 0,
    idleSeconds: 0,
    origin: 'file',
  };
  return spec;
}

function randomPolicy(dice: Dice, family: 4 | 6, min: number, max: number) {
  const length = () => min + dice.below(max - min + 1);
  const src = net(dice, family, length());
  const dst = net(dice, family, length());
  const protocol = [PROTOCOL_ANY, 6, 17][dice.below(3)]!;
  const port = () => (protocol === PROTOCOL_ANY || dice.below(2) ? PORT_ANY : dice.below(65_536));
  const selector: Selector = { src, dst, protocol, sport: port(), dport: port() };
  return { selector, priority: dice.below(1_000_000) };
}

/** Within 2001::/16, so that IPv6 addresses have something in common. */
function net(dice: Dice, family: 4 | 6, length: number): Prefix {
  const bytes = dice.octets(family === 4 ? 4 : 16);
  if (family === 6) bytes.set([0x20, 1]);
  // Loopback packets go by rules of their own.
  if (family === 4 && bytes[0] === 127) bytes[0] = 126;
  return maskPrefix({ family, bytes }, length);
}
