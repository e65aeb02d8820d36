import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DROPS, type DropReason } from '../../src/base/drop.ts';
import { ADVICE } from '../../src/engine/explain-advice.ts';
import { explanationText } from '../../src/engine/explain-text.ts';
import type { Explanation } from '../../src/engine/explanation.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { counting, hex, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';
import { CASES, DATA, FOUR } from './drop-cases.ts';
import { Pair } from './pair.ts';
import { policy, Rig, request, sa } from './rig.ts';

const ALL = '0.0.0.0/0';
/** Each packet is sent before it is explained: what is at fault shows only then. */
const AFTER: readonly DropReason[] = ['sequence-exhausted', 'sequence-store'];
/** The explanation says that the packet waits, and how that ends. */
const WAITING: readonly DropReason[] = ['fragment-timeout', 'held-too-long'];

/** What the explanation of each reason's first case must name. */
const FAULTS: Readonly<Record<DropReason, RegExp>> = {
  'truncated-header': /^the packet: IP, unreadable/,
  'bad-version': /^the packet: IP, unreadable/,
  'bad-header-length': /^the packet: IP, unreadable/,
  'bad-total-length': /^the packet: IP, unreadable/,
  'bad-header-checksum': /^the packet: IP 10\.0\.0\.1\.1000 > 10\.0\.0\.2\.2000/,
  'bad-option': /^the packet: IP, unreadable/,
  'too-many-headers': /^the packet: IP, unreadable/,
  jumbogram: /^the packet: IP, unreadable/,
  'bad-udp-length': /^the packet: IP 10\.0\.0\.1\.1000 > 10\.0\.0\.2\.4500/,
  'bad-udp-checksum': /^the packet: IP6 2001:db8::1\.4500/,
  'fragment-overlap': /^the packet: IP .* \(fragment of/,
  'fragment-bad-length': /^the packet: IP .* \(fragment of/,
  'fragment-duplicate': /^the packet: IP .* \(fragment of/,
  'fragment-timeout': /./,
  'fragment-queue-full': /^the host: \d+ buffers/,
  'esp-truncated': /ESP, cut off|too short to name an SA/,
  'esp-bad-alignment': /^SA esp SPI 0x00001001 to 10\.0\.0\.2$/,
  'esp-bad-padding': /^SA esp SPI 0x00001001 to 10\.0\.0\.2$/,
  'esp-bad-icv': /^SA esp SPI 0x00001001 to 10\.0\.0\.2$/,
  'esp-replay': /^SA esp SPI 0x00001001 to 10\.0\.0\.2$/,
  'esp-dummy': /^the packet: IP 10\.0\.0\.1 > 10\.0\.0\.2: ESP spi 0x00001001/,
  'ah-truncated': /^the packet: IP 10\.0\.0\.1 > 10\.0\.0\.2: AH/,
  'ah-bad-length': /^SA ah SPI 0x00001001 to 10\.0\.0\.2$/,
  'ah-bad-icv': /^SA ah SPI 0x00001001 to 10\.0\.0\.2$/,
  'ah-replay': /^SA ah SPI 0x00001001 to 10\.0\.0\.2$/,
  'no-sa-for-spi': /^no SA: esp SPI 0x00000901 to 10\.0\.0\.2$/,
  'sa-not-usable': /^SA esp SPI 0x00001001 to 10\.0\.0\.2$/,
  'sa-wrong-encapsulation': /^SA esp SPI 0x00001001 to 10\.0\.0\.2$/,
  'wrong-mode': /^SA esp SPI 0x00001001 to 10\.0\.0\.2$/,
  'too-many-layers': /^policy \d+: 0\.0\.0\.0\/0/,
  'ipcomp-unsupported': /IPComp/,
  'ecn-invalid': /^the packet: IP 10\.0\.0\.1 > 10\.0\.0\.2: ESP/,
  'natt-keepalive': /NAT keep-alive/,
  'natt-not-esp': /UDP-encap: ESP, cut off/,
  'policy-discard': /^policy \d+: 0\.0\.0\.0\/0\[any\] 0\.0\.0\.0\/0\[any\] any$/,
  'policy-default-discard': /net\.inet\.ipsec\.def_policy decides$/,
  'policy-clear': /^policy \d+: .*, request esp\/transport/,
  'policy-mismatch': /^policy \d+: /,
  'policy-unprotected-selector': /^no policy fits/,
  'policy-empty': /^policy \d+: /,
  'icmp-path-mtu': /^the packet: IP .* ICMP unreachable - need to fragment, mtu 1000/,
  'icmp-mtu-refused': /^the packet: IP .* ICMP unreachable - need to fragment/,
  'icmp-too-many': /^the packet: IP .* ICMP unreachable - need to fragment/,
  'icmp-bad-checksum': /^the packet: IP .* ICMP unreachable/,
  'icmp-no-sa': /^the packet: IP .* ICMP unreachable/,
  'icmp-unauthenticated': /^the packet: IP .* ICMP unreachable/,
  'icmp-flow-protected': /^policy \d+: 10\.0\.0\.2\/32/,
  'held-too-long': /./,
  'socket-unknown': /^the packet: IP 10\.0\.0\.1\.1000 > 10\.0\.0\.2\.2000/,
  'no-sa': /^policy \d+: ::\/0.*, request esp\/transport\/\/require$/,
  'sequence-exhausted': /^SA esp SPI 0x00001001 to 10\.0\.0\.2$/,
  'sequence-store': /^SA esp SPI 0x00001001 to 10\.0\.0\.2$/,
  'too-big': /^the MTU of the wire: 70$/,
  'packet-too-long': /^the packet: /,
  'shard-full': /./,
  'no-room': /^the host: \d+ buffers/,
};

/** Everything of a host that an explanation must not touch. */
function state(rig: Rig): unknown {
  const { stats, buffersFree, fragmentsWaiting, packetsHeld, paths } = rig.host;
  const sas = [...rig.sad.all()].map((one) => {
    const { state, usage, replay, sentSeq, seenAt, peer, replays, badIcvs, lastSentMs } = one;
    const marks = [state, { ...usage }, replay.copy(), sentSeq, seenAt, peer];
    return [...marks, replays, badIcvs, lastSentMs];
  });
  const policies = (['in', 'out'] as const).flatMap((side) => structuredClone(rig.spd.list(side)));
  const { generation, cacheCounters } = rig.spd;
  return structuredClone({
    ...{ buffersFree, fragmentsWaiting, packetsHeld, paths, families: stats.families },
    ...{ acquires: stats.acquires, held: stats.held, natMappings: stats.natMappings },
    ...{ sas, policies, generation, cacheCounters, sadGeneration: rig.sad.generation },
    ...{ sent: rig.sent.length, delivered: rig.delivered.length },
  });
}

function explained(rig: Rig, side: 'in' | 'out', packets: readonly Uint8Array[]): Explanation {
  const before = state(rig);
  const [last] = rig.host.explain(side, packets, { isNegotiated: () => true }).slice(-1);
  expect(state(rig)).toEqual(before);
  return last!;
}

describe('every reason for a drop', () => {
  for (const [name, cases] of Object.entries(CASES)) {
    const reason = name as DropReason;
    // What other shards have to do at the moment is not explained.
    const explained = reason === 'shard-full' ? [] : cases;
    test.each(explained.map((_, i) => i))(`${reason} %i`, (i) => {
      const { side, rig, packets, ofSockets } = cases[i]!();
      if (AFTER.includes(reason)) rig.output(...packets);
      const negotiated = reason === 'held-too-long';
      const before = state(rig);
      const all = rig.host.explain(side, packets, { isNegotiated: () => negotiated, ofSockets });
      expect(state(rig)).toEqual(before);
      const { outcome } = all.at(-1)!;
      expect(outcome).toMatchObject({
        reason,
        kind: WAITING.includes(reason) ? 'waits' : 'dropped',
      });
      if (outcome.kind !== 'dropped') return;
      expect(outcome.text).toBe(DROPS[reason].text);
      expect(outcome.advice).toBe(ADVICE[reason].text);
      if (i === 0) expect(outcome.fault).toMatch(FAULTS[reason]);
    });
  }
});

describe('going out', () => {
  test('policies that were looked at, and what of the packet is not as they want it', () => {
    const rig = new Rig();
    rig.spd.add(policy('out', '10.9.0.0/16', ALL, { type: 'discard' }));
    rig.spd.add(policy('out', ALL, '10.9.0.0/16', { type: 'discard' }));
    rig.spd.add(policy('out', ALL, ALL, { type: 'discard', protocol: 6 }));
    rig.spd.add(policy('out', ALL, ALL, { type: 'discard', protocol: 17, dport: 53 }));
    rig.spd.add(policy('out', '::/0', '::/0', { type: 'discard' }));
    rig.spd.add(policy('out', '10.0.0.0/24', ALL, { type: 'none' }));
    rig.spd.add(policy('out', ALL, ALL, { type: 'discard' }));
    const { policy: choice, outcome } = explained(rig, 'out', [FOUR]);
    // The nearest first: those whose addresses fit.
    expect(choice!.considered.map(({ field, why }) => [field, why])).toEqual([
      ['protocol', 'protocol 17 is not 6'],
      ['ports', 'ports 1000 and 2000 are not those of the policy'],
      ['source', 'source 10.0.0.1 is not in 10.9.0.0/16'],
      ['destination', 'destination 10.0.0.2 is not in 10.9.0.0/16'],
    ]);
    expect(choice!.found?.selector).toBe('10.0.0.0/24[any] 0.0.0.0/0[any] any');
    expect(outcome.kind).toBe('clear');
  });

  test('a long list is cut', () => {
    const rig = new Rig();
    for (let i = 0; i < 30; i++) rig.spd.add(policy('out', `10.1.${i}.0/24`, ALL));
    const { policy: choice } = explained(rig, 'out', [FOUR]);
    expect([choice!.considered.length, choice!.notShown]).toEqual([20, 10]);
    expect(choice!.byDefault).toEqual({ setting: 'net.inet.ipsec.def_policy', value: 'none' });
  });

  test('of very many policies only the answer is told', () => {
    const rig = new Rig();
    const specs = Array.from({ length: 50_001 }, (_, i) => {
      return policy('out', `10.${100 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}/32`, ALL);
    });
    rig.spd.planReplaceAll(specs.map((spec) => ({ spec, id: 0 })))();
    const [one] = rig.host.explain('out', [FOUR]);
    expect(one!.policy).toMatchObject({ considered: [], notShown: 0, notLookedAt: 50_001 });
  });

  test('at fault is the request that demands, not one that may go without', () => {
    const rig = new Rig();
    const requests = [request({ level: 'use' }), request({ protocol: 'ah' })];
    rig.spd.add(policy('out', ALL, ALL, { requests }));
    const [one] = rig.host.explain('out', [FOUR]);
    expect(one!.outcome).toMatchObject({ fault: expect.stringMatching(/request ah\/transport/) });
  });

  test('the level after defaults, the SA that is taken, and why not the others', () => {
    const rig = new Rig();
    rig.host.settings.inet.espTransDeflev = 'require';
    const ends = { src: '10.0.0.1', dst: '10.0.0.2' };
    rig.sad.add(sa({ spi: 0x101, ...ends, reqid: 5 }), 'mature');
    rig.sad.add(sa({ spi: 0x102, ...ends, reqid: 7, mode: 'tunnel' }), 'mature');
    rig.sad.add(sa({ spi: 0x103, ...ends, reqid: 7 }), 'larval');
    rig.sad.add(sa({ spi: 0x104, ...ends, reqid: 7 }), 'mature');
    rig.sad.add(sa({ spi: 0x105, ...ends, reqid: 7 }), 'mature');
    rig.spd.add(policy('out', ALL, ALL, { requests: [request({ level: 'default', reqid: 7 })] }));
    const { requests } = explained(rig, 'out', [FOUR]);
    expect(requests).toHaveLength(1);
    const { sa: taken, level, levelFrom, refused } = requests[0]!;
    expect([taken?.spi, level, levelFrom]).toEqual([
      0x105,
      'require',
      'net.inet.ipsec.esp_trans_deflev',
    ]);
    expect(refused.map((one) => [one.sa.spi, one.why])).toEqual([
      [0x101, 'its reqid is 5, and the request wants 7'],
      [0x102, 'it is for tunnel mode, and the request wants transport mode'],
      [0x103, 'it is larval'],
      [0x104, 'a newer one is preferred'],
    ]);
  });

  test('without an SA, those that nearly fit are named', () => {
    const rig = new Rig();
    rig.sad.add(sa({ spi: 0x101, src: '10.0.0.9', dst: '10.0.0.2' }), 'mature');
    rig.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
    const [one] = rig.host.explain('out', [FOUR]);
    expect(one!.outcome).toMatchObject({ kind: 'dropped', reason: 'no-sa' });
    expect(one!.requests[0]!.refused.map(({ why }) => why)).toEqual([
      'it is from 10.0.0.9, not from 10.0.0.1',
    ]);
  });

  test('sizes are those of the packet that is then sent', () => {
    for (const layers of [[{}], [{ tunnel: 6 as const }], [{}, { protocol: 'ah' as const }]]) {
      const { a } = new Pair(layers);
      const one = explained(a, 'out', [FOUR]);
      const [wire] = a.output(FOUR);
      expect(one.size).toMatchObject({ before: FOUR.length, after: wire!.length, verdict: 'fits' });
      expect(one.outcome).toMatchObject({ kind: 'protected', packets: [{ len: wire!.length }] });
      expect(one.requests.at(-1)!.len).toBe(wire!.length);
    }
  });

  test('too big: what the sender is told is what would fit', () => {
    const { a } = new Pair([{ tunnel: 4, tunnelOptions: { df: 'copy' } }]);
    const big = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_DF }, udp(counting(1464)));
    const { size } = explained(a, 'out', [big]);
    expect(size).toMatchObject({ before: 1492, verdict: 'too-big' });
    const fits = ipv4Packet(
      { protocol: 17, flags: ipv4.FLAG_DF },
      udp(counting(size!.reported! - 28)),
    );
    expect(explained(a, 'out', [fits]).size).toMatchObject({ verdict: 'fits' });
  });

  test('fragments are answered together', () => {
    const { a } = new Pair([{}]);
    const whole = udp(counting(40));
    const flags = ipv4.FLAG_MF;
    const first = ipv4Packet({ protocol: 17, flags }, whole.subarray(0, 24));
    const second = ipv4Packet({ protocol: 17, offset: 24 }, whole.subarray(24));
    const [waits, sent] = a.host.explain('out', [first, second]);
    expect(waits!.outcome.kind).toBe('waits');
    expect(sent!.outcome.kind).toBe('protected');
    expect(sent!.inner?.len).toBe(68);
    expect(a.host.fragmentsWaiting).toBe(0);
  });

  test('a wire that is too narrow', () => {
    const { a } = new Pair([{}], { mtu: 576 });
    const one = explained(a, 'out', [ipv4Packet({ protocol: 17 }, udp(counting(900)))]);
    expect(one.size?.verdict).toBe('fragments');
    expect(one.outcome).toMatchObject({ packets: [{}, {}] });
  });

  test('the layout shows the structure, and neither the text nor anything sealed', () => {
    const { a } = new Pair([{ tunnel: 4 }]);
    const [one] = a.host.explain('out', [FOUR], { layout: true });
    const { fields, octets } = one!.layout!;
    const [wire] = a.output(FOUR);
    expect(fields.map(({ what }) => what.split(':')[0])).toEqual([
      'IPv4 header',
      'ESP',
      'IV',
      'IPv4 header',
      'UDP header',
      'data',
      expect.stringMatching(/^padding \d+, its length, next header 4$/),
      expect.stringMatching(/aes-gcm-16\)$/),
      'ICV',
    ]);
    expect(octets).toHaveLength(2 * wire!.length);
    expect(octets).not.toContain(Buffer.from(DATA.subarray(8, 40)).toString('hex'));
    expect(octets).not.toContain(Buffer.from(wire!.subarray(36, 60)).toString('hex'));
    // It was the first packet that was really sealed.
    expect([...a.sad.all()][0]!.sentSeq).toBe(1);
  });

  test('nothing is sealed or signed with a key', () => {
    const refuse = () => {
      throw new Error('sealed');
    };
    for (const given of [{}, { protocol: 'ah' as const, auth: 'hmac-sha256' }]) {
      const spec = sa({ spi: 0x101, src: '10.0.0.1', dst: '10.0.0.2', ...given });
      if (spec.esp) spec.esp.seal = refuse;
      if (spec.ah) spec.ah.sign = refuse;
      const rig = new Rig();
      rig.sad.add(spec, 'mature');
      const { protocol = 'esp' as const } = given;
      rig.spd.add(policy('out', ALL, ALL, { requests: [request({ protocol })] }));
      const [one] = rig.host.explain('out', [FOUR], { layout: true });
      expect(one!.outcome.kind).toBe('protected');
      expect(() => rig.output(FOUR)).toThrow('sealed');
    }
  });

  test('of several SAs the one that is used up is at fault', () => {
    const lease = (material: readonly Uint8Array[]) => {
      // The SPI stands behind the protocol; the outer SA is the one that has no numbers left.
      const start = material[0]![4] === 2 ? 2 ** 32 : 1;
      return { start, extend: () => 2 ** 33, release: () => {} };
    };
    const { a } = new Pair([{}, { protocol: 'ah' }], { sequences: { lease } });
    a.output(FOUR);
    expect(a.drops()).toEqual({ 'out sequence-exhausted': 1 });
    const { outcome } = explained(a, 'out', [FOUR]);
    expect(outcome).toMatchObject({ fault: 'SA ah SPI 0x00001002 to 10.0.0.2' });
  });

  test('without encryption the layout shows what is sent', () => {
    const { a } = new Pair([{ enc: 'null', auth: 'hmac-sha1' }]);
    const [one] = a.host.explain('out', [FOUR], { layout: true });
    expect(one!.layout!.octets).toContain(Buffer.from(DATA.subarray(8, 40)).toString('hex'));
  });
});

