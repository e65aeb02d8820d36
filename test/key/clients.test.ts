import { describe, expect, test } from 'vitest';
import { ERRNO } from '../../src/base/errno.ts';
import { ALGORITHMS } from '../../src/crypto/algorithms.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import { decode, encode } from '../../src/wire/pfkey.ts';
import { type Comb, extension, type Message } from '../../src/wire/pfkey-message.ts';
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
  tunnel,
  types,
} from './rig.ts';

const ENDS = [src(A), dst(B)];
const ANY = [src(A, { proto: 255 }), dst(B, { proto: 255 })];
const TCP = { cursor: { protocol: 6, portsKnown: true, sport: 1024, dport: 80 } };

describe('REGISTER', () => {
  test('lists what an SA of the type can have here', () => {
    const client = rig().connect();
    const esp = client.one('REGISTER', 'esp');
    const ids = extension(esp, 'SUPPORTED_ENCRYPT')!.algorithms.map((one) => one.id);
    const usable = ALGORITHMS.filter((row) => !row.legacy && nodeCrypto.supports(row));
    expect(ids).toEqual(usable.filter((row) => row.kind !== 'mac').map((row) => row.pfkey));
    expect(ids).toEqual(expect.arrayContaining([11, 12, 13, 20, 31]));
    expect(ids).not.toContain(2);
    const gcm = extension(esp, 'SUPPORTED_ENCRYPT')!.algorithms.find((one) => one.id === 20);
    expect(gcm).toEqual({ id: 20, ivLen: 8, minBits: 160, maxBits: 288 });
    const macs = (message: Message) =>
      extension(message, 'SUPPORTED_AUTH')!.algorithms.map((one) => one.id);
    const ah = client.one('REGISTER', 'ah');
    expect(types(ah)).toEqual(['SUPPORTED_AUTH']);
    // GMAC is a MAC in AH only, null is one in ESP only.
    expect(macs(ah)).toEqual(expect.arrayContaining([3, 5, 6, 7, 9, 11, 12, 13]));
    expect(macs(ah)).not.toContain(251);
    expect(macs(esp)).toContain(251);
    expect(macs(esp)).not.toContain(11);
  });

  test('twice is EEXIST, what we do not have is refused, and no type is no registration', () => {
    const { engine, spd, connect } = rig();
    const client = connect();
    expect(types(client.one('REGISTER', 'unspec'))).toEqual([
      'SUPPORTED_AUTH',
      'SUPPORTED_ENCRYPT',
    ]);
    expect(client.errno('REGISTER', 'ipcomp')).toBe(ERRNO.EPROTONOSUPPORT);
    expect(client.errno('REGISTER', 'ospfv2')).toBe(ERRNO.EOPNOTSUPP);
    client.ask('X_SPDADD', 'unspec', policy(2), ...ANY);
    const [made] = spd.list('out');
    expect(engine.acquire(made!, made!.requests[0]!, A, B, TCP)).toBe('nobody');
    expect(client.errno('REGISTER', 'esp')).toBe(0);
    expect(client.errno('REGISTER', 'esp')).toBe(ERRNO.EEXIST);
    expect(client.errno('REGISTER', 'ah')).toBe(0);
  });

  test('others that registered for the type hear of it', () => {
    const { connect } = rig();
    const [client, registered, other] = [connect(), connect(), connect()];
    registered.ask('REGISTER', 'esp');
    other.ask('REGISTER', 'ah');
    const reply = client.one('REGISTER', 'esp');
    expect(registered.heard()).toEqual([reply]);
    expect(other.heard()).toEqual([]);
  });
});

