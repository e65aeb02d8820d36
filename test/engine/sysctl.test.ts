import { describe, expect, test } from 'vitest';
import { defaultSettings } from '../../src/engine/settings.ts';
import { engineVariables, Sysctl } from '../../src/engine/sysctl.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { counting, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';
import { A, B, type LayerGiven, Pair } from './pair.ts';
import { policy, Rig, request, sa } from './rig.ts';

const PREFIX = { 4: 'net.inet.ipsec', 6: 'net.inet6.ipsec6' } as const;
const ALL = { 4: '0.0.0.0/0', 6: '::/0' } as const;
const PLAIN = {
  4: ipv4Packet({ protocol: 17 }, udp(counting(30))),
  6: ipv6Packet(17, udp(counting(30))),
} as const;
const OTHER = { 4: 6, 6: 4 } as const;

function sysctlOf(rig: Rig): Sysctl {
  return new Sysctl(engineVariables(rig.host.settings));
}

/** What passes: from the wire, and to it. */
function passing(rig: Rig, family: 4 | 6): [number, number] {
  return [rig.input(PLAIN[family]).length, rig.output(PLAIN[family]).length];
}

/** The ten variables of ipsec(4): each changes what happens to packets, of its family only. */
describe.each([4, 6] as const)('of ipsec(4), IPv%d', (family) => {
  const prefix = PREFIX[family];

  test('def_policy', () => {
    const rig = new Rig();
    const sysctl = sysctlOf(rig);
    expect(passing(rig, family)).toEqual([1, 1]);
    expect(sysctl.call(`${prefix}.def_policy`, 0)).toBe(1);
    expect(passing(rig, family)).toEqual([0, 0]);
    expect(passing(rig, OTHER[family])).toEqual([1, 1]);
    expect(rig.drops()).toEqual({
      'in policy-default-discard': 1,
      'out policy-default-discard': 1,
    });
    expect(sysctl.call(`${prefix}.def_policy`, 1)).toBe(0);
    expect(passing(rig, family)).toEqual([1, 1]);
  });

  test.each([
    ['esp_trans_deflev', 'esp', 'transport'],
    ['esp_net_deflev', 'esp', 'tunnel'],
    ['ah_trans_deflev', 'ah', 'transport'],
    ['ah_net_deflev', 'ah', 'tunnel'],
  ] as const)('%s', (name, protocol, mode) => {
    const rig = new Rig();
    const sysctl = sysctlOf(rig);
    const ends = mode === 'tunnel' ? { src: A[family], dst: B[family] } : {};
    const requests = [request({ protocol, mode, level: 'default', ...ends })];
    for (const direction of ['in', 'out'] as const) {
      rig.spd.add(policy(direction, ALL[family], ALL[family], { requests }));
    }
    expect(passing(rig, family)).toEqual([1, 1]);
    for (const one of ['esp_trans', 'esp_net', 'ah_trans', 'ah_net']) {
      if (!name.startsWith(one)) sysctl.call(`${prefix}.${one}_deflev`, 2);
      sysctl.call(`${PREFIX[OTHER[family]]}.${one}_deflev`, 2);
    }
    expect(passing(rig, family)).toEqual([1, 1]);
    expect(sysctl.call(`${prefix}.${name}`, 2)).toBe(1);
    expect(passing(rig, family)).toEqual([0, 0]);
    expect(sysctl.call(`${prefix}.${name}`)).toBe(2);
    sysctl.call(`${prefix}.${name}`, 1);
    expect(passing(rig, family)).toEqual([1, 1]);
  });
});

/** What A puts on the wire, and what B delivers, with variables of A set. */
function sent(layers: readonly LayerGiven[], packet: Uint8Array, variables: [string, number][]) {
  const pair = new Pair(layers);
  const sysctl = sysctlOf(pair.a);
  for (const [name, value] of variables) sysctl.call(`net.inet.ipsec.${name}`, value);
  const { wire, delivered } = pair.send(packet);
  return { outer: wire[0]!, delivered, drops: pair.b.drops() };
}

