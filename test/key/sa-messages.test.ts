import { describe, expect, test } from 'vitest';
import { ERRNO } from '../../src/base/errno.ts';
import { type Extension, extension, type Message } from '../../src/wire/pfkey-message.ts';
import { A, A6, B, B6, dst, key, lifetime, rig, sa, sa2, secret, src, types } from './rig.ts';

const ENDS = [src(A), dst(B)];

describe('ADD', () => {
  test('makes an SA as asked', () => {
    const { sad, connect } = rig();
    const client = connect();
    const reply = client.one(
      'ADD',
      'esp',
      sa(0x1001, { auth: 5, encrypt: 12, replay: 255, flags: 0x440 }),
      sa2(2, 77),
      ...ENDS,
      lifetime('LIFETIME_HARD', { allocations: 9, bytes: 1000, addTime: 60, useTime: 30 }),
      lifetime('LIFETIME_SOFT', { addTime: 48 }),
      key(secret(16)),
      key(secret(32), 'KEY_AUTH'),
      { type: 'IDENTITY_SRC', idType: 2, id: 0, text: 'a.example' },
      { type: 'X_NAT_T_TYPE', encapsulation: 2 },
      { type: 'X_NAT_T_SPORT', port: 4500 },
      { type: 'X_NAT_T_DPORT', port: 61_000 },
    );
    expect(reply.errno).toBe(0);
    expect(types(reply)).toEqual([
      'SA',
      'X_SA2',
      'LIFETIME_HARD',
      'LIFETIME_SOFT',
      'ADDRESS_SRC',
      'ADDRESS_DST',
      'IDENTITY_SRC',
      'X_NAT_T_TYPE',
      'X_NAT_T_SPORT',
      'X_NAT_T_DPORT',
    ]);
    // Flags without "may wrap", since it never does.
    const shown = sa(0x1001, { auth: 5, encrypt: 12, replay: 255, flags: 0x400, state: 1 });
    expect(extension(reply, 'SA')).toEqual(shown);
    const made = sad.get('esp', 0x1001, B)!;
    expect(made.state).toBe('mature');
    expect(made.spec).toMatchObject({
      mode: 'tunnel',
      reqid: 77,
      replayPackets: 255,
      esn: true,
      hard: { packets: 9, bytes: 1000, addSeconds: 60, useSeconds: 30 },
      soft: { packets: 0, bytes: 0, addSeconds: 48, useSeconds: 0 },
      encapsulation: { srcPort: 4500, dstPort: 61_000 },
      origin: 'client',
      pid: client.pid,
    });
    expect(made.spec.esp?.icvLen).toBe(16);
  });

  test('goes to everyone, without keys', () => {
    const { connect } = rig();
    const [client, other] = [connect(), connect()];
    const reply = client.one('ADD', 'esp', sa(0x1001), ...ENDS, key());
    expect(other.heard()).toEqual([reply]);
    expect(types(reply)).not.toContain('KEY_ENCRYPT');
  });

  const window: [string, Extension[], number][] = [
    ['off', [sa(0x1001)], 0],
    ['a hint below the default', [sa(0x1001, { replay: 4 })], 64],
    ['a hint above it', [sa(0x1001, { replay: 128 })], 128],
    ['exact', [sa(0x1001, { replay: 32 }), testudo({ replayPackets: 32 })], 32],
    ['large', [sa(0x1001, { replay: 255 }), testudo({ replayPackets: 4096 })], 4096],
  ];
  test.each(window)('replay window: %s', (_name, given, packets) => {
    const { sad, connect } = rig();
    expect(connect().errno('ADD', 'esp', ...given, ...ENDS, key())).toBe(0);
    expect(sad.get('esp', 0x1001, B)!.replay.size).toBe(packets);
  });

  test('on BSD, the window is in octets of 8 packets, or in an extension of its own', () => {
    const { sad, connect } = rig();
    const client = connect({ dialect: 'bsd' });
    const small = client.one('ADD', 'esp', sa(0x1001, { replay: 16 }), ...ENDS, key());
    expect(sad.get('esp', 0x1001, B)!.replay.size).toBe(128);
    expect(extension(small, 'SA')?.replay).toBe(16);
    const wide: Extension = { type: 'X_SA_REPLAY', packets: 4096 };
    const large = client.one('ADD', 'esp', sa(0x1002, { replay: 255 }), ...ENDS, key(), wide);
    expect(sad.get('esp', 0x1002, B)!.replay.size).toBe(4096);
    expect(extension(large, 'SA')?.replay).toBe(255);
    expect(extension(large, 'X_SA_REPLAY')?.packets).toBe(4096);
    expect(types(large)).not.toContain('X_TESTUDO');
  });

  test('our private extension goes only to who knows it', () => {
    const { connect } = rig();
    const [asker, knows, strict] = [connect(), connect(), connect()];
    knows.ask('DUMP', 'esp', testudo({}));
    const wide = testudo({ replayPackets: 4096, df: 'copy' });
    const reply = asker.one('ADD', 'esp', sa(0x1001), ...ENDS, key(), wide);
    expect(extension(reply, 'X_TESTUDO')).toEqual(wide);
    expect(types(knows.heard()[0])).toContain('X_TESTUDO');
    expect(types(strict.heard()[0])).not.toContain('X_TESTUDO');
  });

  test('AH is padded as its IP version wants', () => {
    const { sad, connect } = rig();
    const client = connect();
    const ah = (spi: number) => [sa(spi, { auth: 5, encrypt: 0 }), key(secret(32), 'KEY_AUTH')];
    client.ask('ADD', 'ah', ...ah(0x1001), ...ENDS);
    client.ask('ADD', 'ah', ...ah(0x1002), ...ENDS, testudo({ ahAlign: 8 }));
    client.ask('ADD', 'ah', ...ah(0x1003), src(A6), dst(B6));
    expect(sad.get('ah', 0x1001, B)?.spec.ahAlignLen).toBe(4);
    expect(sad.get('ah', 0x1002, B)?.spec.ahAlignLen).toBe(8);
    expect(sad.get('ah', 0x1003, B6)?.spec.ahAlignLen).toBe(8);
    const wrong = client.errno('ADD', 'ah', ...ah(9999), src(A6), dst(B6), testudo({ ahAlign: 4 }));
    expect(wrong).toBe(ERRNO.EINVAL);
  });

  const good = [...ENDS, key()];
  const refused: [string, keyof typeof ERRNO, Parameters<typeof ask>[0], Extension[]][] = [
    ['reserved SPI', 'EINVAL', 'esp', [sa(255), ...good]],
    ['no SA extension', 'EINVAL', 'esp', good],
    ['no destination', 'EINVAL', 'esp', [sa(0x1001), src(A), key()]],
    ['families differ', 'EINVAL', 'esp', [sa(0x1001), src(A), dst(B6), key()]],
    ['protocols differ', 'EINVAL', 'esp', [sa(0x1001), src(A, { proto: 6 }), dst(B), key()]],
    ['no key', 'EINVAL', 'esp', [sa(0x1001), ...ENDS]],
    ['key of a wrong length', 'EINVAL', 'esp', [sa(0x1001), ...ENDS, key(secret(16))]],
    ['a key too many', 'EINVAL', 'esp', [sa(0x1001), ...good, key(secret(32), 'KEY_AUTH')]],
    ['unknown cipher', 'EINVAL', 'esp', [sa(0x1001, { encrypt: 99 }), ...good]],
    ['unknown MAC', 'EINVAL', 'esp', [sa(0x1001, { auth: 99 }), ...good]],
    ['legacy cipher', 'EOPNOTSUPP', 'esp', [sa(1e6, { encrypt: 2 }), ...ENDS, key(secret(8))]],
    ['encryption on AH', 'EINVAL', 'ah', [sa(0x1001), ...good]],
    ['AH without MAC', 'EINVAL', 'ah', [sa(0x1001, { encrypt: 0 }), ...ENDS]],
    ['old format', 'EOPNOTSUPP', 'esp', [sa(0x1001, { flags: 1 }), ...good]],
    ['derived IV', 'EOPNOTSUPP', 'esp', [sa(0x1001, { flags: 0x20 }), ...good]],
    ['IV of 32 bits', 'EOPNOTSUPP', 'esp', [sa(0x1001, { flags: 0x10 }), ...good]],
    ['unknown flag', 'EINVAL', 'esp', [sa(0x1001, { flags: 0x1000 }), ...good]],
    ['two paddings', 'EINVAL', 'esp', [sa(0x1001, { flags: 0x300 }), ...good]],
    ['mode', 'EINVAL', 'esp', [sa(0x1001), sa2(3), ...good]],
    ['window too small', 'EINVAL', 'esp', [sa(0x1001), ...good, testudo({ replayPackets: 31 })]],
    ['window too large', 'EINVAL', 'esp', [sa(0x1001), ...good, testudo({ replayPackets: 1e5 })]],
    ['encapsulation', 'EOPNOTSUPP', 'esp', [sa(0x1001), ...good, natType(1)]],
    ['encapsulation without ports', 'EINVAL', 'esp', [sa(0x1001), ...good, natType(2)]],
    ['policy in an ADD', 'EINVAL', 'esp', [sa(0x1001), ...good, spiRange(300, 400)]],
    ['IPComp', 'EPROTONOSUPPORT', 'ipcomp', [sa(0x1001), ...good]],
    ['TCP signature', 'EPROTONOSUPPORT', 'tcpsignature', [sa(0x1001), ...good]],
    ['OSPF', 'EOPNOTSUPP', 'ospfv2', [sa(0x1001), ...good]],
    ['no SA type', 'EINVAL', 'unspec', [sa(0x1001), ...good]],
  ];
  test.each(refused)('refused: %s is %s', (_name, errno, satype, given) => {
    const { sad, engine, logged, connect } = rig();
    const [client, other] = [connect(), connect()];
    const reply = ask(satype, given, client);
    expect([reply.type, reply.satype, reply.errno]).toEqual(['ADD', satype, ERRNO[errno]]);
    expect(reply.extensions).toEqual([]);
    expect(other.heard()).toEqual([]);
    expect(sad.size).toBe(0);
    expect(engine.reasonFor(client.pid, client.seq)).toMatch(/\w+ \w+/);
    expect(logged.length).toBe(1);
  });

  test('an identity in use is EEXIST, and the reason says which', () => {
    const { engine, connect } = rig();
    const client = connect();
    client.ask('ADD', 'esp', sa(0x1001), ...ENDS, key());
    expect(client.errno('ADD', 'esp', sa(0x1001), ...ENDS, key())).toBe(ERRNO.EEXIST);
    expect(engine.reasonFor(client.pid, 2)).toContain('SPI 0x00001001 to 10.0.0.2 is in use');
    expect(engine.reasonFor(client.pid, 1)).toBeUndefined();
    expect(client.errno('ADD', 'esp', sa(0x1001), src(B), dst(A), key())).toBe(0);
  });

  test('a full table is ENOBUFS', () => {
    const { connect } = rig({ saMax: 1 });
    const client = connect();
    expect(client.errno('ADD', 'esp', sa(0x1001), ...ENDS, key())).toBe(0);
    expect(client.errno('ADD', 'esp', sa(0x1002), ...ENDS, key())).toBe(ERRNO.ENOBUFS);
  });
});

