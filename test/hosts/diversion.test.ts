import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DaemonHost, machineState } from './daemon-host.ts';
import { announceSkip, type Lab, whyNoHosts } from './namespaces.ts';
import { A, B, config, makePair } from './pair.ts';
import { MARKER, serve, stop } from './programs.ts';

const skipped = announceSkip('diversion.test.ts', whyNoHosts());

describe.skipIf(skipped)('the diversion holds', () => {
  let lab: Lab;
  let a: string;
  let b: string;
  beforeEach(() => {
    ({ lab, a, b } = makePair());
  });
  afterEach(() => lab.close());

  const routes = () =>
    lab.try(a, 'ip -4 route show table 7557; ip -6 route show table 7557').stdout.split('\n');

  test('what others take away of it is put back', async () => {
    const [host] = await Promise.all([
      DaemonHost.start(lab, a, config('a')),
      DaemonHost.start(lab, b, config('b')),
    ]);
    // But for the number of the action and the order of what the kernel itself adds.
    const state = () =>
      machineState(lab, a)
        .replaceAll(/index \d+/g, 'index')
        .split('\n')
        .sort()
        .join('\n');
    const before = state();
    const capture = await lab.capture(a, 'w0');
    for (const harm of [
      'ip rule del pref 100; ip -6 rule del pref 100',
      'ip route flush table 7557; ip -6 route flush table 7557',
      `ip route del ${B.v4} dev testudo0 table 7557; ip -6 route del ${B.v6} dev testudo0 table 7557`,
      'tc filter del dev w0 ingress pref 100',
      'tc qdisc del dev w0 ingress',
      'ip link set testudo0 down; ip link set testudo0 up',
    ]) {
      lab.sh(a, harm);
      await expect.poll(state).toBe(before);
    }
    expect(lab.ping(a, B.v4) + lab.ping(a, B.v6)).toBe(4);
    const { clear, packets } = await capture.stop();
    expect(clear).toEqual([]);
    expect(packets).toHaveLength(8);
    expect(await host.stop()).toBe(0);
    expect(host.stderr).toBe('');
  });

  test('a device is guarded before it is up', async () => {
    const policy = `spdadd 10.8.0.2 10.8.0.1 any -P in ipsec esp/transport//require;`;
    const host = await DaemonHost.start(lab, a, config('a') + policy);
    for (let round = 0; round < 3; round++) {
      lab.sh(a, `ip link add w1 type veth peer name w1 netns ${b}; ip addr add 10.8.0.1/24 dev w1`);
      lab.sh(b, 'ip addr add 10.8.0.2/24 dev w1; ip link set w1 up');
      const filter = () => lab.sh(a, 'tc filter show dev w1 ingress');
      await expect.poll(filter).toContain('testudo0i');
      const heard = await serve(lab, a, 'udp-listen', '5003');
      lab.sh(a, 'ip link set w1 up');
      const refused = () => host.dropped('in', 'policy-clear');
      const before = await refused();
      lab.sh(b, `for i in $(seq 20); do echo ${MARKER} > /dev/udp/10.8.0.1/5003; sleep 0.01; done`);
      await expect.poll(refused).toBeGreaterThanOrEqual(before + 5);
      expect(heard.lines).toEqual([]);
      await stop(heard);
      lab.sh(a, 'ip link del w1');
    }
    expect(host.stderr).toBe('');
  });

  test('without its device the host ends, and nothing goes in the clear', async () => {
    const host = await DaemonHost.start(lab, a, config('a'));
    const capture = await lab.capture(a, 'w0');
    const ended = once(host.child, 'close');
    lab.sh(a, 'ip link del testudo0');
    await ended;
    expect(host.child.exitCode).not.toBe(0);
    expect(lab.ping(a, B.v4) + lab.ping(a, B.v6)).toBe(0);
    const { clear, packets } = await capture.stop();
    expect({ clear, packets }).toEqual({ clear: [], packets: [] });
    const again = await DaemonHost.start(lab, a, config('a'));
    await DaemonHost.start(lab, b, config('b'));
    expect(lab.ping(a, B.v4) + lab.ping(a, B.v6)).toBe(4);
    expect(await again.stop()).toBe(0);
  });

  test('thousands of policies come, are read again in part, and go', async () => {
    const before = machineState(lab, a);
    const policies = (from: number, count: number) =>
      Array.from({ length: count }, (_, i) => {
        const peer = `10.${20 + ((from + i) >> 8)}.${(from + i) & 255}.1`;
        return [
          `spdadd ${A.v4} ${peer} any -P out ipsec esp/transport//require;`,
          `spdadd ${peer} ${A.v4} any -P in ipsec esp/transport//require;`,
        ].join('\n');
      }).join('\n');
    const host = await DaemonHost.start(lab, a, config('a') + policies(0, 2000));
    const through = () => routes().filter((line) => line.includes('dev testudo0')).length;
    const blocked = () => routes().filter((line) => line.includes('unreachable')).length;
    expect([through(), blocked()]).toEqual([2002, 2002]);
    // More pairs than a filter has room for: everything is judged by the host.
    const filter = lab.sh(a, 'tc filter show dev w0 ingress');
    expect(Number(/bytecode '(\d+),/.exec(filter)?.[1])).toBeLessThan(100);
    host.reload(config('a') + policies(1000, 2000));
    await host.says('read again');
    expect(host.stdout).toMatch(/policies 2000 added, 2004 kept, 2000 removed/);
    expect([through(), blocked()]).toEqual([2002, 2002]);
    expect(routes().join()).toContain('10.31.183.1 dev testudo0');
    expect(routes().join()).not.toContain('10.20.7.1');
    await DaemonHost.start(lab, b, config('b'));
    expect(lab.ping(a, B.v4) + lab.ping(b, A.v6)).toBe(4);
    host.setkey('spdflush;');
    expect(routes().filter((line) => line !== '')).toEqual([]);
    expect(lab.sh(a, 'tc filter show dev w0 ingress')).toBe('');
    expect(await host.stop()).toBe(0);
    expect(machineState(lab, a)).toBe(before);
  });
});
