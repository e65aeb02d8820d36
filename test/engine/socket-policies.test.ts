import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { KeyError } from '../../src/base/error.ts';
import {
  type SocketEnds,
  type SocketEntry,
  SocketPolicies,
} from '../../src/engine/socket-policies.ts';
import { plainRule, type SocketRule } from '../../src/engine/socket-rule.ts';
import { setU16 } from '../../src/wire/bytes.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as icmp from '../../src/wire/icmp.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { concat, counting } from '../wire/octets.ts';
import { request } from './rig.ts';

const UDP = 17;
const TCP = 6;

const PLAIN = { privileged: true };
const IPSEC: SocketRule = { ...plainRule('entrust', 'in'), type: 'ipsec', requests: [request({})] };

/** From `near` to `far` with these ports, or the other way round. */
function packet(near: string, port: number, far: string, farPort: number, protocol = UDP) {
  const make = (src: string, sport: number, dst: string, dport: number) => {
    const [from, to] = [address(src), address(dst)];
    const header = from.family === 4 ? ipv4 : ipv6;
    const p = concat(new Uint8Array(header.HEADER_LEN), counting(20));
    if (from.family === 4) ipv4.write(p, 0, 0, p.length, 1, 0, 64, protocol);
    else ipv6.write(p, 0, 0, 0, 20, protocol, 64);
    p.set(from.bytes, header.SRC_AT);
    p.set(to.bytes, header.DST_AT);
    setU16(p, header.HEADER_LEN, sport);
    setU16(p, header.HEADER_LEN + 2, dport);
    return p;
  };
  return { out: make(near, port, far, farPort), in: make(far, farPort, near, port) };
}

function asked(
  table: SocketPolicies,
  direction: 'in' | 'out',
  p: Uint8Array,
): SocketEntry | undefined {
  const cursor = new Cursor();
  expect(decode(p, 0, p.length, cursor)).toBeUndefined();
  return direction === 'out' ? table.sender(p, cursor) : table.find('in', p, cursor);
}

function ends(given: {
  family?: 4 | 6;
  protocol?: number;
  local?: string;
  port?: number;
  remote?: string;
  remotePort?: number;
  raw?: boolean;
}): SocketEnds {
  const { family = 4, protocol = UDP, local, port = 0, remote, remotePort = 0, raw } = given;
  return {
    ...{ family, protocol, localPort: port, remotePort },
    ...(local === undefined ? {} : { local: address(local) }),
    ...(remote === undefined ? {} : { remote: address(remote) }),
    ...(raw === undefined ? {} : { raw }),
  };
}