describe('ACQUIRE', () => {
  function waiting(given: Partial<ReturnType<typeof request>> = {}) {
    const made = rig();
    const [forEsp, forAh, none] = [made.connect(), made.connect(), made.connect()];
    forEsp.ask('REGISTER', 'esp');
    forAh.ask('REGISTER', 'ah');
    none.ask('X_SPDADD', 'unspec', policy(2, { requests: [request(given)] }), ...ANY);
    for (const client of [forEsp, forAh, none]) client.heard();
    const [wanted] = made.spd.list('out');
    const ask = () => made.engine.acquire(wanted!, wanted!.requests[0]!, A, B, TCP);
    return { ...made, forEsp, forAh, none, id: wanted!.id, ask };
  }

  test('in transport mode it names the packet, and goes to those registered for the type', () => {
    const { ask, forEsp, forAh, none, id } = waiting();
    expect(ask()).toBe('asked');
    expect([forAh.heard(), none.heard()]).toEqual([[], []]);
    const [message, ...more] = forEsp.heard();
    expect(more).toEqual([]);
    expect(message).toMatchObject({ type: 'ACQUIRE', satype: 'esp', pid: 0, seq: 1, errno: 0 });
    // strongSwan ignores an ACQUIRE with an X_SA2 whose reqid is 0.
    expect(types(message)).toEqual(['ADDRESS_SRC', 'ADDRESS_DST', 'X_POLICY', 'PROPOSAL']);
    expect(extension(message!, 'ADDRESS_SRC')).toEqual(src(A, { proto: 6, port: 1024 }));
    expect(extension(message!, 'ADDRESS_DST')).toEqual(dst(B, { proto: 6, port: 80 }));
    expect(extension(message!, 'X_POLICY')).toMatchObject({ id, direction: 2, policyType: 2 });
  });

  test('in tunnel mode it names the ends, and the reqid', () => {
    const { ask, forEsp } = waiting({ level: 3, reqid: 42, ...tunnel(A, B) });
    ask();
    const [message] = forEsp.heard();
    expect(extension(message!, 'ADDRESS_SRC')).toEqual(src(A, { proto: 255 }));
    expect(extension(message!, 'X_SA2')).toEqual(sa2(2, 42));
  });

  test('the proposal offers what is good, best first, within what clients read', () => {
    const { ask, forEsp } = waiting();
    ask();
    const [message] = forEsp.heard();
    const { combs, replay } = extension(message!, 'PROPOSAL')!;
    expect(replay).toBe(32);
    expect(combs.filter((one) => one.encrypt === 20)).toEqual([comb(0, 20, [0, 0], [160, 288])]);
    expect(combs).toContainEqual(comb(5, 12, [256, 256], [128, 256]));
    for (const one of combs) expect([2, 11, 23, 251]).not.toContain(one.encrypt);
    expect(combs.filter((one) => one.encrypt === 12 && one.auth === 0)).toEqual([]);
    expect(encode(message!, 'linux').length).toBeLessThan(4096);
  });

  test('it is repeated after ten more packets with the same number, and later with a new one', () => {
    const { ask, forEsp, advance } = waiting();
    const seqs = () => forEsp.heard().map((one) => one.seq);
    ask();
    expect(seqs()).toEqual([1]);
    for (let i = 0; i < 10; i++) expect(ask()).toBe('waiting');
    expect(ask()).toBe('asked');
    expect(seqs()).toEqual([1]);
    advance(20_000);
    expect(ask()).toBe('asked');
    expect(seqs()).toEqual([2]);
  });

  test('a program that says it failed, or takes an SPI for it, is given time', () => {
    const { ask, forEsp, advance } = waiting();
    ask();
    advance(15_000);
    expect(
      forEsp.send({ type: 'ACQUIRE', satype: 'esp', seq: 1, errno: 110, extensions: [] }),
    ).toEqual([]);
    forEsp.heard();
    advance(15_000);
    expect(ask()).toBe('waiting');
    forEsp.send({ type: 'GETSPI', satype: 'esp', seq: 1, extensions: ENDS });
    advance(15_000);
    expect(ask()).toBe('waiting');
    advance(5_000);
    expect(ask()).toBe('asked');
  });

  test('an error ACQUIRE about nothing is ignored, one without an error is a bad request', () => {
    const { forEsp } = waiting();
    const given = { type: 'ACQUIRE', satype: 'esp', extensions: [] } as const;
    expect(forEsp.send({ ...given, errno: 3, seq: 0 })).toEqual([]);
    expect(forEsp.send({ ...given, errno: 3, seq: 999 })).toEqual([]);
    expect(forEsp.send(given).map((one) => one.errno)).toEqual([ERRNO.EINVAL]);
  });

  test('a program can ask the others', () => {
    const { forEsp, none } = waiting();
    const proposal = { type: 'PROPOSAL', replay: 32, combs: [] } as const;
    const reply = none.one('ACQUIRE', 'esp', ...ENDS, proposal);
    expect(reply.errno).toBe(0);
    expect(forEsp.heard()).toEqual([reply]);
    none.ask('ADD', 'esp', sa(0x1001), ...ENDS, key());
    expect(none.errno('ACQUIRE', 'esp', ...ENDS, proposal)).toBe(ERRNO.EEXIST);
  });
});

