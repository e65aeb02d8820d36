import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import { concat, counting, hex } from '../wire/octets.ts';
import { changes } from './counters.ts';
import { Network, type Wire } from './network.ts';
import type { Node } from './node.ts';
import { packetOf, TCP, tcpSegment } from './octets.ts';

/**
 * OpenBSD's regress/sys/netinet/ipsec: SRC, IPS with IPsec, the router RT and ECO, which answers.
 * The network of the addresses says how: transport mode to IPS, or a tunnel of either family to
 * IPS, to what is on IPS itself or behind it. Around each exchange the counters of `netstat -s` are
 * compared; there those of the protocol only, here every one of them.
 *
 * What is not here: IPIP, which is no SA of PF_KEY, and IPComp.
 */

type Family = 'IPV4' | 'IPV6';
type Sec = 'ESP' | 'AH';
/** As there: the host that answers, and how it is reached. */
type Target = 'SRC_TRANSP' | 'SRC_TUNNEL' | 'IPS_TRANSP' | `${'IPS' | 'ECO'}_TUNNEL${4 | 6}`;

const TARGETS = [
  ...['SRC_TRANSP', 'SRC_TUNNEL', 'IPS_TRANSP', 'IPS_TUNNEL4', 'IPS_TUNNEL6'],
  ...['ECO_TUNNEL4', 'ECO_TUNNEL6'],
] as Target[];
/** The last digits of the networks; AH has 20 more. */
const NETS: Readonly<Record<Target, Readonly<Record<Family, number>>>> = {
  SRC_TRANSP: { IPV4: 5, IPV6: 4 },
  SRC_TUNNEL: { IPV4: 8, IPV6: 8 },
  IPS_TRANSP: { IPV4: 5, IPV6: 5 },
  IPS_TUNNEL4: { IPV4: 12, IPV6: 0xc },
  IPS_TUNNEL6: { IPV4: 13, IPV6: 0xd },
  ECO_TUNNEL4: { IPV4: 14, IPV6: 0xe },
  ECO_TUNNEL6: { IPV4: 15, IPV6: 0xf },
};
const HOSTS = { SRC: 17, IPS: 70, RT: 71, ECO: 72 } as const;

function plain(host: keyof typeof HOSTS, net: number, family: Family): string {
  const two = net.toString().padStart(2, '0');
  return family === 'IPV4'
    ? `10.188.1${two}.${HOSTS[host]}`
    : `fdd7:e83e:66bc:1${two}::${HOSTS[host]}`;
}

function addressOf(target: Target, sec: Sec, family: Family): string {
  const host = target.slice(0, 3) as keyof typeof HOSTS;
  const net = NETS[target][family];
  const more = sec === 'AH' ? 2 : 0;
  return family === 'IPV4'
    ? plain(host, net + 10 * more, family)
    : `fdd7:e83e:66bc:1${more}${net.toString(16)}::${HOSTS[host]}`;
}

function networkOf(target: Target, sec: Sec, family: Family): string {
  return `${addressOf(target, sec, family)}/${family === 'IPV4' ? 24 : 64}`;
}

interface Machines {
  readonly src: Node;
  readonly ips: Node;
  readonly eco: Node;
  /** Between SRC and IPS. */
  readonly wire: Wire;
}

const made: Partial<Record<Sec, Machines>> = {};

/** The same for all rows, since only differences count; what came before is forgotten. */
function machines(sec: Sec): Machines {
  made[sec] ??= setUp(sec);
  const { src, ips, eco, wire } = made[sec];
  for (const node of [src, ips, eco]) node.received.length = 0;
  wire.take();
  return made[sec];
}

