import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { authenticationByName, encryptionByName } from '../src/crypto/algorithms.ts';
import type { CryptoProvider, TransformSpec } from '../src/crypto/provider.ts';
import type { EspTransform } from '../src/crypto/transform.ts';
import { table } from './markdown.ts';
import { spread } from './numbers.ts';
import { cryptoTiers, NO_CRYPTO } from './providers.ts';

/**
 * Cryptography alone: nanoseconds to seal and to open an ESP packet, by provider, algorithm and
 * octets of text, one by one and in batches of 64, all JavaScript of the transform included.
 *
 *     node dist/bench/crypto.js [--rounds 9] [--ms 30] [--sizes 64,512,1400]
 *         [--suites aes-gcm-16,chacha20-poly1305] [--crypto node,openssl]
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '9' },
    ms: { type: 'string', default: '30' },
    sizes: { type: 'string', default: '64,512,1400' },
    suites: {
      type: 'string',
      default: 'aes-gcm-16,chacha20-poly1305,aes-cbc+hmac-sha256,aes-ctr+hmac-sha1',
    },
    crypto: { type: 'string', default: '' },
  },
});

const BATCH = 64;
/** Two packets of 1400 octets lie in slots as far apart as those of the packet memory. */
const SLOT_LEN = 2368;
const HEADROOM = 128;

type Direction = 'seal' | 'open';
type Manner = 'one by one' | 'batch';

interface Case {
  readonly tier: string;
  readonly esp: EspTransform;
  readonly manner: Manner;
  readonly ns: Readonly<Record<Direction, number[]>>;
}

const arena = new Uint8Array(BATCH * SLOT_LEN).fill(7);

function specOf(suite: string): TransformSpec {
  const [cipherName = '', macName] = suite.split('+');
  const cipher = encryptionByName(cipherName);
  const mac = macName === undefined ? undefined : authenticationByName(macName);
  if (!cipher || (macName !== undefined && !mac)) throw new Error(`there is no "${suite}"`);
  const key = (bits: number) => Uint8Array.from({ length: bits / 8 }, (_, i) => i * 7 + 1);
  return {
    ...{ cipher, cipherKey: key(cipher.keyBits.min) },
    ...{ mac, macKey: key(mac?.keyBits.min ?? 0) },
    allowLegacy: false,
  };
}

/** Seals or opens all packets of the arena once. */
function turn({ esp, manner }: Case, direction: Direction, len: number): void {
  const { queue, icvLen } = esp;
  const text = len - (len % esp.alignLen);
  const whole = 8 + esp.ivLen + text + (direction === 'open' ? icvLen : 0);
  let bad = 0;
  for (let i = 0; i < BATCH; i++) {
    const at = i * SLOT_LEN + HEADROOM;
    if (manner === 'batch') {
      if (direction === 'seal') esp.sealLater!(arena, at, at + whole, -1);
      else esp.openLater!(arena, at, at + whole, -1);
    } else if (direction === 'seal') {
      esp.seal(arena, at, at + whole, -1);
    } else if (!esp.open(arena, at, at + whole, -1)) {
      bad++;
    }
  }
  if (manner === 'batch') {
    queue!.run();
    for (let i = 0; i < BATCH; i++) if (!queue!.ok(i)) bad++;
  }
  if (bad > 0) throw new Error(`${bad} packets did not open`);
}

/** The median turn of `ms` milliseconds, in nanoseconds a packet. */
function measure(one: Case, len: number, ms: number): void {
  const took: Record<Direction, number[]> = { seal: [], open: [] };
  const end = performance.now() + ms;
  while (performance.now() < end) {
    for (const direction of ['seal', 'open'] as const) {
      const began = performance.now();
      turn(one, direction, len);
      took[direction].push(((performance.now() - began) * 1e6) / BATCH);
    }
  }
  for (const direction of ['seal', 'open'] as const) {
    const sorted = took[direction].sort((a, b) => a - b);
    one.ns[direction].push(sorted[sorted.length >> 1]!);
  }
}

function casesOf(provider: CryptoProvider, tier: string, spec: TransformSpec): Case[] {
  const esp = provider.esp(spec);
  const manners: readonly Manner[] = esp.queue ? ['one by one', 'batch'] : ['one by one'];
  return manners.map((manner) => ({ tier, esp, manner, ns: { seal: [], open: [] } }));
}

const wanted = values.crypto.split(',').filter((name) => name !== '');
const tiers = cryptoTiers().filter(
  ({ name }) => name !== NO_CRYPTO && (wanted.length === 0 || wanted.includes(name)),
);
for (const { name, absent } of tiers) {
  if (absent !== undefined) console.log(`${name}: skipped, ${absent}`);
}
for (const suite of values.suites.split(',')) {
  const spec = specOf(suite);
  console.log(
    `\n${suite}, nanoseconds a packet: median [least, most] of ${values.rounds} rounds\n`,
  );
  const rows: string[][] = [];
  for (const len of values.sizes.split(',').map(Number)) {
    const cases = tiers.flatMap(({ name, provider }) =>
      provider ? casesOf(provider, name, spec) : [],
    );
    // All of a round next to each other, so that whatever else the machine does hits all alike.
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const one of cases) measure(one, len, Number(values.ms));
    }
    for (const { tier, manner, ns, esp } of cases) {
      rows.push([tier, manner, `${len}`, spread(ns.seal), spread(ns.open)]);
      esp.wipe();
    }
  }
  console.log(table(['crypto', 'how', 'octets', 'seal', 'open'], rows));
}
