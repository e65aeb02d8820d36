import { describe, expect, test } from 'vitest';
import { type Address, address } from '../../src/base/address.ts';
import { ERRNO } from '../../src/base/errno.ts';
import { applyMessages } from '../../src/key/apply.ts';
import type { Policy } from '../../src/spd/policy.ts';
import { type Extension, extension, type Message } from '../../src/wire/pfkey-message.ts';
import {
  A,
  A6,
  B,
  B6,
  dst,
  key,
  lifetime,
  policy,
  type Rig,
  rig,
  sa,
  src,
  type TestClient,
  types,
} from './rig.ts';

const ENDS = [src(A), dst(B)] as const;
const C = address('10.0.0.3');

/** Asks for a dump, and takes its entries when the test says so. */
class SlowReader {
  readonly read: Message[] = [];
  readonly #client: TestClient;
  #entries: Iterator<Message> | undefined;

  constructor(host: Rig) {
    this.#client = host.connect();
    this.#client.deliverDump = (entries) => {
      this.#entries = entries;
    };
  }

  ask(type: 'DUMP' | 'X_SPDDUMP', ...extensions: Extension[]): this {
    this.#client.ask(type, 'unspec', ...extensions);
    return this;
  }

  take(count = 1): this {
    for (let i = 0; i < count; i++) this.read.push(this.#entries!.next().value as Message);
    return this;
  }

  rest(): this {
    const entries = this.#entries!;
    for (let next = entries.next(); !next.done; next = entries.next()) this.read.push(next.value);
    return this;
  }

  leave(): void {
    this.#entries!.return!();
  }

  /** The entry of an SPI. */
  of(spi: number): Message {
    return this.read.find((one) => extension(one, 'SA')?.spi === spi)!;
  }
}