function setUp(sec: Sec): Machines {
  const network = new Network();
  const both = (host: keyof typeof HOSTS, net: number) =>
    (['IPV4', 'IPV6'] as const).map((family) => plain(host, net, family));
  const of = (host: string) =>
    TARGETS.filter((target) => target.startsWith(host)).flatMap((target) =>
      (['IPV4', 'IPV6'] as const).map((family) => addressOf(target, sec, family)),
    );
  const src = network.node([...both('SRC', 0), ...of('SRC')]);
  const ips = network.node([...both('IPS', 0), ...both('IPS', 1), ...of('IPS')], { mtu: 1400 });
  const rt = network.node([...both('RT', 1), ...both('RT', 2)]);
  const eco = network.node([...both('ECO', 2), ...of('ECO')]);
  const wire = network.wire(src, ips);
  network.wire(ips, rt, 1400);
  network.wire(rt, eco, 1300);
  src.configure(config(sec, 'out', 'in'));
  ips.configure(config(sec, 'in', 'out'));
  return { src, ips, eco, wire };
}

const KEY = '0123456789abcdef'.repeat(4);

/** As ipsec.conf there: SAs with fixed SPIs, and a flow each way of every network. */
function config(sec: Sec, there: 'in' | 'out', back: 'in' | 'out'): string {
  const protocol = sec.toLowerCase();
  const args =
    sec === 'ESP' ? `-E aes-cbc 0x${KEY} -A hmac-sha2-256 0x${KEY}` : `-A hmac-sha2-256 0x${KEY}`;
  const digit = sec === 'ESP' ? '0' : '2';
  const sas = (mode: 'transport' | 'tunnel', [a, b]: readonly string[], spi: string) => [
    `add ${a} ${b} ${protocol} 0x1000${digit}${spi}1 -m ${mode} ${args};`,
    `add ${b} ${a} ${protocol} 0x1000${digit}${spi}2 -m ${mode} ${args};`,
  ];
  const flow = (from: string, to: string, rule: string, turned: string) => [
    `spdadd ${from} ${to} any -P ${there} ipsec ${protocol}/${rule}/require;`,
    `spdadd ${to} ${from} any -P ${back} ipsec ${protocol}/${turned}/require;`,
  ];
  const lines = (['IPV4', 'IPV6'] as const).flatMap((family) => {
    const ends = [addressOf('SRC_TRANSP', sec, family), addressOf('IPS_TRANSP', sec, family)];
    const outer = [plain('SRC', 0, family), plain('IPS', 0, family)];
    const digits = family === 'IPV4' ? ['44', '84'] : ['46', '86'];
    const tunnels = TARGETS.filter(
      (target) => target.includes('_TUNNEL') && target !== 'SRC_TUNNEL',
    );
    return [
      ...sas('transport', ends, digits[0]!),
      ...sas('tunnel', outer, digits[1]!),
      ...flow(ends[0]!, ends[1]!, 'transport/', 'transport/'),
      ...tunnels.flatMap((target) => {
        const tunnelFamily = target.endsWith('4') ? 'IPV4' : 'IPV6';
        const [a, b] = [plain('SRC', 0, tunnelFamily), plain('IPS', 0, tunnelFamily)];
        const from = networkOf('SRC_TUNNEL', sec, family);
        const to = networkOf(target, sec, family);
        return flow(from, to, `tunnel/${a}-${b}`, `tunnel/${b}-${a}`);
      }),
    ];
  });
  return lines.join('\n');
}

const IP_LEN = { IPV4: 20, IPV6: 40 } as const;
const ALGORITHMS = { ESP: 'esphist.aes-cbc', AH: 'ahhist.hmac-sha256' } as const;

interface Row {
  readonly target: Target;
  readonly sec: Sec;
  readonly family: Family;
}

/**
 * What SRC counts when so many packets go to the target and come back, with so many octets in all
 * behind their IP headers.
 */
