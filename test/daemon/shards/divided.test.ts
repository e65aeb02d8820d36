import { afterEach, describe, expect, test } from 'vitest';
import { address } from '../../../src/base/address.ts';
import type { Sa } from '../../../src/sad/sa.ts';
import { setU16 } from '../../../src/wire/bytes.ts';
import * as esp from '../../../src/wire/esp.ts';
import { policy, Rig, request, type SaOptions, sa } from '../../engine/rig.ts';
import { counting, ipv4Packet, udp } from '../../wire/octets.ts';
import { Divided, type DividedOptions } from './divided.ts';

const [A, B] = ['10.0.0.1', '10.0.0.2'];
const SAS = 7;
let open: Divided[] = [];
afterEach(() => {
  for (const one of open) one.close();
  open = [];
});

function divided(options: DividedOptions): Divided {
  const one = new Divided(options);
  open.push(one);
  return one;
}

type Side = Pick<Rig, 'sad' | 'spd'>;

/** An SA each way for each of some ports, and policies for them. */
function fill(side: Side, at: 'a' | 'b', more: Partial<SaOptions> = {}): void {
  for (let i = 0; i < SAS; i++) {
    const reqid = i + 1;
    side.sad.add(sa({ spi: 0x1000 + i, src: A, dst: B, reqid, ...more }), 'mature');
    side.sad.add(sa({ spi: 0x2000 + 3 * i, src: B, dst: A, reqid, ...more }), 'mature');
    const requests = [request({ reqid })];
    const [there, back] = [{ dport: 7000 + i }, { sport: 7000 + i }];
    const [out, inn] = at === 'a' ? ([there, back] as const) : ([back, there] as const);
    const [own, other] = at === 'a' ? [A, B] : [B, A];
    side.spd.add(policy('out', own, other, { protocol: 17, requests, ...out }));
    side.spd.add(policy('in', other, own, { protocol: 17, requests, ...inn }));
  }
}

/** Datagram `n` of a flow from A to B: its length and its octets say which one it is. */
function datagram(flow: number, n: number): Uint8Array {
  const octets = counting(20 + (n % 100));
  octets[0] = n >> 8;
  octets[1] = n;
  const packet = ipv4Packet({ protocol: 17 }, udp(octets));
  setU16(packet, 20, 1000 + flow);
  setU16(packet, 22, 7000 + (flow % SAS));
  return packet;
}

function isLocalTo(text: string) {
  const { bytes } = address(text);
  return (octets: Uint8Array) => octets.every((octet, i) => octet === bytes[i]);
}

function counted(sad: Rig['sad']) {
  return [...sad.all()].map(({ spec, state, usage, sentSeq, replayTop, firstUseWallMs }) => {
    return { spi: spec.spi, state, usage: { ...usage }, sentSeq, replayTop, firstUseWallMs };
  });
}

