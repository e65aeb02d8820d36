import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type ExplainCliOptions, explain } from '../../src/cli/explain.ts';
import { buildPacket, readHex } from '../../src/cli/packet-spec.ts';
import { request } from '../../src/daemon/control-client.ts';
import { ControlServer } from '../../src/daemon/control-server.ts';
import { addExplainCommand } from '../../src/daemon/explain-command.ts';
import { controlPath } from '../../src/daemon/paths.ts';
import {
  addTraceCommand,
  parseFilter,
  startTrace,
  traceText,
} from '../../src/daemon/trace-command.ts';
import type { Explanation } from '../../src/engine/explanation.ts';
import type { TraceLine } from '../../src/engine/tracer.ts';
import { toHex, viewOf } from '../../src/wire/bytes.ts';
import { transportChecksumOk } from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import { dissect, hexDump } from '../../src/wire/dissect.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { pcapHeader, pcapRecord } from '../../src/wire/pcap.ts';
import { MemoryDaemon } from '../daemon/memory-daemon.ts';
import { request as ask, policy, sa } from '../engine/rig.ts';
import { concat } from '../wire/octets.ts';

const A = '10.0.0.1';
const B = '10.0.0.2';
const ALL = '0.0.0.0/0';
const SPEC = { protocol: 'tcp', src: `${A}:1234`, dst: `${B}:80`, df: false };

let folder: string;
let socket: string;
let host: MemoryDaemon;
let control: ControlServer;
let options: ExplainCliOptions;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'testudo-'));
  socket = join(folder, 'pfkey');
  host = new MemoryDaemon();
  control = new ControlServer(() => undefined);
  addExplainCommand(control, host.daemon);
  addTraceCommand(control, host.daemon);
  await control.listen(controlPath(socket));
  host.daemon.sad.add(sa({ spi: 0x1001, src: A, dst: B }), 'mature');
  host.daemon.spd.add(policy('out', ALL, ALL, { protocol: 6, requests: [ask({})] }));
  host.daemon.spd.add(policy('in', ALL, ALL, { protocol: 6, requests: [ask({})] }));
  options = { socket, sysctl: [] };
});

afterEach(async () => {
  await control.close();
  host.close();
  rmSync(folder, { recursive: true });
});

async function asJson(
  words: readonly string[],
  more: Partial<ExplainCliOptions>,
): Promise<Explanation & { number?: number }> {
  return JSON.parse(await explain(words, { ...options, ...more, json: true }));
}

describe('packets from words', () => {
  test.each([
    [SPEC, 'IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [S], seq 0, win 0, length 0'],
    [{ ...SPEC, protocol: '17', size: 100 }, 'IP 10.0.0.1.1234 > 10.0.0.2.80: UDP, length 72'],
    [
      { ...SPEC, protocol: 'icmp' },
      'IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 0, seq 0, length 8',
    ],
    [
      { protocol: 'icmp', src: '2001:db8::1', dst: '[2001:db8::2]', df: false },
      'IP6 2001:db8::1 > 2001:db8::2: ICMP6 echo request, id 0, seq 0, length 8',
    ],
    [
      { protocol: 'udp', src: '[2001:db8::1]:53', dst: '2001:db8::2[99]', df: false },
      'IP6 2001:db8::1.53 > 2001:db8::2.99: UDP, length 0',
    ],
    [{ ...SPEC, protocol: 'gre' }, 'IP 10.0.0.1 > 10.0.0.2: GRE, length 0'],
  ])('%j', (spec, text) => {
    const p = buildPacket(spec);
    expect(dissect(p)).toBe(text);
    const cursor = new Cursor();
    expect(decode(p, 0, p.length, cursor)).toBeUndefined();
    if (cursor.family === 4) expect(ipv4.checksumOk(viewOf(p), 0)).toBe(true);
    if (spec.protocol !== 'gre') expect(transportChecksumOk(p, cursor)).toBe(true);
  });

  test('size and DF', () => {
    const p = buildPacket({ ...SPEC, size: 1500, df: true });
    expect([p.length, ipv4.dontFragment(p, 0)]).toEqual([1500, true]);
  });

  test.each([
    [{ ...SPEC, protocol: 'nonsense' }, /not an upper protocol/],
    [{ ...SPEC, src: '10.0.0.0/8' }, /not a network/],
    [{ ...SPEC, src: 'any' }, /not a network/],
    [{ ...SPEC, src: '2001:db8::1' }, /different families/],
    [{ ...SPEC, src: '10.0.0.1:99999' }, /expected any, an address/],
    [{ ...SPEC, size: 30 }, /from 40 to 65535 octets/],
    [{ ...SPEC, src: '::1', dst: '::1', df: true }, /IPv6 has no DF/],
  ])('%j is refused', (spec, why) => {
    expect(() => buildPacket(spec)).toThrow(why);
  });
});

