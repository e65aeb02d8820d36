import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { occurrences, type Wire } from './capture.ts';
import { whyNoExec } from './exec-host.ts';
import { IkedHost, type IkedOptions, makeCertificates, type Place } from './iked.ts';
import { announceSkip, Lab, whyNoHosts } from './namespaces.ts';
import { MARKER, nextLine, PATTERN, serve, tcp, udp } from './programs.ts';

/** Debian's OpenIKED, unmodified, negotiates keys for our hosts. */

const skipped = announceSkip('openiked.test.ts', whyNoHosts('iked', 'openssl') ?? whyNoExec());

const A: Place = { wire: '10.97.0.1', net: '10.98.1.0/24', inner: '10.98.1.1', id: 'a.example' };
const B: Place = { wire: '10.97.0.2', net: '10.98.2.0/24', inner: '10.98.2.1', id: 'b.example' };

const A6: Place = { wire: 'fd97::1', net: 'fd98:1::/64', inner: 'fd98:1::1', id: 'a.example' };
const B6: Place = { wire: 'fd97::2', net: 'fd98:2::/64', inner: 'fd98:2::1', id: 'b.example' };

/**
 * A stream that waits for nobody, below what the hosts carry also when the machine has other work,
 * until so many datagrams were sent and so many SPIs of both directions were seen. TESTUDO_LONG=1
 * in the environment: 100,000 datagrams and 20 times new keys, which takes minutes.
 */
const LOAD = {
  perSecond: 2000,
  ...(process.env.TESTUDO_LONG === '1' ? { sent: 100_000, keys: 42 } : { sent: 10_000, keys: 6 }),
};

