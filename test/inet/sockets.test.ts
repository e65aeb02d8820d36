import { beforeEach, describe, expect, test } from 'vitest';
import { address, formatAddress } from '../../src/base/address.ts';
import { Inet } from '../../src/inet/inet.ts';
import { setU16 } from '../../src/wire/bytes.ts';
import { transportChecksumOk } from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import { dissect } from '../../src/wire/dissect.ts';
import { type Packet, packetFrom } from '../../src/wire/packet.ts';
import { icmpError } from '../engine/errors.ts';
import { concat, counting, hex, ipv4Packet, udp } from '../wire/octets.ts';

/** Two hosts without IPsec, joined by a wire that shows what passes. */
class Wire {
  readonly seen: string[] = [];
  readonly octets: Uint8Array[] = [];
  readonly a: Inet = this.#host(['10.0.0.1', 'fd00::1'], () => this.b);
  readonly b: Inet = this.#host(['10.0.0.2', '10.0.0.3', 'fd00::2'], () => this.a);

  #host(addresses: readonly string[], peer: () => Inet): Inet {
    return new Inet({
      addresses: addresses.map(address),
      socketsMax: 20_000,
      send: (packets: readonly Packet[], count) => {
        for (const packet of packets.slice(0, count)) {
          this.octets.push(packet.copy());
          this.seen.push(dissect(packet.bytes, packet.at, packet.end));
          peer().receive([packetFrom(packet.copy())], 1);
        }
      },
    });
  }
}

let wire: Wire;
beforeEach(() => {
  wire = new Wire();
});

const refused = (errno: string) => expect.objectContaining({ errno });
const TEXT = hex('68690a');

