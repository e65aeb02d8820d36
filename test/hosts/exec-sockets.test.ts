import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { request } from '../../src/daemon/control-client.ts';
import { controlPath } from '../../src/daemon/paths.ts';
import type { SocketLine } from '../../src/daemon/socket-status.ts';
import { occurrences } from './capture.ts';
import { DaemonHost, machineState, TESTUDO } from './daemon-host.ts';
import { buildSanitized, whyNoExec } from './exec-host.ts';
import { announceSkip, whyNoHosts } from './namespaces.ts';
import { A, B, makePair, type Pair, SAS } from './pair.ts';
import {
  buildSocketProgram,
  policyHex,
  SocketProgram,
  type SocketProgramOptions,
} from './socket-program.ts';

/**
 * Policies of sockets that programs have from the kernel. A has SAs and no policy; B has policies
 * for port 5000 alone, and answers there and on 5001.
 */

const skipped = announceSkip('exec-sockets.test.ts', whyNoHosts('setpriv') ?? whyNoExec());
const PYTHON = fileURLToPath(new URL('socket_policy.py', import.meta.url));
const ECHO = fileURLToPath(new URL('socket_echo.py', import.meta.url));
const REQUIRE = ['out ipsec esp/transport//require', 'in ipsec esp/transport//require'];
const NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all'];

function policiesOfB(): string {
  return (['v4', 'v6'] as const)
    .flatMap((family) =>
      ['udp', 'tcp'].flatMap((protocol) => [
        `spdadd ${A[family]} ${B[family]}[5000] ${protocol} -P in ipsec esp/transport//require;`,
        `spdadd ${B[family]}[5000] ${A[family]} ${protocol} -P out ipsec esp/transport//require;`,
      ]),
    )
    .join('\n');
}