describe('GETSPI and UPDATE', () => {
  test('the range is kept, and the larval SA gets its keys', () => {
    const { sad, connect } = rig();
    const [client, other] = [connect(), connect()];
    const reply = client.one('GETSPI', 'esp', sa2(2, 5), ...ENDS, spiRange(5000, 5001));
    const spi = extension(reply, 'SA')!.spi;
    expect([5000, 5001]).toContain(spi);
    expect(extension(reply, 'SA')?.state).toBe(0);
    expect(types(reply)).toEqual(['SA', 'X_SA2', 'ADDRESS_SRC', 'ADDRESS_DST']);
    expect(other.heard()).toEqual([]);
    expect(sad.get('esp', spi, B)?.state).toBe('larval');

    const updated = client.one('UPDATE', 'esp', sa(spi), sa2(2, 6), ...ENDS, key());
    expect(updated.errno).toBe(0);
    expect(other.heard()).toEqual([updated]);
    expect(sad.get('esp', spi, B)).toMatchObject({ state: 'mature', spec: { reqid: 6 } });
  });

  test('without a range it is that of the settings', () => {
    const { settings, connect } = rig();
    Object.assign(settings, { spiMin: 0x4000, spiMax: 0x4003 });
    const client = connect();
    const spis = [1, 2, 3, 4].map(() => extension(client.one('GETSPI', 'ah', ...ENDS), 'SA')!.spi);
    expect(spis.sort()).toEqual([0x4000, 0x4001, 0x4002, 0x4003]);
    expect(client.errno('GETSPI', 'ah', ...ENDS)).toBe(ERRNO.ENOBUFS);
  });

  test('a range of one that is in use, an empty one, and reserved numbers', () => {
    const client = rig().connect();
    expect(client.errno('GETSPI', 'esp', ...ENDS, spiRange(300, 300))).toBe(0);
    expect(client.errno('GETSPI', 'esp', ...ENDS, spiRange(300, 300))).toBe(ERRNO.EEXIST);
    expect(client.errno('GETSPI', 'esp', ...ENDS, spiRange(400, 300))).toBe(ERRNO.EINVAL);
    expect(client.errno('GETSPI', 'esp', ...ENDS, spiRange(1, 300))).toBe(ERRNO.EINVAL);
  });

  test('a failed UPDATE leaves the SA larval', () => {
    const { sad, connect } = rig();
    const client = connect();
    client.ask('GETSPI', 'esp', ...ENDS, spiRange(300, 300));
    expect(client.errno('UPDATE', 'esp', sa(300), ...ENDS, key(secret(3)))).toBe(ERRNO.EINVAL);
    expect(sad.get('esp', 300, B)?.state).toBe('larval');
    expect(client.errno('UPDATE', 'esp', sa(300), ...ENDS, key())).toBe(0);
  });

  test('a larval SA that gets no keys is gone after a while, without a word', () => {
    const { sad, connect, advance } = rig();
    const client = connect();
    client.ask('REGISTER', 'esp');
    client.ask('GETSPI', 'esp', ...ENDS);
    advance(29_000);
    expect(sad.size).toBe(1);
    advance(2_000);
    expect(sad.size).toBe(0);
    expect(client.heard()).toEqual([]);
  });

  test('UPDATE of an SA with keys changes limits and ports, and never keys', () => {
    const { sad, connect } = rig();
    const client = connect();
    client.ask('ADD', 'esp', sa(0x1001), sa2(2, 5), ...ENDS, key());
    const before = sad.get('esp', 0x1001, B)!;
    before.replay.startAt(41);
    const limit = lifetime('LIFETIME_HARD', { addTime: 99 });
    const ports: Extension[] = [
      natType(2),
      { type: 'X_NAT_T_SPORT', port: 4500 },
      { type: 'X_NAT_T_DPORT', port: 5555 },
    ];
    // strongSwan sends back everything that GET says, keys too.
    expect(client.errno('UPDATE', 'esp', sa(0x1001), ...ENDS, key(), limit, ...ports)).toBe(0);
    const after = sad.get('esp', 0x1001, B)!;
    expect(after).toBe(before);
    expect(after.spec).toMatchObject({
      hard: { addSeconds: 99 },
      encapsulation: { dstPort: 5555 },
    });
    expect(after.replay.top).toBe(41);

    const wrong: Extension[][] = [
      [sa(0x1001), ...ENDS, key(secret(20, 1))],
      [sa(0x1001, { encrypt: 19 }), ...ENDS],
      [sa(0x1001), ...ENDS, key(secret(32), 'KEY_AUTH')],
      [sa(0x1001), src(B), dst(B)],
      [sa(0x1001), sa2(1), ...ENDS],
      [sa(0x1001), sa2(2, 6), ...ENDS],
    ];
    for (const given of wrong) expect(client.errno('UPDATE', 'esp', ...given)).toBe(ERRNO.EINVAL);
    expect(client.errno('UPDATE', 'esp', sa(0x1002), ...ENDS, key())).toBe(ERRNO.ESRCH);
  });

  test('a longer soft limit makes a dying SA mature again', () => {
    const { sad, connect, advance } = rig();
    const client = connect();
    const soft = (addTime: number) => lifetime('LIFETIME_SOFT', { addTime });
    client.ask('ADD', 'esp', sa(0x1001), ...ENDS, key(), soft(10));
    advance(11_000);
    expect(sad.get('esp', 0x1001, B)?.state).toBe('dying');
    client.ask('UPDATE', 'esp', sa(0x1001), ...ENDS, soft(100));
    expect(sad.get('esp', 0x1001, B)?.state).toBe('mature');
    advance(90_000);
    expect(sad.get('esp', 0x1001, B)?.state).toBe('dying');
  });
});