describe('whose packet it is', () => {
  test('the most specific socket: connected, bound to the address, bound to the port', () => {
    const table = new SocketPolicies();
    const open = (given: Parameters<typeof ends>[0]) => table.open(ends(given), PLAIN);
    const all = open({ port: 5000 });
    const here = open({ port: 5000, local: '10.0.0.1' });
    const anywhere = open({ port: 5000, remote: '10.0.0.2', remotePort: 7 });
    const connected = open({ port: 5000, local: '10.0.0.1', remote: '10.0.0.2', remotePort: 7 });
    open({ port: 5001 });
    const one = packet('10.0.0.1', 5000, '10.0.0.2', 7);
    for (const expected of [connected, anywhere, here, all]) {
      expect(asked(table, 'out', one.out)).toBe(expected.entry);
      expect(asked(table, 'in', one.in)).toBe(expected.entry);
      // Everybody else finds another socket, or none.
      expect(asked(table, 'out', packet('10.0.0.9', 5000, '10.0.0.8', 7).out)).toBe(all.entry);
      if (expected !== all) expected.close();
    }
    all.close();
    expect(asked(table, 'out', one.out)).toBeUndefined();
    expect(table.size).toBe(1);
  });

  test.each([
    ['another port', packet('10.0.0.1', 5001, '10.0.0.2', 7)],
    ['another protocol', packet('10.0.0.1', 5000, '10.0.0.2', 7, TCP)],
    ['another family', packet('fd00::1', 5000, 'fd00::2', 7)],
    ['another address', packet('10.0.0.3', 5000, '10.0.0.2', 7)],
    ['another peer', packet('10.0.0.1', 5000, '10.0.0.3', 7)],
    ["another port of the peer's", packet('10.0.0.1', 5000, '10.0.0.2', 8)],
  ])('not of %s', (_, other) => {
    const table = new SocketPolicies();
    const given = { port: 5000, local: '10.0.0.1', remote: '10.0.0.2', remotePort: 7 };
    table.open(ends(given), PLAIN);
    expect(asked(table, 'out', packet('10.0.0.1', 5000, '10.0.0.2', 7).out)).toBeDefined();
    expect(asked(table, 'out', other.out)).toBeUndefined();
    expect(asked(table, 'in', other.in)).toBeUndefined();
  });

  test('without a port it has no packets, until it moves', () => {
    const table = new SocketPolicies();
    const socket = table.open(ends({}), PLAIN);
    const one = packet('fd00::1', 5000, 'fd00::2', 7);
    expect(asked(table, 'out', packet('10.0.0.1', 0, '10.0.0.2', 7).out)).toBeUndefined();
    socket.move(ends({ family: 6, port: 5000 }));
    expect(asked(table, 'in', one.in)).toBe(socket.entry);
    const given = { family: 6 as const, port: 5000, remote: 'fd00::2', remotePort: 7 };
    socket.move(ends(given));
    expect(asked(table, 'in', one.in)).toBe(socket.entry);
    expect(asked(table, 'in', packet('fd00::1', 5000, 'fd00::3', 7).in)).toBeUndefined();
    expect(table.get(ends(given))).toBe(socket.entry);
    expect(table.get(ends({ family: 6, port: 5000 }))).toBeUndefined();
  });

  test('of two that are equally specific the stricter one in that direction, then the older one', () => {
    const table = new SocketPolicies();
    const one = packet('10.0.0.1', 5000, '10.0.0.2', 7);
    const bypass = table.open(ends({ port: 5000 }), {
      privileged: true,
      in: plainRule('bypass', 'in'),
    });
    const first = table.open(ends({ port: 5000 }), PLAIN);
    const second = table.open(ends({ port: 5000 }), PLAIN);
    expect(asked(table, 'in', one.in)).toBe(first.entry);
    expect(asked(table, 'out', one.out)).toBe(bypass.entry);
    second.setRule('in', IPSEC);
    expect(asked(table, 'in', one.in)).toBe(second.entry);
    expect(asked(table, 'out', one.out)).toBe(bypass.entry);
  });

  test('ICMP echo by its identifier: requests that go out, and replies that come in', () => {
    const table = new SocketPolicies();
    const socket = table.open(ends({ protocol: 1, port: 77 }), PLAIN);
    const echo = (type: number, id: number) => {
      const p = packet('10.0.0.1', 0, '10.0.0.2', 0, 1).out;
      icmp.write(p, 20, type, 0, (id << 16) | 1);
      return p;
    };
    expect(asked(table, 'out', echo(8, 77))).toBe(socket.entry);
    expect(asked(table, 'in', echo(0, 77))).toBe(socket.entry);
    // The identifier of a request that comes in is of the peer's socket.
    const others: ['in' | 'out', number, number][] = [
      ['in', 8, 77],
      ['out', 0, 77],
      ['out', 8, 78],
      ['in', 3, 77],
    ];
    for (const [side, type, id] of others)
      expect(asked(table, side, echo(type, id))).toBeUndefined();
  });

  test('a socket that is bound to no address gets what is to this host, not what is forwarded', () => {
    const isLocal = (_: 4 | 6, p: Uint8Array, at: number) => p[at + 3] === 1;
    const table = new SocketPolicies({ isLocal });
    const socket = table.open(ends({ port: 5000 }), PLAIN);
    expect(asked(table, 'in', packet('10.0.0.1', 5000, '10.0.0.2', 7).in)).toBe(socket.entry);
    expect(asked(table, 'in', packet('10.0.0.9', 5000, '10.0.0.2', 7).in)).toBeUndefined();
  });

  test('raw sockets: all that have the protocol, none that has not', () => {
    const table = new SocketPolicies();
    const raws = [{}, { local: '10.0.0.1' }, { remote: '10.0.0.2' }, { local: '10.0.0.7' }].map(
      (given) => table.open(ends({ ...given, protocol: 89, raw: true }), PLAIN).entry,
    );
    const p = packet('10.0.0.1', 1, '10.0.0.2', 2, 89).in;
    const cursor = new Cursor();
    decode(p, 0, p.length, cursor);
    expect(new Set(table.raws('in', p, cursor))).toEqual(new Set(raws.slice(0, 3)));
    expect(table.find('in', p, cursor)).toBeUndefined();
    expect(asked(table, 'out', packet('10.0.0.1', 1, '10.0.0.2', 2, 89).out)).toBe(raws[2]);
    expect(asked(table, 'out', packet('10.0.0.1', 1, '10.0.0.2', 2, 88).out)).toBeUndefined();
  });
});

