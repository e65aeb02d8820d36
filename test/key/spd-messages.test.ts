import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { ERRNO } from '../../src/base/errno.ts';
import { PORT_ANY } from '../../src/spd/policy.ts';
import { type Extension, extension, type SaType } from '../../src/wire/pfkey-message.ts';
import {
  A,
  A6,
  B,
  B6,
  dst,
  key,
  lifetime,
  policy,
  request,
  rig,
  sa,
  sa2,
  src,
  tunnel,
  types,
} from './rig.ts';

const NET = address('10.1.2.3');
const ENDS = [src(A, { proto: 6, port: 80 }), dst(B, { proto: 6 })];
const ANY = [src(A, { proto: 255 }), dst(B, { proto: 255 })];

describe('SPDADD', () => {
  test('makes a policy as asked', () => {
    const { spd, connect } = rig();
    const client = connect();
    const reply = client.one(
      'X_SPDADD',
      'unspec',
      policy(1, {
        priority: 7,
        requests: [request({ level: 1 }), request({ proto: 51, ...tunnel(A6, B6) })],
      }),
      src(NET, { proto: 17, prefixLen: 24, port: 53 }),
      dst(B, { proto: 17, prefixLen: 16 }),
      lifetime('LIFETIME_HARD', { addTime: 100, useTime: 50 }),
      sa2(0),
    );
    expect(reply.errno).toBe(0);
    expect(types(reply)).toEqual(['X_POLICY', 'LIFETIME_HARD', 'ADDRESS_SRC', 'ADDRESS_DST']);
    const [made] = spd.list('in');
    expect(made).toMatchObject({
      type: 'ipsec',
      priority: 7,
      lifetimeSeconds: 100,
      idleSeconds: 50,
      origin: 'client',
      requests: [
        { protocol: 'esp', mode: 'transport', level: 'use', reqid: 0 },
        { protocol: 'ah', mode: 'tunnel', level: 'require', src: A6, dst: B6 },
      ],
      selector: {
        src: { address: address('10.1.2.0'), length: 24 },
        dst: { address: address('10.0.0.0'), length: 16 },
        protocol: 17,
        sport: 53,
        dport: PORT_ANY,
      },
    });
    const shown = extension(reply, 'X_POLICY');
    expect(shown).toMatchObject({ id: made!.id, direction: 1, priority: 7, policyType: 2 });
    expect(shown?.requests).toEqual([
      { proto: 50, mode: 1, level: 1, reqid: 0 },
      { proto: 51, mode: 2, level: 2, reqid: 0, ...pick(tunnel(A6, B6)) },
    ]);
    expect(extension(reply, 'ADDRESS_SRC')).toMatchObject({
      proto: 17,
      prefixLen: 24,
      port: 53,
      address: address('10.1.2.0'),
    });
    expect(extension(reply, 'ADDRESS_DST')?.port).toBe(0);
  });

  test('protocols 0 and 255 are the same: any', () => {
    const client = rig().connect();
    expect(client.errno('X_SPDADD', 'unspec', policy(2), ...ANY)).toBe(0);
    const same = client.errno('X_SPDADD', 'unspec', policy(2), src(A), dst(B));
    expect(same).toBe(ERRNO.EEXIST);
    const forwarded = client.errno('X_SPDADD', 'unspec', policy(3), src(A), dst(B));
    expect(forwarded).toBe(0);
  });

  test('everyone is told', () => {
    const { connect } = rig();
    const [client, other] = [connect(), connect()];
    const reply = client.one('X_SPDADD', 'unspec', policy(2), ...ANY);
    expect(other.heard()).toEqual([reply]);
  });

  test('ids up to 0x3fff are the client’s choice, others are given out', () => {
    const client = rig().connect();
    const add = (direction: number, id: number) => {
      const reply = client.one('X_SPDADD', 'unspec', policy(direction, { id }), ...ANY);
      return reply.errno === 0 ? extension(reply, 'X_POLICY')!.id : -reply.errno;
    };
    expect(add(1, 77)).toBe(77);
    expect(add(2, 77)).toBe(-ERRNO.EEXIST);
    expect(add(2, 0x5000)).toBe(0x4000);
    expect(add(3, 0)).toBe(0x4001);
  });

  test('"unique" without a number gets one that nobody uses, and keeps it in an update', () => {
    const { connect } = rig();
    const client = connect();
    const unique = request({ level: 3 });
    const reqids = (type: 'X_SPDADD' | 'X_SPDUPDATE', direction: number, ...given: number[]) => {
      const requests = given.map((reqid) => ({ ...unique, reqid }));
      const reply = client.one(type, 'unspec', policy(direction, { requests }), ...ANY);
      return extension(reply, 'X_POLICY')!.requests.map((one) => one.reqid);
    };
    client.ask('ADD', 'esp', sa(0x1001), sa2(1, 0x4001), src(A), dst(B), key());
    expect(reqids('X_SPDADD', 1, 0, 0)).toEqual([0x4000, 0x4002]);
    expect(reqids('X_SPDADD', 2, 0x4003, 70_000)).toEqual([0x4003, 70_000]);
    expect(reqids('X_SPDADD', 3, 0)).toEqual([0x4004]);
    expect(reqids('X_SPDUPDATE', 1, 0, 0)).toEqual([0x4000, 0x4002]);
  });

  test('a reqid counts for "unique" only', () => {
    const { spd, connect } = rig();
    const requests = [request({ level: 2, reqid: 9 })];
    connect().ask('X_SPDADD', 'unspec', policy(2, { requests }), ...ANY);
    expect(spd.list('out')[0]?.requests[0]?.reqid).toBe(0);
  });

  const seven = Array.from({ length: 7 }, () => request());
  const refused: [string, keyof typeof ERRNO, Extension[], SaType?][] = [
    ['no policy', 'EINVAL', ANY],
    ['no destination', 'EINVAL', [policy(2), src(A)]],
    ['families differ', 'EINVAL', [policy(2), src(A), dst(B6)]],
    ['protocols differ', 'EINVAL', [policy(2), src(A, { proto: 6 }), dst(B)]],
    ['direction any', 'EINVAL', [policy(0), ...ANY]],
    ['direction 4', 'EINVAL', [policy(4), ...ANY]],
    ['entrust', 'EINVAL', [policy(2, { policyType: 3, requests: [] }), ...ANY]],
    ['bypass', 'EINVAL', [policy(2, { policyType: 4, requests: [] }), ...ANY]],
    ['policy type 9', 'EINVAL', [policy(2, { policyType: 9, requests: [] }), ...ANY]],
    ['ipsec without requests', 'EINVAL', [policy(2, { requests: [] }), ...ANY]],
    ['discard with requests', 'EINVAL', [policy(2, { policyType: 0 }), ...ANY]],
    ['IPComp', 'EPROTONOSUPPORT', [policy(2, { requests: [request({ proto: 108 })] }), ...ANY]],
    [
      'request for TCP',
      'EPROTONOSUPPORT',
      [policy(2, { requests: [request({ proto: 6 })] }), ...ANY],
    ],
    ['request mode any', 'EINVAL', [policy(2, { requests: [request({ mode: 0 })] }), ...ANY]],
    ['request level 4', 'EINVAL', [policy(2, { requests: [request({ level: 4 })] }), ...ANY]],
    ['too deep', 'ELOOP', [policy(2, { requests: seven }), ...ANY]],
    ['an SA type', 'EINVAL', [policy(2), ...ANY], 'esp'],
    ['security context', 'EOPNOTSUPP', [policy(2), ...ANY, securityContext()]],
    ['key in a policy', 'EINVAL', [policy(2), ...ANY, key()]],
  ];
  test.each(refused)('refused: %s is %s', (_name, errno, given, satype = 'unspec') => {
    const { spd, engine, connect } = rig();
    const [client, other] = [connect(), connect()];
    const reply = client.one('X_SPDADD', satype, ...given);
    expect([reply.type, reply.errno, reply.extensions]).toEqual(['X_SPDADD', ERRNO[errno], []]);
    expect(other.heard()).toEqual([]);
    expect(spd.size).toBe(0);
    expect(engine.reasonFor(client.pid, client.seq)).toMatch(/\w+ \w+/);
  });

  test('a full table is ENOBUFS', () => {
    const client = rig({ policyMax: 1 }).connect();
    expect(client.errno('X_SPDADD', 'unspec', policy(1), ...ANY)).toBe(0);
    expect(client.errno('X_SPDADD', 'unspec', policy(2), ...ANY)).toBe(ERRNO.ENOBUFS);
  });
});