describe.each([1, 2, 3, 5])('a host of %i shards', (shards) => {
  test('does with packets what a host of one does, and counts the same', () => {
    const a = divided({ shards, isLocal: isLocalTo(A) });
    const b = divided({ shards, isLocal: isLocalTo(B) });
    const [one, two] = [new Rig(), new Rig()];
    for (const side of [a, one]) fill(side, 'a');
    for (const side of [b, two]) fill(side, 'b');
    a.join();
    b.join();
    for (let round = 0; round < 12; round++) {
      const packets = Array.from({ length: 90 }, (_, i) => datagram(i % 11, 90 * round + i));
      const clear = ipv4Packet({ protocol: 17 }, udp(counting(9)));
      setU16(clear, 20, 999);
      const all = [...packets, clear];
      const wire = a.output(round % shards, ...all);
      expect(wire).toHaveLength(all.length);
      const delivered = b.input((round * 2 + 1) % shards, ...wire);
      expect(sorted(two.input(...one.output(...all)))).toEqual(sorted(delivered));
      // Within a flow the order is that in which they were sent.
      for (let flow = 0; flow < 11; flow++) {
        expect(ofFlow(delivered, flow)).toEqual(ofFlow(all, flow));
      }
    }
    expect(counted(a.sad)).toEqual(counted(one.sad));
    expect(counted(b.sad)).toEqual(counted(two.sad));
    expect(a.shards.statsWith(a.host.stats)).toEqual(one.host.stats);
    expect(b.shards.statsWith(b.host.stats)).toEqual(two.host.stats);
    if (shards > 1) {
      const rows = b.shards.status(b.host.stats);
      expect(rows.filter(({ opened }) => opened > 0).length).toBe(Math.min(shards, rows.length));
      expect(rows.reduce((sum, { passed }) => sum + passed, 0)).toBeGreaterThan(0);
      expect(rows.map(({ sas }) => sas).reduce((sum, n) => sum + n)).toBe(2 * SAS);
    }
  });

  test('opens each packet once, whichever shard reads it', () => {
    const a = new Rig();
    fill(a, 'a');
    const b = divided({ shards, isLocal: isLocalTo(B) });
    fill(b, 'b');
    b.join();
    const wire = a.output(...Array.from({ length: 30 }, (_, i) => datagram(i, i)));
    for (let shard = 0; shard < shards; shard++) {
      expect(b.input(shard, ...wire)).toHaveLength(shard === 0 ? 30 : 0);
    }
    const replays = 30 * (shards - 1);
    expect(b.drops()).toEqual(replays === 0 ? {} : { 'in esp-replay': replays });
  });

  test('bundles go through the owners of their SAs', () => {
    const setUp = (side: Side, at: 'a' | 'b') => {
      side.sad.add(sa({ spi: 0x1001, src: A, dst: B, reqid: 1 }), 'mature');
      side.sad.add(
        sa({ protocol: 'ah', auth: 'hmac-sha256', spi: 0x1003, src: A, dst: B, reqid: 2 }),
        'mature',
      );
      side.sad.add(sa({ spi: 0x1005, src: A, dst: B, reqid: 3 }), 'mature');
      const tunnel = { mode: 'tunnel', src: A, dst: B, reqid: 3 } as const;
      const requests = [
        request({ reqid: 1 }),
        request({ protocol: 'ah', reqid: 2 }),
        request(tunnel),
      ];
      side.spd.add(policy(at === 'a' ? 'out' : 'in', A, B, { requests }));
    };
    const a = divided({ shards });
    const b = divided({ shards });
    setUp(a, 'a');
    setUp(b, 'b');
    a.join();
    b.join();
    const all = Array.from({ length: 40 }, (_, i) => datagram(i, i));
    for (let shard = 0; shard < shards; shard++) {
      const wire = a.output(shard, ...all);
      expect(wire).toHaveLength(40);
      expect(sorted(b.input(shard, ...wire))).toEqual(sorted(all));
    }
    expect(b.drops()).toEqual({});
    expect([...b.sad.all()].map(({ usage }) => usage.packets)).toEqual(
      new Array(3).fill(40 * shards),
    );
  });
});

