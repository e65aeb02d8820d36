import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DaemonHost, readText } from './daemon-host.ts';
import { announceSkip, Lab, whyNoHosts } from './namespaces.ts';
import { nextLine, serve, tcp } from './programs.ts';

/**
 * A has two wires: a slow one to B, with a queue that takes all that the sockets hold, and a usual
 * one to C. What A cannot send waits, and its local side with it.
 */
const skipped = announceSkip('slow-wire.test.ts', whyNoHosts('nstat') ?? whyNoShaper());

const isDivided = process.env.TESTUDO_TEST_WORKERS !== undefined;
const MIB = 1 << 20;
const [A, B] = ['10.9.0.1', '10.9.0.2'];
const [A_TO_C, C] = ['10.8.0.1', '10.8.0.2'];
/** What a flood may add to the memory of a host: more than waits, less than a second of it. */
const GROWTH_MAX = 24 * MIB;
const WAYS = {
  'raw IP': { port: '', protocol: 'esp', args: [] },
  'ESP in UDP': { port: '[4500]', protocol: 'esp-udp', args: ['--no-raw', '--encap-port', '4500'] },
} as const;
type Way = keyof typeof WAYS;

describe.skipIf(skipped)('a wire that is slower than the host', () => {
  let lab: Lab;
  let [a, b, c] = ['', '', ''];

  beforeEach(() => {
    lab = new Lab('testudo-slow');
    [a, b, c] = [lab.space('a'), lab.space('b'), lab.space('c')];
    lab.wire(
      { space: a, device: 'w0', addresses: [`${A}/24`] },
      { space: b, device: 'w0', addresses: [`${B}/24`] },
    );
    lab.wire(
      { space: a, device: 'w1', addresses: [`${A_TO_C}/24`] },
      { space: c, device: 'w1', addresses: [`${C}/24`] },
    );
    for (const space of [a, b]) lab.sh(space, 'ip link set w0 gso_max_segs 65535');
    // It looks for the end of the road by losing packets, and has window enough to find none.
    lab.sh(a, 'sysctl -qw net.ipv4.tcp_congestion_control=reno');
  });

  afterEach(() => lab.close());

  async function start(way: Way, rate: string): Promise<[DaemonHost, DaemonHost, DaemonHost]> {
    lab.sh(a, `tc qdisc add dev w0 root tbf rate ${rate} burst 32kb limit 8mb`);
    const { args } = WAYS[way];
    return await Promise.all([
      DaemonHost.start(lab, a, `${config(way, A, B, 1)} ${config(way, A_TO_C, C, 3)}`, args),
      DaemonHost.start(lab, b, config(way, A, B, 1, 'in'), args),
      DaemonHost.start(lab, c, config(way, A_TO_C, C, 3, 'in'), args),
    ]);
  }

  /** Asks until it is so. */
  async function until(isSo: () => Promise<boolean>): Promise<void> {
    for (let i = 0; !(await isSo()); i++) {
      if (i === 600) throw new Error('it has not come to that');
      await sleep(50);
    }
  }

  const waits = async (host: DaemonHost) => ((await host.status()).backlog?.waiting ?? 0) > 0;

  test.each(['raw IP', 'ESP in UDP'] as const)(
    'TCP by %s loses nothing, and fills it',
    async (way) => {
      const [hostA, hostB] = await start(way, '50mbit');
      const octets = 24 * MIB;
      const moved = await tcp(lab, a, b, B, octets);
      expect(moved).toMatchObject({ octets, received: moved.sent });
      const { backlog, refused } = await hostA.status();
      expect(refused.wire).toBe(0);
      expect(backlog).toMatchObject({ full: 0, waiting: 0 });
      expect(backlog!.pauses).toBeGreaterThan(0);
      expect((await hostB.status()).drops).toEqual([]);
      // Nothing was sent for nothing: headers are a twentieth.
      expect(octets / sentBy('w0')).toBeGreaterThan(0.9);
      expect(retransmitted()).toBeLessThan(20);
    },
  );

  // What is sent and never answered is read by any thread, and handed over to the one that sends.
  test.skipIf(isDivided).each(['raw IP', 'ESP in UDP'] as const)(
    'a flood by %s is lost before the TUN device, and the host goes on',
    async (way) => {
      const [hostA, hostB] = await start(way, '16mbit');
      const sink = await serve(lab, b, 'stream-sink', '5001');
      const heard = await serve(lab, a, 'udp-listen', '5002');
      const before = residentOf(hostA);
      const source = await serve(lab, a, 'stream-source', B, '5001', '5000', '1200');
      await until(async () => droppedBy('testudo0') > 1000 && (await waits(hostA)));
      // From the slow wire, while packets wait for it.
      const delivered = await hostA.count('delivered');
      expect(await waits(hostA)).toBe(true);
      lab.sh(b, `for i in 1 2 3; do echo $i > /dev/udp/${A}/5002; done`);
      await until(async () => heard.lines.length === 3);
      expect(await hostA.count('delivered')).toBeGreaterThanOrEqual(delivered + 3);
      expect((await hostA.status()).refused.wire).toBe(0);
      // The other peer has a wire of its own: as soon as that is noticed, what finds no room to
      // wait is lost here.
      await until(async () => lab.ping(a, C) === 2);
      source.child.kill('SIGTERM');
      expect(await nextLine(sink)).toMatchObject({ wrong: 0, twice: 0 });
      await until(async () => !(await waits(hostA)));
      const { refused, backlog } = await hostA.status();
      expect(refused.wire).toBe(backlog!.full);
      expect((await hostB.status()).drops).toEqual([]);
      expect(residentOf(hostA) - before).toBeLessThan(GROWTH_MAX);
    },
  );

  test.skipIf(isDivided)('a wire that goes down lets go of the local side', async () => {
    const [hostA] = await start('raw IP', '2mbit');
    const source = await serve(lab, a, 'stream-source', B, '5001', '3000', '1200');
    await until(() => waits(hostA));
    lab.sh(a, 'ip link set w0 down');
    await until(async () => (await hostA.status()).refused.wire! > 0);
    expect(await waits(hostA)).toBe(false);
    expect(lab.ping(a, C)).toBe(2);
    lab.sh(a, 'ip link set w0 up');
    source.child.kill('SIGKILL');
    expect(lab.ping(a, B, { waitS: 3 })).toBeGreaterThan(0);
  });

  test('at the end of a host all that waits is sent, once', async () => {
    // Taking it away at the end would have the kernel empty the queue of the device.
    lab.sh(a, 'tc qdisc add dev w0 ingress');
    const [hostA, hostB] = await start('ESP in UDP', '2mbit');
    const source = await serve(lab, a, 'stream-source', B, '5001', '3000', '1200');
    await until(() => waits(hostA));
    const ended = once(source.child, 'close');
    source.child.kill('SIGKILL');
    await ended;
    // Seconds from now there is room again, and more would be read and sealed.
    const sealed = await hostA.count('ESP sealed');
    expect(await waits(hostA)).toBe(true);
    await hostA.stop();
    await until(async () => (await hostB.count('ESP opened')) === sealed);
    expect(await hostB.dropped('in', 'esp-replay')).toBe(0);
  });

  /** Octets that the shaper has let go, and TCP segments that were sent again. */
  function sentBy(device: string): number {
    return Number(/Sent (\d+) bytes/.exec(lab.sh(a, `tc -s qdisc show dev ${device}`))![1]);
  }

  function retransmitted(): number {
    return Number(/TcpRetransSegs\s+(\d+)/.exec(lab.sh(a, 'nstat -az TcpRetransSegs'))![1]);
  }

  function droppedBy(device: string): number {
    const [link] = JSON.parse(lab.sh(a, `ip -s -j link show ${device}`));
    return link.stats64.tx.dropped;
  }
});

