import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { ERRNO } from '../../src/base/errno.ts';
import { extension, type Message } from '../../src/wire/pfkey-message.ts';
import {
  A,
  B,
  dst,
  key,
  lifetime,
  policy,
  type Rig,
  request,
  rig,
  sa,
  sa2,
  secret,
  src,
} from '../key/rig.ts';

/**
 * What a key exchange daemon of BSD lives by (racoon of ipsec-tools, whose plan of tests has: SA
 * establish, policy, rekey, expire, failure paths), and the order of calls of KAME's
 * libipsec/test-policy.c and setkey/test-pfkey.c.
 */

const OUT = 2;
const ENDS = [src(A), dst(B)] as const;
const TRIGGER = { cursor: { protocol: 17, portsKnown: true, sport: 1000, dport: 2000 } };

function daemon(host: Rig): ReturnType<Rig['connect']> {
  const client = host.connect();
  for (const type of ['ah', 'esp'] as const) expect(client.errno('REGISTER', type)).toBe(0);
  client.heard();
  return client;
}

/** A packet that an outgoing policy has no SA for. */
function packet(host: Rig): 'asked' | 'waiting' | 'nobody' {
  const [first] = host.spd.list('out');
  return host.engine.acquire(first!, first!.requests[0]!, A, B, TRIGGER);
}

/** From an ACQUIRE to an SA in each direction, as racoon does it. */
function negotiate(client: ReturnType<Rig['connect']>, acquire: Message): number {
  const back = [src(B), dst(A)] as const;
  const range = { type: 'SPIRANGE', min: 0x100, max: 0x0fff_ffff } as const;
  const [larval] = client.send({
    type: 'GETSPI',
    satype: 'esp',
    seq: acquire.seq,
    extensions: [...back, range],
  });
  const { spi } = extension(larval!, 'SA')!;
  const limits = [
    lifetime('LIFETIME_HARD', { addTime: 100, bytes: 10_000 }),
    lifetime('LIFETIME_SOFT', { addTime: 80, bytes: 8000 }),
  ];
  const incoming = [sa(spi, { replay: 4 }), sa2(1), ...back, key(secret(20, spi)), ...limits];
  const [updated] = client.send({
    type: 'UPDATE',
    satype: 'esp',
    seq: acquire.seq,
    extensions: incoming,
  });
  expect(updated!.errno).toBe(0);
  const outgoing = [
    sa(spi ^ 1, { replay: 4 }),
    sa2(1),
    ...ENDS,
    key(secret(20, spi + 1)),
    ...limits,
  ];
  const [added] = client.send({
    type: 'ADD',
    satype: 'esp',
    seq: acquire.seq,
    extensions: outgoing,
  });
  expect(added!.errno).toBe(0);
  return spi;
}

describe('racoon', () => {
  test('SA establish: ACQUIRE names a policy that the daemon has heard of before', () => {
    const host = rig();
    const client = daemon(host);
    const added = host.connect().one('X_SPDADD', 'unspec', ...ENDS, policy(OUT));
    const [heard] = client.heard();
    expect(heard).toEqual(added);
    expect(packet(host)).toBe('asked');
    const [acquire] = client.heard();
    expect(extension(acquire!, 'X_POLICY')!.id).toBe(extension(heard!, 'X_POLICY')!.id);
    expect([acquire!.pid, acquire!.satype]).toEqual([0, 'esp']);
    const spi = negotiate(client, acquire!);
    const inbound = host.sad.get('esp', spi, A)!;
    expect([inbound.state, inbound.spec.pid, inbound.spec.seq]).toEqual([
      'mature',
      client.pid,
      acquire!.seq,
    ]);
    expect(host.sad.outbound('esp', 'transport', A, B, 0)!.spec.spi).toBe(spi ^ 1);
  });

  test('rekey: soft EXPIRE, a second pair, which is used at once, and hard EXPIRE of the first', () => {
    const host = rig();
    const client = daemon(host);
    host.connect().one('X_SPDADD', 'unspec', ...ENDS, policy(OUT));
    packet(host);
    const first = negotiate(client, client.heard().find((one) => one.type === 'ACQUIRE')!);
    client.heard();
    host.advance(79_999);
    expect(client.heard()).toEqual([]);
    host.advance(1);
    const soft = client.heard();
    expect(soft.map((one) => [one.type, extension(one, 'LIFETIME_SOFT')?.addTime])).toEqual([
      ['EXPIRE', 80],
      ['EXPIRE', 80],
    ]);
    // In use all the same, and there is no ACQUIRE while it is.
    expect(host.sad.outbound('esp', 'transport', A, B, 0)!.state).toBe('dying');
    const second = negotiate(client, soft[0]!);
    expect(host.sad.outbound('esp', 'transport', A, B, 0)!.spec.spi).toBe(second ^ 1);
    client.heard();
    host.advance(20_000);
    const hard = client.heard().map((one) => extension(one, 'LIFETIME_HARD')?.addTime);
    expect(hard).toEqual([100, 100]);
    expect([host.sad.get('esp', first, A), host.sad.size]).toEqual([undefined, 2]);
  });

  test('expire by octets: soft and hard each at the octet, not before', () => {
    const host = rig();
    const client = daemon(host);
    host.connect().one('X_SPDADD', 'unspec', ...ENDS, policy(OUT));
    packet(host);
    const spi = negotiate(client, client.heard().find((one) => one.type === 'ACQUIRE')!);
    client.heard();
    const outbound = host.sad.get('esp', spi ^ 1, B)!;
    host.sad.account(outbound, 1, 7999);
    expect(client.heard()).toEqual([]);
    host.sad.account(outbound, 1, 1);
    const [soft] = client.heard();
    expect(extension(soft!, 'LIFETIME_SOFT')).toMatchObject({ bytes: 8000 });
    expect(extension(soft!, 'LIFETIME_CURRENT')).toMatchObject({ bytes: 8000, allocations: 2 });
    host.sad.account(outbound, 1, 1999);
    expect(client.heard()).toEqual([]);
    host.sad.account(outbound, 1, 1);
    expect(extension(client.heard()[0]!, 'LIFETIME_HARD')).toMatchObject({ bytes: 10_000 });
    expect(outbound.state).toBe('dead');
  });

  test('failure: an ACQUIRE with an errno is heard by nobody, and asks for patience', () => {
    const host = rig();
    const client = daemon(host);
    host.connect().one('X_SPDADD', 'unspec', ...ENDS, policy(OUT));
    packet(host);
    const acquire = client.heard().find((one) => one.type === 'ACQUIRE')!;
    host.advance(19_000);
    const failed = {
      type: 'ACQUIRE',
      satype: 'esp',
      seq: acquire.seq,
      errno: ERRNO.ETIMEDOUT,
    } as const;
    expect(client.send({ ...failed, extensions: [] })).toEqual([]);
    host.advance(19_000);
    expect(packet(host)).toBe('waiting');
    host.advance(1000);
    expect(packet(host)).toBe('asked');
    expect(client.heard().map((one) => one.seq)).toEqual([acquire.seq + 1]);
  });

  test('blockacq_count and blockacq_lifetime: the settings decide', () => {
    const host = rig();
    const client = daemon(host);
    host.settings.blockAcquireCount = 2;
    host.settings.blockAcquireSeconds = 5;
    host.connect().one('X_SPDADD', 'unspec', ...ENDS, policy(OUT));
    client.heard();
    const outcomes = Array.from({ length: 7 }, () => packet(host));
    expect(outcomes.map((one) => one === 'asked')).toEqual([
      true,
      false,
      false,
      true,
      false,
      false,
      true,
    ]);
    expect(new Set(client.heard().map((one) => one.seq)).size).toBe(1);
    host.advance(5000);
    expect(packet(host)).toBe('asked');
  });

  test('initial contact: DUMP, and DELETE of each by SPI', () => {
    const host = rig();
    const client = daemon(host);
    for (const spi of [0x1001, 0x1002, 0x1003]) {
      expect(client.errno('ADD', 'esp', sa(spi), ...ENDS, key())).toBe(0);
    }
    for (const entry of client.ask('DUMP', 'esp')) {
      const { spi } = extension(entry, 'SA')!;
      expect(client.errno('DELETE', 'esp', sa(spi), ...ENDS)).toBe(0);
    }
    expect(client.errno('DUMP', 'esp')).toBe(ERRNO.ENOENT);
  });
});