describe('GET and DELETE', () => {
  test('GET gives everything, keys included, to the asker alone', () => {
    const { sad, connect } = rig();
    const [client, other] = [connect(), connect()];
    const octets = secret(20);
    client.ask('ADD', 'esp', sa(0x1001), sa2(1, 9), ...ENDS, key(octets));
    other.heard();
    sad.account(sad.get('esp', 0x1001, B)!, 3, 420);
    const reply = client.one('GET', 'esp', sa(0x1001), ...ENDS);
    expect(types(reply)).toEqual([
      'SA',
      'X_SA2',
      'LIFETIME_HARD',
      'LIFETIME_SOFT',
      'LIFETIME_CURRENT',
      'ADDRESS_SRC',
      'ADDRESS_DST',
      'KEY_ENCRYPT',
    ]);
    expect(extension(reply, 'KEY_ENCRYPT')).toEqual(key(secret(20)));
    expect(extension(reply, 'LIFETIME_CURRENT')).toEqual({
      type: 'LIFETIME_CURRENT',
      allocations: 3,
      bytes: 420,
      addTime: 1_700_001_000,
      useTime: 1_700_001_000,
    });
    expect(other.heard()).toEqual([]);
    expect(client.errno('GET', 'esp', sa(0x1002), ...ENDS)).toBe(ERRNO.ESRCH);
    expect(client.errno('GET', 'ah', sa(0x1001), ...ENDS)).toBe(ERRNO.ESRCH);
  });

  test('DELETE of one, also of a larval one; others are told', () => {
    const { sad, connect } = rig();
    const [client, other] = [connect(), connect()];
    client.ask('ADD', 'esp', sa(0x1001), ...ENDS, key());
    client.ask('GETSPI', 'esp', ...ENDS, spiRange(300, 300));
    other.heard();
    const deleted = client.one('DELETE', 'esp', sa(0x1001), sa2(0), ...ENDS);
    expect(types(deleted)).toEqual(['SA', 'X_SA2', 'ADDRESS_SRC', 'ADDRESS_DST']);
    expect(extension(deleted, 'SA')?.spi).toBe(0x1001);
    expect(other.heard()).toEqual([deleted]);
    expect(client.errno('DELETE', 'esp', sa(300), ...ENDS)).toBe(0);
    expect(sad.size).toBe(0);
    expect(client.errno('DELETE', 'esp', sa(0x1001), ...ENDS)).toBe(ERRNO.ESRCH);
  });

  test('DELETE without an SPI takes all with keys between two addresses', () => {
    const { sad, connect } = rig();
    const client = connect();
    client.ask('ADD', 'esp', sa(0x1001), sa2(1, 1), ...ENDS, key());
    client.ask('ADD', 'esp', sa(0x1002), sa2(2, 2), ...ENDS, key());
    client.ask('ADD', 'esp', sa(0x1003), src(B), dst(A), key());
    client.ask('GETSPI', 'esp', ...ENDS, spiRange(300, 300));
    const reply = client.one('DELETE', 'esp', ...ENDS);
    expect(types(reply)).toEqual(['ADDRESS_SRC', 'ADDRESS_DST']);
    expect([...sad.all()].map((one) => one.spec.spi)).toEqual([0x1003, 300]);
    expect(client.errno('DELETE', 'ah', ...ENDS)).toBe(0);
  });
});