/**
 * SAs between A and a peer, numbered from `spi` on, which belong together: so one thread has both.
 * Policies as A has them, or the peer.
 */
function config(way: Way, mine: string, peer: string, spi: number, outgoing = 'out'): string {
  const { port, protocol } = WAYS[way];
  const sa = (from: string, to: string, n: number) =>
    `add ${from}${port} ${to}${port} ${protocol} 0x100${n} -m transport -u ${spi} -r 64 -E aes-gcm-16 0x${`${n}7e4b0d98a5c362f`.repeat(2)}c0ffee0${n};`;
  const incoming = outgoing === 'out' ? 'in' : 'out';
  return [
    sa(mine, peer, spi),
    sa(peer, mine, spi + 1),
    `spdadd ${mine} ${peer} any -P ${outgoing} ipsec esp/transport//require;`,
    `spdadd ${peer} ${mine} any -P ${incoming} ipsec esp/transport//require;`,
  ].join('\n');
}

function residentOf({ pid }: DaemonHost): number {
  return 1024 * Number(/VmRSS:\s+(\d+)/.exec(readText(`/proc/${pid}/status`))![1]);
}

/** Whether the kernel has queues of a given rate. */
function whyNoShaper(): string | undefined {
  const name = `testudo-slow-${process.pid}-probe`;
  if (spawnSync('ip', ['netns', 'add', name]).status !== 0) return 'no network namespaces';
  const shape = 'tc qdisc add dev lo root tbf rate 1mbit burst 32kb limit 1mb';
  const { status } = spawnSync('ip', ['netns', 'exec', name, ...shape.split(' ')]);
  spawnSync('ip', ['netns', 'del', name]);
  return status === 0 ? undefined : 'no queueing discipline tbf';
}
