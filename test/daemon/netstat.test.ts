import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { reportsJson, reportsText } from '../../src/cli/netstat.ts';
import { addNetstatCommand, STAT_GROUPS } from '../../src/daemon/netstat-command.ts';
import { ENGINE_GROUPS, fieldsOf } from '../../src/daemon/netstat-groups.ts';
import { count, histogram, type StatReport } from '../../src/daemon/netstat-table.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { A, B } from '../engine/pair.ts';
import { policy, request, sa } from '../engine/rig.ts';
import { counting, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';
import { MemoryDaemon } from './memory-daemon.ts';

const ALL = { 4: '0.0.0.0/0', 6: '::/0' } as const;
const PLAIN = {
  4: ipv4Packet({ protocol: 17 }, udp(counting(30))),
  6: ipv6Packet(17, udp(counting(30))),
} as const;

let a: MemoryDaemon;
let b: MemoryDaemon;

beforeEach(() => {
  a = new MemoryDaemon();
  b = new MemoryDaemon();
});

afterEach(() => {
  a.close();
  b.close();
});

type Numbers = Record<string, Record<string, number | Record<string, number>>>;

function counters(host: MemoryDaemon): Numbers {
  return Object.fromEntries(
    ENGINE_GROUPS.map((group) => [group.name, fieldsOf(group.lines(host.daemon))]),
  ) as Numbers;
}

/** Every counter that an action changes, and by how much: nothing else may have moved. */
function changes(host: MemoryDaemon, action: () => void): Record<string, number> {
  const before = counters(host);
  action();
  const after = counters(host);
  const found: Record<string, number> = {};
  for (const [group, fields] of Object.entries(after)) {
    for (const [key, value] of Object.entries(fields)) {
      const was = before[group]![key]!;
      if (typeof value === 'number') {
        if (value !== was) found[`${group}.${key}`] = value - (was as number);
        continue;
      }
      for (const [name, number] of Object.entries(value)) {
        const old = (was as Record<string, number>)[name] ?? 0;
        if (number !== old) found[`${group}.${key}.${name}`] = number - old;
      }
    }
  }
  // Of interest in the tests of the policy index only.
  for (const name of Object.keys(found)) if (name.includes('spdcache')) delete found[name];
  return found;
}

/** A sends to B under this protection, in transport mode. */
function protect(family: 4 | 6, protocol: 'esp' | 'ah'): void {
  const auth = protocol === 'ah' ? { auth: 'hmac-sha256' } : {};
  const enc = protocol === 'esp' ? { enc: 'aes-cbc', auth: 'hmac-sha1' } : {};
  const one = { protocol, spi: 0x1001, src: A[family], dst: B[family], ...auth, ...enc };
  const requests = [request({ protocol })];
  for (const host of [a, b]) host.daemon.sad.add(sa(one), 'mature');
  a.daemon.spd.add(policy('out', ALL[family], ALL[family], { requests }));
  b.daemon.spd.add(policy('in', ALL[family], ALL[family], { requests }));
}

describe.each([4, 6] as const)('IPv%d: exactly what a packet changes', (family) => {
  const ipsec = family === 4 ? 'ipsec' : 'ipsec6';
  const ip = family === 4 ? 'ip' : 'ip6';
  const payload = 8 + 30;

  test('in the clear', () => {
    expect(changes(a, () => a.output(PLAIN[family]))).toEqual({ [`${ip}.localout`]: 1 });
    expect(changes(a, () => a.input(PLAIN[family]))).toEqual({
      [`${ip}.total`]: 1,
      [`${ip}.delivered`]: 1,
    });
  });

  test('ESP', () => {
    protect(family, 'esp');
    let wire: Uint8Array[] = [];
    const out = changes(a, () => {
      wire = a.output(PLAIN[family]);
    });
    expect(out).toEqual({
      [`${ip}.localout`]: 1,
      [`${ipsec}.out_success`]: 1,
      [`${ipsec}.out_esphist.aes-cbc`]: 1,
      'esp.output': 1,
      'esp.obytes': payload,
      'esp.hist.aes-cbc': 1,
    });
    const arrived = {
      [`${ip}.total`]: 1,
      [`${ip}.delivered`]: 1,
      [`${ipsec}.in_success`]: 1,
      [`${ipsec}.in_authsucc`]: 1,
      [`${ipsec}.in_esphist.aes-cbc`]: 1,
      'esp.input': 1,
      'esp.ibytes': payload,
    };
    expect(changes(b, () => b.input(wire[0]!))).toEqual(arrived);
    expect(changes(b, () => b.input(wire[0]!))).toEqual({
      [`${ip}.total`]: 1,
      [`${ipsec}.in_espreplay`]: 1,
      'esp.replay': 1,
    });
    const [other] = a.output(PLAIN[family]);
    other![other!.length - 1]! ^= 1;
    expect(changes(b, () => b.input(other!))).toEqual({
      [`${ip}.total`]: 1,
      [`${ipsec}.in_authfail`]: 1,
      'esp.badauth': 1,
    });
  });

  test('AH', () => {
    protect(family, 'ah');
    let wire: Uint8Array[] = [];
    const out = changes(a, () => {
      wire = a.output(PLAIN[family]);
    });
    expect(out).toEqual({
      [`${ip}.localout`]: 1,
      [`${ipsec}.out_success`]: 1,
      [`${ipsec}.out_ahhist.hmac-sha256`]: 1,
      'ah.output': 1,
      'ah.obytes': payload,
      'ah.hist.hmac-sha256': 1,
    });
    expect(changes(b, () => b.input(wire[0]!))).toEqual({
      [`${ip}.total`]: 1,
      [`${ip}.delivered`]: 1,
      [`${ipsec}.in_success`]: 1,
      [`${ipsec}.in_authsucc`]: 1,
      [`${ipsec}.in_ahhist.hmac-sha256`]: 1,
      'ah.input': 1,
      'ah.ibytes': payload,
    });
    expect(changes(b, () => b.input(wire[0]!))).toEqual({
      [`${ip}.total`]: 1,
      [`${ipsec}.in_ahreplay`]: 1,
      'ah.replay': 1,
    });
  });

  test('policies: no SA, discard, and what should have been protected', () => {
    protect(family, 'esp');
    expect(changes(b, () => b.input(PLAIN[family]))).toEqual({
      [`${ip}.total`]: 1,
      [`${ipsec}.in_polvio`]: 1,
    });
    a.daemon.sad.flush();
    expect(changes(a, () => a.output(PLAIN[family]))).toEqual({
      [`${ip}.localout`]: 1,
      [`${ipsec}.out_nosa`]: 1,
    });
    a.daemon.spd.update(policy('out', ALL[family], ALL[family], { type: 'discard' }));
    expect(changes(a, () => a.output(PLAIN[family]))).toEqual({
      [`${ip}.localout`]: 1,
      [`${ipsec}.out_polvio`]: 1,
    });
  });
});

test('a tunnel counts under the family of its header, what it carries under its own', () => {
  const ends = { src: A[6], dst: B[6] };
  for (const host of [a, b]) {
    host.daemon.sad.add(sa({ spi: 0x1001, ...ends, mode: 'tunnel' }), 'mature');
  }
  const requests = [request({ mode: 'tunnel', ...ends })];
  a.daemon.spd.add(policy('out', ALL[4], ALL[4], { requests }));
  b.daemon.spd.add(policy('in', ALL[4], ALL[4], { requests }));
  let wire: Uint8Array[] = [];
  const out = changes(a, () => {
    wire = a.output(PLAIN[4]);
  });
  expect(out).toMatchObject({ 'ip.localout': 1, 'ipsec6.out_success': 1 });
  expect(changes(b, () => b.input(wire[0]!))).toMatchObject({
    'ip6.total': 1,
    'ipsec6.in_success': 1,
    'ipsec6.in_esphist.aes-gcm-16': 1,
    'ip.delivered': 1,
  });
});

test('too big, fragments made, and fragments put together', () => {
  protect(4, 'esp');
  const df = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_DF }, udp(counting(1470)));
  expect(changes(a, () => a.output(df))).toEqual({
    'ip.localout': 1,
    'ip.cantfrag': 1,
    'ipsec.out_inval': 1,
    'icmp.needfrag': 1,
    'icmp.outhist.destination unreachable': 1,
  });
  const large = ipv4Packet({ protocol: 17 }, udp(counting(1470)));
  let wire: Uint8Array[] = [];
  const out = changes(a, () => {
    wire = a.output(large);
  });
  expect(out).toMatchObject({ 'ip.fragmented': 1, 'ip.ofragments': 2, 'esp.output': 1 });
  const into = changes(b, () => {
    for (const one of wire) b.input(one);
  });
  expect(into).toMatchObject({
    'ip.total': 2,
    'ip.fragments': 2,
    'ip.reassembled': 1,
    'ip.delivered': 1,
    'esp.input': 1,
  });
});