describe('changes of the databases', () => {
  const shards = 3;

  function pair(more: Partial<SaOptions> = {}) {
    const a = divided({ shards, isLocal: isLocalTo(A) });
    const peer = new Rig();
    fill(a, 'a', more);
    fill(peer, 'b', more);
    return { a: a.join(), peer };
  }

  test('limits of octets and packets are kept by the owner, and announced by the main shard', () => {
    const limits = {
      soft: { packets: 0, bytes: 200, addSeconds: 0, useSeconds: 0 },
      hard: { packets: 5, bytes: 0, addSeconds: 0, useSeconds: 0 },
    };
    const { a, peer } = pair(limits);
    const one = new Rig();
    fill(one, 'a', limits);
    for (let flow = 0; flow < SAS; flow++) {
      const all = Array.from({ length: 8 }, (_, n) => datagram(flow, n));
      const [sent, alone] = [a.output(flow % shards, ...all), one.output(...all)];
      expect(sent).toHaveLength(5);
      expect(alone).toHaveLength(5);
      expect(peer.input(...sent)).toHaveLength(5);
    }
    const said = (of: readonly [Sa, string][]) => {
      return of.map(([{ spec, usage }, limit]) => [spec.spi, limit, usage.packets, usage.bytes]);
    };
    // One thread announces the soft limit between two packets, several after their batch.
    const limitsOf = (rows: ReturnType<typeof said>) => rows.map(([spi, limit]) => [spi, limit]);
    expect(limitsOf(said(a.expired))).toEqual(limitsOf(said(one.expired)));
    expect(said(a.expired).filter(([, limit]) => limit === 'hard')).toEqual(
      said(one.expired).filter(([, limit]) => limit === 'hard'),
    );
    expect(a.sad.size).toBe(SAS);
    for (const other of a.others) expect(other.sad.size).toBe(SAS);
  });

  test('limits of time begin with the first use, by the clock of the main shard', () => {
    const { a } = pair({ hard: { packets: 0, bytes: 0, addSeconds: 0, useSeconds: 10 } });
    for (let flow = 0; flow < SAS; flow++) a.output(1, datagram(flow, 0));
    a.env.advance(9_999);
    a.host.poll(a.env.clock.monotonicMs());
    expect(a.expired).toEqual([]);
    a.env.advance(1);
    a.host.poll(a.env.clock.monotonicMs());
    expect(a.expired.map(([, limit]) => limit)).toEqual(new Array(SAS).fill('hard'));
    a.settle();
    for (const other of a.others) expect(other.sad.size).toBe(SAS);
    expect(a.output(2, datagram(3, 1))).toEqual([]);
    expect(a.drops()).toEqual({ 'out no-sa': 1 });
  });

  test('a new SA is used and an old one is not, in every shard, when the request is done', () => {
    const { a } = pair();
    const old = [...a.sad.all()].filter(({ spec }) => spec.spi < 0x2000);
    for (let flow = 0; flow < SAS; flow++) {
      a.apply(() =>
        a.sad.add(sa({ spi: 0x3000 + 5 * flow, src: A, dst: B, reqid: flow + 1 }), 'mature'),
      );
      a.apply(() => a.sad.remove(old[flow]!));
      for (let shard = 0; shard < shards; shard++) {
        const [packet] = a.output(shard, datagram(flow, shard));
        expect(esp.spi(packet!, 20)).toBe(0x3000 + 5 * flow);
        expect(esp.seq(packet!, 20)).toBe(shard + 1);
      }
    }
    expect(a.drops()).toEqual({});
  });

  test('the same SA again goes on counting, whoever owns it then', () => {
    const a = divided({ shards });
    a.join();
    a.apply(() => a.spd.add(policy('out', A, B, { requests: [request({})] })));
    const seen: number[] = [];
    for (let i = 0; i < 4; i++) {
      a.apply(() => a.sad.add(sa({ spi: 0x1001, src: A, dst: B }), 'mature'));
      for (let shard = 0; shard < shards; shard++) {
        const wire = a.output(shard, ...Array.from({ length: 5 }, (_, n) => datagram(0, n)));
        seen.push(...wire.map((packet) => esp.seq(packet, 20)));
      }
      a.apply(() => a.sad.flush());
      // Nobody has its keys any more.
      for (const other of a.others) expect(other.sad.size).toBe(0);
    }
    expect(seen).toEqual(Array.from({ length: 60 }, (_, i) => i + 1));
  });

  test('keys are zeroed in the owner, and nobody else but the main shard has them', () => {
    const { a } = pair();
    const replicas = a.others.map(({ sad }) => [...sad.all()]);
    for (const [i, sas] of replicas.entries()) {
      for (const { owner, spec } of sas) {
        expect(spec.keys.encryptKey.length > 0).toBe(owner === i + 1);
        if (owner !== i + 1) expect(() => spec.esp!.seal(new Uint8Array(9), 0, 9, 0)).toThrow();
      }
    }
    const keys = replicas.flat().map(({ spec }) => spec.keys.encryptKey);
    expect(keys.some((key) => key.some((octet) => octet !== 0))).toBe(true);
    a.apply(() => a.sad.flush());
    expect(keys.every((key) => key.every((octet) => octet === 0))).toBe(true);
  });

  test('policies are found in the same order everywhere, after any changes', () => {
    const { a } = pair();
    const discard = (priority: number, dport: number) =>
      policy('out', '10.0.0.0/8', '10.0.0.0/8', { type: 'discard', priority, dport, protocol: 17 });
    const lists = () => {
      a.shards.sync();
      a.shards.settle();
      const key = (side: Pick<Rig, 'spd'>) => side.spd.list('out').map(({ id }) => id);
      for (const other of a.others) expect(key(other.host)).toEqual(key(a));
      return key(a);
    };
    a.spd.add(discard(0, 1));
    a.spd.add(discard(-1, 2));
    lists();
    a.spd.update(discard(5, 2));
    a.spd.update(discard(0, 1));
    a.spd.add(discard(5, 3));
    lists();
    const wanted = a.spd.list('out').map((spec) => ({ spec, id: spec.id }));
    a.spd.planReplaceAll(wanted.reverse())();
    const sorted = wanted.toSorted((x, y) => x.spec.priority - y.spec.priority);
    expect(lists()).toEqual(sorted.map(({ id }) => id));
    a.spd.flush();
    expect(lists()).toEqual([]);
    expect(a.output(2, datagram(0, 0))).toHaveLength(1);
  });

  test('the time of a policy is that of its last packet, wherever it went', () => {
    const { a } = pair();
    const [first] = a.spd.list('out');
    a.env.advance(5000);
    a.output(2, datagram(0, 0));
    a.shards.beforePoll();
    expect(first!.lastUsedMs).toBe(a.env.clock.monotonicMs());
    expect(a.spd.list('out')[1]!.lastUsedWallMs).toBe(0);
  });

  test('settings and the MTU are the same everywhere', () => {
    const { a } = pair();
    a.host.settings.inet.defPolicy = 'discard';
    a.host.mtu = 1400;
    a.shards.sync();
    a.shards.settle();
    for (const { host } of a.others) {
      expect(host.settings.inet.defPolicy).toBe('discard');
      expect(host.mtu).toBe(1400);
    }
  });

  test('what there is no room for is dropped, counted, and nothing else is lost', () => {
    const a = divided({ shards: 2, ringLen: 4096 });
    const peer = new Rig();
    fill(a, 'a');
    fill(peer, 'b');
    a.join();
    const all = Array.from({ length: 64 }, (_, i) => datagram(1, i));
    const sent = a.output(0, ...all);
    const dropped = a.drops()['out shard-full']!;
    expect(dropped).toBeGreaterThan(0);
    expect(sent).toHaveLength(64 - dropped);
    expect(peer.input(...sent)).toHaveLength(sent.length);
    expect(a.shards.status(a.host.stats)[0]).toMatchObject({ refused: dropped });
    expect(a.output(0, ...all.slice(0, 8))).toHaveLength(8);
  });
});

function sorted(packets: readonly Uint8Array[]): string[] {
  return packets.map((octets) => Buffer.from(octets).toString('hex')).sort();
}

function ofFlow(packets: readonly Uint8Array[], flow: number): string[] {
  return packets
    .filter((octets) => octets[20]! * 256 + octets[21]! === 1000 + flow)
    .map((octets) => Buffer.from(octets).toString('hex'));
}
