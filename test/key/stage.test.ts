import { describe, expect, test } from 'vitest';
import { applyMessages } from '../../src/key/apply.ts';
import { stage } from '../../src/key/stage.ts';
import {
  type Extension,
  extension,
  type Message,
  type MessageType,
} from '../../src/wire/pfkey-message.ts';
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
} from './rig.ts';

const ENDS = [src(A), dst(B)];

function message(
  type: MessageType,
  satype: Message['satype'],
  ...extensions: Extension[]
): Message {
  return { type, errno: 0, satype, seq: 0, pid: 0, reserved: 0, extensions };
}

function addSa(spi: number, ...more: Extension[]): Message {
  return message('ADD', 'esp', sa(spi, { replay: 64 }), ...ENDS, key(secret(20)), ...more);
}

function addPolicy(port: number, given: Parameters<typeof policy>[1] = {}): Message {
  return message(
    'X_SPDADD',
    'unspec',
    policy(2, given),
    src(A, { proto: 6, port }),
    dst(B, { proto: 6 }),
  );
}

const FLUSH = [message('FLUSH', 'unspec'), message('X_SPDFLUSH', 'unspec')];

function reload({ engine }: Rig, ...messages: Message[]) {
  const made = stage(engine);
  const refusals = applyMessages(made.engine, messages);
  expect(refusals).toEqual([]);
  return made.commit();
}

function spis({ sad }: Rig): number[] {
  return [...sad.all()].map((one) => one.spec.spi);
}

function ports({ spd }: Rig): number[] {
  return spd.list('out').map((one) => one.selector.sport);
}

describe('applying a file', () => {
  test('what it makes belongs to the file, and refusals name their message', () => {
    const { engine, sad } = rig();
    const refusals = applyMessages(engine, [addSa(1), addSa(0x1001), addSa(0x1001), addPolicy(1)]);
    expect(refusals.map(({ index, error }) => [index, error.errno])).toEqual([
      [0, 'EINVAL'],
      [2, 'EEXIST'],
    ]);
    expect(refusals[0]?.error.message).toContain('SPI 1 is reserved');
    expect([...sad.all()][0]?.spec.origin).toBe('file');
  });

  test('a flush in it spares what programs have made', () => {
    const made = rig();
    made.connect().ask('ADD', 'esp', ...addSa(0x2001).extensions);
    made.connect().ask('X_SPDADD', 'unspec', ...addPolicy(2).extensions);
    applyMessages(made.engine, [addSa(0x1001), addPolicy(1)]);
    applyMessages(made.engine, [message('FLUSH', 'ah')]);
    expect(spis(made)).toEqual([0x2001, 0x1001]);
    applyMessages(made.engine, FLUSH);
    expect([spis(made), ports(made)]).toEqual([[0x2001], [2]]);
  });
});