describe.skipIf(skipped)('a policy of a socket of a program', () => {
  let pair: Pair;
  let program: string;
  let hostA: DaemonHost;
  let hostB: DaemonHost;
  const programs: SocketProgram[] = [];

  beforeAll(async () => {
    pair = makePair();
    const { lab, a, b } = pair;
    program = buildSocketProgram(lab.dir);
    hostA = await DaemonHost.start(lab, a, SAS);
    hostB = await DaemonHost.start(lab, b, `${SAS}\n${policiesOfB()}`);
    const echo = lab.spawn(b, 'python3', [ECHO, '5000', '5001']);
    await once(echo.stdout!, 'data');
  });
  afterAll(() => pair?.lab.close());
  afterEach(async () => {
    for (const one of programs.splice(0)) await one.end();
  });

  function run(options: SocketProgramOptions = { host: hostA }, space = pair.a): SocketProgram {
    const started = new SocketProgram(pair.lab, space, program, options);
    programs.push(started);
    return started;
  }

  async function sockets(): Promise<SocketLine[]> {
    return (await request(controlPath(hostA.socket), 'sockets')) as SocketLine[];
  }

  /** Until the host knows of so many; the kernel tells it in a moment. */
  async function untilSockets(count: number): Promise<SocketLine[]> {
    for (;;) {
      const now = await sockets();
      if (now.length === count) return now;
      await sleep(20);
    }
  }

  test.each([
    ['udp', '4', B.v4],
    ['udp', '6', B.v6],
    ['tcp', '4', B.v4],
    ['tcp', '6', B.v6],
  ])('%s over IPv%s: its packets are ESP, and its neighbour’s clear', async (kind, version, to) => {
    const capture = await pair.lab.capture(pair.b, 'w0');
    const p = run();
    await p.open('own', `${kind} ${version}`, ...REQUIRE);
    await p.open('near', `${kind} ${version}`);
    await p.all(`connect own ${to} 5000`, `connect near ${to} 5001`);
    await p.all('send own secret-of-the-socket', 'send near known-to-everybody');
    expect(await p.do('receive own')).toBe('echo-secret-of-the-socket');
    expect(await p.do('receive near')).toBe('echo-known-to-everybody');
    await p.all('close own', 'close near');
    const wire = await capture.stop();
    expect(occurrences(wire, 'secret-of-the-socket')).toBe(0);
    expect(occurrences(wire, 'known-to-everybody')).toBe(2);
    const kinds = new Set(wire.packets.map((packet) => packet.kind));
    expect([...kinds]).toEqual(['esp']);
    expect(new Set(wire.packets.map((packet) => packet.src)).size).toBe(2);
  });

  test.each([
    ['IPv4', B.v4],
    ['IPv6', B.v6],
  ])(
    'a Python program over %s: large and small, and a descriptor that it passes on',
    async (_, to) => {
      const before = await hostA.count('sent in the clear');
      const exec = [TESTUDO, 'exec', '--socket', hostA.socket, '--', 'python3', PYTHON, to];
      const { stdout, stderr } = await pair.lab.run(pair.a, process.execPath, exec);
      expect({ stderr, said: JSON.parse(stdout || 'null') }).toEqual({
        stderr: '',
        said: {
          readBack: true,
          small: true,
          large: true,
          stream: true,
          neighbour: true,
          passedOn: true,
        },
      });
      // The neighbour's do not come to the host at all.
      expect(await hostA.count('sent in the clear')).toBe(before);
      await untilSockets(0);
    },
  );

  test('a datagram that is sent unbound, just before the socket is closed', async () => {
    const before = await hostA.count('sent protected');
    const p = run();
    for (let i = 0; i < 20; i++) {
      await p.open('own', 'udp 4', ...REQUIRE);
      await p.all(`sendto own ${B.v4} 5000 last-words`, 'close own');
    }
    expect(await hostA.count('sent protected')).toBe(before + 20);
    expect(await hostA.dropped('out', 'socket-unknown')).toBe(0);
    await untilSockets(0);
  });

  test('getsockopt answers the octets of setsockopt, by KAME’s rules', async () => {
    const p = run();
    await p.open('own', 'udp 4');
    const ask = (direction: 'in' | 'out', len: number) =>
      p.do(`asked own ${policyHex(`${direction} entrust`)} ${len}`);
    // What every socket has.
    const none = await ask('out', 64);
    expect(none.slice(8, 16)).toBe('03000200');
    const policy = `out ipsec ah/transport//require esp/tunnel/${A.v4}-${B.v4}/unique:7`;
    await p.all(`option own ${policyHex(policy)}`);
    expect(await ask('out', 1000)).toBe(policyHex(policy));
    const len = policyHex(policy).length / 2;
    expect(await ask('out', len)).toBe(policyHex(policy));
    expect(await ask('out', len - 1)).toBe('EINVAL');
    expect(await ask('out', 15)).toBe('EINVAL');
    // The other direction is as it was, and a third one there is not.
    expect((await ask('in', 64)).slice(8, 16)).toBe('03000100');
    expect(await p.do(`asked own ${policyHex('fwd none')} 64`)).toBe('EINVAL');
    await p.all(`option own ${policyHex('out entrust')}`);
    expect(await ask('out', 64)).toBe(none);
    expect(await sockets()).toEqual([]);
  });

  test('what is no policy of a socket is refused', async () => {
    const p = run();
    await p.open('four', 'udp 4');
    await p.open('six', 'udp 6');
    const set = (name: string, hex: string) => p.do(`option ${name} ${hex}`);
    const good = policyHex(REQUIRE[0]!);
    expect(await set('four', good.slice(0, 30))).toBe('EINVAL');
    expect(await set('four', `${good}00`)).toBe('EINVAL');
    expect(await set('four', policyHex('out discard'))).toBe('EINVAL');
    expect(await set('four', policyHex('out none'))).toBe('EINVAL');
    expect(await set('four', policyHex('out ipsec'))).toBe('EINVAL');
    expect(await set('four', policyHex('fwd ipsec esp/transport//require'))).toBe('EINVAL');
    expect(await set('four', policyHex('out ipsec ipcomp/transport//use'))).toBe('EPROTONOSUPPORT');
    expect(await sockets()).toEqual([]);
    // A socket that is bound to a device cannot be on ours.
    await p.all('device four w0');
    expect(await set('four', good)).toBe('EBUSY');
    await p.all(`option six ${good}`);
    expect(await p.do('device six w0')).toBe('EBUSY');
    expect(await p.do('device six')).toBe('EBUSY');
    await p.all(`connect six ${B.v6} 5000`, 'send six still-safe');
    expect(await p.do('receive six')).toBe('echo-still-safe');
  });

  test('“in … require” refuses plain packets to that socket alone', async () => {
    const p = run();
    await p.open('own', 'udp 4', 'in ipsec esp/transport//require');
    await p.open('near', 'udp 4');
    await p.all('bind own 0.0.0.0 6000', 'bind near 0.0.0.0 6001');
    const peer = run({ host: hostB }, pair.b);
    await peer.open('plain', 'udp 4');
    await peer.open('safe', 'udp 4', 'out ipsec esp/transport//require');
    await peer.all(`sendto plain ${A.v4} 6000 plain`, `sendto plain ${A.v4} 6001 plain`);
    expect(await p.do('receive near')).toBe('plain');
    await peer.all(`sendto safe ${A.v4} 6000 sealed`);
    expect(await p.do('receive own')).toBe('sealed');
    expect(await p.do('receive own')).toBe('EAGAIN');
  });

  test.each(['in ipsec esp/transport//use', 'in entrust'])(
    '“%s” lets plain packets in, also where going out is protected',
    async (policy) => {
      const p = run();
      await p.open('own', 'udp 4', 'out ipsec esp/transport//require', policy);
      await p.all('bind own 0.0.0.0 6000');
      const peer = run({}, pair.b);
      await peer.open('plain', 'udp 4');
      await peer.all(`sendto plain ${A.v4} 6000 plain`);
      expect(await p.do('receive own')).toBe('plain');
      await p.all('close own');
      await untilSockets(0);
      // The way of such packets is as it was.
      expect(pair.lab.sh(pair.a, 'tc filter show dev w0 ingress')).toBe('');
    },
  );

  test('“bypass” goes and comes in the clear, whatever the host’s policies say', async () => {
    const policies = [
      `spdadd ${A.v4}[7100] ${B.v4} udp -P out discard;`,
      `spdadd ${B.v4} ${A.v4}[7100] udp -P in discard;`,
    ];
    hostA.setkey(policies.join('\n'));
    try {
      const p = run();
      await p.open('near', 'udp 4');
      await p.all('bind near 0.0.0.0 7100');
      await p.do(`sendto near ${B.v4} 5001 nothing`);
      expect(await p.do('receive near')).toBe('EAGAIN');
      await p.all('close near');
      await p.open('own', 'udp 4', 'out bypass', 'in bypass');
      await p.all('bind own 0.0.0.0 7100', `sendto own ${B.v4} 5001 all-the-same`);
      expect(await p.do('receive own')).toBe('echo-all-the-same');
      await p.all('close own');
      // One direction alone.
      await p.open('own', 'udp 4', 'in bypass');
      await p.all('bind own 0.0.0.0 7100');
      const peer = run({}, pair.b);
      await peer.open('plain', 'udp 4');
      await peer.all(`sendto plain ${A.v4} 7100 all-the-same`);
      expect(await p.do('receive own')).toBe('all-the-same');
    } finally {
      hostA.setkey(policies.map((one) => one.replace('spdadd', 'spddelete')).join('\n'));
    }
  });

  test('nobody may protect, and may not bypass', async () => {
    const p = run({ host: hostA, before: NOBODY });
    await p.open('own', 'udp 4');
    expect(await p.do(`option own ${policyHex('out bypass')}`)).toBe('EACCES');
    expect(await p.do(`option own ${policyHex('in bypass')}`)).toBe('EACCES');
    for (const policy of REQUIRE) await p.all(`option own ${policyHex(policy)}`);
    expect(await p.do('device own w0')).toBe('EPERM');
    await p.all(`connect own ${B.v4} 5000`, 'send own mine');
    expect(await p.do('receive own')).toBe('echo-mine');
    expect(await sockets()).toMatchObject([{ uid: 65_534, privileged: false }]);
  });

  test('a connection has the policy of the socket that accepted it, and keeps it', async () => {
    const capture = await pair.lab.capture(pair.b, 'w0');
    const p = run();
    await p.open('server', 'tcp 4', ...REQUIRE);
    await p.all('bind server 0.0.0.0 7000', 'listen server');
    const peer = run({ host: hostB }, pair.b);
    await peer.open('client', 'tcp 4', ...REQUIRE);
    await peer.open('plain', 'tcp 4');
    await peer.all(`connect client ${A.v4} 7000`);
    expect(await peer.do(`connect plain ${A.v4} 7000`)).not.toBe('ok');
    await p.all('accept server one', 'close server', 'send one from-the-accepted');
    expect(await peer.do('receive client')).toBe('from-the-accepted');
    await peer.all('send client to-the-accepted');
    expect(await p.do('receive one')).toBe('to-the-accepted');
    expect(await untilSockets(1)).toMatchObject([
      { local: `${A.v4}:7000`, remote: expect.stringContaining(B.v4), isListening: false },
    ]);
    await p.all('close one');
    expect(await peer.do('receive client')).toBe('end');
    const wire = await capture.stop();
    expect(occurrences(wire, '-the-accepted')).toBe(0);
  });

  test('a connection that has sent before it was accepted is one of its own', async () => {
    const p = run();
    await p.open('server', 'tcp 6', ...REQUIRE);
    await p.all('bind server :: 7001', 'listen server');
    const peer = run({ host: hostB }, pair.b);
    await peer.open('client', 'tcp 6', ...REQUIRE);
    await peer.all(`connect client ${A.v6} 7001`, 'send client early');
    // The listening socket takes both families.
    const lines = await untilSockets(3);
    expect(lines.map((line) => line.isListening).sort()).toEqual([false, true, true]);
    await p.all('accept server one');
    expect(await p.do('receive one')).toBe('early');
    expect(await sockets()).toHaveLength(3);
  });

  test('copies and children have it as well', async () => {
    const p = run();
    await p.open('own', 'udp 4', ...REQUIRE);
    await p.all('dup own copy', 'close own', 'fork', `connect copy ${B.v4} 5000`);
    await p.all('send copy by-the-child');
    expect(await p.do('receive copy')).toBe('echo-by-the-child');
    expect(await p.do('status copy')).toBe(
      `in ipsec protected esp/transport/0x1002/aes-gcm-16/${A.v4}/${B.v4}; ` +
        `out ipsec protected esp/transport/0x1001/aes-gcm-16/${A.v4}/${B.v4}`,
    );
    await p.all('close copy');
    await untilSockets(0);
  });

  test('a program is told how its sockets are protected, with and without a policy', async () => {
    const p = run();
    await p.open('own', 'udp 4', 'out ipsec ah/transport//require');
    await p.open('near', 'udp 4');
    await p.all(`connect own ${B.v4} 5000`, `connect near ${B.v4} 5000`);
    expect(await p.do('status own')).toBe('in entrust clear; out ipsec waiting');
    expect(await p.do('status near')).toBe('in entrust clear; out entrust clear');
    // Without us, the kernel has no such option.
    const alone = run({});
    await alone.open('own', 'udp 4');
    expect(await alone.do('status own')).toBe('ENOPROTOOPT');
  });

  test('echo requests and raw packets', async () => {
    pair.lab.sh(pair.a, 'sysctl -qw net.ipv4.ping_group_range="0 65535"');
    const policies = [
      `spdadd ${A.v4} ${B.v4} icmp -P in ipsec esp/transport//require;`,
      `spdadd ${B.v4} ${A.v4} icmp -P out ipsec esp/transport//require;`,
    ];
    hostB.setkey(policies.join('\n'));
    try {
      const before = await hostA.count('sent protected');
      const p = run();
      await p.open('ping', 'ping 4', ...REQUIRE);
      await p.open('raw', 'raw 4', ...REQUIRE);
      await p.all(`sendto ping ${B.v4} 0 hello`, `sendto raw ${B.v4} 0 raw`);
      expect(await hostA.count('sent protected')).toBe(before + 2);
      expect((await sockets()).map((line) => line.protocol)).toEqual(['icmp', 'raw 253']);
      expect(await p.do('receive ping')).toBe('hello');
      await p.all('close ping', 'close raw');
      await untilSockets(0);
    } finally {
      hostB.setkey(policies.map((one) => one.replace('spdadd', 'spddelete')).join('\n'));
    }
  });

  test('a program that is killed leaves nothing', async () => {
    const p = run();
    await p.open('own', 'udp 4', ...REQUIRE);
    await p.open('server', 'tcp 4', ...REQUIRE);
    await p.all('bind own 0.0.0.0 6000', 'bind server 0.0.0.0 6000', 'listen server');
    expect(await sockets()).toHaveLength(2);
    process.kill(Number(await p.do('pid')), 'SIGKILL');
    await untilSockets(0);
  });

  test('the library with sanitizers finds nothing', async () => {
    const preload = buildSanitized(pair.lab.dir);
    if (!preload && process.env.CI === 'true')
      throw new Error('CI needs a compiler with sanitizers');
    if (!preload) return console.log('exec-sockets.test.ts: no sanitizers');
    const p = run({ host: hostA, preload });
    await p.open('own', 'udp 4', ...REQUIRE);
    expect(await p.do(`asked own ${policyHex('in entrust')} 1000`)).toBe(policyHex(REQUIRE[1]!));
    expect(await p.do(`asked own ${policyHex('in entrust')} 3`)).toBe('EINVAL');
    expect(await p.do(`option own ${'00'.repeat(5000)}`)).toBe('EINVAL');
    await p.all(`sendto own ${B.v4} 5000 hello`);
    expect(await p.do('receive own')).toBe('echo-hello');
    expect(await p.do('status own')).toContain('out ipsec protected');
    await p.open('server', 'tcp 4', ...REQUIRE);
    await p.all('bind server 0.0.0.0 7002', 'listen server');
    expect(await p.do('accept server one')).toBe('EAGAIN');
    await p.end();
    expect(p.child.exitCode).toBe(0);
  });
});