describe('UDP', () => {
  test.each(['10.0.0.2', 'fd00::2'])('a datagram to %s, and its answer', (to) => {
    const got: unknown[] = [];
    const echo = wire.b.openUdp(7, (data, from, port) => echo.send(data, from, port));
    const socket = wire.a.openUdp(0, (data, from, port) => {
      got.push([data.slice(), formatAddress(from), port]);
    });
    socket.send(TEXT, address(to), 7);
    expect(got).toEqual([[TEXT, to, 7]]);
    expect(wire.seen[0]).toContain(`.${socket.port} > ${to}.7: UDP`);
    for (const p of wire.octets) expect(checksumOk(p)).toBe(true);
  });

  test('sockets of one port: that of the address, then that of none', () => {
    const got: string[] = [];
    const open = (name: string, local?: string) =>
      wire.b.openUdp(5, () => got.push(name), local ? { local: address(local) } : {});
    open('second', '10.0.0.2');
    open('third', '10.0.0.3');
    const sender = wire.a.openUdp(0, () => {});
    for (const to of ['10.0.0.3', '10.0.0.2']) sender.send(TEXT, address(to), 5);
    expect(got).toEqual(['third', 'second']);
    expect(() => open('again', '10.0.0.2')).toThrow(refused('EBUSY'));
    expect(() => open('all')).toThrow(refused('EBUSY'));
    expect(() => open('not ours', '10.0.0.9')).toThrow(refused('EINVAL'));
  });

  test('connected: it has a destination, and hears nobody else', () => {
    const got: string[] = [];
    const server = wire.b.openUdp(5, (_, from) => got.push(formatAddress(from)));
    const client = wire.a.openUdp(0, () => got.push('client'));
    expect(() => client.send(TEXT)).toThrow(refused('EINVAL'));
    client.connect(address('10.0.0.2'), 5);
    client.send(TEXT);
    server.send(TEXT, address('10.0.0.1'), client.port);
    expect(got).toEqual(['10.0.0.1', 'client']);
    wire.b.openUdp(6, () => {}).send(TEXT, address('10.0.0.1'), client.port);
    expect(got).toEqual(['10.0.0.1', 'client']);
    expect(wire.seen.at(-1)).toMatch(/ICMP .*unreachable/);
  });

  test('ports of its own are given out once, and again when all were', () => {
    const sockets = Array.from({ length: 16_384 }, () => wire.a.openUdp(0, () => {}));
    expect(new Set(sockets.map(({ port }) => port)).size).toBe(16_384);
    expect(Math.min(...sockets.map(({ port }) => port))).toBe(49_152);
    expect(() => wire.a.openUdp(0, () => {})).toThrow(refused('ENOBUFS'));
    sockets[77]!.close();
    sockets[77]!.close();
    expect(wire.a.openUdp(0, () => {}).port).toBe(sockets[77]!.port);
  });

  test('without a handler datagrams wait, and no more of them than are wanted', () => {
    const queue = wire.b.openUdp(5, undefined, { queueMax: 2 });
    const socket = wire.a.openUdp(9, () => {});
    for (let i = 0; i < 5; i++) socket.send(Uint8Array.of(i), address('10.0.0.2'), 5);
    const from = { from: address('10.0.0.1'), port: 9 };
    expect(queue.receive()).toEqual({ data: Uint8Array.of(0), ...from });
    expect(queue.receive()).toEqual({ data: Uint8Array.of(1), ...from });
    expect([queue.receive(), queue.lost]).toEqual([undefined, 3]);
    const large = wire.b.openUdp(6, undefined);
    for (let i = 0; i < 5; i++) socket.send(new Uint8Array(60_000), address('10.0.0.2'), 6);
    expect(large.lost).toBe(1);
  });

  test.each(['10.0.0.2', 'fd00::2'])('nobody listens at %s: the sender is told', (to) => {
    const errors: unknown[] = [];
    const socket = wire.a.openUdp(0, () => {}, { error: (error) => errors.push(error) });
    socket.send(counting(2000), address(to), 7);
    const [type, code] = to.includes(':') ? [1, 4] : [3, 3];
    expect(errors).toEqual([{ to: address(to), port: 7, type, code, mtu: 0 }]);
    expect(checksumOk(wire.octets[1]!)).toBe(true);
    // As much of the datagram as every path carries.
    expect(wire.octets[1]!.length).toBe(to.includes(':') ? 1280 : 576);
    expect(wire.b.unwanted).toBe(1);
  });

  test('an error about what it has not sent tells nothing', () => {
    const errors: unknown[] = [];
    wire.a.openUdp(1000, () => {}, { error: (error) => errors.push(error) });
    const sent = ipv4Packet({ protocol: 17 }, udp(TEXT));
    const other = ipv4Packet({ protocol: 17, src: 5 }, udp(TEXT));
    setU16(other, 20, 1001);
    wire.a.receive([packetFrom(icmpError(other, 3, 3, { dst: [10, 0, 0, 1] }))], 1);
    wire.a.receive([packetFrom(icmpError(other.slice(0, 22), 3, 3, { dst: [10, 0, 0, 1] }))], 1);
    expect(errors).toEqual([]);
    wire.a.receive([packetFrom(icmpError(sent, 3, 4, { rest: 1400 }))], 1);
    expect(errors).toMatchObject([{ port: 2000, type: 3, code: 4, mtu: 1400 }]);
    expect(wire.a.unwanted).toBe(2);
  });

  test('closed: no more packets either way', () => {
    const socket = wire.a.openUdp(9, () => {});
    socket.close();
    expect(() => socket.send(TEXT, address('10.0.0.2'), 5)).toThrow(refused('EINVAL'));
    expect(wire.a.openUdp(9, () => {}).port).toBe(9);
  });

  test('what does not fit, or has no address here', () => {
    const socket = wire.a.openUdp(0, () => {}, { local: address('10.0.0.1') });
    const to = address('10.0.0.2');
    expect(() => socket.send(new Uint8Array(65_508), to, 5)).toThrow(refused('EMSGSIZE'));
    expect(() => socket.send(TEXT, address('fd00::2'), 5)).toThrow(refused('EAFNOSUPPORT'));
    for (const port of [0, -1, 65_536, 1.5]) {
      expect(() => socket.send(TEXT, to, port)).toThrow(refused('EINVAL'));
      expect(() => socket.connect(to, port)).toThrow(refused('EINVAL'));
      if (port !== 0) expect(() => wire.a.openUdp(port, () => {})).toThrow(refused('EINVAL'));
    }
    expect(wire.seen).toEqual([]);
  });
});

