import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { ERRNO } from '../../src/base/errno.ts';
import { extension } from '../../src/wire/pfkey-message.ts';
import {
  A,
  A6,
  B,
  B6,
  dst,
  key,
  policy,
  type Rig,
  request,
  rig,
  sa,
  sa2,
  secret,
  src,
  types,
} from './rig.ts';

const [OLD, NEW] = [address('192.0.2.1'), address('192.0.2.9')];
const PEER = address('198.51.100.1');
const SELECTOR = [src(A), dst(B)] as const;
const OUT = 2;

function ends(from: typeof OLD, to: typeof OLD, given = {}) {
  const at = { src: { address: from, port: 0 }, dst: { address: to, port: 0 } };
  return request({ mode: 2, ...at, ...given });
}

function moved(...requests: ReturnType<typeof request>[]) {
  return [...SELECTOR, policy(OUT, { requests })];
}

/** A tunnel from OLD to PEER, with two SAs of it and one that has nothing to do with it. */
function tunnelled(): Rig & { client: ReturnType<Rig['connect']> } {
  const host = rig();
  const client = host.connect();
  const made = client.one(
    'X_SPDADD',
    'unspec',
    ...SELECTOR,
    policy(OUT, { requests: [ends(OLD, PEER)] }),
  );
  expect(made.errno).toBe(0);
  for (const spi of [0x1001, 0x1002]) {
    const keys = key(secret(20, spi));
    expect(client.errno('ADD', 'esp', sa(spi), sa2(2), src(OLD), dst(PEER), keys)).toBe(0);
  }
  expect(client.errno('ADD', 'esp', sa(0x1003), sa2(1), src(OLD), dst(PEER), key())).toBe(0);
  return { ...host, client };
}

describe('X_MIGRATE', () => {
  test('moves the tunnel of a policy and its SAs, which go on counting', () => {
    const { client, sad, spd, connect } = tunnelled();
    const watcher = connect();
    const one = sad.get('esp', 0x1001, PEER)!;
    expect(one.takeSeq(1)).toBe(1);
    const mask = [...one.ivMask];
    const { id } = spd.list('out')[0]!;
    const reply = client.one('X_MIGRATE', 'unspec', ...moved(ends(OLD, PEER), ends(NEW, PEER)));
    expect(reply.errno).toBe(0);
    expect(watcher.heard()).toEqual([reply]);
    const [after] = spd.list('out');
    expect(after!.id).toBe(id);
    expect(after!.requests[0]).toMatchObject({ src: NEW, dst: PEER });
    expect(sad.between('esp', NEW, PEER).map((each) => each.spec.spi)).toEqual([0x1001, 0x1002]);
    expect(sad.between('esp', OLD, PEER).map((each) => each.spec.spi)).toEqual([0x1003]);
    expect(sad.outbound('esp', 'tunnel', NEW, PEER, 0)!.spec.spi).toBe(0x1002);
    // The same key under another mask would come by the same IV again.
    expect([...one.ivMask]).toEqual(mask);
    expect(one.takeSeq(1)).toBe(2);
  });

  test('both ends at once, and into the other family', () => {
    const { client, sad } = tunnelled();
    expect(client.errno('X_MIGRATE', 'unspec', ...moved(ends(OLD, PEER), ends(A6, B6)))).toBe(0);
    expect(sad.get('esp', 0x1001, B6)!.spec.src).toEqual(A6);
    expect(sad.get('esp', 0x1001, PEER)).toBeUndefined();
  });

  test('only the SAs of its reqid, when it names one', () => {
    const { client, sad } = tunnelled();
    expect(client.errno('ADD', 'esp', sa(0x1004), sa2(2, 7), src(OLD), dst(PEER), key())).toBe(0);
    const pair = [ends(OLD, PEER, { reqid: 7 }), ends(NEW, PEER)];
    expect(client.errno('X_MIGRATE', 'unspec', ...moved(...pair))).toBe(0);
    expect(sad.between('esp', NEW, PEER).map((each) => each.spec.spi)).toEqual([0x1004]);
  });

  test.each([
    [
      'no policy',
      'ENOENT',
      [src(A), dst(PEER), policy(OUT, { requests: [ends(OLD, PEER), ends(NEW, PEER)] })],
    ],
    ['no such tunnel', 'ENOENT', moved(ends(NEW, PEER), ends(OLD, PEER))],
    ['one request', 'EINVAL', moved(ends(OLD, PEER))],
    ['no requests', 'EINVAL', moved()],
    ['another protocol', 'EINVAL', moved(ends(OLD, PEER), ends(NEW, PEER, { proto: 51 }))],
    [
      'IPComp',
      'EPROTONOSUPPORT',
      moved(ends(OLD, PEER, { proto: 108 }), ends(NEW, PEER, { proto: 108 })),
    ],
    ['to nowhere', 'EINVAL', moved(ends(OLD, PEER), ends(NEW, address('0.0.0.0')))],
    ['to many', 'EINVAL', moved(ends(OLD, PEER), ends(NEW, address('224.0.0.1')))],
    ['without addresses', 'EINVAL', moved(ends(OLD, PEER), request({ mode: 2 }))],
  ] as const)('%s: refused, and nothing has moved', (_, errno, extensions) => {
    const { client, sad, spd } = tunnelled();
    const before = [sad.generation, spd.generation];
    expect(client.errno('X_MIGRATE', 'unspec', ...extensions)).toBe(ERRNO[errno]);
    expect([sad.generation, spd.generation]).toEqual(before);
  });

  test('an SPI that is in use at the new address: refused, and nothing has moved', () => {
    const { client, sad, spd } = tunnelled();
    expect(client.errno('ADD', 'esp', sa(0x1002), src(OLD), dst(B), key())).toBe(0);
    const before = [sad.generation, spd.generation];
    const pair = [ends(OLD, PEER), ends(OLD, B)];
    expect(client.errno('X_MIGRATE', 'unspec', ...moved(...pair))).toBe(ERRNO.EEXIST);
    expect([sad.generation, spd.generation]).toEqual(before);
    expect(sad.get('esp', 0x1001, PEER)!.state).toBe('mature');
  });
});