function expected({ target, sec, family }: Row, out: number, into: number, octets: Two): object {
  const [outOctets, inOctets] = octets;
  const ip = family === 'IPV4' ? 'ip' : 'ip6';
  const clear = { [`${ip}.localout`]: out, [`${ip}.delivered`]: into };
  if (target.startsWith('SRC')) return { ...clear, [`${ip}.total`]: into };
  const isTunnel = target.includes('TUNNEL');
  const outer = isTunnel ? (target.endsWith('4') ? 'IPV4' : 'IPV6') : family;
  const within = (count: number, upper: number) => upper + (isTunnel ? count * IP_LEN[family] : 0);
  const ipsec = outer === 'IPV4' ? 'ipsec' : 'ipsec6';
  const protocol = sec.toLowerCase();
  return {
    ...clear,
    [`${outer === 'IPV4' ? 'ip' : 'ip6'}.total`]: into,
    [`${ipsec}.out_success`]: out,
    [`${ipsec}.out_${ALGORITHMS[sec]}`]: out,
    [`${ipsec}.in_success`]: into,
    [`${ipsec}.in_authsucc`]: into,
    [`${ipsec}.in_${ALGORITHMS[sec]}`]: into,
    [`${protocol}.output`]: out,
    [`${protocol}.input`]: into,
    [`${protocol}.obytes`]: within(out, outOctets),
    [`${protocol}.ibytes`]: within(into, inOctets),
    [`${protocol}.hist.${sec === 'ESP' ? 'aes-cbc' : 'hmac-sha256'}`]: out,
  };
}

type Two = readonly [number, number];

/** The protocol's own counters of IPS, which opens what SRC seals. */
function mirrored({ sec, target }: Row, out: number, into: number): Record<string, number> {
  const name = sec.toLowerCase();
  if (target.startsWith('SRC')) return {};
  return { [`${name}.input`]: out, [`${name}.output`]: into };
}

function ofProtocol({ sec }: Row, all: Record<string, number>): Record<string, number> {
  const names = [`${sec.toLowerCase()}.input`, `${sec.toLowerCase()}.output`];
  return Object.fromEntries(Object.entries(all).filter(([name]) => names.includes(name)));
}

/** Runs an exchange, and compares the counters of both ends around it. */
function exchange(all: Machines, row: Row, counts: Two, octets: Two, act: () => void): void {
  let there: Record<string, number> = {};
  const here = changes(all.src, () => {
    there = changes(all.ips, act);
  });
  expect(here).toEqual(expected(row, ...counts, octets));
  expect(ofProtocol(row, there)).toEqual(mirrored(row, ...counts));
}

function endsOf({ target, sec, family }: Row): readonly [string, string] {
  const isTransport = target.endsWith('TRANSP');
  const source = isTransport ? 'SRC_TRANSP' : 'SRC_TUNNEL';
  return [addressOf(source, sec, family), addressOf(target, sec, family)];
}

function echo([from, to]: readonly [string, string], size: number): Uint8Array {
  const [protocol, type] = from.includes(':') ? [PROTO.ICMPV6, 128] : [PROTO.ICMP, 8];
  const head = Uint8Array.of(type, 0, 0, 0, 0, 77, 0, 1);
  return packetOf(from, to, protocol, concat(head, counting(size)));
}

const SECS = ['ESP', 'AH'] as const;
const FAMILIES = ['IPV4', 'IPV6'] as const;
const REMOTE = TARGETS.filter((target) => !target.startsWith('SRC'));

function rows(targets: readonly Target[]): Row[] {
  return SECS.flatMap((sec) =>
    targets.flatMap((target) => FAMILIES.map((family) => ({ target, sec, family }))),
  );
}

function titled(prefix: string, targets: readonly Target[]) {
  return rows(targets).map((row) => {
    const [host, mode] = row.target.split('_');
    return [`${prefix}-${host}_${row.sec}_${mode}_${row.family}`, row] as const;
  });
}

describe.each([
  ['small', 24],
  ['big', 1000],
] as const)('ping-%s', (len, size) => {
  test.each(titled(`ping-${len}`, TARGETS))('%s', (_, row) => {
    const all = machines(row.sec);
    const ends = endsOf(row);
    // An echo to oneself is a packet out and, with its answer, two in and another out.
    const counts = row.target.startsWith('SRC') ? ([2, 2] as const) : ([1, 1] as const);
    exchange(all, row, counts, [8 + size, 8 + size], () => all.src.send(echo(ends, size)));
    expect(all.src.received.at(-1)!.length).toBe(IP_LEN[row.family] + 8 + size);
  });
});