describe('ICMP echo', () => {
  test.each(['10.0.0.2', 'fd00::2'])('%s answers', (to) => {
    const got: unknown[] = [];
    const socket = wire.a.openEcho((seq, data, from, hops) => {
      got.push([seq, data.slice(), formatAddress(from), hops]);
    });
    wire.a.openEcho(() => got.push('another one'));
    socket.send(0xffff, TEXT, address(to));
    expect(got).toEqual([[0xffff, TEXT, to, 64]]);
    socket.close();
    socket.send(1, TEXT, address(to));
    expect([got.length, wire.a.unwanted]).toEqual([1, 1]);
  });
});

describe('raw sockets', () => {
  test('get copies of their protocol, and send it', () => {
    const got: unknown[] = [];
    const note = (name: string) => (data: Uint8Array, from: { family: number }) =>
      got.push([name, data.slice(), from.family]);
    wire.b.openRaw(89, note('all'));
    wire.b.openRaw(89, note('third'), { local: address('10.0.0.3') });
    wire.b.openRaw(89, note('of five'), { remote: address('10.0.0.5') });
    const socket = wire.a.openRaw(89, () => {});
    socket.send(TEXT, address('10.0.0.2'));
    socket.send(TEXT, address('fd00::2'));
    expect(got).toEqual([
      ['all', TEXT, 4],
      ['all', TEXT, 6],
    ]);
    socket.close();
    wire.a.openRaw(90, () => {}).send(TEXT, address('10.0.0.2'));
    expect([got.length, wire.b.unwanted]).toEqual([2, 1]);
  });

  test('of ICMP see requests and replies beside those whose they are', () => {
    const got: number[] = [];
    wire.a.openRaw(1, (data) => got.push(data[0]!));
    wire.b.openRaw(1, (data) => got.push(data[0]!));
    let replies = 0;
    const socket = wire.a.openEcho(() => {
      replies++;
    });
    socket.send(1, TEXT, address('10.0.0.2'));
    expect([replies, got.sort()]).toEqual([1, [0, 8]]);
  });

  test.each([6, 17, 0, 255, 1.5])('there are none of protocol %d', (protocol) => {
    expect(() => wire.a.openRaw(protocol, () => {})).toThrow(refused('EPROTONOSUPPORT'));
  });
});

test('there is a limit to the sockets of a host, whatever they are', () => {
  const inet = new Inet({ addresses: [address('10.0.0.1')], send: () => {}, socketsMax: 3 });
  const one = inet.openUdp(0, () => {});
  inet.openEcho(() => {});
  inet.openRaw(89, () => {});
  expect(() => inet.openEcho(() => {})).toThrow(refused('ENOBUFS'));
  expect(() => inet.openUdp(one.port, () => {})).toThrow(refused('ENOBUFS'));
  one.close();
  one.close();
  expect(() => inet.openRaw(6, () => {})).toThrow(refused('EPROTONOSUPPORT'));
  inet.openUdp(0, () => {});
  expect(() => inet.openEcho(() => {})).toThrow(refused('ENOBUFS'));
});

test('what nobody wants is counted, and nothing makes it throw', () => {
  const { a } = wire;
  const ours = { protocol: 17 };
  const datagram = (change: (p: Uint8Array) => void) => {
    const p = ipv4Packet(ours, udp(concat(TEXT, counting(9))));
    p.set([10, 0, 0, 2, 10, 0, 0, 1], 12);
    change(p);
    return p;
  };
  const bad = [
    datagram((p) => p.set([10, 0, 0, 9], 16)),
    datagram((p) => setU16(p, 24, 5)),
    datagram((p) => setU16(p, 24, 900)),
    datagram((p) => setU16(p, 26, 1)),
    datagram((p) => setU16(p, 6, 0x2000)),
    ipv4Packet({ protocol: 1 }, TEXT),
    hex('45'),
  ];
  for (const p of bad) a.receive([packetFrom(p)], 1);
  expect(a.unwanted).toBe(bad.length);
  expect(wire.seen).toEqual([]);
});

function checksumOk(p: Uint8Array): boolean {
  const cursor = new Cursor();
  if (decode(p, 0, p.length, cursor) !== undefined) return false;
  return transportChecksumOk(p, cursor);
}