describe('of KAME', () => {
  const df = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_DF }, udp(counting(30)));

  test.each([
    [0, false],
    [1, true],
    [2, true],
  ])('dfbit %d, of a packet with DF', (value, isSet) => {
    const { outer } = sent([{ tunnel: 4 }], df, [['dfbit', value]]);
    expect(ipv4.dontFragment(outer, 0)).toBe(isSet);
  });

  test.each([
    [-1, 2],
    [0, 0],
    [1, 2],
  ])('ecn %d: the tunnel header of an ECN-capable packet', (value, field) => {
    const capable = PLAIN[4].slice();
    ipv4.setTos(capable, 0, 2);
    ipv4.updateChecksum(capable, 0);
    const { outer } = sent([{ tunnel: 4 }], capable, [['ecn', value]]);
    expect(ipv4.tos(outer, 0) & 3).toBe(field);
  });

  test('ah_cleartos: a router that changes TOS breaks AH when it is off', () => {
    for (const [value, delivered] of [
      [1, 1],
      [0, 0],
    ] as const) {
      const pair = new Pair([{ protocol: 'ah' }]);
      for (const host of [pair.a, pair.b]) sysctlOf(host).call('net.inet.ah.ah_cleartos', value);
      const [wire] = pair.a.output(PLAIN[4]);
      ipv4.setTos(wire!, 0, 0x20);
      ipv4.updateChecksum(wire!, 0);
      expect(pair.b.input(wire!).length).toBe(delivered);
    }
  });

  test('ah_offsetmask: DF is covered by the ICV when its bit is in the mask', () => {
    for (const [value, delivered] of [
      [0, 1],
      [ipv4.FLAG_DF, 0],
    ] as const) {
      const pair = new Pair([{ protocol: 'ah' }]);
      for (const host of [pair.a, pair.b]) {
        sysctlOf(host).call('net.inet.ipsec.ah_offsetmask', value);
      }
      const [wire] = pair.a.output(df);
      expect(pair.b.input(wire!).length).toBe(1);
      const [second] = pair.a.output(df);
      ipv4.setFragment(second!, 0, 0, 0);
      ipv4.updateChecksum(second!, 0);
      expect(pair.b.input(second!).length).toBe(delivered);
    }
  });

  test.each([4, 6] as const)('esp_randpad pads short packets, IPv%d', (family) => {
    const pair = new Pair([{}], { family });
    const sysctl = sysctlOf(pair.a);
    const lengths = (count: number) => {
      const found = new Set<number>();
      for (let i = 0; i < count; i++) {
        const { wire, delivered } = pair.send(PLAIN[family]);
        expect(delivered).toEqual([PLAIN[family]]);
        found.add(wire[0]!.length);
      }
      return [...found].sort((a, b) => a - b);
    };
    const [usual] = lengths(3);
    expect(lengths(3)).toEqual([usual]);
    sysctl.call(`${PREFIX[family]}.esp_randpad`, 100);
    const padded = lengths(40);
    const header = family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
    const payload = PLAIN[family].length - header;
    expect(padded.length).toBeGreaterThan(5);
    expect(padded[0]).toBeGreaterThanOrEqual(usual!);
    expect(padded.at(-1)).toBeLessThanOrEqual(usual! + 100 - payload);
    sysctl.call(`${PREFIX[family]}.esp_randpad`, 1024);
    expect(lengths(40).at(-1)).toBeLessThanOrEqual(usual! + 255);
    for (const value of [payload, payload - 20, 0]) {
      sysctl.call(`${PREFIX[family]}.esp_randpad`, value);
      expect(lengths(10)).toEqual([usual]);
    }
  });

  test.each([4, 6] as const)('debug logs what is dropped, IPv%d', (family) => {
    const rig = new Rig();
    const logged: string[] = [];
    rig.env.log = (...line: unknown[]) => logged.push(line.join(' '));
    const sysctl = sysctlOf(rig);
    sysctl.call(`${PREFIX[family]}.def_policy`, 0);
    passing(rig, family);
    expect(logged).toEqual([]);
    sysctl.call(`${PREFIX[family]}.debug`, 1);
    passing(rig, family);
    expect(logged).toHaveLength(2);
    expect(logged[0]).toMatch(
      new RegExp(`^warn in: IPv${family}, ${PLAIN[family].length} octets, policy-default-discard`),
    );
  });

  test('check_policy_history: 0 is content with any SA of the protocol', () => {
    const rig = new Rig();
    const sender = new Rig();
    for (const one of [rig, sender])
      one.sad.add(sa({ spi: 0x900, src: A[4], dst: B[4] }), 'mature');
    sender.spd.add(policy('out', ALL[4], ALL[4], { requests: [request({})] }));
    rig.spd.add(policy('in', ALL[4], ALL[4], { requests: [request({ reqid: 7 })] }));
    const name = 'net.inet.ipsec.check_policy_history';
    expect(sysctlOf(rig).call(name)).toBe(1);
    expect(rig.input(...sender.output(PLAIN[4]))).toEqual([]);
    sysctlOf(rig).call(name, 0);
    expect(rig.input(...sender.output(PLAIN[4]))).toHaveLength(1);
  });
});