describe('udp', () => {
  test.each(titled('udp', REMOTE))('%s', (_, row) => {
    const all = machines(row.sec);
    const [from, to] = endsOf(row);
    const there = row.target.startsWith('ECO') ? all.eco : all.ips;
    const server = there.inet.openUdp(7, (data, source, port) => server.send(data, source, port), {
      local: address(to),
    });
    const got: string[] = [];
    const client = all.src.inet.openUdp(0, (data) => got.push(new TextDecoder().decode(data)), {
      local: address(from),
    });
    const text = '12345\n';
    exchange(all, row, [1, 1], [8 + text.length, 8 + text.length], () => {
      client.send(new TextEncoder().encode(text), address(to), 7);
    });
    expect(got).toEqual([text]);
    for (const socket of [client, server]) socket.close();
  });
});

describe('tcp', () => {
  test.each(titled('tcp', REMOTE))('%s', (_, row) => {
    const all = machines(row.sec);
    const [from, to] = endsOf(row);
    const there = row.target.startsWith('ECO') ? all.eco : all.ips;
    const data = new TextEncoder().encode('12345\n');
    const ask = { from, to, sport: 4000, dport: 7 };
    const answer = { from: to, to: from, sport: 7, dport: 4000 };
    const { SYN, ACK, FIN, PSH } = TCP;
    const none = new Uint8Array(0);
    const out = (flags: number, seq: number, ack: number, sent = none) =>
      all.src.send(tcpSegment({ ...ask, flags, seq, ack, data: sent }));
    const back = (flags: number, seq: number, ack: number, sent = none) =>
      there.send(tcpSegment({ ...answer, flags, seq, ack, data: sent }));
    // As nc and an echo server do it: six segments there, four back.
    exchange(all, row, [6, 4], [6 * 20 + data.length, 4 * 20 + data.length], () => {
      out(SYN, 100, 0);
      back(SYN | ACK, 500, 101);
      out(ACK, 101, 501);
      out(PSH | ACK, 101, 501, data);
      out(FIN | ACK, 107, 501);
      back(PSH | ACK, 501, 107, data);
      out(ACK, 108, 507);
      back(ACK, 507, 108);
      back(FIN | ACK, 507, 108);
      out(ACK, 108, 508);
    });
    expect([there.received.length, all.src.received.length]).toEqual([6, 4]);
  });
});

describe('what is larger than the links', () => {
  const large = titled('ping-3000', REMOTE).filter(
    ([, { target, family }]) => family === 'IPV4' && target.startsWith('IPS'),
  );
  test.each(large)('%s: sealed and opened as one, cut and put together around that', (_, row) => {
    const all = machines(row.sec);
    const size = 3000;
    const found = changes(all.src, () => all.src.send(echo(endsOf(row), size)));
    const outer = row.target.endsWith('6') ? 'ip6' : 'ip';
    const usual = expected(row, 1, 1, [8 + size, 8 + size]);
    expect(found).toEqual({
      ...usual,
      [`${outer}.total`]: 3,
      [`${outer}.fragmented`]: 1,
      [`${outer}.ofragments`]: 3,
      [`${outer}.reassembled`]: 1,
      [`${outer}.fragments`]: 3,
    });
    expect(all.wire.take().length).toBe(6);
    expect(all.src.received.map((p) => p.length)).toEqual([20 + 8 + size]);
  });
});

describe('nonxt: IPv6 whose next header is 59', () => {
  const NOTHING = hex('deadbeefdeadbeef');

  test.each(titled('nonxt', REMOTE).filter(([, { family }]) => family === 'IPV6'))(
    '%s',
    (_, row) => {
      const all = machines(row.sec);
      const [from, to] = endsOf(row);
      const there = row.target.startsWith('ECO') ? all.eco : all.ips;
      const sent = packetOf(from, to, PROTO.NONE, NOTHING);
      const name = row.sec.toLowerCase();
      const found = changes(all.ips, () => all.src.send(sent));
      expect(found).toMatchObject({ [`${name}.input`]: 1 });
      // Directly in ESP that is a dummy, which the receiver throws away (RFC 4303 §2.6).
      const isDummy = row.sec === 'ESP' && row.target === 'IPS_TRANSP';
      expect(found['esp.dummy']).toBe(isDummy ? 1 : undefined);
      expect(there.received.map((p) => p.slice(40))).toEqual(isDummy ? [] : [NOTHING]);
    },
  );
});