describe('UPDATE with X_NEW_ADDRESS of FreeBSD', () => {
  const at = (type: 'X_NEW_ADDRESS_SRC' | 'X_NEW_ADDRESS_DST', of: typeof OLD) =>
    ({ type, proto: 0, prefixLen: 32, address: of, port: 0 }) as const;

  test('moves one SA, with its window', () => {
    const host = rig();
    const client = host.connect({ dialect: 'bsd' });
    const ENDS = [src(OLD), dst(PEER)] as const;
    expect(client.errno('ADD', 'esp', sa(0x1001, { replay: 8 }), ...ENDS, key())).toBe(0);
    const one = host.sad.get('esp', 0x1001, PEER)!;
    one.replay.commit(70);
    const reply = client.one(
      'UPDATE',
      'esp',
      sa(0x1001),
      ...ENDS,
      at('X_NEW_ADDRESS_SRC', NEW),
      at('X_NEW_ADDRESS_DST', B),
    );
    expect(reply.errno).toBe(0);
    expect(extension(reply, 'ADDRESS_DST')?.address).toEqual(B);
    expect(types(reply)).not.toContain('KEY_ENCRYPT');
    expect(host.sad.get('esp', 0x1001, B)).toBe(one);
    expect(host.sad.get('esp', 0x1001, PEER)).toBeUndefined();
    expect([one.replay.check(70), one.replay.check(69)]).toEqual([-1, 69]);
  });

  test('to where its SPI is in use, or to nowhere: refused', () => {
    const host = rig();
    const client = host.connect({ dialect: 'bsd' });
    for (const to of [PEER, B]) {
      expect(client.errno('ADD', 'esp', sa(0x1001), src(OLD), dst(to), key())).toBe(0);
    }
    const update = (of: typeof OLD) =>
      client.errno('UPDATE', 'esp', sa(0x1001), src(OLD), dst(PEER), at('X_NEW_ADDRESS_DST', of));
    expect(update(B)).toBe(ERRNO.EEXIST);
    expect(update(address('0.0.0.0'))).toBe(ERRNO.EINVAL);
    expect(update(A6)).toBe(ERRNO.EINVAL);
    expect(host.sad.get('esp', 0x1001, PEER)!.spec.dst).toEqual(PEER);
  });
});
