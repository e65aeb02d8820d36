import { describe, expect, test } from 'vitest';
import * as ah from '../../src/wire/ah.ts';
import { setU32, viewOf } from '../../src/wire/bytes.ts';
import * as esp from '../../src/wire/esp.ts';
import * as icmp from '../../src/wire/icmp.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import * as sctp from '../../src/wire/sctp.ts';
import * as tcp from '../../src/wire/tcp.ts';
import * as udp from '../../src/wire/udp.ts';
import { CAPTURED, counting, hex } from './octets.ts';

describe('ipv4', () => {
  test('what is written is read', () => {
    const p = counting(24);
    ipv4.write(p, 4, 0xb9, 1500, 0xfedc, ipv4.FLAG_DF, 63, 50);
    expect(p.slice(4, 16)).toEqual(hex('45b905dc fedc4000 3f320000'));
    expect(ipv4.tos(p, 4)).toBe(0xb9);
    expect(ipv4.totalLen(p, 4)).toBe(1500);
    expect(ipv4.id(p, 4)).toBe(0xfedc);
    expect(ipv4.ttl(p, 4)).toBe(63);
    expect(ipv4.protocol(p, 4)).toBe(50);
    expect(ipv4.dontFragment(p, 4)).toBe(true);
    expect(ipv4.isFragment(p, 4)).toBe(false);
  });

  test('by words it is as by octets', () => {
    const [p, q] = [counting(70), counting(70)];
    ipv4.write(p, 5, 0xb9, 0, 0xfedc, ipv4.FLAG_DF, 63, 0);
    setU32(p, 5 + ipv4.SRC_AT, 0xfe00_0001);
    setU32(p, 5 + ipv4.DST_AT, 0x0a00_00ff);
    ipv4.setTotalLen(p, 5, 65_123);
    ipv4.setProtocol(p, 5, 50);
    ipv4.updateChecksum(p, 5);
    const view = viewOf(q);
    ipv4.begin(view, 5, 0xb9, 0xfedc, ipv4.FLAG_DF, 63, 0xfe00_0001, 0x0a00_00ff);
    ipv4.complete(view, 5, 65_123, 50);
    expect(q).toEqual(p);
    expect(ipv4.checksumOk(view, 5)).toBe(true);
    const inCommon = ipv4.sumInCommon(view, 5);
    for (const [id, len] of [[7, 40] as const, [0xffff, 65_535] as const, [0, 20] as const]) {
      ipv4.setTotalLen(q, 5, len);
      ipv4.stampId(view, 5, id, inCommon);
      expect([ipv4.id(q, 5), ipv4.totalLen(q, 5)]).toEqual([id, len]);
      expect([ipv4.checksumOk(view, 5), ipv4.checksumOkBy(view, 5, inCommon)]).toEqual([
        true,
        true,
      ]);
      q[5 + ipv4.CHECKSUM_AT]! ^= 4;
      expect([ipv4.checksumOk(view, 5), ipv4.checksumOkBy(view, 5, inCommon)]).toEqual([
        false,
        false,
      ]);
    }
  });

  test('setters change their field only', () => {
    const p = CAPTURED.echo4.slice();
    ipv4.setTos(p, 0, 3);
    ipv4.setTotalLen(p, 0, 0x0102);
    ipv4.setId(p, 0, 0x0304);
    ipv4.setFragment(p, 0, ipv4.FLAG_MF, 1480);
    ipv4.setTtl(p, 0, 5);
    ipv4.setProtocol(p, 0, 6);
    ipv4.setHeaderLen(p, 0, 24);
    expect(p.slice(0, 12)).toEqual(hex('46030102 030420b9 05062a62'));
    expect(p.slice(12)).toEqual(CAPTURED.echo4.slice(12));
    expect(ipv4.fragmentOffset(p, 0)).toBe(1480);
    expect(ipv4.moreFragments(p, 0)).toBe(true);
    expect(ipv4.dontFragment(p, 0)).toBe(false);
    expect(ipv4.isFragment(p, 0)).toBe(true);
  });
});