describe('coming in', () => {
  const layers = [
    [{}],
    [{ enc: 'aes-cbc', auth: 'hmac-sha256' }],
    [{ protocol: 'ah' as const }],
    [{ tunnel: 4 as const }],
    [{}, { protocol: 'ah' as const }],
  ];

  test.each(layers.map((one) => [one]))('is opened without a trace: %j', (given) => {
    const pair = new Pair(given);
    const [wire] = pair.a.output(FOUR);
    for (let i = 0; i < 2; i++) {
      const one = explained(pair.b, 'in', [wire!]);
      expect(one.opened.map((layer) => layer.state)).toEqual(given.map(() => 'opened'));
      expect(one.requests.every((step) => step.sa !== undefined && !step.unmet)).toBe(true);
      expect(one.inner?.text).toMatch(/10\.0\.0\.1\.1000 > 10\.0\.0\.2\.2000: UDP, length 40/);
      expect(one.outcome).toMatchObject({ kind: 'delivered', packets: [{ len: FOUR.length }] });
    }
    expect(pair.b.input(wire!)).toHaveLength(1);
    expect(explained(pair.b, 'in', [wire!]).outcome).toMatchObject({ kind: 'dropped' });
    const [fresh] = pair.b.host.explain('in', [wire!], { freshWindows: true });
    expect(fresh!.outcome.kind).toBe('delivered');
  });

  test('the same packet twice is a replay, within one question too', () => {
    const pair = new Pair([{}]);
    const [wire] = pair.a.output(FOUR);
    const [first, second] = pair.b.host.explain('in', [wire!, wire!]);
    expect(first!.outcome.kind).toBe('delivered');
    expect(second!.outcome).toMatchObject({ kind: 'dropped', reason: 'esp-replay' });
  });

  test('which request is not met, and what is wrong about the layer', () => {
    const pair = new Pair([{}]);
    const [wire] = pair.a.output(FOUR);
    pair.b.spd.flush();
    const requests = [request({ protocol: 'ah' }), request({ reqid: 77 })];
    pair.b.spd.add(policy('in', ALL, ALL, { requests }));
    const one = explained(pair.b, 'in', [wire!]);
    expect(one.requests.map(({ unmet }) => unmet)).toEqual([
      'the layer is of the other protocol',
      'the SA has another reqid',
    ]);
    expect(one.outcome).toMatchObject({ reason: 'policy-mismatch' });
  });

  test('the loose check takes any layer of the protocol', () => {
    const pair = new Pair([{}], { settings: { policyCheck: 'loose' } });
    const [wire] = pair.a.output(FOUR);
    pair.b.spd.flush();
    const requests = [request({ protocol: 'ah' }), request({ reqid: 77 })];
    pair.b.spd.add(policy('in', ALL, ALL, { requests }));
    const one = explained(pair.b, 'in', [wire!]);
    expect(one.requests.map(({ unmet }) => unmet)).toEqual([
      'no layer is of its protocol',
      undefined,
    ]);
    expect(one.outcome).toMatchObject({ reason: 'policy-mismatch' });
  });

  test('an SA that is nearly the one', () => {
    const pair = new Pair([{}]);
    const [wire] = pair.a.output(FOUR);
    for (const one of [...pair.b.sad.all()]) pair.b.sad.remove(one);
    pair.b.sad.add(sa({ spi: 0x1001, src: '10.0.0.1', dst: '10.0.0.3' }), 'mature');
    expect(explained(pair.b, 'in', [wire!]).opened[0]).toMatchObject({
      spi: 0x1001,
      state: 'failed',
      near: [{ why: 'it is to 10.0.0.3, not to 10.0.0.2' }],
    });
  });

  test('an SA that dies of the packet keeps its keys', () => {
    const limit = { packets: 1, bytes: 0, addSeconds: 0, useSeconds: 0 };
    const pair = new Pair([{ hard: limit }]);
    const [wire] = pair.a.output(FOUR);
    for (let i = 0; i < 3; i++) explained(pair.b, 'in', [wire!]);
    expect(pair.b.input(wire!)).toHaveLength(1);
  });
});

