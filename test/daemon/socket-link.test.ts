import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { deliverToSockets, SocketSource } from '../../src/daemon/socket-link.ts';
import type { SocketRegistry } from '../../src/daemon/socket-registry.ts';
import { PolicySocket } from '../../src/daemon/socket-with-policy.ts';
import type { Link } from '../../src/drivers/link.ts';
import { type SocketEnds, SocketPolicies, type Takers } from '../../src/engine/socket-policies.ts';
import { ENTRUST } from '../../src/engine/socket-rule.ts';
import { setU16 } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { type Packet, packetFrom } from '../../src/wire/packet.ts';

const A = address('10.0.0.1');
const B = address('10.0.0.2');

function packet(protocol: number, sport: number, dport: number): Packet {
  const p = new Uint8Array(28);
  ipv4.write(p, 0, 0, p.length, 0, 0, 64, protocol);
  p.set(A.bytes, ipv4.SRC_AT);
  p.set(B.bytes, ipv4.DST_AT);
  setU16(p, 20, sport);
  setU16(p, 22, dport);
  return packetFrom(p);
}

describe('what sockets send', () => {
  const asked: string[] = [];
  let nowMs = 0;
  let sent = 0;
  const table = new SocketPolicies();
  const source = new SocketSource({
    table,
    registry: {
      learn: ({ localPort, remotePort }, listener) =>
        asked.push(`${localPort} ${remotePort}${listener ? ' listener' : ''}`),
      learnEcho: () => asked.push('echo'),
    } as Pick<SocketRegistry, 'learn' | 'learnEcho'> as SocketRegistry,
    clock: { monotonicMs: () => nowMs, wallMs: () => 0 },
    device: 9,
    output: (_, count) => {
      sent += count;
    },
  });

  function socket(isListening: boolean, ends: Partial<SocketEnds>): void {
    const end = (one: SocketEnds['local'], port = 0) => ({ address: one, port });
    new PolicySocket(
      table,
      {
        ...{ cookie: 1, inode: 1, uid: 0, isListening, isDual: false, family: 4 },
        ...(ends.protocol === 6
          ? { type: 'stream', protocol: 6 }
          : { type: 'datagram', protocol: 17 }),
        local: end(ends.local, ends.localPort),
        remote: end(ends.remote, ends.remotePort),
      },
      { privileged: false, asker: { pid: 1, uid: 0 }, rules: ENTRUST },
    );
  }

  function ask(...packets: Packet[]): string[] {
    asked.length = 0;
    source.take(packets, packets.length);
    return [...asked];
  }

  test('the kernel is asked about what is not known, and about connections of a listener', () => {
    socket(false, { protocol: 17, localPort: 5000 });
    socket(true, { protocol: 6, localPort: 80 });
    socket(false, { protocol: 6, localPort: 81, local: A, remote: B, remotePort: 1 });
    socket(false, { protocol: 6, localPort: 82 });
    expect(ask(packet(17, 5000, 1))).toEqual([]);
    expect(ask(packet(17, 5001, 1))).toEqual(['5001 1']);
    expect(ask(packet(6, 80, 1))).toEqual(['80 1 listener']);
    expect(ask(packet(6, 81, 1))).toEqual([]);
    // A connection whose other end is not known yet.
    expect(ask(packet(6, 82, 1))).toEqual(['82 1 listener']);
    // An echo request: type 8.
    expect(ask(packet(1, 8 << 8, 0))).toEqual(['echo']);
    expect(ask(packet(47, 0, 0), packetFrom(new Uint8Array(3)))).toEqual([]);
    expect(sent).toBe(8);
  });

  test('so many times a second and no more', () => {
    const flood = Array.from({ length: 3000 }, () => packet(17, 1, 1));
    nowMs += 1000;
    expect(ask(...flood)).toHaveLength(2000);
    expect(ask(...flood)).toHaveLength(0);
    nowMs += 1000;
    expect(ask(...flood)).toHaveLength(2000);
  });
});

describe('what is for sockets', () => {
  function link(name: string, log: string[]): Link {
    return {
      name,
      refused: 0,
      receive: () => undefined,
      send: (packets, count) => log.push(`${name} ${count} of ${packets.length}`),
      close: () => undefined,
    };
  }

  test('goes by the device to those that are bound to it, in order', () => {
    const log: string[] = [];
    const table = new SocketPolicies();
    const owner = (isOnDevice: boolean) => {
      const nowhere = { address: undefined, port: 1 };
      const one = new PolicySocket(
        table,
        {
          ...{ cookie: 1, inode: 1, uid: 0, isListening: false, isDual: false, family: 4 },
          ...{ type: 'datagram', protocol: 17, local: nowhere, remote: nowhere },
        },
        { privileged: false, asker: { pid: 1, uid: 0 }, rules: ENTRUST },
      );
      one.isOnDevice = isOnDevice;
      return one.entries[0]!.alone;
    };
    const [on, off] = [owner(true), owner(false)];
    const both: Takers = { sockets: [...off.sockets, ...on.sockets], others: true };
    const takers = [on, on, off, both, off];
    const packets = takers.map(() => packet(17, 1, 1));
    const [local, device] = [link('local', log), link('device', log)];
    deliverToSockets(packets, 5, takers, local, device);
    expect(log).toEqual(['device 2 of 2', 'local 1 of 1', 'device 1 of 1', 'local 1 of 1']);
    log.length = 0;
    deliverToSockets(packets, 5, takers, local, undefined);
    expect(log).toEqual(['local 5 of 5']);
  });
});
