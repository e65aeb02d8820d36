import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { announceSkip, Lab, whyNoHosts } from './namespaces.ts';
import { tcp, udp } from './programs.ts';

/**
 * TUN devices and sockets exchange large packets with the kernel: what programs send arrives octet
 * for octet, whatever each side can do.
 */
const RELAY = fileURLToPath(new URL('../../dist/test/hosts/relay-host.js', import.meta.url));
const MIB = 1 << 20;
const WIRE = { 4: ['10.9.0.1', '10.9.0.2'], 6: ['fd09::1', 'fd09::2'] } as const;
const INNER = { 4: '10.8.0.2', 6: 'fd08::2' } as const;

interface Seen {
  readonly packets: number;
  readonly batches: number;
  readonly follows: number;
  readonly received: number;
  readonly receivedBatches: number;
  readonly perQueue: readonly number[];
  readonly refused: readonly unknown[];
}

interface RelayOptions {
  readonly offload: 'auto' | 'off';
  readonly mtu?: number;
  readonly queues?: number;
}

describe.skipIf(announceSkip('offload.test.ts', whyNoHosts('python3')))('large packets', () => {
  let lab: Lab;
  let a: string;
  let b: string;

  beforeEach(() => {
    lab = new Lab('testudo-io');
    [a, b] = [lab.space('a'), lab.space('b')];
    lab.wire(
      { space: a, device: 'w', addresses: ['10.9.0.1/24', 'fd09::1/64'] },
      { space: b, device: 'w', addresses: ['10.9.0.2/24', 'fd09::2/64'] },
    );
  });

  afterEach(() => lab.close());

  /** Relays at both ends; ends them for what they have seen. */
  async function relays(wire: 4 | 6, atA: RelayOptions, atB = atA): Promise<() => Promise<Seen[]>> {
    const [here, there] = WIRE[wire];
    const both = [
      await start(lab, a, { mtu: 1400, ...atA, local: here, peer: there }, 1),
      await start(lab, b, { mtu: 1400, ...atB, local: there, peer: here }, 2),
    ];
    return () => Promise.all(both.map(end));
  }

  const auto = { offload: 'auto' } as const;
  const off = { offload: 'off' } as const;

  test.each([
    ['IPv4 over IPv4, large packets in the wire', 4, 4, auto, auto, true],
    ['IPv6 over IPv6, large packets in the wire', 6, 6, auto, auto, true],
    ['IPv6 over IPv4, single packets in the wire', 4, 6, auto, auto, false],
    ['IPv4 over IPv6, single packets in the wire', 6, 4, auto, auto, false],
    ['to a peer without', 4, 4, auto, off, true],
    ['from a peer without', 4, 4, off, auto, true],
  ] as const)('TCP: %s', async (_, wire, inner, atA, atB, isLarge) => {
    if (isLarge) for (const space of [a, b]) lab.sh(space, 'ip link set w gso_max_segs 65535');
    const stop = await relays(wire, atA, atB);
    const moved = await tcp(lab, a, b, INNER[inner], 8 * MIB);
    expect(moved).toMatchObject({ octets: 8 * MIB, received: moved.sent });
    const [sender, receiver] = (await stop()) as [Seen, Seen];
    expect([...sender.refused, ...receiver.refused]).toEqual([]);
    // Where the kernel hands over large packets, most segments are like the one before them.
    if (atA === auto) expect(sender.follows).toBeGreaterThan(sender.packets / 2);
    else expect(sender.follows).toBe(0);
    const together = receiver.received / receiver.receivedBatches;
    if (atA === auto && atB === auto && isLarge) expect(together).toBeGreaterThan(8);
  });

  test.each([
    ['as one message over UDP', 0, 44],
    ['as long as they are, where they may be forwarded', 1, 65535],
  ])('of sockets fit %s', async (_, forwards, segments) => {
    lab.sh(a, `sysctl -qw net.ipv4.ip_forward=${forwards}`);
    const stop = await relays(4, auto);
    const [device] = JSON.parse(lab.sh(a, 'ip -d -j link show type tun')) as {
      gso_max_segs: number;
    }[];
    expect(device!.gso_max_segs).toBe(segments);
    await stop();
  });

  test('segments of jumbo frames', async () => {
    for (const space of [a, b]) lab.sh(space, 'ip link set w mtu 9000 gso_max_segs 65535');
    const stop = await relays(4, { ...auto, mtu: 8900 });
    const moved = await tcp(lab, a, b, INNER[4], 8 * MIB);
    expect(moved).toMatchObject({ octets: 8 * MIB, received: moved.sent });
    const [sender] = await stop();
    expect(sender!.follows).toBeGreaterThan(sender!.packets / 2);
    expect(sender!.refused).toEqual([]);
  });

  test('datagrams of all sizes, also such that come in fragments', async () => {
    const stop = await relays(4, auto);
    const sizes = [64, 1200, 1372, 8000, 40_000];
    expect(await udp(lab, a, b, INNER[4], 50, sizes)).toMatchObject({ received: 50, wrong: 0 });
    expect(await udp(lab, b, a, '10.8.0.1', 50, sizes)).toMatchObject({ received: 50, wrong: 0 });
    expect((await stop()).flatMap(({ refused }) => refused)).toEqual([]);
  });

  test.each([
    [4, '0.0.0.0'],
    [6, '::'],
  ] as const)('a program that sends datagrams in rows, IPv%i', async (inner, any) => {
    const stop = await relays(4, auto);
    const family = inner === 4 ? 'AF_INET' : 'AF_INET6';
    const server = lab.spawn(b, 'python3', ['-c', ROW_SINK, family, any]);
    const lines = createInterface({ input: server.stdout! })[Symbol.asyncIterator]();
    expect((await lines.next()).value).toBe('ready');
    lab.sh(a, `python3 -c '${ROW_SOURCE}' ${family} ${INNER[inner]}`);
    const lens = ROWS.flatMap(([segment, count, rest]) => [...Array(count).fill(segment), rest]);
    expect((await lines.next()).value).toBe(JSON.stringify(lens));
    expect((await lines.next()).value).toBe('right');
    await stop();
  });

  test('a device with several queues spreads flows over them', async () => {
    const stop = await relays(4, { ...auto, queues: 2 });
    for (let flow = 0; flow < 24; flow++) {
      expect(lab.try(a, `echo ${flow} > /dev/udp/10.8.0.2/${6000 + flow}`).status).toBe(0);
    }
    const moved = await tcp(lab, a, b, INNER[4], MIB);
    expect(moved).toMatchObject({ octets: MIB, received: moved.sent });
    const [sender] = await stop();
    expect(sender!.perQueue.every((packets) => packets > 0)).toBe(true);
  });
});

