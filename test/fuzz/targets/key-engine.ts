import { KeyError } from '../../../src/base/error.ts';
import { nodeCrypto } from '../../../src/crypto/node-provider.ts';
import type { KeyClient } from '../../../src/key/client.ts';
import { KeyEngine } from '../../../src/key/engine.ts';
import { Sad } from '../../../src/sad/sad.ts';
import { memorySequences } from '../../../src/sad/sequence.ts';
import { Spd } from '../../../src/spd/spd.ts';
import { encode } from '../../../src/wire/pfkey.ts';
import type { Dialect, Message } from '../../../src/wire/pfkey-message.ts';
import { testEnv } from '../../engine/rig.ts';
import { must, type Target } from '../target.ts';
import { decoded, pfkeySeeds } from './pfkey.ts';

const TABLE_MAX = 50;

interface Client extends KeyClient {
  replies: number;
}

function client(dialect: Dialect): Client {
  return {
    origin: 'client',
    dialect,
    replies: 0,
    deliver(message, kind) {
      write(message, dialect);
      if (kind === 'reply') this.replies++;
    },
    deliverDump(entries) {
      for (let next = entries.next(); !next.done; next = entries.next()) {
        write(next.value, dialect);
      }
      this.replies++;
    },
  };
}

/** What another dialect said may have no place in this one, which `encode` says. */
function write(message: Message, dialect: Dialect): void {
  try {
    encode(message, dialect);
  } catch (error) {
    if (!(error instanceof KeyError)) throw error;
  }
}

/** The octet in front says which client speaks, and whether time passes. */
function create(): (input: Uint8Array) => void {
  const env = testEnv();
  const { clock, random } = env;
  const sequences = memorySequences();
  const sad = new Sad({
    clock,
    random,
    sequences,
    saMax: TABLE_MAX,
    expired: (sa, limit) => engine.expired(sa, limit),
  });
  const spd = new Spd({
    clock,
    policyMax: TABLE_MAX,
    expired: (policy) => engine.policyExpired(policy),
  });
  const engine: KeyEngine = new KeyEngine({ env, sad, spd, crypto: nodeCrypto, allowLegacy: true });
  const clients = (['linux', 'bsd'] as const).map((dialect) => client(dialect));
  const sessions = clients.map((one) => engine.connect(one));
  return (input) => {
    const which = input[0]! & 1;
    const octets = input.slice(1);
    if (octets.length >= 16) {
      octets[4] = octets.length >> 3;
      octets[5] = octets.length >> 11;
    }
    if ((input[0]! & 2) !== 0) {
      env.advance(11_000);
      sad.poll(clock.monotonicMs());
      spd.poll(clock.monotonicMs());
    }
    const message = decoded(octets, clients[which]!.dialect);
    if (message === undefined) return;
    const before = clients[which]!.replies;
    sessions[which]!.request(message);
    const replies = clients[which]!.replies - before;
    const silent = message.type === 'ACQUIRE' && message.errno !== 0;
    must(replies === (silent ? 0 : 1), `${replies} replies to ${message.type}`);
    must(sad.size <= TABLE_MAX && spd.size <= TABLE_MAX, 'tables are bounded');
  };
}

export const keyEngine: Target = {
  name: 'key-engine',
  lenMax: 800,
  words: Array.from({ length: 28 }, (_, type) => Uint8Array.of(2, type)),
  seeds: () =>
    pfkeySeeds('requests').flatMap((octets) =>
      [0, 1, 2].map((flags) => Uint8Array.of(flags, ...octets)),
    ),
  create,
};