test('IPsec is taken for incoming when nobody says', () => {
  const pair = new Pair([{}]);
  const [wire] = pair.a.output(FOUR);
  const sides = pair.b.host.explain('auto', [FOUR, wire!]).map(({ side }) => side);
  expect(sides).toEqual(['out', 'in']);
});

test('an explanation survives JSON', () => {
  const pair = new Pair([{}]);
  const [wire] = pair.a.output(FOUR);
  for (const one of [
    ...pair.a.host.explain('out', [FOUR], { layout: true }),
    ...pair.b.host.explain('in', [wire!]),
  ]) {
    expect(JSON.parse(JSON.stringify(one))).toEqual(one);
  }
});

test('what is said is what happens, for any packet', () => {
  const [wire] = new Pair([{ tunnel: 4 }]).a.output(FOUR);
  const base = fc.oneof(
    fc.constantFrom(FOUR, ipv6Packet(17, DATA), ipv4Packet({ protocol: 50 }, counting(64)), wire!),
    fc.uint8Array({ maxLength: 100 }),
  );
  const flips = fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 3 });
  fc.assert(
    fc.property(base, flips, fc.boolean(), (packet, changes, isIn) => {
      const octets = packet.slice();
      for (const [at, value] of changes) if (at < octets.length) octets[at] = value;
      const { a, b } = new Pair([{ tunnel: 4 }], { mtu: 100 });
      const rig = isIn ? b : a;
      const one = explained(rig, isIn ? 'in' : 'out', [octets]);
      const out = isIn ? rig.input(octets) : rig.output(octets);
      const [drop] = Object.keys(rig.drops());
      const { outcome } = one;
      if (outcome.kind === 'dropped') expect(drop).toBe(`${isIn ? 'in' : 'out'} ${outcome.reason}`);
      else if (outcome.kind === 'waits') expect([drop, out]).toEqual([undefined, []]);
      else expect(outcome.packets.map(({ len }) => len)).toEqual(out.map((p) => p.length));
      expect(explanationText(one)).toMatch(/\nresult/);
    }),
    { numRuns: 60 },
  );
});