describe('SPDUPDATE and SPDSETIDX', () => {
  test('UPDATE creates, and later keeps id and place', () => {
    const { spd, connect } = rig();
    const client = connect();
    const first = client.one('X_SPDUPDATE', 'unspec', policy(2, { id: 5 }), ...ANY);
    expect(extension(first, 'X_POLICY')?.id).toBe(5);
    client.ask('X_SPDADD', 'unspec', policy(2), ...ENDS);
    const requests = [request({ proto: 51 })];
    const second = client.one('X_SPDUPDATE', 'unspec', policy(2, { requests }), ...ANY);
    expect(extension(second, 'X_POLICY')?.id).toBe(5);
    expect(spd.list('out').map((one) => one.requests[0]?.protocol)).toEqual(['ah', 'esp']);
  });

  test('SETIDX may come without requests, and never replaces', () => {
    const client = rig().connect();
    const bare = policy(2, { requests: [] });
    expect(client.errno('X_SPDSETIDX', 'unspec', bare, ...ANY)).toBe(0);
    expect(client.errno('X_SPDSETIDX', 'unspec', bare, ...ANY)).toBe(ERRNO.EEXIST);
  });
});

describe('looking up and deleting', () => {
  function filled() {
    const made = rig();
    const client = made.connect();
    const reply = client.one('X_SPDADD', 'unspec', policy(2, { priority: 3 }), ...ENDS);
    client.ask('X_SPDADD', 'unspec', policy(1), ...ANY);
    return { ...made, client, id: extension(reply, 'X_POLICY')!.id };
  }
  const by = (id: number) => policy(0, { id, requests: [] });

  test('GET by id alone, as OpenIKED asks, or by direction and selector', () => {
    const { client, spd, id } = filled();
    const byId = client.one('X_SPDGET', 'unspec', by(id));
    expect(types(byId)).toEqual([
      'ADDRESS_SRC',
      'ADDRESS_DST',
      'LIFETIME_HARD',
      'LIFETIME_CURRENT',
      'X_POLICY',
    ]);
    expect(extension(byId, 'X_POLICY')).toMatchObject({ id, direction: 2, priority: 3 });
    expect(extension(byId, 'LIFETIME_CURRENT')).toMatchObject({
      addTime: 1_700_001_000,
      useTime: 0,
    });
    spd.used(spd.get(id)!, 1, 1_700_001_000_000);
    const bySelector = client.one('X_SPDGET', 'unspec', policy(2), ...ENDS);
    expect(extension(bySelector, 'X_POLICY')?.id).toBe(id);
    expect(extension(bySelector, 'LIFETIME_CURRENT')?.useTime).toBe(1_700_001_000);
    expect(client.errno('X_SPDGET', 'unspec', policy(1), ...ENDS)).toBe(ERRNO.ENOENT);
    expect(client.errno('X_SPDGET', 'unspec', by(12345))).toBe(ERRNO.ENOENT);
    expect(client.errno('X_SPDGET', 'unspec', by(0))).toBe(ERRNO.EINVAL);
  });

  test('DELETE by selector', () => {
    const { client, spd, connect } = filled();
    const other = connect();
    const bare = policy(2, { requests: [] });
    const reply = client.one('X_SPDDELETE', 'unspec', bare, ...ENDS, sa2(0));
    expect(types(reply)).toEqual(['X_POLICY', 'ADDRESS_SRC', 'ADDRESS_DST']);
    expect(extension(reply, 'X_POLICY')?.requests).toHaveLength(1);
    expect(other.heard()).toEqual([reply]);
    expect(spd.list('out')).toEqual([]);
    expect(client.errno('X_SPDDELETE', 'unspec', bare, ...ENDS)).toBe(ERRNO.ENOENT);
    expect(client.errno('X_SPDDELETE', 'unspec', policy(4), ...ENDS)).toBe(ERRNO.EINVAL);
  });

  test('DELETE2 by id', () => {
    const { client, spd, id } = filled();
    expect(client.errno('X_SPDDELETE2', 'unspec', by(id))).toBe(0);
    expect(spd.get(id)).toBeUndefined();
    expect(client.errno('X_SPDDELETE2', 'unspec', by(id))).toBe(ERRNO.ENOENT);
  });

  test('DUMP in the order in which they are looked at, in, out, fwd', () => {
    const { client } = filled();
    client.ask('X_SPDADD', 'unspec', policy(3), ...ANY);
    client.ask('X_SPDADD', 'unspec', policy(2, { priority: 1 }), ...ANY);
    const all = client.ask('X_SPDDUMP', 'unspec');
    const shown = all.map((one) => {
      const { direction, priority } = extension(one, 'X_POLICY')!;
      return [one.seq, direction, priority, one.errno];
    });
    expect(shown).toEqual([
      [3, 1, 0, 0],
      [2, 2, 1, 0],
      [1, 2, 3, 0],
      [0, 3, 0, 0],
    ]);
    expect(types(all[0])).toEqual(types(client.one('X_SPDGET', 'unspec', by(0x4000))));
  });

  test('FLUSH, and then there is nothing to dump', () => {
    const { client, spd, connect } = filled();
    const other = connect();
    expect(client.errno('X_SPDFLUSH', 'unspec', policy(2))).toBe(ERRNO.EINVAL);
    expect(spd.size).toBe(2);
    const reply = client.one('X_SPDFLUSH', 'unspec');
    expect([reply.errno, reply.extensions]).toEqual([0, []]);
    expect(other.heard()).toEqual([reply]);
    expect(spd.size).toBe(0);
    expect(client.errno('X_SPDDUMP', 'unspec')).toBe(ERRNO.ENOENT);
  });
});

function pick({ src: from, dst: to }: ReturnType<typeof tunnel>) {
  return { src: from, dst: to };
}

function securityContext(): Extension {
  return { type: 'X_SEC_CTX', algorithm: 1, doi: 1, context: new Uint8Array(3) };
}