describe('the call', () => {
  const settings = defaultSettings();
  const sysctl = new Sysctl([
    ...engineVariables(settings),
    {
      ...{ name: 'x.stats', aliases: [], type: 'struct', description: 'fixed' },
      get: () => ({ a: 1 }),
    },
  ]);

  test.each([
    ['net.inet.ipsec.nothing', 1, 'ENOENT', /no variable "net.inet.ipsec.nothing"/],
    ['net.inet.ipsec.def_policy', 2, 'EINVAL', /2 is not 0 \(discard\) or 1 \(none\)/],
    ['net.inet.ipsec.def_policy', 0.5, 'EINVAL', /0.5/],
    ['net.inet.ipsec.esp_net_deflev', 0, 'EINVAL', /1 \(use\) or 2 \(require\)/],
    ['net.inet.ipsec.ecn', -2, 'EINVAL', /from -1 to 1/],
    ['net.inet.ipsec.ah_offsetmask', 0x10000, 'EINVAL', /from 0 to 65535/],
    ['net.inet.ipsec.dfbit', Number.NaN, 'EINVAL', /NaN/],
    ['x.stats', 1, 'EPERM', /can only be read/],
  ])('%s = %d is refused', (name, value, errno, message) => {
    const before = JSON.stringify(settings);
    expect(() => sysctl.call(name, value)).toThrow(expect.objectContaining({ errno }));
    expect(() => sysctl.call(name, value)).toThrow(message);
    expect(JSON.stringify(settings)).toBe(before);
  });

  test('every variable takes every value that it allows, and says it then', () => {
    for (const variable of sysctl.variables) {
      const { name, min, max, meanings } = variable;
      if (variable.set === undefined) continue;
      const before = variable.get();
      const values = meanings ? Object.keys(meanings).map(Number) : [min!, max!];
      for (const value of [...values, before as number]) {
        sysctl.call(name, value);
        expect([name, variable.get()]).toEqual([name, value]);
      }
      expect(variable.description).not.toBe('');
    }
    expect(settings).toEqual(defaultSettings());
  });

  test('what was is returned, as by sysctlbyname(3); a struct is read', () => {
    expect(sysctl.call('net.inet.ipsec.dfbit', 2)).toBe(0);
    expect(sysctl.call('net.inet.ipsec.dfbit', 0)).toBe(2);
    expect(sysctl.call('x.stats')).toEqual({ a: 1 });
  });
});