async function start(
  lab: Lab,
  space: string,
  options: object,
  number: 1 | 2,
): Promise<ChildProcess> {
  const all = JSON.stringify({ tun: 'relay', ...options });
  const child = lab.spawn(space, process.execPath, [RELAY, all]);
  let errors = '';
  child.stderr!.on('data', (text) => {
    errors += text;
  });
  await Promise.race([once(child.stdout!, 'data'), once(child, 'close')]);
  if (child.exitCode !== null) throw new Error(`relay: ${errors}`);
  lab.sh(space, `ip addr add 10.8.0.${number}/24 dev relay`);
  lab.sh(space, `ip addr add fd08::${number}/64 dev relay nodad`);
  return child;
}

async function end(child: ChildProcess): Promise<Seen> {
  let text = '';
  child.stdout!.on('data', (chunk) => {
    text += chunk;
  });
  child.stdin!.end();
  await once(child, 'close');
  return JSON.parse(text) as Seen;
}

/** Prints the lengths of what comes until a second is quiet, and whether the octets are right. */
/**
 * Octets of each datagram of a row but the last, how many those are, and what is left: rows like
 * the one before, which are read as that was, and others.
 */
const ROWS = [
  [1000, 30, 77],
  [1000, 40, 1],
  [1000, 3, 999],
  [1300, 20, 5],
  [1300, 45, 1299],
  [200, 60, 1],
  [1300, 2, 700],
  [1350, 46, 100],
] as const;
const ROWS_LEN = ROWS.reduce((sum, [segment, count, rest]) => sum + segment * count + rest, 0);

const ROW_SINK = `
import json, socket, sys
s = socket.socket(getattr(socket, sys.argv[1]), socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
s.bind((sys.argv[2], 5003))
print("ready", flush=True)
s.settimeout(20)
got = [s.recv(65535)]
s.settimeout(1)
try:
    while True: got.append(s.recv(65535))
except TimeoutError: pass
print(json.dumps([len(one) for one in got], separators=(",", ":")), flush=True)
octets = bytes(i * 7 % 251 for i in range(${ROWS_LEN}))
print("right" if b"".join(got) == octets else "wrong", flush=True)
`;
/** One call for each row: UDP_SEGMENT (103) of SOL_UDP (17). */
const ROW_SOURCE = `
import socket, sys
s = socket.socket(getattr(socket, sys.argv[1]), socket.SOCK_DGRAM)
octets, at = bytes(i * 7 % 251 for i in range(${ROWS_LEN})), 0
for segment, count, rest in ${JSON.stringify(ROWS)}:
    s.setsockopt(17, 103, segment)
    s.sendto(octets[at:at + segment * count + rest], (sys.argv[2], 5003))
    at += segment * count + rest
`;