describe.skipIf(skipped)('a socket whose host is killed', () => {
  test('sends nothing in the clear, and nothing at all', async () => {
    const { lab, a, b } = makePair();
    try {
      const program = buildSocketProgram(lab.dir);
      const host = await DaemonHost.start(lab, a, SAS);
      const p = new SocketProgram(lab, a, program, { host });
      await p.open('udp', 'udp 4', ...REQUIRE);
      await p.open('six', 'udp 6', ...REQUIRE);
      await p.all(`connect udp ${B.v4} 5000`, `connect six ${B.v6} 5000`, 'send udp before');
      const capture = await lab.capture(b, 'w0');
      await host.kill();
      expect(await p.do('send udp after')).toBe('ENODEV');
      expect(await p.do('send six after')).toMatch(/^E(NODEV|NETUNREACH|HOSTUNREACH)$/);
      // A host that comes after it does not know the socket, and what was its device is gone.
      await DaemonHost.start(lab, a, SAS);
      expect(await p.do('send udp after')).toBe('ENODEV');
      expect((await capture.stop()).clear).toEqual([]);
    } finally {
      lab.close();
    }
  });
});

describe.skipIf(skipped)('a machine with two networks', () => {
  test('sockets get the source that they would have had, also when a network comes later', async () => {
    const { lab, a, b } = makePair();
    const programs: SocketProgram[] = [];
    try {
      const host = await DaemonHost.start(lab, a, SAS);
      const p = new SocketProgram(lab, a, buildSocketProgram(lab.dir), { host });
      programs.push(p);
      const sourceFor = async (to: string) => {
        await p.open('own', `udp ${to.includes(':') ? 6 : 4}`, ...REQUIRE);
        await p.all(`connect own ${to} 5000`);
        const lines = (await request(controlPath(host.socket), 'sockets')) as SocketLine[];
        await p.all('close own');
        return lines.at(-1)!.local.replace(/:[0-9]+$/, '');
      };
      expect(await sourceFor(B.v4)).toBe(A.v4);
      expect(await sourceFor('10.10.0.2')).toBe(A.v4);
      lab.wire(
        { space: a, device: 'w1', addresses: ['10.10.0.1/24', 'fd10::1/64'] },
        { space: b, device: 'w1', addresses: ['10.10.0.2/24', 'fd10::2/64'] },
      );
      await expect.poll(() => sourceFor('10.10.0.2'), { timeout: 10_000 }).toBe('10.10.0.1');
      expect(await sourceFor('fd10::2')).toBe('[fd10::1]');
      expect([await sourceFor(B.v4), await sourceFor(B.v6)]).toEqual([A.v4, `[${A.v6}]`]);
    } finally {
      for (const one of programs) await one.end();
      lab.close();
    }
  });
});