test('agrees with the dumbest table', () => {
  const host = fc.constantFrom('10.0.0.1', '10.0.0.2', '10.0.0.3');
  const port = fc.integer({ min: 1, max: 3 });
  const socket = fc.record({
    port,
    local: fc.option(host, { nil: undefined }),
    peer: fc.option(fc.record({ remote: host, remotePort: port }), { nil: undefined }),
  });
  const flow = fc.record({ near: host, port, far: host, farPort: port });
  fc.assert(
    fc.property(
      fc.array(socket, { maxLength: 12 }),
      fc.array(flow),
      fc.integer(),
      (sockets, flows, cut) => {
        const table = new SocketPolicies();
        const all = sockets.map(({ port: own, local, peer }) => ({
          ...{ own, local, peer },
          handle: table.open(ends({ port: own, ...(local ? { local } : {}), ...peer }), PLAIN),
        }));
        // Some are gone again.
        const open = all.filter((one, i) => {
          const stays = (cut >> i) % 2 === 0;
          if (!stays) one.handle.close();
          return stays;
        });
        for (const { near, port: own, far, farPort } of flows) {
          const best = open
            .filter((one) => one.own === own && (one.local ?? near) === near)
            .filter(({ peer }) => !peer || (peer.remote === far && peer.remotePort === farPort))
            .sort((a, b) => {
              const rank = (one: typeof a) => (one.peer ? 2 : 0) + (one.local ? 1 : 0);
              return rank(b) - rank(a) || a.handle.entry.id - b.handle.entry.id;
            })[0];
          const one = packet(near, own, far, farPort);
          expect(asked(table, 'in', one.in)).toBe(best?.handle.entry);
          expect(asked(table, 'out', one.out)).toBe(best?.handle.entry);
        }
      },
    ),
  );
});

describe('rules', () => {
  test('a bypass needs privilege, also when the socket is opened with it', () => {
    const table = new SocketPolicies();
    const refused = expect.objectContaining({ errno: 'EACCES' });
    const bypass = { privileged: false, out: plainRule('bypass', 'out') };
    expect(() => table.open(ends({ port: 1 }), bypass)).toThrow(KeyError);
    expect(() => table.open(ends({ port: 1 }), bypass)).toThrow(refused);
    expect(table.size).toBe(0);
    const handle = table.open(ends({ port: 1 }), { privileged: false });
    expect(() => handle.setRule('in', plainRule('bypass', 'in'))).toThrow(refused);
    expect(handle.entry.rules.in.type).toBe('entrust');
    handle.setRule('in', IPSEC);
    expect(handle.entry.policies.in).toMatchObject({ type: 'ipsec', direction: 'in' });
  });

  test('an accepted socket has those of the one that listens, which then may change its own', () => {
    const table = new SocketPolicies();
    const listener = table.open(ends({ protocol: TCP, port: 80 }), {
      privileged: false,
      owner: 'l',
    });
    listener.setRule('in', IPSEC);
    const far = { remote: '10.0.0.2', remotePort: 7 };
    const given = { protocol: TCP, port: 80, local: '10.0.0.1', ...far };
    const accepted = listener.inherit(ends(given), 'a');
    listener.setRule('in', plainRule('entrust', 'in'));
    const { entry } = accepted;
    expect([entry.rules.in, entry.privileged, entry.owner]).toEqual([IPSEC, false, 'a']);
    expect(asked(table, 'in', packet('10.0.0.1', 80, '10.0.0.2', 7, TCP).in)).toBe(entry);
    listener.close();
    expect(table.size).toBe(1);
  });

  test('there is a limit to the table, and reaching it is counted', () => {
    const table = new SocketPolicies({ max: 2 });
    const first = table.open(ends({ port: 1 }), PLAIN);
    table.open(ends({ port: 2 }), PLAIN);
    const full = expect.objectContaining({ errno: 'ENOBUFS' });
    expect(() => table.open(ends({ port: 3 }), PLAIN)).toThrow(full);
    expect(() => first.inherit(ends({ port: 3 }))).toThrow(full);
    expect(table.refused).toBe(2);
    first.close();
    first.close();
    expect(table.open(ends({ port: 3 }), PLAIN).entry.ends.localPort).toBe(3);
  });

  test('every change is one', () => {
    const table = new SocketPolicies();
    const seen = [table.generation];
    const handle = table.open(ends({ port: 1 }), PLAIN);
    seen.push(table.generation);
    handle.setRule('out', IPSEC);
    seen.push(table.generation);
    handle.move(ends({ port: 2 }));
    seen.push(table.generation);
    handle.close();
    seen.push(table.generation);
    expect(new Set(seen).size).toBe(5);
  });
});
