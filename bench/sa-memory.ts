import { address } from '../src/base/address.ts';
import { nodeCrypto } from '../src/crypto/node-provider.ts';
import { systemEnv } from '../src/daemon/system-env.ts';
import { KeyEngine } from '../src/key/engine.ts';
import { Sad } from '../src/sad/sad.ts';
import { memorySequences } from '../src/sad/sequence.ts';
import { Spd } from '../src/spd/spd.ts';
import { decode, encode } from '../src/wire/pfkey.ts';
import type { AddressExtension, Extension, Message } from '../src/wire/pfkey-message.ts';

/**
 * Octets of memory per idle SA, as a gateway has them: each with its own peer, SPI and keys, made
 * by an ADD that arrived as octets.
 *
 *     npm run build && node --expose-gc dist/bench/sa-memory.js [count]
 */
const COUNT = Number(process.argv[2] ?? 200_000);
const collect = globalThis.gc;
if (!collect) throw new Error('run it with node --expose-gc');

const env = systemEnv('error');
const { clock, random } = env;

function used(): number {
  collect!();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function end(type: AddressExtension['type'], number: number): AddressExtension {
  const to = address(`10.${number >> 16}.${(number >> 8) & 255}.${number & 255}`);
  return { type, proto: 0, prefixLen: 32, address: to, port: 0, scopeId: 0 };
}

function key(type: 'KEY_AUTH' | 'KEY_ENCRYPT', len: number, i: number): Extension {
  const octets = Uint8Array.from({ length: len }, (_, at) => (at * 37 + i) & 255);
  return { type, bits: 8 * len, key: octets };
}

interface Kind {
  readonly name: string;
  readonly auth: number;
  readonly encrypt: number;
  readonly keys: (i: number) => Extension[];
  readonly limits: readonly Extension[];
}

const HARD = {
  type: 'LIFETIME_HARD',
  allocations: 0,
  bytes: 0,
  addTime: 28_800,
  useTime: 0,
} as const;
const SOFT = { ...HARD, type: 'LIFETIME_SOFT', addTime: 23_040 } as const;
const KINDS: readonly Kind[] = [
  {
    name: 'AES-128-GCM',
    auth: 0,
    encrypt: 20,
    keys: (i) => [key('KEY_ENCRYPT', 20, i)],
    limits: [],
  },
  {
    name: 'AES-128-GCM, hard and soft lifetime',
    auth: 0,
    encrypt: 20,
    keys: (i) => [key('KEY_ENCRYPT', 20, i)],
    limits: [HARD, SOFT],
  },
  {
    name: 'AES-256-CBC and HMAC-SHA2-256, hard and soft lifetime',
    auth: 5,
    encrypt: 12,
    keys: (i) => [key('KEY_AUTH', 32, i), key('KEY_ENCRYPT', 32, i)],
    limits: [HARD, SOFT],
  },
];

function perSa({ auth, encrypt, keys, limits }: Kind): number {
  const sad = new Sad({ clock, random, sequences: memorySequences() });
  const spd = new Spd({ clock });
  const engine = new KeyEngine({ env, sad, spd, crypto: nodeCrypto, allowLegacy: false });
  const session = engine.connect({
    origin: 'client',
    dialect: 'linux',
    deliver: () => undefined,
    deliverDump: (entries) => void entries.return?.(),
  });
  const add = (i: number) => {
    const sa: Extension = {
      type: 'SA',
      spi: 0x1000 + i,
      replay: 64,
      state: 1,
      auth,
      encrypt,
      flags: 0,
    };
    const ends = [end('ADDRESS_SRC', i), end('ADDRESS_DST', 0xff_ffff)];
    const extensions = [sa, ...ends, ...keys(i), ...limits];
    const head = { type: 'ADD', errno: 0, satype: 'esp', seq: i, pid: 1, reserved: 0 } as const;
    const message: Message = decode(encode({ ...head, extensions }, 'linux'), 'linux');
    const error = session.request(message);
    if (error) throw error;
  };
  for (let i = 0; i < 100; i++) add(i);
  const before = used();
  for (let i = 100; i < COUNT + 100; i++) add(i);
  const octets = (used() - before) / COUNT;
  sad.flush();
  return octets;
}

console.log(`| ${COUNT} idle SAs | octets of memory each |`);
console.log('|---|---|');
for (const kind of KINDS) console.log(`| ${kind.name} | ${Math.round(perSa(kind))} |`);