test('packets from hexadecimal, as several programs write it', () => {
  const p = buildPacket(SPEC);
  const rows = (width: number) => toHex(p).match(new RegExp(`.{1,${2 * width}}`, 'g'))!;
  const offset = (i: number, digits: number) => (16 * i).toString(16).padStart(digits, '0');
  const octets = (row: string) => row.match(/../g)!.join(' ');
  const forms = [
    toHex(p),
    `0x${toHex(p)}\n`,
    rows(16).join('\n'),
    octets(toHex(p)),
    hexDump(p),
    // xxd
    rows(16)
      .map((row, i) => `${offset(i, 8)}: ${row.replace(/(.{4})/g, '$1 ')} ....ab`)
      .join('\n'),
    // hexdump -C
    [...rows(16).map((row, i) => `${offset(i, 8)}  ${octets(row)}  |....ab|`), '00000028'].join(
      '\n',
    ),
  ];
  for (const form of forms) expect(toHex(readHex(form))).toBe(toHex(p));
  for (const bad of ['', 'xyz', '450', '45 0g']) expect(() => readHex(bad)).toThrow(/hexadecimal/);
});

describe('a running host', () => {
  test('is asked about a packet, and stays as it is', async () => {
    const one = await asJson(['tcp', `${A}:1234`, `${B}:80`], {});
    expect(one).toMatchObject({ side: 'out', outcome: { kind: 'protected' } });
    expect(one.requests[0]!.sa!.spi).toBe(0x1001);
    expect([...host.daemon.sad.all()][0]!.sentSeq).toBe(0);
    expect(host.sent).toEqual([]);
    const text = await explain(['tcp', `${A}:1234`, `${B}:80`], options);
    expect(text).toMatch(/^going out .*\npolicy .*\nrequest 1 .*\n.* yes esp SPI 0x00001001/);
    expect(text).toMatch(/result {6}SENT PROTECTED\n/);
  });

  test('about one from the wire', async () => {
    const one = await asJson(['tcp', A, B], { in: true });
    expect(one.outcome).toMatchObject({ kind: 'dropped', reason: 'policy-clear' });
  });

  test('about a long one', async () => {
    const { size, outcome } = await asJson(['tcp', A, B], { size: 60_000 });
    expect(size).toMatchObject({ before: 60_000, verdict: 'fragments' });
    expect(outcome).toMatchObject({ kind: 'protected' });
  });

  test('about one in hexadecimal: what is IPsec comes in', async () => {
    const [wire] = host.output(buildPacket(SPEC));
    const file = join(folder, 'packet.hex');
    writeFileSync(file, hexDump(wire!));
    const one = await asJson([], { hex: file });
    expect(one).toMatchObject({ side: 'in', outcome: { kind: 'delivered' } });
    expect(one.inner!.text).toMatch(/10\.0\.0\.1\.1234 > 10\.0\.0\.2\.80: Flags/);
  });

  test('about those of a capture, which are one sequence', async () => {
    const [wire] = host.output(buildPacket(SPEC));
    const clear = buildPacket({ ...SPEC, protocol: 'udp' });
    const records = [wire!, clear, wire!].map((p) => pcapRecord(p, 0, p.length, 0));
    const file = join(folder, 'wire.pcap');
    writeFileSync(file, concat(pcapHeader(), ...records));
    const all = (await asJson([], { pcap: file })) as unknown as (Explanation & {
      number: number;
    })[];
    expect(all.map(({ number, outcome }) => [number, outcome.kind])).toEqual([
      [1, 'delivered'],
      [2, 'clear'],
      [3, 'dropped'],
    ]);
    const text = await explain([], { ...options, pcap: file, number: 3, freshWindows: true });
    expect(text).toMatch(/^packet 3\ncoming in .*DELIVERED/s);
    await expect(explain([], { ...options, pcap: file, number: 9 })).rejects.toThrow(
      /no IP packet 9/,
    );
  });

  test('more packets than one line holds', async () => {
    const packets = Array.from({ length: 150 }, (_, i) => buildPacket({ ...SPEC, size: 500 + i }));
    const file = join(folder, 'wire.pcap');
    const records = packets.map((p) => pcapRecord(p, 0, p.length, 0));
    writeFileSync(file, concat(pcapHeader(), ...records));
    const all = (await asJson([], { pcap: file })) as unknown as Explanation[];
    expect(all.map(({ packet }) => packet.len)).toEqual(packets.map(({ length }) => length));
  });

  test('says what is wrong about a question', async () => {
    const path = controlPath(socket);
    const refused = (args: Record<string, unknown>) => request(path, 'explain', args);
    await expect(refused({ packets: [], side: 'up' })).rejects.toThrow(/"side" must be/);
    await expect(refused({ packets: 'x' })).rejects.toThrow(/"packets" must be a list/);
    await expect(refused({ packets: [['x', 'y']] })).rejects.toThrow(/each of "packets"/);
    await expect(refused({ packets: [[70_000, '']] })).rejects.toThrow(/at most 65575/);
    await expect(explain([], options)).rejects.toThrow(/give a packet/);
    await expect(explain(['tcp', A], options)).rejects.toThrow(/all three/);
    await expect(explain(['tcp', A, B], { ...options, mtu: 900 })).rejects.toThrow(/for --file/);
  });
});

