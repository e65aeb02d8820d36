import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DaemonHost, SETKEY } from './daemon-host.ts';
import { announceSkip, type Lab, whyNoHosts } from './namespaces.ts';
import { A, B, makePair } from './pair.ts';
import { client, serve, stop } from './programs.ts';

/**
 * Hosts whose work is divided among threads: each connection has SAs of its own, so that all
 * threads have some, and packets have to get to the right one. With TESTUDO_TEST_WORKERS=N in the
 * environment, the other tests of this folder run over such hosts too.
 */
const skipped = announceSkip('workers.test.ts', whyNoHosts());

/** Connections to ports of B, and as many to ports of A, each with a number for its SAs. */
const FLOWS = 6;
const PORT = 5201;
const NUMBERS = Array.from({ length: 2 * FLOWS + 1 }, (_, i) => i + 1);
const PING = 2 * FLOWS + 1;
const MIB = 1 << 20;

interface Way {
  readonly name: string;
  readonly args: readonly string[];
  /** Behind addresses in `add`. */
  readonly ports: string;
  readonly protocol: string;
}

const RAW: Way = { name: 'raw IP', args: [], ports: '', protocol: 'esp' };
const UDP: Way = {
  name: 'ESP in UDP',
  args: ['--no-raw', '--encap-port', '4500'],
  ports: '[4500]',
  protocol: 'esp-udp',
};

/** Those of one generation: each has SPIs and keys of its own. */
function spis(number: number, generation: number): readonly [number, number] {
  const base = 0x1000 + 0x100 * generation + 7 * number;
  return [base, base + 0x10_0001];
}

/** Those of one direction, or both. */
function addSas(
  { ports, protocol }: Way,
  generation: number,
  to: readonly string[] = [A.v4, B.v4],
): string {
  const line = (src: string, dst: string, spi: number, number: number) => {
    const key = Buffer.alloc(20, `${spi}:key`).toString('hex');
    return `add ${src}${ports} ${dst}${ports} ${protocol} ${spi} -m transport -u ${number} -r 255
      -E aes-gcm-16 0x${key};`;
  };
  return NUMBERS.flatMap((number) => {
    const [there, back] = spis(number, generation);
    return [
      ...(to.includes(B.v4) ? [line(A.v4, B.v4, there, number)] : []),
      ...(to.includes(A.v4) ? [line(B.v4, A.v4, back, number)] : []),
    ];
  }).join('\n');
}

function deleteSas(generation: number, numbers = NUMBERS): string {
  return numbers
    .flatMap((number) => {
      const [there, back] = spis(number, generation);
      return [`delete ${A.v4} ${B.v4} esp ${there};`, `delete ${B.v4} ${A.v4} esp ${back};`];
    })
    .join('\n');
}

function policies(host: 'a' | 'b'): string {
  const line = (src: string, dst: string, upper: string, number: number) => {
    const direction = src.startsWith(host === 'a' ? A.v4 : B.v4) ? 'out' : 'in';
    return `spdadd ${src} ${dst} ${upper} -P ${direction} ipsec esp/transport//unique:${number};`;
  };
  return NUMBERS.flatMap((number) => {
    if (number === PING) {
      return [line(A.v4, B.v4, 'icmp', number), line(B.v4, A.v4, 'icmp', number)];
    }
    const [client, server] = number <= FLOWS ? [A.v4, B.v4] : [B.v4, A.v4];
    const port = `[${PORT + number}]`;
    return ['tcp', 'udp'].flatMap((upper) => [
      line(client, server + port, upper, number),
      line(server + port, client, upper, number),
    ]);
  }).join('\n');
}

interface SaLine {
  readonly spi: number;
  readonly sequence: number;
  readonly state: string;
  readonly current: { readonly packets: number; readonly bytes: number };
}

function sasOf(host: DaemonHost): Map<number, SaLine> {
  const lines = JSON.parse(host.tool(SETKEY, '-D --json').stdout) as SaLine[];
  return new Map(lines.map((one) => [one.spi, one]));
}