describe('ipv6', () => {
  test('what is written is read', () => {
    const p = counting(44);
    ipv6.write(p, 4, 0xb9, 0xf_edcb, 1440, 50, 63);
    expect(p.slice(4, 12)).toEqual(hex('6b9fedcb 05a0323f'));
    expect(ipv6.trafficClass(p, 4)).toBe(0xb9);
    expect(ipv6.flowLabel(p, 4)).toBe(0xf_edcb);
    expect(ipv6.payloadLen(p, 4)).toBe(1440);
    expect(ipv6.nextHeader(p, 4)).toBe(50);
    expect(ipv6.hopLimit(p, 4)).toBe(63);
  });

  test('setters change their field only', () => {
    const p = CAPTURED.echo6.slice();
    ipv6.setTrafficClass(p, 0, 0xff);
    expect(p.slice(0, 4)).toEqual(hex('6ff7effb'));
    ipv6.setTrafficClass(p, 0, 0x01);
    ipv6.setFlowLabel(p, 0, 0x2_3456);
    ipv6.setPayloadLen(p, 0, 0x0708);
    ipv6.setNextHeader(p, 0, 17);
    ipv6.setHopLimit(p, 0, 9);
    expect(p.slice(0, 8)).toEqual(hex('60123456 07081109'));
    expect(p.slice(8)).toEqual(CAPTURED.echo6.slice(8));
  });

  test('the final destination of each kind of routing header', () => {
    const addresses = '00'.repeat(32);
    expect(ipv6.finalDestinationAt(hex(`3b040001 00000000${addresses}`), 0)).toBe(24);
    expect(ipv6.finalDestinationAt(hex(`3b020201 00000000${'00'.repeat(16)}`), 0)).toBe(8);
    expect(ipv6.finalDestinationAt(hex(`3b040401 01000000${addresses}`), 0)).toBe(8);
    expect(ipv6.finalDestinationAt(hex(`3b040000 00000000${addresses}`), 0)).toBe(0);
    expect(ipv6.finalDestinationAt(hex(`3b040301 00000000${addresses}`), 0)).toBe(0);
    expect(ipv6.finalDestinationAt(hex('3b000001 00000000'), 0)).toBe(0);
  });

  test('fragment header', () => {
    const p = counting(8);
    ipv6.writeFragmentHeader(p, 0, 17, 1448, 1, 0xdeadbeef);
    expect(p).toEqual(hex('110005a9 deadbeef'));
    expect(ipv6.fragmentOffset(p, 0)).toBe(1448);
    expect(ipv6.moreFragments(p, 0)).toBe(true);
    expect(ipv6.fragmentId(p, 0)).toBe(0xdeadbeef);
  });
});

describe('udp', () => {
  test('by words it is as by octets', () => {
    const [p, q] = [counting(20), counting(20)];
    udp.write(p, 3, 0xfedc, 4500, 65_000);
    udp.writeWords(viewOf(q), 3, 0xfedc, 4500, 65_000);
    expect(q).toEqual(p);
  });

  test('what is written is read', () => {
    const p = counting(10);
    udp.write(p, 1, 4500, 500, 8);
    expect(p.slice(1, 9)).toEqual(hex('119401f4 00080000'));
    expect([udp.sport(p, 1), udp.dport(p, 1), udp.len(p, 1), udp.checksum(p, 1)]).toEqual([
      4500, 500, 8, 0,
    ]);
  });

  test.each([
    ['truncated-header', hex('119401f4000800')],
    ['bad-udp-length', hex('119401f400070000')],
    ['bad-udp-length', hex('119401f400090000')],
    [undefined, hex('119401f4000800000000')],
  ])('%s', (reason, p) => {
    expect(udp.check(p, 0, p.length)).toBe(reason);
  });
});