describe('a dump shows the moment at which it was asked for', () => {
  /** Four SAs; the reader has the first. */
  function reading() {
    const host = rig();
    const client = host.connect();
    const soft = lifetime('LIFETIME_SOFT', { addTime: 10 });
    const add = (spi: number, ...more: Extension[]) =>
      expect(client.errno('ADD', 'esp', sa(spi), ...ENDS, key(), ...more)).toBe(0);
    add(0x1001);
    add(0x1002, soft);
    add(0x1003);
    add(0x1004);
    const find = (spi: number) => host.sad.get('esp', spi, B)!;
    host.sad.account(find(0x1003), 1, 100);
    return { host, client, add, find, reader: new SlowReader(host).ask('DUMP').take() };
  }

  test('counters, first use and sequence numbers', () => {
    const { host, find, reader } = reading();
    host.advance(5000);
    for (const spi of [0x1001, 0x1003, 0x1004]) {
      expect(find(spi).takeSeq(3)).toBe(1);
      host.sad.account(find(spi), 7, 700);
    }
    reader.rest();
    const current = (spi: number) => extension(reader.of(spi), 'LIFETIME_CURRENT');
    const addTime = 1_700_001_000;
    expect(current(0x1003)).toMatchObject({ allocations: 1, bytes: 100, useTime: addTime });
    expect(current(0x1004)).toMatchObject({ allocations: 0, bytes: 0, addTime, useTime: 0 });
    expect(extension(reader.of(0x1003), 'X_SA2')?.sequence).toBe(0);
    const now = new SlowReader(host).ask('DUMP').rest();
    expect(extension(now.of(0x1003), 'LIFETIME_CURRENT')).toMatchObject({ bytes: 800 });
    expect(extension(now.of(0x1003), 'X_SA2')?.sequence).toBe(3);
  });

  test('limits that an UPDATE gives, and addresses that it changes', () => {
    const { client, reader } = reading();
    const hard = lifetime('LIFETIME_HARD', { bytes: 5000 });
    expect(client.errno('UPDATE', 'esp', sa(0x1003), ...ENDS, hard)).toBe(0);
    const moved = { proto: 0, prefixLen: 32, address: C, port: 0 };
    const to = { type: 'X_NEW_ADDRESS_DST', ...moved } as const;
    expect(client.errno('UPDATE', 'esp', sa(0x1004), ...ENDS, to)).toBe(0);
    reader.rest();
    expect(extension(reader.of(0x1003), 'LIFETIME_HARD')?.bytes).toBe(0);
    expect(extension(reader.of(0x1004), 'ADDRESS_DST')?.address).toEqual(B);
  });

  test('the state', () => {
    const { host, find, reader } = reading();
    host.advance(10_000);
    expect(find(0x1002).state).toBe('dying');
    reader.rest();
    expect(extension(reader.of(0x1002), 'SA')?.state).toBe(1);
  });

  test('what has gone since, without its keys, which are gone too; and nothing that has come', () => {
    const { client, add, reader } = reading();
    expect(client.errno('DELETE', 'esp', sa(0x1003), ...ENDS)).toBe(0);
    add(0x1005);
    // As another SA, under the same name.
    add(0x1003);
    reader.rest();
    expect(reader.read.map(({ seq }) => seq)).toEqual([3, 2, 1, 0]);
    const spis = reader.read.map((one) => extension(one, 'SA')!.spi);
    expect(spis.toSorted()).toEqual([0x1001, 0x1002, 0x1003, 0x1004]);
    expect(extension(reader.of(0x1003), 'SA')?.state).toBe(1);
    expect(extension(reader.of(0x1003), 'LIFETIME_CURRENT')?.bytes).toBe(100);
    expect(types(reader.of(0x1003))).not.toContain('KEY_ENCRYPT');
    expect(types(reader.of(0x1004))).toContain('KEY_ENCRYPT');
  });

  test('a larval SA that gets its keys meanwhile is larval', () => {
    const { host, client } = reading();
    const reserved = client.one('GETSPI', 'esp', ...ENDS);
    const { spi } = extension(reserved, 'SA')!;
    const reader = new SlowReader(host).ask('DUMP').take();
    expect(client.errno('UPDATE', 'esp', sa(spi), ...ENDS, key())).toBe(0);
    reader.rest();
    expect(reader.read.length).toBe(5);
    expect(extension(reader.of(spi), 'SA')?.state).toBe(0);
    expect(types(reader.of(spi))).not.toContain('KEY_ENCRYPT');
  });

  test('also when everything is flushed', () => {
    const { host, client, reader } = reading();
    expect(client.errno('FLUSH', 'unspec')).toBe(0);
    expect(host.sad.size).toBe(0);
    reader.rest();
    expect(reader.read.map(({ seq }) => seq)).toEqual([3, 2, 1, 0]);
    expect(reader.read.map((one) => extension(one, 'SA')!.state)).toEqual([1, 1, 1, 1]);
  });

  test('several at once, each its own', () => {
    const { host, find, reader } = reading();
    host.sad.account(find(0x1004), 1, 50);
    const second = new SlowReader(host).ask('DUMP').take();
    host.sad.account(find(0x1004), 1, 50);
    const bytes = (of: SlowReader) => extension(of.rest().of(0x1004), 'LIFETIME_CURRENT')?.bytes;
    expect([bytes(reader), bytes(second)]).toEqual([0, 50]);
  });

  test('a reader that leaves costs nothing any more', () => {
    const { host, reader } = reading();
    expect(host.sad.readers).toBe(1);
    reader.leave();
    expect(host.sad.readers).toBe(0);
    const whole = new SlowReader(host).ask('DUMP');
    whole.rest();
    expect(host.sad.readers).toBe(0);
  });

  test('a file, which reads no answers, leaves no reader behind', () => {
    const { host } = reading();
    const request = {
      type: 'DUMP',
      satype: 'unspec',
      errno: 0,
      seq: 1,
      pid: 1,
      reserved: 0,
    } as const;
    expect(applyMessages(host.engine, [{ ...request, extensions: [] }])).toEqual([]);
    expect(host.sad.readers).toBe(1);
  });
});

describe('policies', () => {
  function two() {
    const host = rig();
    const client = host.connect();
    const add = (to: Address) =>
      extension(client.one('X_SPDADD', 'unspec', policy(2), src(A), dst(to)), 'X_POLICY')!.id;
    return { host, client, ids: [add(B), add(C)] };
  }

  test('each has the time of its last use before the dump', () => {
    const { host, ids } = two();
    const [first, second] = ids.map((id) => host.spd.get(id)) as [Policy, Policy];
    const use = (one: Policy, seconds: number) => host.spd.used(one, 0, 1000 * seconds);
    use(second, 7);
    const reader = new SlowReader(host).ask('X_SPDDUMP').take();
    use(first, 8);
    use(second, 9);
    use(second, 10);
    const later = new SlowReader(host).ask('X_SPDDUMP').rest();
    const used = (one: SlowReader) =>
      one.read.map((each) => extension(each, 'LIFETIME_CURRENT')!.useTime);
    expect([used(reader.rest()), used(later)]).toEqual([
      [0, 7],
      [8, 10],
    ]);
    expect(host.spd.readers).toBe(0);
  });

  test('those that go are in it, those that come are not', () => {
    const { host, client, ids } = two();
    const reader = new SlowReader(host).ask('X_SPDDUMP');
    expect(client.errno('X_SPDFLUSH', 'unspec')).toBe(0);
    expect(client.errno('X_SPDADD', 'unspec', policy(2), src(A6), dst(B6))).toBe(0);
    expect(reader.rest().read.map((one) => extension(one, 'X_POLICY')!.id)).toEqual(ids);
    expect(reader.read.map(({ seq }) => seq)).toEqual([1, 0]);
    const gone = new SlowReader(host).ask('X_SPDDUMP');
    gone.leave();
    expect(host.spd.readers).toBe(0);
  });
});