describe('FLUSH and DUMP', () => {
  function filled() {
    const made = rig();
    const client = made.connect();
    client.ask('ADD', 'esp', sa(0x1001), ...ENDS, key());
    client.ask('ADD', 'ah', sa(0x1002, { auth: 5, encrypt: 0 }), ...ENDS, authKey());
    client.ask('ADD', 'esp', sa(0x1003), ...ENDS, key());
    return { ...made, client };
  }

  test('of one type or of all', () => {
    const { sad, client } = filled();
    expect(client.errno('FLUSH', 'ah')).toBe(0);
    expect([...sad.all()].map((one) => one.spec.spi)).toEqual([0x1001, 0x1003]);
    // Types that cannot have SAs are empty: clients flush them as a matter of course.
    expect(client.errno('FLUSH', 'ipcomp')).toBe(0);
    expect(client.errno('FLUSH', 'rsvp')).toBe(ERRNO.EOPNOTSUPP);
    expect(client.errno('FLUSH', 'promisc')).toBe(ERRNO.EINVAL);
    expect(client.errno('FLUSH', 'unspec')).toBe(0);
    expect(sad.size).toBe(0);
  });

  test('everyone hears of a FLUSH', () => {
    const { connect, client } = filled();
    const other = connect();
    const reply = client.one('FLUSH', 'unspec');
    expect(other.heard()).toEqual([reply]);
  });

  test('a dump counts down to 0 and has the keys', () => {
    const { client } = filled();
    const all = client.ask('DUMP', 'unspec');
    expect(all.map((one) => [one.type, one.satype, one.seq, extension(one, 'SA')?.spi])).toEqual([
      ['DUMP', 'esp', 2, 0x1001],
      ['DUMP', 'ah', 1, 0x1002],
      ['DUMP', 'esp', 0, 0x1003],
    ]);
    expect(all.every((one) => one.pid === client.pid && one.errno === 0)).toBe(true);
    expect(extension(all[1]!, 'KEY_AUTH')?.key).toEqual(secret(32));
    expect(client.ask('DUMP', 'ah')).toMatchObject([{ satype: 'ah', seq: 0 }]);
  });

  test('an empty dump is ENOENT', () => {
    const client = rig().connect();
    expect(client.errno('DUMP', 'unspec')).toBe(ERRNO.ENOENT);
    expect(client.errno('DUMP', 'ipcomp')).toBe(ERRNO.ENOENT);
  });
});

function testudo(given: Partial<Extract<Extension, { type: 'X_TESTUDO' }>>) {
  const usual = { replayPackets: 0, ahAlign: 0, df: 'default', ecn: 'default' } as const;
  return { type: 'X_TESTUDO' as const, ...usual, ...given };
}

function natType(encapsulation: number): Extension {
  return { type: 'X_NAT_T_TYPE', encapsulation };
}

function spiRange(min: number, max: number): Extension {
  return { type: 'SPIRANGE', min, max };
}

function authKey(): Extension {
  return key(secret(32), 'KEY_AUTH');
}

function ask(
  satype: Message['satype'],
  given: readonly Extension[],
  client: ReturnType<ReturnType<typeof rig>['connect']>,
): Message {
  return client.one('ADD', satype, ...given);
}