describe.skipIf(skipped)('hosts with workers', () => {
  let lab: Lab;
  let [a, b]: string[] = [];
  let hosts: readonly [DaemonHost, DaemonHost];

  beforeEach(() => {
    ({ lab, a, b } = makePair());
  });
  afterEach(() => lab.close());

  function start(host: 'a' | 'b', workers: number, way: Way): Promise<DaemonHost> {
    const config = `flush; spdflush;\n${addSas(way, 0)}\n${policies(host)}`;
    const space = host === 'a' ? a! : b!;
    return DaemonHost.start(lab, space, config, ['--workers', String(workers), ...way.args]);
  }

  async function startBoth(workers: number, way: Way): Promise<void> {
    hosts = await Promise.all([start('a', workers, way), start('b', workers, way)]);
  }

  const ends = (number: number) => {
    return number <= FLOWS ? ([a!, b!, B.v4] as const) : ([b!, a!, A.v4] as const);
  };

  async function tcp(number: number, octets: number): Promise<void> {
    const [from, to, address] = ends(number);
    const port = String(PORT + number);
    const server = await serve(lab, to, 'tcp-sink', port);
    const { sha256, answer } = await client(lab, from, 'tcp-source', address, port, `${octets}`);
    expect(answer).toEqual({ sha256, octets });
    await stop(server);
  }

  async function udp(number: number, count: number): Promise<void> {
    const [from, to, address] = ends(number);
    const port = String(PORT + number);
    const server = await serve(lab, to, 'udp-sink', port, String(count));
    const result = await client(lab, from, 'udp-source', address, port, `${count}`, '16,500,2900');
    expect(result).toEqual({ sent: count, lost: 0 });
    await stop(server);
  }

  /** Everything that one end has sent by an SA, the other one has opened, and both say so. */
  async function agree(): Promise<number> {
    const views = () =>
      hosts.map((host) =>
        [...sasOf(host)]
          .map(([spi, { current }]) => [spi, current.packets, current.bytes] as const)
          .sort(([one], [other]) => one - other),
      );
    await expect.poll(() => views()[1], { timeout: 5000 }).toEqual(views()[0]);
    const [sasA, sasB] = [sasOf(hosts[0]), sasOf(hosts[1])];
    let sealed = 0;
    for (const number of NUMBERS) {
      const [there] = spis(number, 0);
      const one = sasA.get(there);
      if (one === undefined) continue;
      // A has sent by it and has numbered each packet; B has received.
      expect(one.sequence).toBe(one.current.packets);
      expect(sasB.get(there)!.sequence).toBe(0);
      sealed += one.current.packets;
    }
    return sealed;
  }

  test.each([
    [2, RAW],
    [3, RAW],
    [2, UDP],
    [3, UDP],
  ] as const)('%i of them, %o: all traffic, and counters of all', async (workers, way) => {
    await startBoth(workers, way);
    for (const numbers of [NUMBERS.slice(0, FLOWS), NUMBERS.slice(FLOWS, PING - 1)]) {
      await Promise.all(numbers.map((number) => tcp(number, 4 * MIB)));
      await Promise.all(numbers.map((number) => udp(number, 30)));
    }
    expect(lab.ping(a!, B.v4, { count: 4 }) + lab.ping(b!, A.v4, { count: 4 })).toBe(8);
    const sealed = await agree();
    const statuses = await Promise.all(hosts.map((host) => host.status()));
    expect(statuses[0]!.packets['ESP sealed']).toBe(sealed);
    expect(statuses[1]!.packets['ESP opened']).toBe(sealed);
    for (const { drops, packets, workers: rows } of statuses) {
      expect(drops).toEqual([]);
      expect(packets['sent in the clear']).toBe(0);
      expect(rows.map(({ shard }) => shard)).toEqual(Array.from({ length: workers }, (_, i) => i));
      expect(rows.every(({ sas, sealed, opened }) => sas > 0 && sealed > 0 && opened > 0)).toBe(
        true,
      );
      expect(rows.reduce((sum, row) => sum + row.sealed, 0)).toBe(packets['ESP sealed']);
    }
    // The other programs that count say the same.
    const esp = JSON.parse(
      hosts[0].tool(SETKEY.replace('setkey', 'testudo'), 'netstat -s --json -p esp').stdout,
    );
    expect(JSON.stringify(esp)).toContain(String(sealed));
  });

  test.each([
    [3, RAW],
    [3, UDP],
  ] as const)('%i of them, %o: new keys under load, without a loss', async (workers, way) => {
    await startBoth(workers, way);
    const load = [
      ...[1, 2, FLOWS + 1, FLOWS + 2].map((number) => tcp(number, 48 * MIB)),
      ...[3, 4, FLOWS + 3].map((number) => udp(number, 400)),
    ];
    let isBusy = true;
    const all = Promise.all(load).finally(() => {
      isBusy = false;
    });
    let generation = 0;
    while (isBusy) {
      // Nobody sends by an SA that its peer does not have.
      const [hostA, hostB] = hosts;
      hostB.setkey(addSas(way, generation + 1, [B.v4]));
      hostA.setkey(addSas(way, generation + 1));
      hostB.setkey(addSas(way, generation + 1, [A.v4]));
      for (const host of hosts) host.setkey(deleteSas(generation));
      generation++;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await all;
    expect(generation).toBeGreaterThanOrEqual(2);
    for (const host of hosts) {
      const { drops, sas } = await host.status();
      expect(drops).toEqual([]);
      expect(sas.mature).toBe(2 * NUMBERS.length);
    }
    await agree();
  });

  test('an SA that was deleted is used by nobody when its deletion is answered', async () => {
    await startBoth(3, RAW);
    const busy = [1, 2, 3, 4].map((number) => {
      const [from, to, address] = ends(number);
      return serve(lab, from, 'udp-flood', address, String(PORT + number), '300').then((one) => [
        one,
        to,
      ]);
    });
    await Promise.all(busy);
    const [out] = hosts;
    for (const number of [1, 2, 3, 4]) {
      const [there] = spis(number, 0);
      await expect.poll(() => sasOf(out).get(there)!.current.packets).toBeGreaterThan(20);
      out.setkey(deleteSas(0, [number]));
      const sealed = sasOf(hosts[1]).get(there)!.current.packets;
      await new Promise((resolve) => setTimeout(resolve, 100));
      // One that was on the wire may still have come.
      expect(sasOf(hosts[1]).get(there)!.current.packets - sealed).toBeLessThan(2);
    }
    const { drops } = await out.status();
    expect(drops.map(({ side, reason }) => `${side} ${reason}`)).toEqual(['out no-sa']);
  });

  test('after a crash no sequence number is used again, with another number of workers', async () => {
    await startBoth(3, RAW);
    const capture = await lab.capture(a!, 'w0');
    const rounds = [3, 2, 1, 3];
    for (const [i, workers] of rounds.entries()) {
      if (i > 0) hosts = [await start('a', workers, RAW), hosts[1]];
      for (const number of [1, 2, 3]) await udp(number, 5);
      if (i < rounds.length - 2) await hosts[0].kill();
      else expect(await hosts[0].stop()).toBe(0);
    }
    const sent = (await capture.stop()).packets.filter(({ src }) => src === A.v4);
    expect(sent.length).toBeGreaterThanOrEqual(3 * 5 * rounds.length);
    expect(new Set(sent.map(({ spi, seq }) => `${spi} ${seq}`)).size).toBe(sent.length);
    expect(new Set(sent.map(({ spi, iv }) => `${spi} ${iv}`)).size).toBe(sent.length);
    // An orderly end gives back what was not used.
    const ofFirst = sent.filter(({ spi }) => spi === spis(1, 0)[0]).map(({ seq }) => seq);
    const [beforeLast, last] = [ofFirst.at(-6)!, ofFirst.at(-5)!];
    expect(last - beforeLast).toBeLessThan(10);
  });

  test('a dump is whole while SAs come and go, and many of them', async () => {
    await startBoth(3, RAW);
    const lines = Array.from({ length: 3000 }, (_, i) => {
      const key = Buffer.alloc(20, `${i}`).toString('hex');
      return `add 10.8.0.1 10.8.0.2 esp ${0x20_0000 + i} -E aes-gcm-16 0x${key};`;
    });
    const load = tcp(1, 32 * MIB);
    const { status, stderr } = hosts[0].tool(SETKEY, '-c', lines.join('\n'));
    expect([status, stderr]).toEqual([0, '']);
    // One that is not there would be missing in the text, too.
    const count = () => Number(hosts[0].tool(SETKEY, '-D | grep -c "^10.*10"').stdout);
    expect(count()).toBe(3000 + 2 * NUMBERS.length);
    hosts[0].setkey('deleteall 10.8.0.1 10.8.0.2 esp;');
    expect(count()).toBe(2 * NUMBERS.length);
    await load;
    await agree();
  });

  test('a host that has lost its device ends as a whole, and nothing leaves in the clear', async () => {
    await startBoth(3, RAW);
    await tcp(1, MIB);
    const ended = once(hosts[0].child, 'exit');
    lab.sh(a!, 'ip link del testudo0');
    const [code, signal] = await ended;
    expect([code, signal]).not.toEqual([0, null]);
    const capture = await lab.capture(a!, 'w0');
    lab.try(a!, `for i in 1 2 3; do echo x > /dev/udp/${B.v4}/${PORT + 1}; done`);
    const { clear, packets } = await capture.stop();
    expect([clear, packets]).toEqual([[], []]);
  });

  test('a worker that fails ends the host, and what was protected stays blocked', async () => {
    const plant = join(lab.dir, 'plant.mjs');
    writeFileSync(
      plant,
      `import { isMainThread } from 'node:worker_threads';
       if (!isMainThread) setTimeout(() => { throw new Error('planted'); }, 2000);`,
    );
    const env = { NODE_OPTIONS: `--import ${plant}` };
    const config = `${addSas(RAW, 0)}\n${policies('a')}`;
    const host = await DaemonHost.start(lab, a!, config, ['--workers', '2'], env);
    const [code] = await once(host.child, 'close');
    expect(code).toBe(1);
    expect(host.stderr).toMatch(/worker 1 is gone: Error: planted/);
    const capture = await lab.capture(a!, 'w0');
    lab.try(a!, `echo x > /dev/udp/${B.v4}/${PORT + 1}`);
    expect(await capture.stop()).toMatchObject({ clear: [], packets: [] });
  });

  test('what looks at every packet needs one thread, and says so', async () => {
    const up = (args: string) =>
      lab.try(a!, `${process.execPath} ${SETKEY.replace('setkey', 'testudo')} up ${args}`);
    for (const args of ['--workers 2 --pcap /dev/null', '--workers 2 --trace any']) {
      const { status, stderr } = up(args);
      expect(status).toBe(1);
      expect(stderr).toMatch(/needs --workers 1/);
    }
    expect(up('--workers 0').status).not.toBe(0);
    const host = await start('a', 2, RAW);
    const trace = host.tool(SETKEY.replace('setkey', 'testudo'), 'trace any');
    expect(trace).toMatchObject({ status: 1, stderr: expect.stringMatching(/--workers 1/) });
  });
});