describe('X_FILTER: a dump of some', () => {
  function filter(family: number, from: Address, fromBits: number, to: Address, toBits: number) {
    const body = new Uint8Array(36);
    body.set(from.bytes, 0);
    body.set(to.bytes, 16);
    body.set([family, 0, fromBits, toBits], 32);
    return { type: 'X_FILTER', body } as const;
  }

  function filled() {
    const host = rig();
    const client = host.connect();
    let spi = 0x1000;
    const add = (from: Address, to: Address, ah = false) => {
      spi++;
      const what = ah
        ? ([sa(spi, { auth: 3, encrypt: 0 }), key(new Uint8Array(20).fill(7), 'KEY_AUTH')] as const)
        : ([sa(spi), key()] as const);
      const type = ah ? 'ah' : 'esp';
      expect(client.errno('ADD', type, what[0], src(from), dst(to), what[1])).toBe(0);
    };
    add(A, B);
    add(B, A);
    add(A, C, true);
    add(A6, B6);
    add(address('10.0.1.1'), address('10.0.0.9'));
    const spis = (satype: 'unspec' | 'esp' | 'ah', one: Extension) =>
      client
        .ask('DUMP', satype, one)
        .map((entry) => extension(entry, 'SA')?.spi ?? `errno ${entry.errno}`);
    return { client, spis };
  }

  const ANY = address('0.0.0.0');

  test.each([
    ['a family', filter(2, ANY, 0, ANY, 0), [0x1001, 0x1002, 0x1003, 0x1005]],
    ['the other', filter(10, ANY, 0, ANY, 0), [0x1004]],
    ['no family', filter(0, ANY, 0, ANY, 0), [0x1001, 0x1002, 0x1003, 0x1004, 0x1005]],
    ['a source', filter(2, A, 32, ANY, 0), [0x1001, 0x1003]],
    ['a network of sources', filter(2, address('10.0.0.77'), 24, ANY, 0), [0x1001, 0x1002, 0x1003]],
    ['bits within an octet', filter(2, ANY, 0, address('10.0.0.2'), 31), [0x1001, 0x1003]],
    ['both ends', filter(2, A, 32, B, 32), [0x1001]],
    ['IPv6', filter(10, A6, 64, B6, 127), [0x1004]],
    // As Linux compares them: an IPv4 address is followed by zeros.
    ['more bits than an address has', filter(2, A, 64, ANY, 0), [0x1001, 0x1003]],
  ])('%s', (_, one, expected) => {
    expect(filled().spis('unspec', one)).toEqual(expected);
  });

  test('together with an SA type; nothing that fits is ENOENT; the last has number 0', () => {
    const { client, spis } = filled();
    expect(spis('ah', filter(2, A, 32, ANY, 0))).toEqual([0x1003]);
    expect(spis('ah', filter(2, B, 32, ANY, 0))).toEqual([`errno ${ERRNO.ENOENT}`]);
    const seqs = client.ask('DUMP', 'unspec', filter(2, A, 32, ANY, 0)).map(({ seq }) => seq);
    expect(seqs).toEqual([1, 0]);
  });

  test('prefixes of more than 128 bits, and other messages, are EINVAL', () => {
    const { client } = filled();
    for (const one of [filter(2, A, 129, ANY, 0), filter(2, A, 0, ANY, 255)]) {
      expect(client.errno('DUMP', 'unspec', one)).toBe(ERRNO.EINVAL);
    }
    expect(client.errno('FLUSH', 'unspec', filter(2, A, 32, ANY, 0))).toBe(ERRNO.EINVAL);
    expect(client.errno('X_SPDDUMP', 'unspec', filter(2, A, 32, ANY, 0))).toBe(ERRNO.EINVAL);
  });
});
