import { describe, expect, test } from 'vitest';
import { KeyError } from '../../src/base/error.ts';
import { readSocketOption, writeSocketOption } from '../../src/engine/socket-option.ts';
import { toHex } from '../../src/wire/bytes.ts';
import { extension } from '../../src/wire/pfkey-message.ts';
import { MemoryDaemon } from '../daemon/memory-daemon.ts';
import { concat, hex } from '../wire/octets.ts';
import { Bus, messagesOf } from './node.ts';

/** NetBSD's tests/net/ipsec/t_ipsec_policy.c, t_ipsec_sysctl.sh and t_ipsec_spflags.sh. */

describe('t_ipsec_policy pr60669: what setsockopt takes is what getsockopt gives', () => {
  /** Ends of a tunnel as sockaddrs; BSD's begin with their length. `sa`: of no family. */
  const ADDRESS = {
    v4: ['c000022a', 'c033 6436'],
    v6: ['20010db8000100000000000000000001', '20010db8000200000000000000000001'],
  } as const;
  const KINDS = ['v4', 'v6', 'un', 'sa', 'sa1', 'sa0'] as const;
  type Kind = (typeof KINDS)[number];

  function sockaddr(kind: Kind, i: 0 | 1, dialect: 'linux' | 'bsd'): Uint8Array {
    const isBsd = dialect === 'bsd';
    const head = (len: string, bsd: string, linux: string) => (isBsd ? `${len}${bsd}` : linux);
    switch (kind) {
      case 'v4':
        return hex(`${head('10', '02', '0200')} 0000 ${ADDRESS.v4[i]} 0000000000000000`);
      case 'v6':
        return hex(`${head('1c', '1c', '0a00')} 0000 00000000 ${ADDRESS.v6[i]} 00000000`);
      case 'un':
        return hex(`${head('0b', '01', '0100')} 2f736f636b657430 00`);
      case 'sa':
        return hex(`${head('10', '00', '0000')} ${'00'.repeat(14)}`);
      case 'sa1':
        return hex(isBsd ? '01' : '00');
      case 'sa0':
        return new Uint8Array(0);
    }
  }

  /** Two requests for tunnels between such ends, each padded to 8 octets. */
  function policy(direction: 1 | 2, src: Kind, dst: Kind, dialect: 'linux' | 'bsd'): Uint8Array {
    const ends = concat(sockaddr(src, 0, dialect), sockaddr(dst, 1, dialect));
    const fixed = dialect === 'bsd' ? 8 : 16;
    const request = new Uint8Array((fixed + ends.length + 7) & ~7);
    request.set([request.length, 0, 50, 0, 2, 2]);
    request.set(ends, fixed);
    const head = hex('0000 1200 0200 00 00 00000000 00000080');
    head[0] = 2 + (2 * request.length) / 8;
    head[6] = direction;
    return concat(head, request, request);
  }

  const rows = KINDS.filter((src) => src !== 'sa0').flatMap((src) =>
    KINDS.map((dst) => [src, dst] as const),
  );

  test('there are thirty combinations', () => expect(rows.length).toBe(30));

  // Versions there differ about ends of two families and of none; a tunnel has two ends of one.
  test.each(rows)('%s to %s', (src, dst) => {
    const isGood = src === dst && (src === 'v4' || src === 'v6');
    const node = new Bus().add('10.0.0.1', 'fd00::1');
    const socket = node.inet.openUdp(0, () => {}, { privileged: true });
    for (const direction of [1, 2] as const) {
      const bytes = policy(direction, src, dst, 'linux');
      const set = () => socket.setsockopt('IPV6_IPSEC_POLICY', bytes);
      if (isGood) {
        set();
        const got = socket.getsockopt('IPV6_IPSEC_POLICY', bytes);
        expect(toHex(got)).toBe(toHex(bytes));
      } else {
        expect(set).toThrow(KeyError);
        expect(socket.policyText('IPV6_IPSEC_POLICY', direction === 1 ? 'in' : 'out')).toContain(
          'entrust',
        );
      }
      const bsd = policy(direction, src, dst, 'bsd');
      const read = () => readSocketOption(bsd, { dialect: 'bsd', reqid: () => 0 });
      if (isGood) expect(toHex(writeSocketOption(read().rule, 'bsd'))).toBe(toHex(bsd));
      else expect(read).toThrow(KeyError);
    }
  });
});

describe('t_ipsec_sysctl', () => {
  const USE = ['net.inet.ipsec', 'net.inet6.ipsec6'] as const;

  test('ipsec_sysctl0: what there is not is an error', () => {
    const { daemon } = new MemoryDaemon();
    expect(() => daemon.sysctl.call('net.inet.ipsec.nonesuch')).toThrow(/there is no variable/);
    for (const name of ['enabled', 'used']) {
      expect(() => daemon.sysctl.call(`net.inet.ipsec.${name}`, 0)).toThrow(/can only be read/);
    }
    daemon.close();
  });

  test.each([
    ['ipsec_sysctl4', '10.0.0.1 10.0.0.2'],
    ['ipsec_sysctl6', 'fd00::1 fd00::2'],
  ])('%s: an SA alone is no use, a policy is', (_, ends) => {
    const { daemon } = new MemoryDaemon();
    const run = (script: string) => {
      for (const message of messagesOf(script)) {
        const session = daemon.keys.connect({
          ...{ origin: 'client', dialect: 'linux', deliverDump: () => {} },
          deliver: (reply) => expect(reply.errno).toBe(0),
        });
        session.request({ ...message, seq: 1, pid: 1 });
        session.close();
      }
    };
    const used = () => USE.map((prefix) => daemon.sysctl.call(`${prefix}.used`));
    expect(USE.map((prefix) => daemon.sysctl.call(`${prefix}.enabled`))).toEqual([1, 1]);
    expect(used()).toEqual([0, 0]);
    run(`add ${ends} esp 9876 -E 3des-cbc "hogehogehogehogehogehoge";`);
    expect([daemon.sad.size, used()]).toEqual([1, [0, 0]]);
    run(`spdadd ${ends} any -P out ipsec esp/transport//use;`);
    expect(used()).toEqual([1, 1]);
    run('spdflush;');
    expect(used()).toEqual([0, 0]);
    daemon.close();
  });
});

test('t_ipsec_spflags flag_userland_sp: a policy of setkey has no flags', () => {
  const node = new Bus().add('20.0.0.1');
  node.configure(`
    spdadd 20.0.0.1 20.0.0.2 ip4 -P in ipsec esp/transport//require;
    spdadd 20.0.0.2 20.0.0.1 ip4 -P out ipsec esp/transport//require;`);
  const [dump] = messagesOf('spddump;');
  const policies = node.ask(dump!).map((one) => extension(one, 'X_POLICY')!);
  expect(
    policies.map(({ policyType, direction, reserved }) => [policyType, direction, reserved]),
  ).toEqual([
    [2, 1, 0],
    [2, 2, 0],
  ]);
});
