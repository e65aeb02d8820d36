import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { occurrences } from './capture.ts';
import { DaemonHost, machineState, SETKEY, socketOf, TESTUDO } from './daemon-host.ts';
import { announceSkip, type Lab, whyNoHosts } from './namespaces.ts';
import { A, B, config, makePair, policies, SAS } from './pair.ts';
import { MARKER, PATTERN, type Served, serve, stop, tcp } from './programs.ts';

const skipped = announceSkip('leaks.test.ts', whyNoHosts());

describe.skipIf(skipped)('nothing leaks', () => {
  let lab: Lab;
  let a: string;
  let b: string;
  beforeEach(() => {
    ({ lab, a, b } = makePair());
  });
  afterEach(() => lab.close());

  function both(): Promise<[DaemonHost, DaemonHost]> {
    return Promise.all([
      DaemonHost.start(lab, a, config('a')),
      DaemonHost.start(lab, b, config('b')),
    ]);
  }

  /** How many of two pings in each family are answered. */
  function answers(from: string, to: { v4: string; v6: string }): number {
    const options = { pattern: PATTERN, waitS: 0.3 };
    return lab.ping(from, to.v4, options) + lab.ping(from, to.v6, options);
  }

  /** A thousand datagrams a second to B, in both families. */
  async function flood(): Promise<Served[]> {
    return Promise.all([B.v4, B.v6].map((to) => serve(lab, a, 'udp-flood', to, '5003', '200')));
  }

  test('with policies and no SAs nothing goes out', async () => {
    const host = await DaemonHost.start(lab, a, policies('a'));
    const capture = await lab.capture(a, 'w0');
    expect(answers(a, B)).toBe(0);
    lab.try(a, `timeout 0.5 nc -w 1 ${B.v4} 22 </dev/null; echo ${MARKER} > /dev/udp/${B.v6}/9`);
    const { clear, packets } = await capture.stop();
    expect({ clear, packets }).toEqual({ clear: [], packets: [] });
    expect(await host.dropped('out', 'no-sa')).toBeGreaterThanOrEqual(6);
  });

  test('50 reloads under traffic neither leak nor lose protection', async () => {
    const [hostA, hostB] = await both();
    const listener = await serve(lab, b, 'udp-listen', '5003');
    const capture = await lab.capture(a, 'w0');
    const floods = await flood();
    // The same selector with a level that would let packets pass if the SA were gone for a moment,
    // and another policy that comes and goes.
    const other = `flush; spdflush;\n${SAS}\n${policies('a', 'default')}
      spdadd ${A.v4} 10.9.0.77 any -P out discard;`;
    let heardBefore = 0;
    for (let i = 1; i <= 50; i++) {
      hostA.reload(i % 2 === 0 ? config('a') : other);
      await hostA.says('read again', i);
    }
    await expect.poll(() => listener.lines.length, { timeout: 5000 }).toBeGreaterThan(heardBefore);
    heardBefore = listener.lines.length;
    // Still on its way after all that.
    await expect.poll(() => listener.lines.length, { timeout: 5000 }).toBeGreaterThan(heardBefore);
    await Promise.all(floods.map(stop));
    const wire = await capture.stop();
    expect(wire.clear).toEqual([]);
    expect(occurrences(wire, MARKER)).toBe(0);
    expect(wire.packets.length).toBeGreaterThan(200);
    expect(await hostA.count('sent in the clear')).toBe(0);
    expect((await hostA.status()).drops).toEqual([]);
    expect((await hostB.status()).drops).toEqual([]);
    expect(answers(a, B)).toBe(4);
  });

  test('new keys come by reloads of both ends, without a gap', async () => {
    const next = SAS.replaceAll(/ 0x10(0\d) /g, ' 0x20$1 ').replaceAll('c0ffee', 'c0ffe1');
    const hosts = await both();
    const names = ['a', 'b'] as const;
    const listener = await serve(lab, b, 'udp-listen', '5003');
    const capture = await lab.capture(a, 'w0');
    const floods = await flood();
    const reload = async (sas: string, order: readonly (0 | 1)[], times: number) => {
      for (const i of order) {
        hosts[i].reload(`flush; spdflush;\n${sas}\n${policies(names[i])}`);
        await hosts[i].says('read again', times);
      }
      const heard = listener.lines.length;
      await expect.poll(() => listener.lines.length, { timeout: 5000 }).toBeGreaterThan(heard + 50);
    };
    // The receiver knows the new ones first, and forgets the old ones last.
    await reload(`${SAS}\n${next}`, [1, 0], 1);
    await reload(next, [0, 1], 2);
    await Promise.all(floods.map(stop));
    const wire = await capture.stop();
    expect(wire.clear).toEqual([]);
    const spis = wire.packets.filter(({ dst }) => dst === B.v4).map(({ spi }) => spi);
    expect(spis).toEqual(spis.toSorted((one, other) => one - other));
    expect(new Set(spis)).toEqual(new Set([0x1001, 0x2001]));
    for (const host of hosts) expect((await host.status()).drops).toEqual([]);
  });

  test('a reload of a file with mistakes changes nothing', async () => {
    const [host] = await both();
    const look = () => {
      const lines = (flags: string) =>
        host
          .tool(SETKEY, flags)
          .stdout.replaceAll(/pid=\d+/g, '')
          .split('\n');
      // Without the lines of counters and times.
      return [...lines('-D'), ...lines('-DP')].filter(
        (line) => !/\d:\d\d|current|last|diff/.test(line),
      );
    };
    const before = look();
    expect(before.length).toBeGreaterThan(20);
    host.reload(`${config('a')}spdadd ${A.v4} 10.9.0.77 any -P out ipsec esp/transprt//require;\n`);
    await host.complains('nothing was changed');
    expect(host.stderr).toMatch(/a\.conf:10:\d+: /);
    expect(look()).toEqual(before);
    // This one can be read, and is refused entry by entry.
    const twice = SAS.split('\n')[0];
    host.reload(
      `flush; spdflush;\n${SAS}\n${twice}\nadd ${A.v4} ${B.v4} esp 0x2222 -E des-cbc 0x0123456789abcdef;\n`,
    );
    await host.complains('nothing was changed', 2);
    expect(host.stderr).toMatch(/a\.conf:6:\d+: .*\n.*a\.conf:7:\d+: /);
    expect(look()).toEqual(before);
    const capture = await lab.capture(a, 'w0');
    expect(answers(a, B)).toBe(4);
    expect((await capture.stop()).clear).toEqual([]);
  });

  test('a host killed under traffic leaves a closed door, and the next one opens it', async () => {
    const [hostA] = await both();
    const listener = await serve(lab, b, 'udp-listen', '5003');
    const capture = await lab.capture(a, 'w0');
    const floods = await flood();
    await expect.poll(() => listener.lines.length, { timeout: 5000 }).toBeGreaterThan(100);
    await hostA.kill();
    await sleep(500);
    for (const to of [B.v4, B.v6]) {
      const { stdout, stderr } = lab.try(a, `ping -n -c 1 -W 0.3 ${to}`);
      expect(stdout + stderr).toMatch(/No route to host|unreachable/i);
    }
    const again = await DaemonHost.start(lab, a, config('a'));
    const heard = listener.lines.length;
    await expect.poll(() => listener.lines.length, { timeout: 5000 }).toBeGreaterThan(heard + 100);
    expect(answers(a, B)).toBe(4);
    await Promise.all(floods.map(stop));
    const wire = await capture.stop();
    expect(wire.clear).toEqual([]);
    expect(occurrences(wire, MARKER)).toBe(0);
    expect(wire.packets.length).toBeGreaterThan(200);
    await again.stop();
  });

  test('down after a crash, and an orderly stop, leave the machine as it was', async () => {
    lab.sh(a, 'echo 1 > /proc/sys/net/ipv4/conf/w0/rp_filter; ip rule add pref 50 lookup 99');
    lab.sh(a, 'tc qdisc add dev w0 clsact');
    const before = machineState(lab, a);
    const host = await DaemonHost.start(lab, a, config('a'));
    expect(machineState(lab, a)).not.toBe(before);
    await host.kill();
    expect(machineState(lab, a)).not.toBe(before);
    const down = () => host.tool(TESTUDO, `down --socket ${socketOf(lab, a)}`);
    expect(down()).toMatchObject({ status: 0, stdout: expect.stringContaining('no host') });
    expect(machineState(lab, a)).toBe(before);
    expect(answers(a, B)).toBe(4);

    const second = await DaemonHost.start(lab, a, config('a'));
    expect(await second.stop()).toBe(0);
    expect(machineState(lab, a)).toBe(before);

    // And `down` returns when all of that is done.
    const third = await DaemonHost.start(lab, a, config('a'));
    expect(down()).toMatchObject({ status: 0, stdout: 'testudo: stopped\n' });
    expect(machineState(lab, a)).toBe(before);
    await expect.poll(() => third.child.exitCode).toBe(0);
  });

  test('what comes in the clear against a policy reaches no program', async () => {
    const host = await DaemonHost.start(lab, a, config('a'));
    const heard = await serve(lab, a, 'udp-listen', '5003');
    const served = await serve(lab, a, 'tcp-sink', '5001');
    expect(answers(b, A)).toBe(0);
    for (const to of [A.v4, A.v6]) {
      lab.sh(b, `echo ${MARKER} > /dev/udp/${to}/5003`);
      expect(lab.try(b, `timeout 0.5 bash -c 'echo hello > /dev/tcp/${to}/5001'`).status).not.toBe(
        0,
      );
    }
    // Larger than the wire carries: fragments, of which only the first has ports.
    lab.sh(b, `head -c 3000 /dev/zero > /dev/udp/${A.v4}/5003`);
    await expect.poll(() => host.dropped('in', 'policy-clear')).toBeGreaterThanOrEqual(9);
    expect(heard.lines).toEqual([]);
    expect(served.lines).toEqual([]);
    // The programs are there, and hear who is allowed to speak.
    await DaemonHost.start(lab, b, config('b'));
    lab.sh(b, `echo ${MARKER} > /dev/udp/${A.v4}/5003`);
    await expect.poll(() => heard.lines.length).toBe(1);
    await Promise.all([stop(heard), stop(served)]);
    expect((await tcp(lab, b, a, A.v6, 1000)).octets).toBe(1000);
  });

  test('with a default of discard only what a policy allows passes', async () => {
    const allowed = `spdadd ${A.v4} ${B.v4} icmp -P out none; spdadd ${B.v4} ${A.v4} icmp -P in none;`;
    const host = await DaemonHost.start(lab, a, allowed, ['--def-policy', 'discard']);
    for (const space of [a, b]) lab.sh(space, 'ip neigh flush all');
    const heard = await serve(lab, a, 'udp-listen', '5003');
    const capture = await lab.capture(a, 'w0');
    expect(lab.ping(a, B.v4) + lab.ping(b, A.v4)).toBe(4);
    expect(lab.ping(a, B.v6, { waitS: 0.3 }) + lab.ping(b, A.v6, { waitS: 0.3 })).toBe(0);
    for (const to of [B.v4, B.v6]) lab.try(a, `echo hello > /dev/udp/${to}/5003`);
    for (const to of [A.v4, A.v6]) lab.try(b, `echo hello > /dev/udp/${to}/5003`);
    await expect.poll(() => host.dropped('in', 'policy-default-discard')).toBeGreaterThanOrEqual(4);
    expect(await host.dropped('out', 'policy-default-discard')).toBeGreaterThanOrEqual(3);
    const fromA = (await capture.stop()).clear.filter((what) => what.startsWith(A.v4));
    expect(fromA).toEqual(Array(4).fill(`${A.v4} > ${B.v4} protocol 1`));
    expect(heard.lines).toEqual([]);
    expect(lab.sh(b, 'ip -6 neigh')).toMatch(/fd09::1 .*(REACHABLE|STALE|DELAY|PROBE)/);
    await stop(heard);
    await host.stop();
    expect(lab.ping(b, A.v6)).toBe(2);
  });

  test('setkey takes effect with its reply', async () => {
    const hosts = await Promise.all([DaemonHost.start(lab, a, SAS), DaemonHost.start(lab, b, SAS)]);
    for (let round = 0; round < 3; round++) {
      hosts[0].setkey(policies('a'));
      hosts[1].setkey(policies('b'));
      const capture = await lab.capture(a, 'w0');
      expect(answers(a, B)).toBe(4);
      const during = await capture.stop();
      expect(during.clear).toEqual([]);
      expect(during.packets).toHaveLength(8);

      const after = await lab.capture(a, 'w0');
      hosts[0].setkey(`spddelete ${A.v4} ${B.v4} any -P out;`);
      // A sends in the clear, and B does not take it.
      expect(answers(a, B)).toBe(2);
      hosts[0].setkey('spdflush;');
      hosts[1].setkey('spdflush;');
      expect(answers(a, B)).toBe(4);
      const { clear, packets } = await after.stop();
      expect(clear).toHaveLength(10);
      expect(packets).toHaveLength(4);
    }
    expect(await hosts[1].dropped('in', 'policy-clear')).toBe(6);
  });

  test('what belongs to the link stays there unless a policy names it', async () => {
    const everything = `${SAS}
      spdadd ${A.v4} 0.0.0.0/0 any -P out ipsec esp/transport//require;
      spdadd ${A.v6} ::/0 any -P out ipsec esp/transport//require;`;
    const host = await DaemonHost.start(lab, a, everything);
    lab.sh(a, 'ip route add default via 10.9.0.2; ip -6 route add default via fd09::2');
    const deviceTo = (to: string) => / dev (\S+) /.exec(lab.sh(a, `ip route get ${to}`))?.[1];
    for (const to of ['224.0.0.251', '255.255.255.255', 'ff02::fb', 'fe80::1%w0']) {
      expect([to, deviceTo(to.replace('%', ' dev '))]).toEqual([to, 'w0']);
    }
    for (const to of [B.v4, B.v6, '192.0.2.7', '2001:db8::7']) {
      expect([to, deviceTo(to)]).toEqual([to, 'testudo0']);
      // What the host itself sends there does not come back to it.
      expect([to, deviceTo(`${to} mark 0x7557`)]).toEqual([to, 'w0']);
    }
    host.setkey(`spdadd ${A.v4} 224.0.0.251 any -P out discard;`);
    expect(deviceTo('224.0.0.251')).toBe('testudo0');
    expect(deviceTo('224.0.0.252')).toBe('w0');
  });

  test('a policy of none inside of what is diverted goes out in the clear, once', async () => {
    lab.sh(b, 'ip addr add 10.9.0.3/24 dev w0; ip addr add fd09::3/64 dev w0 nodad');
    const hosts = await Promise.all([
      DaemonHost.start(
        lab,
        a,
        `${SAS}
        spdadd ${A.v4} 10.9.0.3 any -P out prio def + 10 none;
        spdadd ${A.v6} fd09::3 any -P out prio def + 10 none;
        spdadd ${A.v4} 10.9.0.0/24 any -P out ipsec esp/transport//require;
        spdadd ${A.v6} fd09::/64 any -P out ipsec esp/transport//require;`,
      ),
      DaemonHost.start(lab, b, config('b')),
    ]);
    const capture = await lab.capture(a, 'w0');
    expect(answers(a, { v4: '10.9.0.3', v6: 'fd09::3' })).toBe(4);
    expect(answers(a, B)).toBe(4);
    const { clear, packets } = await capture.stop();
    expect(clear).toHaveLength(8);
    expect(packets).toHaveLength(8);
    expect(await hosts[0].count('sent in the clear')).toBe(4);
    expect(await hosts[0].count('sent protected')).toBe(4);
  });
});