test('the flow cache is counted by family', () => {
  protect(6, 'esp');
  const cache = () => {
    const { spdcachelookup, spdcachemiss } = counters(a).ipsec6!;
    return [spdcachelookup, spdcachemiss];
  };
  for (let i = 0; i < 5; i++) a.output(PLAIN[6]);
  expect(cache()).toEqual([5, 1]);
  expect(counters(a).ipsec).toMatchObject({ spdcachelookup: 0, spdcachemiss: 0 });
});

describe('the command', () => {
  type Handler = (args: Record<string, unknown>) => StatReport[];

  function handler(): Handler {
    let found: Handler | undefined;
    const control = { command: (_: string, one: Handler) => (found = one) };
    addNetstatCommand(control as unknown as Parameters<typeof addNetstatCommand>[0], a.daemon);
    return found!;
  }

  test('gives all groups, or one', () => {
    const names = STAT_GROUPS.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['ipsec', 'ipsec6', 'esp', 'ah', 'ip', 'ip6']));
    expect(handler()({}).map(({ name }) => name)).toEqual(names);
    expect(handler()({ protocol: 'ah' }).map(({ name }) => name)).toEqual(['ah']);
    expect(() => handler()({ protocol: 'tcp' })).toThrow(/tcp: there are ipsec, ipsec6/);
  });

  test('text and JSON', () => {
    const reports: StatReport[] = [
      {
        name: 'x',
        header: 'x:',
        lines: [
          count('one', 1, 'packet(s) of one'),
          count('two', 2, 'SPD cache miss(es)'),
          count('none', 0, 'entr(y/ies)'),
          histogram('hist', { 'aes-cbc': 3, none: 0 }, 'ESP input histogram'),
          histogram('empty', {}, 'AH input histogram'),
        ],
      },
    ];
    const head = 'x:\n\t1 packet of one\n\t2 SPD cache misses\n';
    const tail = '\tESP input histogram:\n\t\taes-cbc: 3\n';
    expect(reportsText(reports)).toBe(`${head}\t0 entries\n${tail}`);
    expect(reportsText(reports, 2)).toBe(`${head}${tail}`);
    expect(reportsJson(reports)).toEqual({
      x: { one: 1, two: 2, none: 0, hist: { 'aes-cbc': 3, none: 0 }, empty: {} },
    });
  });

  test('KAME’s words', () => {
    protect(4, 'esp');
    a.output(PLAIN[4]);
    const text = reportsText(handler()({ protocol: 'ipsec' }));
    expect(text).toContain('ipsec:\n\t0 inbound packets processed successfully\n');
    expect(text).toContain('\t1 outbound packet processed successfully\n');
    expect(text).toContain('\t0 inbound packets violated process security policy\n');
    expect(text).toContain('\t0 invalid inbound packets\n');
    expect(text).toContain('\tESP output histogram:\n\t\taes-cbc: 1\n');
    expect(text).toContain('\t1 SPD cache miss\n');
  });
});
