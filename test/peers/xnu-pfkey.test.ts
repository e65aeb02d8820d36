import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { ERRNO } from '../../src/base/errno.ts';
import { decode, encode } from '../../src/wire/pfkey.ts';
import { extension, type Message } from '../../src/wire/pfkey-message.ts';
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
  secret,
  src,
  tunnel,
} from '../key/rig.ts';

/** Apple's tests of PF_KEY (xnu, tests/pfkey.c and tests/ipsec.m): each was a hole in a kernel. */

const ENDS = [src(A), dst(B)] as const;

describe('tests/pfkey.c', () => {
  test('SPDGET over and over: the policy is not used up, and deleting it once is enough', () => {
    const { connect, spd } = rig();
    const client = connect();
    const added = client.one('X_SPDADD', 'unspec', ...ENDS, policy(2));
    const { id } = extension(added, 'X_POLICY')!;
    for (let i = 0; i < 5000; i++) {
      expect(client.errno('X_SPDGET', 'unspec', policy(0, { id, requests: [] }))).toBe(0);
    }
    expect(client.errno('X_SPDDELETE2', 'unspec', policy(0, { id, requests: [] }))).toBe(0);
    expect(spd.size).toBe(0);
    const again = client.errno('X_SPDGET', 'unspec', policy(0, { id, requests: [] }));
    expect(again).toBe(ERRNO.ENOENT);
  });

  test.each([24, 25])('SPDENABLE and SPDDISABLE (%i there) are not messages of ours', (type) => {
    const { connect } = rig();
    const octets = encode({ ...HEAD, type: 'X_SPDGET', extensions: [policy(2)] }, 'linux');
    octets[1] = type;
    if (type > 24) expect(() => decode(octets, 'linux')).toThrow(/sadb_msg_type 25 is unknown/);
    else expect(connect().send(decode(octets, 'linux'))[0]!.errno).toBe(ERRNO.EINVAL);
  });

  test('GETSPI, UPDATE twice, DELETE: no SA is used after its end', () => {
    const { connect, sad } = rig();
    const client = connect();
    const range = { type: 'SPIRANGE', min: 0x1001, max: 0x1001 } as const;
    expect(client.errno('GETSPI', 'esp', ...ENDS, range)).toBe(0);
    const larval = sad.get('esp', 0x1001, B)!;
    for (let i = 0; i < 2; i++) {
      expect(client.errno('UPDATE', 'esp', sa(0x1001), ...ENDS, key())).toBe(0);
    }
    expect(larval.state).toBe('dead');
    const mature = sad.get('esp', 0x1001, B)!;
    expect(client.errno('DELETE', 'esp', sa(0x1001), ...ENDS)).toBe(0);
    expect([mature.state, sad.size]).toEqual(['dead', 0]);
    expect(mature.spec.keys.encryptKey).toEqual(new Uint8Array(20));
    expect(client.errno('UPDATE', 'esp', sa(0x1001), ...ENDS, key())).toBe(ERRNO.ESRCH);
  });

  test('a dump of 1000 larval SAs has 1000 entries, counting down to 0', () => {
    const { connect } = rig();
    const client = connect();
    for (let i = 0; i < 1000; i++) expect(client.errno('GETSPI', 'esp', ...ENDS)).toBe(0);
    const entries = client.ask('DUMP', 'unspec');
    expect(entries.map((one) => one.seq)).toEqual(Array.from({ length: 1000 }, (_, i) => 999 - i));
    const spis = entries.map((one) => extension(one, 'SA')!.spi);
    expect(new Set(spis).size).toBe(1000);
  });

  test('a dump of 240 policies has 240 entries, counting down to 0', () => {
    const { connect } = rig();
    const client = connect();
    for (let i = 0; i < 240; i++) {
      const to = dst(address(`10.1.0.${i}`));
      expect(client.errno('X_SPDADD', 'unspec', src(A), to, policy(2))).toBe(0);
    }
    const entries = client.ask('X_SPDDUMP', 'unspec');
    expect(entries.map((one) => one.seq)).toEqual(Array.from({ length: 240 }, (_, i) => 239 - i));
  });

  test('GETSASTAT (23 there) reads nothing out of bounds: it is not a request', () => {
    const client = rig().connect();
    expect(client.errno('X_NAT_T_NEW_MAPPING', 'esp', ...ENDS)).toBe(ERRNO.EOPNOTSUPP);
  });

  test('SPDADD that is refused leaves nothing behind', () => {
    const { connect, spd, sad } = rig();
    const client = connect();
    const before = [spd.generation, sad.generation];
    const bad = [
      policy(2, { requests: [request({ mode: 7 })] }),
      policy(2, { requests: [request(), request({ proto: 6 })] }),
      policy(2, { requests: [request({ level: 9 })] }),
      policy(9),
      policy(2, { policyType: 9, requests: [] }),
    ];
    for (const one of bad) expect(client.errno('X_SPDADD', 'unspec', ...ENDS, one)).not.toBe(0);
    expect([spd.generation, sad.generation, spd.size]).toEqual([...before, 0]);
    expect(client.errno('X_SPDADD', 'unspec', ...ENDS, policy(2))).toBe(0);
  });
});

