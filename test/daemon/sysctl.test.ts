import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { sysctlJson, sysctlText } from '../../src/cli/sysctl.ts';
import {
  addSysctlCommand,
  readValue,
  type SysctlLine,
  setVariable,
} from '../../src/daemon/sysctl-command.ts';
import { policy } from '../engine/rig.ts';
import { counting, ipv4Packet, udp } from '../wire/octets.ts';
import { MemoryDaemon } from './memory-daemon.ts';

const PLAIN = ipv4Packet({ protocol: 17 }, udp(counting(30)));
const DEF_POLICY = 'net.inet.ipsec.def_policy';

type Handler = (args: Record<string, unknown>) => SysctlLine[];

let host: MemoryDaemon;
let ask: Handler;

beforeEach(() => {
  host = new MemoryDaemon();
  const control = {
    command: (_: string, one: Handler) => {
      ask = one;
    },
  };
  addSysctlCommand(control as unknown as Parameters<typeof addSysctlCommand>[0], host.daemon);
});

afterEach(() => host.close());

describe('the command', () => {
  test('lists every variable once, with the ten of ipsec(4) and those of net.key', () => {
    const names = ask({}).map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const prefix of ['net.inet.ipsec', 'net.inet6.ipsec6']) {
      for (const one of [
        'def_policy',
        ...['esp_trans_deflev', 'esp_net_deflev', 'ah_trans_deflev', 'ah_net_deflev'],
        ...['ecn', 'debug', 'esp_randpad', 'stats'],
      ]) {
        expect(names).toContain(`${prefix}.${one}`);
      }
    }
    for (const one of ['spi_try', 'larval_lifetime', 'esp_auth', 'preferred_oldsa']) {
      expect(names).toContain(`net.key.${one}`);
    }
  });

  test('changes a variable, and packets and the machine follow at once', () => {
    expect(host.output(PLAIN)).toHaveLength(1);
    expect(ask({ name: DEF_POLICY, value: 0 })).toMatchObject([{ value: 0, before: 1 }]);
    expect(host.output(PLAIN)).toHaveLength(0);
    expect(host.diversions.at(-1)).toMatchObject({ all: true });
    ask({ name: DEF_POLICY, value: '1' });
    expect(host.output(PLAIN)).toHaveLength(1);
    expect(host.diversions.at(-1)).toMatchObject({ all: false });
    expect(host.diversions.length).toBe(2);
  });

  test('counters are structs that can be read', () => {
    host.output(PLAIN);
    const [line] = ask({ name: 'net.inet.ipsec.stats' });
    expect(line).toMatchObject({ isReadOnly: true, value: { out_success: 0, spdcachelookup: 1 } });
    expect(() => ask({ name: 'net.inet.ipsec.stats', value: 0 })).toThrow(/can only be read/);
  });

  test.each([
    [{ name: 'net.inet.nothing' }, /no variable/],
    [{ name: 7 }, /"name" must be a text/],
    [{ name: DEF_POLICY, value: 'none' }, /"none" is not 0 \(discard\) or 1 \(none\)/],
    [{ name: 'net.inet.ipsec.stats', value: 'x' }, /can only be read/],
    [{ name: DEF_POLICY, value: '' }, /0 \(discard\)/],
    [{ name: DEF_POLICY, value: null }, /0 \(discard\)/],
    [{ name: 'net.key.spi_try', value: 0 }, /from 1 to/],
  ])('refuses %j', (args, message) => {
    expect(() => ask(args)).toThrow(message);
    expect(host.daemon.sysctl.call(DEF_POLICY)).toBe(1);
  });
});

test('name=value, as the command line has it', () => {
  setVariable(host.daemon, ' net.key.blockacq_count = 0x20 ');
  expect(host.daemon.keys.context.settings.blockAcquireCount).toBe(32);
  expect(() => setVariable(host.daemon, 'net.key.blockacq_count')).toThrow(/name=value/);
  expect(() => setVariable(host.daemon, 'net.key.blockacq_count=1e3')).toThrow(/whole number/);
  expect(['-1', '12', '0xff', '', '1.5', ' 1'].map(readValue)).toEqual([
    ...[-1, 12, 255, Number.NaN, Number.NaN, Number.NaN],
  ]);
});

test('text and JSON', () => {
  const lines = [...ask({ name: DEF_POLICY }), ...ask({ name: 'net.inet.ipsec.dfbit', value: 2 })];
  expect(sysctlText(lines)).toBe(`${DEF_POLICY}: 1\nnet.inet.ipsec.dfbit: 0 -> 2\n`);
  expect(sysctlText(lines, { values: true })).toBe('1\n2\n');
  expect(sysctlText(lines, { description: true })).toContain(
    'DF of IPv4 tunnel headers, where the SA does not say; 0 (clear) or 1 (set) or 2 (copy)\n',
  );
  expect(sysctlJson(lines)).toEqual({ [DEF_POLICY]: 1, 'net.inet.ipsec.dfbit': 2 });
});

test('warnings about policies go to the log', () => {
  host.daemon.spd.add(policy('out', '10.0.0.0/8', '0.0.0.0/0', { type: 'none' }));
  host.daemon.spd.add(policy('out', '10.1.0.0/16', '0.0.0.0/0', { type: 'none' }));
  expect(host.logged).toEqual([expect.stringMatching(/^warn policy .* can never apply: /)]);
});