describe('tcp', () => {
  test('a SYN with options', () => {
    const p = CAPTURED.syn4;
    expect(tcp.check(p, 20, p.length)).toBeUndefined();
    expect(tcp.sport(p, 20)).toBe(59158);
    expect(tcp.dport(p, 20)).toBe(9);
    expect(tcp.seq(p, 20)).toBe(943707142);
    expect(tcp.ack(p, 20)).toBe(0);
    expect(tcp.flags(p, 20)).toBe(tcp.FLAG.SYN);
    expect(tcp.window(p, 20)).toBe(65495);
    expect(tcp.headerLen(p, 20)).toBe(40);
    expect(tcp.mssAt(p, 20)).toBe(42);
  });

  const header = '0050 0050 00000000 00000000';
  test.each([
    ['truncated-header', hex(`${header} 5002 0000 0000 00`)],
    ['bad-header-length', hex(`${header} 4002 0000 0000 0000`)],
    ['truncated-header', hex(`${header} 6002 0000 0000 0000 000000`)],
  ])('%s', (reason, p) => {
    expect(tcp.check(p, 0, p.length)).toBe(reason);
  });

  test.each(['02030500', '020405b4', '01010101', '00020405', '08ff0000', '01010102', '08000000'])(
    'options %s have a maximum segment size only if they are whole',
    (options) => {
      const p = hex(`${header} 6002 0000 0000 0000 ${options}`);
      expect(tcp.mssAt(p, 0)).toBe(options === '020405b4' ? 22 : 0);
    },
  );
});

test('sctp', () => {
  const p = hex('0050 0051 01020304 00000000');
  expect([sctp.sport(p, 0), sctp.dport(p, 0), sctp.verificationTag(p, 0)]).toEqual([
    80, 81, 0x01020304,
  ]);
  expect(sctp.check(p, 0, 12)).toBeUndefined();
  expect(sctp.check(p, 0, 11)).toBe('truncated-header');
});

describe('icmp', () => {
  test('echo, as Linux sends it', () => {
    expect(icmp.isEcho(CAPTURED.echo4, 20, 4)).toBe(true);
    expect(icmp.isEchoReply(CAPTURED.echo4, 20, 4)).toBe(false);
    expect(icmp.isEchoReply(CAPTURED.echoReply4, 20, 4)).toBe(true);
    expect(icmp.isEcho(CAPTURED.echo6, 40, 6)).toBe(true);
    expect(icmp.isError(CAPTURED.echo6, 40, 6)).toBe(false);
    expect([icmp.echoId(CAPTURED.echo6, 40), icmp.echoSeq(CAPTURED.echo6, 40)]).toEqual([6412, 1]);
  });

  test('too big has its MTU in different places', () => {
    const p = counting(8);
    icmp.write(p, 0, 3, 4, 1400);
    expect(p).toEqual(hex('03040000 00000578'));
    expect([icmp.isTooBig(p, 0, 4), icmp.isTooBig(p, 0, 6), icmp.mtu(p, 0, 4)]).toEqual([
      true,
      false,
      1400,
    ]);
    icmp.write(p, 0, 2, 0, 0x0001_0000);
    expect([icmp.isTooBig(p, 0, 6), icmp.mtu(p, 0, 6)]).toEqual([true, 65536]);
    expect([icmp.isError(p, 0, 6), icmp.isError(p, 0, 4)]).toEqual([true, false]);
  });
});

describe('esp and ah', () => {
  test('what is written is read', () => {
    const p = counting(24);
    esp.write(viewOf(p), 0, 0xfffffffe, 0x80000001);
    expect([esp.spi(p, 0), esp.seq(p, 0)]).toEqual([0xfffffffe, 0x80000001]);
    ah.write(p, 0, 6, 24, 0xfffffffe, 0x80000001);
    expect(p.slice(0, 12)).toEqual(hex('06040000 fffffffe 80000001'));
    expect([ah.nextHeader(p, 0), ah.len(p, 0), ah.spi(p, 0), ah.seq(p, 0)]).toEqual([
      6, 24, 0xfffffffe, 0x80000001,
    ]);
  });

  test('lengths', () => {
    expect(esp.check(counting(8), 0, 8)).toBeUndefined();
    expect(esp.check(counting(8), 0, 7)).toBe('esp-truncated');
    const header = (length: number): Uint8Array =>
      hex(`06${length.toString(16).padStart(2, '0')}${'00'.repeat(22)}`);
    expect(ah.check(header(4), 0, 24)).toBeUndefined();
    expect(ah.check(header(4), 0, 23)).toBe('ah-truncated');
    expect(ah.check(header(0), 0, 24)).toBe('ah-bad-length');
    expect(ah.check(header(4), 0, 11)).toBe('ah-truncated');
  });
});