describe('reading a file again', () => {
  test('what it still says stays the same object, the rest goes or comes', () => {
    const made = rig();
    const { sad, spd, engine } = made;
    applyMessages(engine, [addSa(0x1001), addSa(0x1002), addPolicy(1), addPolicy(2)]);
    const [kept, gone] = [...sad.all()];
    const [keptPolicy] = spd.list('out');
    expect(kept!.takeSeq(5)).toBe(1);
    kept!.replay.startAt(100);
    spd.used(keptPolicy!, 1, 1);
    const result = reload(made, ...FLUSH, addSa(0x1003), addSa(0x1001), addPolicy(3), addPolicy(1));
    expect(result).toEqual({
      sas: { added: 1, kept: 1, removed: 1 },
      policies: { added: 1, kept: 1, removed: 1 },
    });
    expect(spis(made)).toEqual([0x1001, 0x1003]);
    expect(sad.get('esp', 0x1001, B)).toBe(kept);
    expect(kept!.takeSeq(1)).toBe(6);
    expect(kept!.replay.top).toBe(100);
    expect(kept!.spec.keys.encryptKey).toEqual(secret(20));
    expect(gone!.state).toBe('dead');
    expect(gone!.spec.keys.encryptKey).toEqual(new Uint8Array(20));
    // The order is that of the new file.
    expect(ports(made)).toEqual([3, 1]);
    expect(spd.list('out')[1]).toBe(keptPolicy);
    expect(spd.list('out')[0]?.id).not.toBe(keptPolicy?.id);
  });

  test('new SAs work: their keys are theirs', () => {
    const made = rig();
    reload(made, addSa(0x1001));
    const packet = new Uint8Array(64);
    const { esp } = made.sad.get('esp', 0x1001, B)!.spec;
    esp!.seal(packet, 0, 32, -1);
    expect(esp!.open(packet, 0, 48, -1)).toBe(true);
  });

  test('same keys with other settings: a new SA that has seen what the old one has', () => {
    const made = rig();
    const { sad } = made;
    applyMessages(made.engine, [addSa(0x1001)]);
    const old = sad.get('esp', 0x1001, B)!;
    old.takeSeq(5);
    old.replay.startAt(100);
    reload(made, addSa(0x1001, lifetime('LIFETIME_HARD', { addTime: 60 })));
    const fresh = sad.get('esp', 0x1001, B)!;
    expect(fresh).not.toBe(old);
    expect(fresh.spec.hard.addSeconds).toBe(60);
    expect([fresh.replay.check(100), fresh.replay.check(101)]).toEqual([-1, 101]);
    expect(fresh.takeSeq(1)).toBe(6);
    expect(old.state).toBe('dead');
  });

  test('other keys: a new SA that has seen nothing', () => {
    const made = rig();
    applyMessages(made.engine, [addSa(0x1001)]);
    made.sad.get('esp', 0x1001, B)!.replay.startAt(100);
    reload(made, message('ADD', 'esp', sa(0x1001, { replay: 64 }), ...ENDS, key(secret(20, 9))));
    const fresh = made.sad.get('esp', 0x1001, B)!;
    expect(fresh.replay.check(100)).toBe(100);
    expect(fresh.spec.keys.encryptKey).toEqual(secret(20, 9));
  });

  test('a changed policy keeps its id, and a "unique" one its number', () => {
    const made = rig();
    const { spd, engine } = made;
    const unique = { requests: [request({ level: 3 })] };
    applyMessages(engine, [addPolicy(1, unique), addPolicy(2), addPolicy(3, { id: 9 })]);
    const [first, second] = spd.list('out');
    expect(first!.requests[0]!.reqid).toBe(0x4000);
    reload(made, addPolicy(1, unique), addPolicy(2, unique), addPolicy(3, { id: 10 }));
    const [again, changed, manual] = spd.list('out');
    expect(again).toBe(first);
    expect(changed!.id).toBe(second!.id);
    expect(changed!.requests[0]).toMatchObject({ level: 'unique', reqid: 0x4001 });
    expect(manual!.id).toBe(9);
    const client = made.connect();
    const next = client.one('X_SPDADD', 'unspec', ...addPolicy(4, unique).extensions);
    expect(extension(next, 'X_POLICY')?.requests[0]?.reqid).toBe(0x4002);
  });

  test('what programs made stays the same object, behind the file’s policies', () => {
    const made = rig();
    const client = made.connect();
    client.ask('ADD', 'esp', ...addSa(0x2001).extensions);
    client.ask('GETSPI', 'esp', ...ENDS, { type: 'SPIRANGE', min: 300, max: 300 });
    client.ask('X_SPDADD', 'unspec', ...addPolicy(7).extensions);
    const before = [...made.sad.all()];
    const [theirs] = made.spd.list('out');
    const staged = stage(made.engine);
    applyMessages(staged.engine, [...FLUSH, addSa(0x1001), addPolicy(1)]);
    // Meanwhile they go on.
    client.ask('ADD', 'esp', ...addSa(0x2002).extensions);
    client.ask('DELETE', 'esp', sa(300), ...ENDS);
    client.ask('X_SPDADD', 'unspec', ...addPolicy(8).extensions);
    staged.commit();
    expect(spis(made)).toEqual([0x2001, 0x2002, 0x1001]);
    expect(made.sad.get('esp', 0x2001, B)).toBe(before[0]);
    expect(before[0]!.spec.keys.encryptKey).toEqual(secret(20));
    expect(ports(made)).toEqual([1, 7, 8]);
    expect(made.spd.list('out')[1]).toBe(theirs);
  });

  test('the file may delete and change what a program made', () => {
    const made = rig();
    const client = made.connect();
    client.ask('ADD', 'esp', ...addSa(0x2001).extensions);
    client.ask('ADD', 'esp', ...addSa(0x2002).extensions);
    client.ask('X_SPDADD', 'unspec', ...addPolicy(7).extensions);
    client.ask('X_SPDADD', 'unspec', ...addPolicy(8).extensions);
    const kept = made.sad.get('esp', 0x2002, B)!;
    const [seventh] = made.spd.list('out');
    reload(
      made,
      message('DELETE', 'esp', sa(0x2001), ...ENDS),
      message('UPDATE', 'esp', sa(0x2002), ...ENDS, lifetime('LIFETIME_SOFT', { addTime: 5 })),
      { ...addPolicy(7, { requests: [request({ proto: 51 })] }), type: 'X_SPDUPDATE' },
      { ...addPolicy(8), type: 'X_SPDDELETE' },
    );
    expect(spis(made)).toEqual([0x2002]);
    expect(made.sad.get('esp', 0x2002, B)).toBe(kept);
    expect(kept.spec.soft.addSeconds).toBe(5);
    expect(made.spd.list('out').map((one) => [one.id, one.requests[0]?.protocol])).toEqual([
      [seventh!.id, 'ah'],
    ]);
  });

  test('a conflict with a program is refused and changes nothing', () => {
    const made = rig();
    applyMessages(made.engine, [addSa(0x1001), addPolicy(1)]);
    const staged = stage(made.engine);
    applyMessages(staged.engine, [addSa(0x1002), addPolicy(2), addPolicy(3)]);
    const client = made.connect();
    const errno = client.errno('X_SPDADD', 'unspec', ...addPolicy(3).extensions);
    expect(errno).toBe(0);
    client.heard();
    expect(() => staged.commit()).toThrow(/two policies for out 10\.0\.0\.1\/32\[3\]/);
    expect([spis(made), ports(made)]).toEqual([[0x1001], [1, 3]]);
    expect(client.heard()).toEqual([]);
    expect(made.sad.get('esp', 0x1001, B)!.spec.keys.encryptKey).toEqual(secret(20));
    client.ask('X_SPDDELETE', 'unspec', ...addPolicy(3).extensions);
    client.ask('ADD', 'esp', ...addSa(0x1002).extensions);
    expect(() => staged.commit()).toThrow(/SPI 0x00001002 .* in use/);
    expect(ports(made)).toEqual([1]);
    client.ask('DELETE', 'esp', sa(0x1002), ...ENDS);
    staged.commit();
    expect([spis(made), ports(made)]).toEqual([[0x1002], [2, 3]]);
  });

  test('a mistake in the file is seen before anything changes; its keys are forgotten', () => {
    const made = rig();
    applyMessages(made.engine, [addSa(0x1001)]);
    const client = made.connect();
    client.ask('ADD', 'esp', ...addSa(0x2001).extensions);
    const staged = stage(made.engine);
    const refusals = applyMessages(staged.engine, [addSa(0x1002), addSa(0x2001)]);
    expect(refusals.map(({ error }) => error.errno)).toEqual(['EEXIST']);
    const doomed = staged.engine.context.sad.get('esp', 0x1002, B)!;
    staged.discard();
    expect(doomed.spec.keys.encryptKey).toEqual(new Uint8Array(20));
    expect(spis(made)).toEqual([0x1001, 0x2001]);
    for (const one of made.sad.all()) expect(one.spec.keys.encryptKey).toEqual(secret(20));
    expect(() => staged.commit()).toThrow(/committed once/);
  });

  test('programs are told what has changed, without keys', () => {
    const made = rig();
    applyMessages(made.engine, [addSa(0x1001), addPolicy(1), addPolicy(2)]);
    const client = made.connect();
    reload(made, addSa(0x1002), addPolicy(2, { requests: [request({ proto: 51 })] }), addPolicy(3));
    const heard = client.heard();
    expect(heard.map((one) => [one.type, one.pid])).toEqual([
      ['DELETE', 0],
      ['ADD', 0],
      ['X_SPDDELETE', 0],
      ['X_SPDUPDATE', 0],
      ['X_SPDUPDATE', 0],
    ]);
    expect(heard.flatMap((one) => one.extensions.map((part) => part.type))).not.toContain(
      'KEY_ENCRYPT',
    );
    expect(extension(heard[2]!, 'ADDRESS_SRC')?.port).toBe(1);
    expect(heard.slice(3).map((one) => extension(one, 'ADDRESS_SRC')?.port)).toEqual([2, 3]);
  });

  test('in every step a policy that is in both files is there', () => {
    const made = rig();
    const { spd } = made;
    applyMessages(made.engine, [addPolicy(1), addPolicy(2), addPolicy(3)]);
    const { selector } = spd.list('out')[1]!;
    let looks = 0;
    const seen: unknown[] = [];
    // Whatever the change touches, it reads the clock for each new policy; look at the table there.
    const watched = made.env.clock as { monotonicMs: () => number };
    const real = watched.monotonicMs;
    watched.monotonicMs = () => {
      looks++;
      seen.push(spd.find('out', selector));
      return real();
    };
    reload(made, addPolicy(4), addPolicy(2), addPolicy(5), addPolicy(6));
    watched.monotonicMs = real;
    expect(looks).toBeGreaterThan(3);
    expect(seen.every((one) => one !== undefined)).toBe(true);
    expect(ports(made)).toEqual([4, 2, 5, 6]);
  });

  test('nothing can be sent from a stage', () => {
    const made = rig();
    const staged = stage(made.engine);
    applyMessages(staged.engine, [addSa(0x1001, sa2(1))]);
    const one = staged.engine.context.sad.get('esp', 0x1001, B)!;
    expect(() => one.takeSeq(1)).toThrow(/nothing is sent/);
  });
});
