import { expect, test } from 'vitest';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import { KeyEngine } from '../../src/key/engine.ts';
import { MESSAGES } from '../../src/key/table.ts';
import type { Extension, MessageType, SaType } from '../../src/wire/pfkey-message.ts';
import { A, B, dst, key, policy, rig, sa, src, TestClient } from './rig.ts';

const ENDS = [src(A), dst(B)] as const;

/** A host that notes how many SAs and policies there are when it is asked for what has arrived. */
function host() {
  const { env, sad, spd } = rig();
  const seen: [number, number][] = [];
  const takesAway = () => void seen.push([sad.size, spd.size]);
  const options = { env, sad, spd, crypto: nodeCrypto, allowLegacy: false, takesAway };
  const client = new TestClient(new KeyEngine(options), {});
  client.ask('ADD', 'esp', sa(0x1001), ...ENDS, key());
  client.ask('X_SPDADD', 'unspec', policy(2), ...ENDS);
  expect([sad.size, spd.size, seen]).toEqual([1, 1, []]);
  return { client, seen };
}

test.each([
  ['DELETE', 'esp', [sa(0x1001), ...ENDS]],
  ['DELETE', 'esp', [...ENDS]],
  ['FLUSH', 'unspec', []],
  ['UPDATE', 'esp', [sa(0x1001), ...ENDS]],
  ['X_SPDUPDATE', 'unspec', [policy(2), ...ENDS]],
  ['X_SPDDELETE', 'unspec', [policy(2), ...ENDS]],
  ['X_SPDFLUSH', 'unspec', []],
] satisfies [MessageType, SaType, Extension[]][])(
  '%s: packets that have come before are handled while all is there',
  (type, satype, extensions) => {
    const { client, seen } = host();
    expect(client.errno(type, satype, ...extensions)).toBe(0);
    expect(seen).toEqual([[1, 1]]);
  },
);

test('those that only add or ask do not wait for packets; one that is malformed neither', () => {
  const { client, seen } = host();
  client.ask('GETSPI', 'esp', ...ENDS);
  client.ask('ADD', 'esp', sa(0x1002), ...ENDS, key());
  client.ask('GET', 'esp', sa(0x1002), ...ENDS);
  client.ask('DUMP', 'unspec');
  client.ask('REGISTER', 'esp');
  client.ask('DELETE', 'esp', sa(0x1002));
  expect(seen).toEqual([]);
  const names = Object.entries(MESSAGES).flatMap(([name, row]) => (row.takesAway ? [name] : []));
  expect(names.toSorted()).toEqual([
    ...['DELETE', 'FLUSH', 'UPDATE', 'X_MIGRATE', 'X_SPDDELETE', 'X_SPDDELETE2', 'X_SPDFLUSH'],
    'X_SPDUPDATE',
  ]);
});