describe('as text', () => {
  test('of a packet that is sent', () => {
    const rig = new Rig();
    rig.sad.add(sa({ spi: 0x101, src: '10.0.0.1', dst: '10.0.0.2' }), 'mature');
    rig.spd.add(policy('out', ALL, '10.9.0.0/16', { type: 'discard' }));
    rig.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
    const [one] = rig.host.explain('out', [FOUR]);
    expect(explanationText(one!)).toBe(
      [
        'going out   IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, length 40 (68 octets)',
        'policies    no  16384  0.0.0.0/0[any] 10.9.0.0/16[any] any  discard',
        '                destination 10.0.0.2 is not in 10.9.0.0/16',
        '            yes 16385  0.0.0.0/0[any] 0.0.0.0/0[any] any  ipsec  esp/transport//require',
        'request 1   esp/transport//require  (level require)',
        '            yes esp SPI 0x00000101 10.0.0.1 > 10.0.0.2, aes-gcm-16, mode any, reqid 0, mature',
        'size        68 -> 104 octets, the wire carries 1500',
        'result      SENT PROTECTED',
        '            IP 10.0.0.1 > 10.0.0.2: ESP spi 0x00000101 seq 1, length 84 (104 octets)',
        '',
      ].join('\n'),
    );
  });

  test('of a packet that is dropped', () => {
    const rig = new Rig();
    rig.spd.add(policy('in', ALL, ALL, { requests: [request({ level: 'default' })] }));
    rig.host.settings.inet.espTransDeflev = 'require';
    const [one] = rig.host.explain('in', [FOUR]);
    expect(explanationText(one!)).toBe(
      [
        'coming in   IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, length 40 (68 octets)',
        'policy      yes 16384  0.0.0.0/0[any] 0.0.0.0/0[any] any  ipsec  esp/transport//default',
        'request 1   esp/transport//default  (level require, as net.inet.ipsec.esp_trans_deflev says)',
        '            not met: no layer is left for it',
        'result      DROPPED, policy-clear: came in the clear, but a policy demands protection',
        'at fault    policy 16384: 0.0.0.0/0[any] 0.0.0.0/0[any] any, request esp/transport//default',
        `to do       ${ADVICE['policy-clear'].text}`,
        '',
      ].join('\n'),
    );
  });

  test('has no key in it', () => {
    const key = hex('deadbeefdeadbeefdeadbeefdeadbeefcafecafe');
    const rig = new Rig();
    rig.sad.add(sa({ spi: 0x101, src: '10.0.0.1', dst: '10.0.0.2', encKey: key }), 'mature');
    rig.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
    const text = JSON.stringify(rig.host.explain('out', [FOUR], { layout: true }));
    expect(text).not.toMatch(/deadbeef|222,173/);
  });
});
