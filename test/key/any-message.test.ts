import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MESSAGES } from '../../src/key/table.ts';
import { toHex } from '../../src/wire/bytes.ts';
import { encode } from '../../src/wire/pfkey.ts';
import type { Extension, Message, MessageType, SaType } from '../../src/wire/pfkey-message.ts';
import {
  A,
  A6,
  B,
  dst,
  key,
  policy,
  request,
  rig,
  sa,
  sa2,
  secret,
  src,
  type TestClient,
  tunnel,
} from './rig.ts';

/**
 * Requests of every kind, near enough to good ones that many are accepted, whatever state they
 * meet.
 */
const small = fc.nat({ max: 4 });
const address = fc.constantFrom(A, B, A6);
const spi = fc.constantFrom(0, 255, 300, 301, 0x1001, 0xffff_ffff);
const aead = key(secret(20));
const mac = key(secret(20, 0x31), 'KEY_AUTH');
const level = fc.record({ level: small, reqid: fc.constantFrom(0, 5, 0x4000), mode: small });
const requests = fc.array(
  fc.oneof(
    level.map((given) => request(given)),
    level.map((given) => request({ ...given, ...tunnel(A, B) })),
    fc.constantFrom(request({ proto: 51 }), request({ proto: 108 })),
  ),
  { maxLength: 8 },
);

const part: fc.Arbitrary<Extension> = fc.oneof(
  fc
    .record({
      spi,
      encrypt: fc.constantFrom(0, 11, 12, 20, 99),
      flags: fc.constantFrom(0, 1, 0x440),
    })
    .map((given) => sa(given.spi, given)),
  fc.tuple(small, small).map(([mode, reqid]) => sa2(mode, reqid)),
  fc.tuple(address, small).map(([of, proto]) => src(of, { proto })),
  fc.tuple(address, small).map(([of, proto]) => dst(of, { proto })),
  fc.constantFrom<Extension>(aead, mac, src(A), dst(B), src(A), dst(B)),
  fc.tuple(spi, spi).map(([min, max]): Extension => ({ type: 'SPIRANGE', min, max })),
  fc
    .record({ direction: small, policyType: small, id: small, requests })
    .map(({ direction, ...given }) => policy(direction, given)),
  fc
    .record({ addTime: small, bytes: small })
    .map((given): Extension => ({ type: 'LIFETIME_HARD', allocations: 0, useTime: 0, ...given })),
  fc.nat({ max: 5000 }).map(
    (replayPackets): Extension => ({
      type: 'X_TESTUDO',
      replayPackets,
      ahAlign: 0,
      df: 'copy',
      ecn: 'default',
    }),
  ),
  fc.constantFrom<Extension>(
    { type: 'X_NAT_T_TYPE', encapsulation: 2 },
    { type: 'X_NAT_T_SPORT', port: 4500 },
    { type: 'X_NAT_T_DPORT', port: 4500 },
    { type: 'X_SEC_CTX', algorithm: 1, doi: 1, context: new Uint8Array(3) },
    { type: 'PROPOSAL', replay: 0, combs: [] },
    { type: 'IDENTITY_SRC', idType: 2, id: 0, text: 'a.example' },
  ),
);

const anyRequest = fc.record({
  type: fc.constantFrom(...(Object.keys(MESSAGES) as MessageType[])),
  satype: fc.constantFrom<SaType>('unspec', 'esp', 'esp', 'ah', 'ipcomp', 'promisc', 'ospfv2'),
  errno: fc.constantFrom(0, 0, 0, 3),
  extensions: fc.uniqueArray(part, { selector: (one) => one.type, maxLength: 8 }),
});

/** Good requests in between, so that there is something to find, and dumps to read. */
const goodRequest = fc.constantFrom<Pick<Message, 'type' | 'satype' | 'extensions'>>(
  { type: 'ADD', satype: 'esp', extensions: [sa(0x1001), src(A), dst(B), aead] },
  { type: 'GETSPI', satype: 'esp', extensions: [src(A), dst(B)] },
  { type: 'GET', satype: 'esp', extensions: [sa(0x1001), src(A), dst(B)] },
  { type: 'X_SPDADD', satype: 'unspec', extensions: [policy(2), src(A), dst(B)] },
  { type: 'X_PROMISC', satype: 'promisc', extensions: [] },
  { type: 'REGISTER', satype: 'esp', extensions: [] },
  { type: 'DUMP', satype: 'unspec', extensions: [] },
);

function answersFit(
  request: Pick<Message, 'type' | 'errno'>,
  client: TestClient,
  replies: Message[],
) {
  if (request.type === 'ACQUIRE' && request.errno !== 0) {
    expect(replies).toEqual([]);
    return;
  }
  expect(replies.length).toBeGreaterThan(0);
  for (const [i, reply] of replies.entries()) {
    expect([reply.type, reply.pid]).toEqual([request.type, client.pid]);
    const isDump = reply.errno === 0 && (reply.type === 'DUMP' || reply.type === 'X_SPDDUMP');
    expect(reply.seq).toBe(isDump ? replies.length - 1 - i : client.seq);
    if (!isDump) expect(replies).toHaveLength(1);
    if (reply.errno !== 0) expect(reply.extensions).toEqual([]);
    // Everything that we say can be said.
    expect(encode(reply, 'linux').length).toBeLessThan(4096);
  }
}

describe('any request', () => {
  test('is answered exactly once, never throws, and gives no key to anyone else', () => {
    const secrets = [toHex(aead.key), toHex(mac.key)];
    let accepted = 0;
    let refused = 0;
    const sequence = fc.array(fc.oneof(anyRequest, goodRequest), { minLength: 20, maxLength: 40 });
    fc.assert(
      fc.property(sequence, (given) => {
        const { engine, sad, connect, advance, logged } = rig();
        const [client, watcher] = [connect(), connect()];
        watcher.ask('X_PROMISC', 'promisc');
        for (const one of given) {
          const request = { errno: 0, ...one };
          const replies = client.send(request);
          answersFit(request, client, replies);
          if (replies[0]?.errno === 0) accepted++;
          else if (replies[0]) {
            refused++;
            expect(engine.reasonFor(client.pid, client.seq)).toBeTypeOf('string');
          }
          for (const made of sad.all()) if (made.isUsable) sad.account(made, 1, 1);
          advance(700);
        }
        for (const message of watcher.heard()) {
          const hex = toHex(encode(message, 'linux'));
          for (const one of secrets) expect(hex).not.toContain(one);
        }
        for (const one of secrets) expect(logged.join()).not.toContain(one);
        // The messages' keys are still theirs: the engine keeps copies.
        expect(toHex(aead.key)).toBe(secrets[0]);
      }),
      { numRuns: 60 },
    );
    expect(accepted).toBeGreaterThan(300);
    expect(refused).toBeGreaterThan(300);
  });
});