describe('EXPIRE and SPDEXPIRE', () => {
  function limited(): Rig & { listener: ReturnType<Rig['connect']> } {
    const made = rig();
    const listener = made.connect();
    listener.ask('REGISTER', 'esp');
    made
      .connect()
      .ask(
        'ADD',
        'esp',
        sa(0x1001),
        sa2(2, 5),
        ...ENDS,
        key(),
        lifetime('LIFETIME_HARD', { addTime: 20, bytes: 2000 }),
        lifetime('LIFETIME_SOFT', { addTime: 10, bytes: 1000 }),
      );
    listener.heard();
    return { ...made, listener };
  }

  test('soft, then hard: each with its own limit only', () => {
    const { listener, advance, sad } = limited();
    advance(10_000);
    const [soft, ...none] = listener.heard();
    expect(none).toEqual([]);
    expect(soft).toMatchObject({ type: 'EXPIRE', satype: 'esp', pid: 0, errno: 0 });
    expect(types(soft)).toEqual([
      'SA',
      'X_SA2',
      'LIFETIME_CURRENT',
      'LIFETIME_SOFT',
      'ADDRESS_SRC',
      'ADDRESS_DST',
    ]);
    expect(extension(soft!, 'SA')).toMatchObject({ spi: 0x1001, state: 2 });
    expect(sad.get('esp', 0x1001, B)?.isUsable).toBe(true);
    advance(10_000);
    const [hard, ...more] = listener.heard();
    expect(more).toEqual([]);
    expect(types(hard)).toContain('LIFETIME_HARD');
    expect(types(hard)).not.toContain('LIFETIME_SOFT');
    expect(extension(hard!, 'SA')?.state).toBe(3);
    expect(sad.size).toBe(0);
  });

  test('by octets, at once', () => {
    const { listener, sad } = limited();
    const made = sad.get('esp', 0x1001, B)!;
    sad.account(made, 1, 999);
    expect(listener.heard()).toEqual([]);
    sad.account(made, 1, 1);
    const [soft] = listener.heard();
    expect(extension(soft!, 'LIFETIME_CURRENT')).toMatchObject({ allocations: 2, bytes: 1000 });
  });

  test('a policy that ends', () => {
    const { listener, advance, connect } = limited();
    const limit = lifetime('LIFETIME_HARD', { addTime: 5 });
    connect().ask('X_SPDADD', 'unspec', policy(2), ...ANY, limit);
    listener.heard();
    advance(5_000);
    const [ended] = listener.heard();
    expect(ended).toMatchObject({ type: 'X_SPDEXPIRE', satype: 'unspec', pid: 0 });
    expect(types(ended)).toEqual([
      'ADDRESS_SRC',
      'ADDRESS_DST',
      'LIFETIME_HARD',
      'LIFETIME_CURRENT',
      'X_POLICY',
    ]);
  });

  test('a peer that moved behind its NAT', () => {
    const { listener, sad, engine } = limited();
    const made = sad.get('esp', 0x1001, B)!;
    engine.natMapping(made, { address: B, port: 4500 }, { address: A, port: 777 });
    const [moved] = listener.heard();
    expect(moved?.type).toBe('X_NAT_T_NEW_MAPPING');
    expect(extension(moved!, 'ADDRESS_DST')?.address).toEqual(A);
    expect(extension(moved!, 'X_NAT_T_DPORT')?.port).toBe(777);
  });

  test('programs do not send what only the host sends', () => {
    const client = rig().connect();
    for (const type of ['EXPIRE', 'X_SPDEXPIRE', 'X_SPDACQUIRE', 'X_PCHANGE'] as const) {
      expect(client.errno(type, 'esp', ...ENDS)).toBe(ERRNO.EOPNOTSUPP);
    }
  });
});