describe('libipsec/test-policy.c, the part that needs root', () => {
  test('flush, setidx, update, delete, add, get by id, delete by id, add with a lifetime', () => {
    const host = rig();
    const client = host.connect();
    const selector = [src(A, { proto: 6, port: 80 }), dst(B, { proto: 6 })] as const;
    const rule = policy(OUT, { requests: [request({ proto: 51 }), request()] });
    expect(client.errno('X_SPDFLUSH', 'unspec')).toBe(0);
    expect(client.errno('X_SPDSETIDX', 'unspec', ...selector, policy(OUT, { requests: [] }))).toBe(
      0,
    );
    expect(client.errno('X_SPDUPDATE', 'unspec', ...selector, rule)).toBe(0);
    expect(host.spd.list('out')[0]!.requests).toHaveLength(2);
    expect(client.errno('X_SPDDELETE', 'unspec', ...selector, rule)).toBe(0);
    const added = client.one('X_SPDADD', 'unspec', ...selector, rule);
    const byId = policy(0, { id: extension(added, 'X_POLICY')!.id, requests: [] });
    expect(extension(client.one('X_SPDGET', 'unspec', byId), 'ADDRESS_SRC')).toEqual(selector[0]);
    expect(client.errno('X_SPDDELETE2', 'unspec', byId)).toBe(0);
    const limit = lifetime('LIFETIME_HARD', { useTime: 10 });
    expect(client.errno('X_SPDADD', 'unspec', ...selector, limit, rule)).toBe(0);
    // "Expecting failure" there: the policy is gone by then, and update does not make one. Here it
    // does, since OpenIKED wants it so.
    host.advance(10_000);
    expect(host.spd.size).toBe(0);
    expect(client.errno('X_SPDUPDATE', 'unspec', ...selector, rule)).toBe(0);
  });
});

describe('setkey/test-pfkey.c', () => {
  test('every kind of message is answered, once', () => {
    const client = rig().connect();
    const other = [src(address('10.0.0.3')), dst(B)] as const;
    const ask = [
      ['GETSPI', 0],
      ['UPDATE', ERRNO.ESRCH],
      ['ADD', 0],
      ['GET', 0],
      ['DELETE', 0],
      ['REGISTER', 0],
      ['FLUSH', 0],
      ['DUMP', ERRNO.ENOENT],
      ['EXPIRE', ERRNO.EOPNOTSUPP],
    ] as const;
    const extensions: Partial<Record<string, Message['extensions']>> = {
      GETSPI: other,
      UPDATE: [sa(0x1001), ...ENDS, key()],
      ADD: [sa(0x1001), ...ENDS, key()],
      GET: [sa(0x1001), ...ENDS],
      DELETE: [sa(0x1001), ...ENDS],
    };
    for (const [type, errno] of ask) {
      expect([type, client.errno(type, 'esp', ...(extensions[type] ?? []))]).toEqual([type, errno]);
    }
  });
});