describe.skipIf(skipped)('the host itself', () => {
  test('is without a trace of sockets when it has ended, in order or not', async () => {
    const { lab, a } = makePair();
    try {
      const before = machineState(lab, a);
      const program = buildSocketProgram(lab.dir);
      for (const how of ['stop', 'kill'] as const) {
        const host = await DaemonHost.start(lab, a, SAS);
        const p = new SocketProgram(lab, a, program, { host });
        await p.open('own', 'udp 4', 'out ipsec esp/transport//require');
        await p.all('bind own 0.0.0.0 6000');
        expect(machineState(lab, a)).toContain('testudo0s');
        await host[how]();
        if (how === 'kill') host.tool(TESTUDO, 'down');
        expect(machineState(lab, a)).toBe(before);
      }
    } finally {
      lab.close();
    }
  });
});

describe.skipIf(skipped)('examples/socket-policy', () => {
  test('shows a program with a policy of its own, and one without', () => {
    const run = fileURLToPath(new URL('../../examples/socket-policy/run.sh', import.meta.url));
    const { status, stdout, stderr } = spawnSync(run, { encoding: 'utf8', timeout: 60_000 });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain(
      'answer: you said a secret\nout: ESP, SPI 0x1001, aes-gcm-16\nin: ESP',
    );
    expect(stdout).toContain('answer: you said no secret\nout: in the clear\nin: in the clear');
    expect(stdout.match(/ESP\(spi=0x00001001/g)!.length).toBeGreaterThan(3);
    expect(stdout).not.toContain('.7000');
    expect(stdout).toContain('> 192.0.2.2.7001: Flags');
  });
});
