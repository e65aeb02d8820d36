import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readCapture } from '../../src/wire/capture.ts';
import { dissect } from '../../src/wire/dissect.ts';
import { DaemonHost, machineState, SETKEY, socketOf, TESTUDO, upArgs } from './daemon-host.ts';
import { announceSkip, hasTool, type Lab, whyNoHosts } from './namespaces.ts';
import { A, B, config, makePair, policies, SAS } from './pair.ts';

const skipped = announceSkip('daemon.test.ts', whyNoHosts());

describe.skipIf(skipped)('the host as a program', () => {
  let lab: Lab;
  let a: string;
  let b: string;
  beforeEach(() => {
    ({ lab, a, b } = makePair());
  });
  afterEach(() => lab.close());

  function testudo(...args: readonly string[]) {
    return lab.try(a, [process.execPath, TESTUDO, ...args].join(' '));
  }

  test('says when it is ready, and ends in order at SIGTERM and SIGINT', async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const host = await DaemonHost.start(lab, a, config('a'));
      expect(host.stdout).toBe(`testudo: ready, pid ${host.pid}, socket ${host.socket}\n`);
      expect(existsSync(host.socket)).toBe(true);
      expect(await host.stop(signal)).toBe(0);
      expect(existsSync(host.socket)).toBe(false);
      expect(existsSync(`${host.socket}.control`)).toBe(false);
      expect(host.stderr).toBe('');
    }
  });

  test('refuses to be a second one, and the first goes on', async () => {
    const host = await DaemonHost.start(lab, a, config('a'));
    await DaemonHost.start(lab, b, config('b'));
    const before = machineState(lab, a);
    const state = `${host.socket}.state`;
    const other = join(lab.dir, 'other');
    const sameState = testudo('up', '--socket', join(other, 'pfkey'), '--state', state);
    expect(sameState).toMatchObject({ status: 1, stderr: expect.stringContaining(state) });
    expect(sameState.stderr).toMatch(/in use by another host; give this one another --state/);
    const sameSocket = testudo('up', '--socket', host.socket, '--state', other);
    expect(sameSocket).toMatchObject({ status: 1, stderr: expect.stringMatching(/listening on/) });
    const sameDevice = testudo('up', '--socket', join(other, 'pfkey'), '--state', other);
    expect(sameDevice).toMatchObject({ status: 1, stderr: expect.stringMatching(/testudo0/) });
    expect(machineState(lab, a)).toBe(before);
    expect(lab.ping(a, B.v4)).toBe(2);
    expect(host.tool(SETKEY, '-D').stdout).toContain('aes-gcm-16');
  });

  test('leaves a state folder that the next one can have, also after a crash', async () => {
    for (let i = 0; i < 2; i++) await (await DaemonHost.start(lab, a, config('a'))).kill();
    const last = await DaemonHost.start(lab, a, config('a'));
    expect(await last.stop()).toBe(0);
  });

  test('does not start with a file that has mistakes, and touches nothing', () => {
    const before = machineState(lab, a);
    const [file, socket] = [join(lab.dir, 'a.conf'), socketOf(lab, a)];
    writeFileSync(
      file,
      `${SAS}\nspdadd ${A.v4} ${B.v4} any -P sideways ipsec esp/transport//use;\n`,
    );
    const unread = testudo('up', ...upArgs(lab, a));
    expect(unread.status).toBe(1);
    expect(unread.stderr).toMatch(/^testudo: \S*\/a\.conf:5:\d+: /);
    writeFileSync(file, `${SAS}\n${SAS}\n`);
    const refused = testudo('up', ...upArgs(lab, a));
    expect(refused.status).toBe(1);
    expect(refused.stderr.trimEnd().split('\n')).toHaveLength(4);
    expect(refused.stderr).toMatch(/a\.conf:5:\d+: .*\n.*a\.conf:6:\d+: /);
    expect(refused.stdout).toBe('');
    expect(machineState(lab, a)).toBe(before);
    expect(existsSync(socket)).toBe(false);
    expect(testudo('up', '--file', '/nowhere.conf', '--socket', socket).stderr).toMatch(/nowhere/);
    expect(machineState(lab, a)).toBe(before);
  });

  test('status waits for a host that starts', async () => {
    const socket = socketOf(lab, a);
    const none = testudo('status', '--socket', socket);
    expect(none).toMatchObject({ status: 1, stderr: expect.stringContaining('testudo up') });
    const waiting = lab.run(a, process.execPath, [
      TESTUDO,
      ...['status', '--wait', '20', '--socket', socket],
    ]);
    await DaemonHost.start(lab, a, config('a'));
    const { status, stdout } = await waiting;
    expect(status).toBe(0);
    expect(stdout).toMatch(/4 mature/);
    expect(stdout).toMatch(/2 in, 2 out/);
    expect(stdout).toMatch(/TUN testudo0, raw IP/);
  });

  test('the TUN device leaves room for protection, or has the MTU that was asked for', async () => {
    const mtu = () => Number(lab.sh(a, 'cat /sys/class/net/testudo0/mtu'));
    const host = await DaemonHost.start(lab, a, config('a'));
    // IPv4 and IPv6 in transport mode: ESP header and IV 16, padding and trailer at most 5, ICV 16.
    expect(mtu()).toBeGreaterThanOrEqual(1500 - 40);
    expect(mtu()).toBeLessThanOrEqual(1500 - 34);
    const before = mtu();
    host.setkey(`add ${A.v4} ${B.v4} ah 0x3001 -A hmac-sha2-512 0x${'5a'.repeat(64)};
      spdadd ${A.v4} 10.9.0.7 any -P out ipsec esp/transport//require
        esp/tunnel/${A.v4}-${B.v4}/require;`);
    expect(mtu()).toBeLessThan(before - 40);
    host.setkey(`spddelete ${A.v4} 10.9.0.7 any -P out;`);
    lab.sh(a, 'ip link set w0 mtu 1400');
    await expect.poll(mtu).toBe(before - 100);
    expect((await host.status()).wireMtu).toBe(1400);
    await host.stop();
    const other = await DaemonHost.start(lab, a, config('a'), ['--mtu', '1300']);
    expect(mtu()).toBe(1300);
    lab.sh(a, 'ip link set w0 mtu 1350');
    await expect.poll(async () => (await other.status()).wireMtu).toBe(1350);
    expect(mtu()).toBe(1300);
  });

  test('an address that comes later is what its policy sends from', async () => {
    const [hostA] = await Promise.all([
      DaemonHost.start(
        lab,
        a,
        `spdadd 10.9.0.9 10.9.0.2 any -P out ipsec esp/transport//require;
         spdadd 10.9.0.2 10.9.0.9 any -P in ipsec esp/transport//require;
         add 10.9.0.9 10.9.0.2 esp 0x1001 -E aes-gcm-16 0x8f2a6c1e9b7d4035a1c8e6f20d5b3947c0ffee01;
         add 10.9.0.2 10.9.0.9 esp 0x1002 -E aes-gcm-16 0x17e4b0d98a5c362f4fb1936de8a07c52c0ffee02;`,
      ),
      DaemonHost.start(
        lab,
        b,
        `spdadd 10.9.0.9 10.9.0.2 any -P in ipsec esp/transport//require;
         spdadd 10.9.0.2 10.9.0.9 any -P out ipsec esp/transport//require;
         add 10.9.0.9 10.9.0.2 esp 0x1001 -E aes-gcm-16 0x8f2a6c1e9b7d4035a1c8e6f20d5b3947c0ffee01;
         add 10.9.0.2 10.9.0.9 esp 0x1002 -E aes-gcm-16 0x17e4b0d98a5c362f4fb1936de8a07c52c0ffee02;`,
      ),
    ]);
    const route = () => lab.sh(a, 'ip route get 10.9.0.2');
    expect(route()).toContain('src 10.9.0.1');
    lab.sh(a, 'ip addr add 10.9.0.9/24 dev w0');
    await expect.poll(route).toContain('src 10.9.0.9');
    const capture = await lab.capture(a, 'w0');
    expect(lab.ping(a, '10.9.0.2')).toBe(2);
    const { clear, packets } = await capture.stop();
    expect({ clear, count: packets.length }).toEqual({ clear: [], count: 4 });
    lab.sh(a, 'ip addr del 10.9.0.9/24 dev w0');
    await expect.poll(route).toContain('src 10.9.0.1');
    expect(await hostA.count('ESP sealed')).toBe(2);
  });

  test('a device that comes later is guarded, and its policies are kept', async () => {
    const more = (host: 'a' | 'b') => {
      const [mine, peer] = host === 'a' ? ['10.8.0.1', '10.8.0.2'] : ['10.8.0.2', '10.8.0.1'];
      return `${config(host)}
        spdadd ${mine} ${peer} any -P out ipsec esp/transport//require;
        spdadd ${peer} ${mine} any -P in ipsec esp/transport//require;
        add 10.8.0.1 10.8.0.2 esp 0x1011 -E aes-gcm-16 0x1f2a6c1e9b7d4035a1c8e6f20d5b3947c0ffee11;
        add 10.8.0.2 10.8.0.1 esp 0x1012 -E aes-gcm-16 0x27e4b0d98a5c362f4fb1936de8a07c52c0ffee12;`;
    };
    const hostA = await DaemonHost.start(lab, a, more('a'));
    lab.wire(
      { space: a, device: 'w1', addresses: ['10.8.0.1/24'] },
      { space: b, device: 'w1', addresses: ['10.8.0.2/24'] },
    );
    await expect.poll(() => lab.sh(a, 'tc filter show dev w1 ingress')).toContain('testudo0i');
    const refused = await hostA.dropped('in', 'policy-clear');
    expect(lab.ping(b, '10.8.0.1', { waitS: 0.3 })).toBe(0);
    expect(await hostA.dropped('in', 'policy-clear')).toBe(refused + 2);
    await DaemonHost.start(lab, b, more('b'));
    const capture = await lab.capture(a, 'w1');
    expect(lab.ping(a, '10.8.0.2', { size: 3000 })).toBe(2);
    expect((await capture.stop()).clear).toEqual([]);
    // And goes again, without harm.
    lab.sh(a, 'ip link del w1');
    expect(lab.ping(a, B.v4)).toBe(2);
    expect(await hostA.stop()).toBe(0);
    expect(hostA.stderr).toBe('');
  });

  test('after a crash no sequence number and no IV is used again', async () => {
    await DaemonHost.start(lab, b, config('b'));
    const capture = await lab.capture(a, 'w0');
    const tops: number[] = [];
    for (let round = 0; round < 3; round++) {
      const host = await DaemonHost.start(lab, a, config('a'));
      expect(lab.ping(a, B.v4, { count: 5 })).toBe(5);
      tops.push(await host.count('ESP sealed'));
      await host.kill();
    }
    const last = await DaemonHost.start(lab, a, config('a'));
    expect(lab.ping(a, B.v4)).toBe(2);
    // An orderly end gives back what was reserved and not used.
    await last.stop();
    await DaemonHost.start(lab, a, config('a'));
    expect(lab.ping(a, B.v4)).toBe(2);
    const sent = (await capture.stop()).packets.filter(({ spi }) => spi === 0x1001);
    expect(tops).toEqual([5, 5, 5]);
    expect(sent).toHaveLength(19);
    const numbers = sent.map(({ seq }) => seq);
    expect(numbers).toEqual([...new Set(numbers)].sort((one, other) => one - other));
    expect(new Set(sent.map(({ iv }) => iv)).size).toBe(19);
    expect(numbers.slice(0, 5)).toEqual([1, 2, 3, 4, 5]);
    expect(numbers[17]).toBe(numbers[16]! + 1);
  });

  test('policies without a file: a host that is told everything at run time', async () => {
    const host = await DaemonHost.start(lab, a, '');
    const other = await DaemonHost.start(lab, b, config('b'));
    host.setkey(`${SAS}\n${policies('a')}`);
    expect(lab.ping(a, B.v4) + lab.ping(a, B.v6)).toBe(4);
    // A hangup replaces what the file has made, and leaves alone what programs have.
    host.reload('flush; spdflush;');
    await host.says('read again');
    expect(host.stdout).toMatch(
      /SAs 0 added, \d+ kept, 0 removed; policies 0 added, \d+ kept, 0 removed/,
    );
    expect(lab.ping(a, B.v4) + lab.ping(a, B.v6)).toBe(4);
    expect((await other.status()).drops).toEqual([]);
  });
});