describe('X_PROMISC', () => {
  test('copies of all that is delivered, whole and without keys, until switched off', () => {
    const { connect } = rig();
    const [client, watcher] = [connect(), connect()];
    expect(watcher.errno('X_PROMISC', 'promisc')).toBe(0);
    watcher.heard();
    client.heard();
    const added = client.one('ADD', 'esp', sa(0x1001), ...ENDS, key());
    const got = client.one('GET', 'esp', sa(0x1001), ...ENDS);
    const failed = client.one('GET', 'esp', sa(0x1002), ...ENDS);
    const [dumped] = client.ask('DUMP', 'esp');
    const heard = watcher.heard();
    const copies = heard.filter((one) => one.type === 'X_PROMISC');
    expect(heard.filter((one) => one.type !== 'X_PROMISC')).toEqual([added]);
    const seen = copies.map((one) => decode(one.wrapped!, 'linux'));
    expect(seen[0]).toEqual(added);
    expect(seen[2]).toEqual(failed);
    expect(seen.map((one) => [one.type, one.errno])).toEqual([
      ['ADD', 0],
      ['GET', 0],
      ['GET', ERRNO.ESRCH],
      ['DUMP', 0],
    ]);
    expect(types(got)).toContain('KEY_ENCRYPT');
    expect(types(dumped)).toContain('KEY_ENCRYPT');
    for (const one of seen) expect(types(one)).not.toContain('KEY_ENCRYPT');
    // A copy is itself a message on a socket.
    expect(decode(encode(copies[0]!, 'linux'), 'linux')).toEqual(copies[0]);

    watcher.ask('X_PROMISC', 'unspec');
    watcher.heard();
    client.ask('GET', 'esp', sa(0x1001), ...ENDS);
    expect(watcher.heard()).toEqual([]);
    expect(watcher.errno('X_PROMISC', 'esp')).toBe(ERRNO.EINVAL);
  });

  test('around a message it speaks to the other programs, without keys', () => {
    const { sad, connect } = rig();
    const [client, other] = [connect(), connect()];
    const given = { errno: 0, seq: 5, pid: 6, reserved: 0 } as const;
    const inner: Message = {
      ...given,
      type: 'ADD',
      satype: 'esp',
      extensions: [sa(0x1001), ...ENDS, key()],
    };
    const send = (wrapped: Uint8Array) =>
      client.send({ type: 'X_PROMISC', satype: 'unspec', extensions: [], wrapped });
    expect(send(encode(inner, 'linux')).map((one) => one.errno)).toEqual([0]);
    const [heard] = other.heard();
    expect(heard).toEqual({ ...inner, extensions: [sa(0x1001), ...ENDS] });
    expect(sad.size).toBe(0);
    expect(send(secret(24)).map((one) => one.errno)).toEqual([ERRNO.EINVAL]);
    expect(other.heard()).toEqual([]);
  });
});

describe('clients', () => {
  test('one that has closed hears nothing more, and its reasons are kept for a while', () => {
    const { engine, connect } = rig();
    const [client, other] = [connect(), connect()];
    other.errno('GET', 'esp', sa(0x1001), ...ENDS);
    other.session.close();
    client.ask('FLUSH', 'unspec');
    expect(other.heard()).toEqual([]);
    expect(engine.counters).toEqual({ clients: 1, requests: 2, refusals: 1 });
    expect(engine.reasonFor(other.pid, 1)).toContain('there is no esp SPI 0x00001001');
    expect(engine.reasonFor(client.pid, 1)).toBeUndefined();
    for (let i = 0; i < 16; i++) connect().session.close();
    expect(engine.reasonFor(other.pid, 1)).toBeUndefined();
  });

  test('of each, the last 64 reasons are kept', () => {
    const { engine, connect } = rig();
    const client = connect();
    for (let i = 0; i < 65; i++) client.ask('GET', 'esp', sa(0x1000 + i), ...ENDS);
    expect(engine.reasonFor(client.pid, 1)).toBeUndefined();
    expect(engine.reasonFor(client.pid, 2)).toContain('0x00001001');
    expect(engine.reasonFor(client.pid, 65)).toContain('0x00001040');
  });
});

function comb(
  auth: number,
  encrypt: number,
  [minAuth, maxAuth]: [number, number],
  [minBits, maxBits]: [number, number],
): Comb {
  return {
    auth,
    encrypt,
    flags: 0,
    authBits: { min: minAuth, max: maxAuth },
    encryptBits: { min: minBits, max: maxBits },
    soft: { allocations: 0, bytes: 0, addTime: 69_120, useTime: 23_040 },
    hard: { allocations: 0, bytes: 0, addTime: 86_400, useTime: 28_800 },
  };
}