describe.skipIf(skipped)('OpenIKED', () => {
  let lab: Lab;
  let spaces: [string, string];
  let ends: IkedHost[];

  beforeEach(() => {
    lab = new Lab();
    spaces = [lab.space('a'), lab.space('b')];
    const [a, b] = spaces;
    lab.wire(
      { space: a, device: 'w0', addresses: [`${A.wire}/24`, `${A6.wire}/64`] },
      { space: b, device: 'w0', addresses: [`${B.wire}/24`, `${B6.wire}/64`] },
    );
    lab.sh(a, `ip addr add ${A.inner}/32 dev lo; ip addr add ${A6.inner}/128 dev lo`);
    lab.sh(b, `ip addr add ${B.inner}/32 dev lo; ip addr add ${B6.inner}/128 dev lo`);
    // So that no test begins with a search for the neighbour.
    lab.ping(a, B.wire);
    lab.ping(a, B6.wire);
    ends = [];
  });
  afterEach(async () => {
    // Killed with the lab, the command could not take its program along.
    await Promise.all(ends.map((end) => end.stop()));
    lab.close();
  });

  async function hosts(config = ''): Promise<[IkedHost, IkedHost]> {
    const both = await Promise.all([
      IkedHost.start(lab, spaces[0], config),
      IkedHost.start(lab, spaces[1]),
    ]);
    ends.push(...both);
    return both;
  }

  /** A initiates, B waits. */
  async function run(
    [a, b]: readonly [IkedHost, IkedHost],
    options: Partial<IkedOptions> = {},
    etc = new Map<string, string>(),
    places = [A, B],
  ): Promise<void> {
    const [mine, peer] = places as [Place, Place];
    const of = (id: string, mode: 'active' | 'passive'): IkedOptions => {
      const folder = etc.get(id);
      return { mode, ...options, ...(folder === undefined ? {} : { etc: folder }) };
    };
    await b.run(peer, mine, { ...of(peer.id, 'passive'), mode: 'passive' });
    await a.run(mine, peer, of(mine.id, 'active'));
  }

  const ping = (size = 56, to = B) =>
    lab.ping(spaces[0], to.inner, { size, pattern: PATTERN, count: 3 });

  /** Nothing but IKE and ESP between the two, and nothing readable in it. */
  function expectProtected(wire: Wire, kind: 'esp' | 'udp', [a, b] = [A, B]): void {
    const ike = [`${a!.wire} > ${b!.wire} protocol 17`, `${b!.wire} > ${a!.wire} protocol 17`];
    expect(wire.clear.filter((line) => !ike.includes(line))).toEqual([]);
    expect(occurrences(wire, MARKER)).toBe(0);
    const esp = wire.packets.filter(({ spi }) => spi !== 0);
    expect(new Set(esp.map((packet) => packet.kind))).toEqual(new Set([kind]));
    expect(new Set(esp.map(({ src }) => src))).toEqual(new Set([a!.wire, b!.wire]));
  }

  async function expectTraffic(kind: 'esp' | 'udp', [a, b] = [A, B]): Promise<void> {
    const capture = await lab.capture(spaces[0], 'w0');
    expect(ping(56, b)).toBe(3);
    expect(ping(4000, b)).toBe(3);
    const { sent, received } = await tcp(lab, spaces[0], spaces[1], b!.inner, 1 << 20);
    expect(received).toBe(sent);
    const back = await udp(lab, spaces[1], spaces[0], a!.inner, 200, [20, 1000, 3000]);
    expect(back).toMatchObject({ sent: 200, lost: 0, received: 200, wrong: 0 });
    expectProtected(await capture.stop(), kind, [a!, b!]);
  }

  test('with a shared key: ping, TCP and UDP, protected; ended in order', async () => {
    const [a, b] = await hosts();
    await run([a, b]);
    await Promise.all([a.hasSas(2), b.hasSas(2), a.hasPolicies(3), b.hasPolicies(3)]);
    await expectTraffic('esp');
    for (const end of [a, b]) {
      expect((await end.host.status()).drops).toEqual([]);
      expect(end.log).not.toMatch(/pfkey.*(fail|no reply|error)/i);
    }
    // It takes down what it has made, and when it is told to, so does its peer.
    a.control(`reset id FQDN/${B.id}`);
    await Promise.all([a.hasSas(0), b.hasSas(0), a.hasPolicies(0), b.hasPolicies(0)]);
    await b.stop();
    await a.stop();
    await run([a, b]);
    await Promise.all([a.hasSas(2), b.hasSas(2)]);
    expect(await a.stop()).toBe(0);
    await Promise.all([a.hasSas(0), a.hasPolicies(0)]);
  });

  test('with certificates', async () => {
    const etc = makeCertificates(lab.dir, [A.id, B.id]);
    const both = await hosts();
    await run(both, { auth: '' }, etc);
    await Promise.all(both.map((end) => end.hasSas(2)));
    await expectTraffic('esp');
    expect(both[0].log).not.toContain('psk');
  });

  test('with NAT traversal forced: IKE and ESP share port 4500', async () => {
    const both = await hosts();
    await run(both, { args: ['-t'] });
    await Promise.all(both.map((end) => end.hasSas(2)));
    await expectTraffic('udp');
    // IKE still gets through, on the same port, in both directions.
    both[1].control(`reset id FQDN/${A.id}`);
    await Promise.all(both.map((end) => end.hasSas(0)));
  });

  test.each([
    ['ESP', 'esp', []],
    ['ESP in UDP', 'udp', ['-t']],
  ] as const)('over IPv6: %s', async (_name, kind, args) => {
    const both = await hosts();
    await run(both, { args }, undefined, [A6, B6]);
    await Promise.all(both.map((end) => end.hasSas(2)));
    await expectTraffic(kind, [A6, B6]);
    both[1].control(`reset id FQDN/${A.id}`);
    await Promise.all(both.map((end) => end.hasSas(0)));
  });

  test('in transport mode between the hosts: what IKE says is left alone', async () => {
    const both = await hosts();
    await run(both, { encapsulation: 'transport', between: 'hosts' });
    await Promise.all(both.map((end) => end.hasSas(2)));
    const capture = await lab.capture(spaces[0], 'w0');
    expect(lab.ping(spaces[0], B.wire, { count: 3, pattern: PATTERN })).toBe(3);
    // What IKE says now, the policies would catch.
    both[0].control(`reset id FQDN/${B.id}`);
    await Promise.all(both.map((end) => end.hasSas(0)));
    expectProtected(await capture.stop(), 'esp');
    for (const { host } of both) {
      // Nor does it come to the host at all: the daemon's sockets are marked.
      expect(await host.count('sent in the clear')).toBe(0);
      expect((await host.status()).drops).toEqual([]);
    }
  });

  test('a packet asks for the SAs that it needs', async () => {
    const request = `esp/tunnel/${A.wire}-${B.wire}/require`;
    const both = await hosts(`spdadd ${A.net} ${B.net} any -P out ipsec ${request};\n`);
    await run(both, { mode: 'passive' });
    const capture = await lab.capture(spaces[0], 'w0');
    expect((await both[0].host.status()).sas.mature).toBe(0);
    lab.ping(spaces[0], B.inner, { pattern: PATTERN, count: 1 });
    await Promise.all(both.map((end) => end.hasSas(2)));
    expect(ping()).toBe(3);
    expect(await both[0].host.count('acquires')).toBeGreaterThan(0);
    expectProtected(await capture.stop(), 'esp');
  });

  test('new keys under a stream of datagrams: every one arrives', async () => {
    const both = await hosts();
    // Only one side has a short lifetime: when both begin at once, one exchange loses, and with it
    // what OpenIKED has sent under its keys by then (RFC 7296 §2.8.1).
    await both[1].run(B, A, { mode: 'passive' });
    await both[0].run(A, B, { mode: 'active', lifetime: 'lifetime 4' });
    await Promise.all(both.map((end) => end.hasSas(2)));
    const capture = await lab.capture(spaces[0], 'w0');
    const keys = new Set<string>();
    const sink = await serve(lab, spaces[1], 'stream-sink', '5003');
    const args = [B.inner, '5003', String(LOAD.perSecond), '400'];
    const source = await serve(lab, spaces[0], 'stream-source', ...args);
    for (let sent = 0; keys.size < LOAD.keys || sent < LOAD.sent; ) {
      await sleep(500);
      // Larval SAs have no mode yet.
      const dump = both[0].host.setkey('dump;');
      for (const [spi] of dump.matchAll(/mode=tunnel spi=\d+/g)) keys.add(spi);
      sent = await both[0].host.count('sent protected');
    }
    const counted = nextLine(sink);
    // The command became the program itself.
    source.child.kill('SIGTERM');
    const result = await counted;
    const drops = await Promise.all(both.map(async ({ host }) => (await host.status()).drops));
    expect({ ...result, drops }).toEqual({
      sent: result.sent,
      received: result.sent,
      wrong: 0,
      twice: 0,
      drops: [[], []],
    });
    expect(result.sent).toBeGreaterThanOrEqual(LOAD.sent);
    const wire = await capture.stop();
    expectProtected(wire, 'esp');
    const spis = new Set(wire.packets.filter(({ src }) => src === A.wire).map(({ spi }) => spi));
    expect(spis.size).toBeGreaterThanOrEqual(LOAD.keys / 2);
  });

  test('a daemon that was killed starts again', async () => {
    const both = await hosts();
    await run(both);
    await Promise.all(both.map((end) => end.hasSas(2)));
    const before = both[0].host.setkey('dump;').match(/spi=\d+/g);
    await both[0].crash();
    // Its SAs go on: the host does not depend on the daemon.
    expect(ping()).toBe(3);
    await both[0].run(A, B, { mode: 'active' });
    await both[0].logs('-> ESTABLISHED');
    await both[0].hasSas(2);
    expect(ping()).toBe(3);
    expect(both[0].host.setkey('dump;').match(/spi=\d+/g)).not.toEqual(before);
  });

  test('a host that was killed lets nothing out, and starts again', async () => {
    const both = await hosts();
    await run(both);
    await Promise.all(both.map((end) => end.hasSas(2)));
    await both[0].host.kill();
    expect(await both[0].ended()).toBe(1);
    expect(both[0].log).toContain('the host has gone away');
    const capture = await lab.capture(spaces[0], 'w0');
    expect(ping()).toBe(0);
    const again = await IkedHost.start(lab, spaces[0]);
    ends[0] = again;
    await again.run(A, B, { mode: 'active' });
    await again.hasSas(2);
    expect(ping()).toBe(3);
    expectProtected(await capture.stop(), 'esp');
  });

  test('the example runs, and leaves nothing behind', () => {
    const script = fileURLToPath(new URL('../../examples/openiked/run.sh', import.meta.url));
    const { stdout, stderr, status } = spawnSync(script, { encoding: 'utf8' });
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toContain('3 received');
    expect(stdout.match(/state=mature/g)).toHaveLength(2);
    const spaces = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout;
    expect(spaces).not.toMatch(/testudo-\d+-(left|right)/);
  });
});