describe('the host of a user', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'testudo-user-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  test('the demo runs without privileges, and its capture can be decrypted', () => {
    const main = [TESTUDO, 'demo', '--folder', join(dir, 'demo')];
    const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    // Where this checkout or Node is private to root, nobody could not even read it.
    const probe = [...nobody.slice(1), 'test', '-r', TESTUDO, '-a', '-x', process.execPath];
    const canBeNobody = process.getuid?.() === 0 && spawnSync(nobody[0]!, probe).status === 0;
    const command = canBeNobody ? [...nobody, process.execPath] : [process.execPath];
    if (canBeNobody) spawnSync('chown', ['65534', dir]);
    else console.log('daemon.test.ts: the demo runs as this user');
    const { status, stdout, stderr } = spawnSync(command[0]!, [...command.slice(1), ...main], {
      encoding: 'utf8',
      timeout: 60_000,
      cwd: dir,
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/2000 of 2000 came back, 0 altered/);

    const pcap = join(dir, 'demo', 'wire.pcap');
    const kinds = [...readCapture(readFileSync(pcap))].map(({ bytes, at, end }) =>
      dissect(bytes, at, end, { natPort: 4501 }),
    );
    expect(kinds.length).toBeGreaterThan(4000);
    expect(kinds.filter((what) => !what.includes('ESP'))).toEqual([]);
    if (!hasTool('tshark')) {
      if (process.env.CI === 'true') throw new Error('CI needs it: no tshark');
      console.log('daemon.test.ts: nothing decrypted, no tshark');
      return;
    }
    const flags = ['enable_encryption_decode', 'enable_authentication_check'];
    const tshark = spawnSync(
      'tshark',
      [
        ...['-r', pcap, '-d', 'udp.port==4501,udpencap', '-c', '40'],
        ...flags.flatMap((flag) => ['-o', `esp.${flag}:TRUE`]),
        ...['-Y', 'icmp || icmpv6', '-T', 'fields', '-e', 'ip.src', '-e', 'ipv6.src'],
        ...['-e', 'icmp.type', '-e', 'icmpv6.type'],
      ],
      { encoding: 'utf8', env: { ...process.env, XDG_CONFIG_HOME: join(dir, 'demo') } },
    );
    const lines = tshark.stdout.trim().split('\n');
    expect(lines).toHaveLength(12);
    expect(lines[0]).toMatch(/^127\.0\.0\.1,10\.7\.0\.1\t\t8\t$/);
    expect(lines.at(-1)).toMatch(/^127\.0\.0\.1\tfd07::2\t\t129$/);
  }, 90_000);

  test('the demo leaves a folder alone that has something else in it', () => {
    writeFileSync(join(dir, 'letter.txt'), 'Dear');
    const { status, stderr } = spawnSync(process.execPath, [TESTUDO, 'demo', '--folder', dir], {
      encoding: 'utf8',
    });
    expect(status).toBe(1);
    expect(stderr).toMatch(/letter\.txt/);
    expect(readdirSync(dir)).toEqual(['letter.txt']);
  });
});