describe('without a host', () => {
  const conf = new URL('../../examples/transport/a.conf', import.meta.url).pathname;

  test('a file is enough', async () => {
    const [, src, dst] = /^spdadd (\S+?) (\S+?) .*-P out/m.exec(readFileSync(conf, 'utf8'))!;
    const hostOf = (text: string) => text.replace(/\[.*/, '');
    const words = ['tcp', hostOf(src!), hostOf(dst!)];
    const one = await asJson(words, { file: conf, socket: '/nowhere' });
    expect(one.outcome).toMatchObject({ kind: 'protected' });
    const small = await asJson(words, { file: conf, size: 600, df: true, mtu: 600 });
    expect(small.outcome).toMatchObject({ kind: 'dropped', reason: 'too-big' });
  });

  test('with a variable', async () => {
    const sysctl = ['net.inet.ipsec.def_policy=0'];
    const one = await asJson(['tcp', '192.0.2.77', '192.0.2.78'], { file: conf, sysctl });
    expect(one.outcome).toMatchObject({ reason: 'policy-default-discard' });
  });

  test('mistakes in the file are told', async () => {
    const file = join(folder, 'bad.conf');
    writeFileSync(file, 'spdadd nonsense;\n');
    await expect(explain(['tcp', A, B], { ...options, file })).rejects.toThrow(/bad\.conf:1:/);
  });
});

describe('traces', () => {
  test('show what a selector names, as it comes, and at most so many', () => {
    const lines: TraceLine[] = [];
    const stop = startTrace(host.daemon, 'out tcp 10.0.0.0/8 any[80]', 2, (line) =>
      lines.push(line),
    );
    for (const protocol of ['udp', 'tcp', 'tcp', 'tcp', 'tcp']) {
      host.output(buildPacket({ ...SPEC, protocol }));
    }
    host.output(buildPacket({ ...SPEC, dst: `${B}:81` }));
    host.env.advance(1000);
    host.output(buildPacket(SPEC));
    expect(lines.map(({ kind }) => kind)).toEqual(['packet', 'packet', 'missed', 'packet']);
    expect(lines[2]).toMatchObject({ count: 2 });
    // What it says is what went out: sequence number 4 was the last before.
    const { outcome } = (lines[3] as Extract<TraceLine, { kind: 'packet' }>).explanation;
    const [wire] = host.sent;
    expect(outcome).toMatchObject({ packets: [{ text: dissect(wire!, 0, wire!.length) }] });
    expect(traceText(lines[0]!)).toMatch(
      /^\d\d:\d\d:\d\d out IP 10\.0\.0\.1\.1234 > 10\.0\.0\.2\.80: Flags .*: SENT PROTECTED by policy \d+$/,
    );
    expect(traceText(lines[2]!)).toMatch(/ … 2 more$/);
    stop();
    expect(host.daemon.host.tracer).toBeUndefined();
    host.env.advance(1000);
    host.output(buildPacket(SPEC));
    expect(lines).toHaveLength(4);
  });

  test('are of one side or of both', () => {
    const seen: string[] = [];
    const stops = ['in', 'out', 'any'].map((what) => {
      return startTrace(host.daemon, what, 10, () => seen.push(what));
    });
    host.input(buildPacket(SPEC));
    expect(seen).toEqual(['in', 'any']);
    host.output(buildPacket(SPEC));
    expect(seen).toEqual(['in', 'any', 'out', 'any']);
    for (const stop of stops) stop();
  });

  test('show drops of one reason', () => {
    const lines: TraceLine[] = [];
    const stop = startTrace(host.daemon, 'policy-clear', 10, (line) => lines.push(line));
    host.input(buildPacket(SPEC));
    host.input(buildPacket({ ...SPEC, protocol: 'udp' }));
    host.input(new Uint8Array(3));
    stop();
    expect(lines).toHaveLength(1);
    expect(traceText(lines[0]!)).toMatch(
      / in IP 10\.0\.0\.1\.1234 > .*: DROPPED, policy-clear: came in the clear.*; to do: /,
    );
  });

  test('several at once', () => {
    const seen: string[] = [];
    const stops = ['tcp', 'any'].map((what) => {
      return startTrace(host.daemon, what, 10, () => seen.push(what));
    });
    host.output(buildPacket({ ...SPEC, protocol: 'udp' }));
    host.output(buildPacket(SPEC));
    expect(seen).toEqual(['any', 'tcp', 'any']);
    stops[1]!();
    host.output(buildPacket(SPEC));
    expect(seen).toEqual(['any', 'tcp', 'any', 'tcp']);
    stops[0]!();
  });

  test('go over the control socket until the client leaves', async () => {
    const stop = new AbortController();
    const seen = await new Promise<TraceLine>((resolve, reject) => {
      const args = { selector: 'tcp' };
      const given = { onLine: (line: unknown) => resolve(line as TraceLine), signal: stop.signal };
      request(controlPath(socket), 'trace', args, given).catch(reject);
      const send = () => {
        if (host.daemon.host.tracer === undefined) return void setImmediate(send);
        host.output(buildPacket(SPEC));
      };
      send();
    });
    expect(seen).toMatchObject({ kind: 'packet', explanation: { side: 'out' } });
    stop.abort();
    while (host.daemon.host.tracer !== undefined) await new Promise(setImmediate);
    const refused = request(controlPath(socket), 'trace', { selector: 'tcp', perSecond: 0 });
    await expect(refused).rejects.toThrow(/"perSecond" must be/);
  });

  test.each(['tcpp', 'tcp 1.2.3', 'tcp any any any', 'tcp 10.0.0.0/8 ::/0', 'in out'])(
    '%s is no selector',
    (text) => {
      expect(() => parseFilter(text)).toThrow(expect.objectContaining({ errno: 'EINVAL' }));
    },
  );
});