describe('tests/pfkey.c: MIGRATE, which here is UPDATE with new addresses, or X_MIGRATE', () => {
  const at = (type: 'X_NEW_ADDRESS_SRC' | 'X_NEW_ADDRESS_DST', of: typeof A) =>
    ({ type, proto: 0, prefixLen: 8 * of.bytes.length, address: of, port: 0 }) as const;

  test.each([
    ['IPv4', A, B, address('10.0.0.8'), address('10.0.0.9')],
    ['IPv6', A6, B6, address('2001:db8::8'), address('2001:db8::9')],
  ])('%s', (_, from, to, newFrom, newTo) => {
    const { connect, sad } = rig();
    const client = connect({ dialect: 'bsd' });
    const ends = [src(from), dst(to)] as const;
    expect(client.errno('ADD', 'esp', sa(0x1001), ...ends, key())).toBe(0);
    const one = sad.get('esp', 0x1001, to)!;
    const there = [at('X_NEW_ADDRESS_SRC', newFrom), at('X_NEW_ADDRESS_DST', newTo)];
    expect(client.errno('UPDATE', 'esp', sa(0x1001), ...ends, ...there)).toBe(0);
    expect(sad.get('esp', 0x1001, newTo)).toBe(one);
    expect(client.errno('GET', 'esp', sa(0x1001), ...ends)).toBe(ERRNO.ESRCH);
  });

  test('a bad address is EINVAL', () => {
    const client = rig().connect({ dialect: 'bsd' });
    expect(client.errno('ADD', 'esp', sa(0x1001), ...ENDS, key())).toBe(0);
    for (const bad of ['0.0.0.0', '224.0.0.1', '2001:db8::9']) {
      const there = at('X_NEW_ADDRESS_DST', address(bad));
      expect(client.errno('UPDATE', 'esp', sa(0x1001), ...ENDS, there)).toBe(ERRNO.EINVAL);
    }
  });

  test('after the SA has expired there is nothing to move', () => {
    const { connect, advance } = rig();
    const client = connect({ dialect: 'bsd' });
    const limit = lifetime('LIFETIME_HARD', { addTime: 5 });
    expect(client.errno('ADD', 'esp', sa(0x1001), ...ENDS, key(), limit)).toBe(0);
    advance(5000);
    const there = at('X_NEW_ADDRESS_DST', address('10.0.0.9'));
    expect(client.errno('UPDATE', 'esp', sa(0x1001), ...ENDS, there)).toBe(ERRNO.ESRCH);
  });

  test('X_MIGRATE after the SAs have expired moves the policy alone', () => {
    const { connect, advance, spd } = rig();
    const client = connect();
    const limit = lifetime('LIFETIME_HARD', { addTime: 5 });
    const before = request(tunnel(A, B));
    const after = request(tunnel(A, address('10.0.0.9')));
    expect(client.errno('X_SPDADD', 'unspec', ...ENDS, policy(2, { requests: [before] }))).toBe(0);
    expect(client.errno('ADD', 'esp', sa(0x1001), ...ENDS, key(secret(20)), limit)).toBe(0);
    advance(5000);
    const moved = policy(2, { requests: [before, after] });
    expect(client.errno('X_MIGRATE', 'unspec', ...ENDS, moved)).toBe(0);
    expect(spd.list('out')[0]!.requests[0]!.dst).toEqual(address('10.0.0.9'));
  });
});

const HEAD: Omit<Message, 'type' | 'extensions'> = {
  errno: 0,
  satype: 'unspec',
  seq: 1,
  pid: 1,
  reserved: 0,
};
