import { describe, expect, test } from 'vitest';
import { extension } from '../../src/wire/pfkey-message.ts';
import { A, B, dst, key, rig, sa, src } from './rig.ts';

/** RFC 4303 §3.3.3: sequence numbers never wrap, so key exchange has to hear of it in time. */

const ENDS = [src(A), dst(B)] as const;
/** 80 % of 2^32 - 1. */
const SOFT = 3_435_973_836;
const ESN = 0x400;

describe('the end of the sequence numbers', () => {
  function sender(flags = 0) {
    const host = rig();
    const client = host.connect();
    expect(client.errno('REGISTER', 'esp')).toBe(0);
    expect(client.errno('ADD', 'esp', sa(0x1001, { flags }), ...ENDS, key())).toBe(0);
    client.heard();
    const one = host.sad.get('esp', 0x1001, B)!;
    const send = (count: number) => {
      expect(one.takeSeq(count)).toBeGreaterThan(0);
      host.sad.account(one, 1, 100);
    };
    return { host, client, one, send };
  }

  test('at 80 % a soft EXPIRE, once; at the last number a hard one, and the SA is gone', () => {
    const { host, client, one, send } = sender();
    send(SOFT - 1);
    expect([one.state, client.heard()]).toEqual(['mature', []]);
    send(1);
    const [expire, ...more] = client.heard();
    expect([one.state, more]).toEqual(['dying', []]);
    expect([expire!.type, extension(expire!, 'SA')!.spi]).toEqual(['EXPIRE', 0x1001]);
    expect(extension(expire!, 'LIFETIME_SOFT')).toBeDefined();
    send(0xffff_fffe - SOFT);
    expect([one.state, client.heard()]).toEqual(['dying', []]);
    send(1);
    const [end, ...after] = client.heard();
    expect([one.state, after]).toEqual(['dead', []]);
    expect([end!.type, extension(end!, 'SA')!.spi]).toEqual(['EXPIRE', 0x1001]);
    expect(extension(end!, 'LIFETIME_HARD')).toBeDefined();
    expect(extension(end!, 'LIFETIME_SOFT')).toBeUndefined();
    expect(one.spec.keys.encryptKey).toEqual(new Uint8Array(20));
    expect(host.sad.get('esp', 0x1001, B)).toBeUndefined();
  });

  test('the same key again has no numbers left: it ends when it is asked for one', () => {
    const { host, client, send } = sender();
    send(0xffff_ffff);
    expect(client.errno('ADD', 'esp', sa(0x1001), ...ENDS, key())).toBe(0);
    client.heard();
    const again = host.sad.get('esp', 0x1001, B)!;
    expect(again.takeSeq(1)).toBe(-1);
    // Not in the middle of a batch, which may still need the keys of its SAs.
    expect([again.state, client.heard()]).toEqual(['mature', []]);
    host.advance(0);
    expect([again.state, client.heard().map(({ type }) => type)]).toEqual(['dead', ['EXPIRE']]);
  });

  test('a batch that does not fit leaves the SA alone: a smaller one may', () => {
    const { host, one, send } = sender();
    send(0xffff_fff0);
    expect(one.takeSeq(16)).toBe(-1);
    host.advance(0);
    expect(one.state).toBe('dying');
    send(15);
    expect(one.state).toBe('dead');
  });

  test('new lifetimes do not make it young again', () => {
    const { client, one, send } = sender();
    send(SOFT);
    expect(one.state).toBe('dying');
    const limit = {
      type: 'LIFETIME_SOFT',
      allocations: 0,
      bytes: 0,
      addTime: 999,
      useTime: 0,
    } as const;
    expect(client.errno('UPDATE', 'esp', sa(0x1001), ...ENDS, limit)).toBe(0);
    expect(one.state).toBe('dying');
  });

  test('extended ones do not end there', () => {
    const { client, one, send } = sender(ESN);
    send(0xffff_ffff);
    send(10);
    expect([one.state, client.heard()]).toEqual(['mature', []]);
  });
});
