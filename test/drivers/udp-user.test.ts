import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import type { Endpoint } from '../../src/drivers/udp-packet.ts';
import { prependUdp } from '../../src/drivers/udp-packet.ts';
import { openUdpUser, type UdpUserLink } from '../../src/drivers/udp-user.ts';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import { packetFrom } from '../../src/wire/packet.ts';

const links: UdpUserLink[] = [];
afterEach(() => {
  for (const link of links.splice(0)) link.close();
});

async function open(...texts: string[]): Promise<UdpUserLink> {
  const endpoints = texts.map((text) => ({ address: address(text), port: 0 }));
  const link = await openUdpUser({ endpoints });
  links.push(link);
  return link;
}

function udp(payload: Uint8Array, from: Endpoint, to: Endpoint) {
  const packet = packetFrom(payload);
  prependUdp(packet, from, to);
  return packet;
}

function received(link: UdpUserLink): Promise<Uint8Array> {
  return new Promise((resolve) => link.receive((packets) => resolve(packets[0]!.copy())));
}

describe('UDP packets', () => {
  test('IPv4 and IPv6 headers, against packets made by scapy', () => {
    const v4 = packetFrom(fromHex('abcdef'));
    prependUdp(
      v4,
      { address: address('192.0.2.1'), port: 4500 },
      { address: address('198.51.100.7'), port: 501 },
    );
    expect(toHex(v4.copy())).toBe('4500001f0000400040114e92c0000201c6336407119401f5000b0000abcdef');
    const v6 = packetFrom(fromHex('abcdef'));
    prependUdp(
      v6,
      { address: address('2001:db8::1'), port: 4500 },
      { address: address('2001:db8::2'), port: 501 },
    );
    expect(toHex(v6.copy())).toBe(
      '60000000000b114020010db800000000000000000000000120010db8000000000000000000000002' +
        '119401f5000bf60babcdef',
    );
  });
});

describe.each(['127.0.0.1', '::1'])('a link of UDP sockets on %s', (text) => {
  test('carries whole packets between two links', async () => {
    const [a, b] = [await open(text), await open(text)];
    const packet = udp(Uint8Array.of(1, 2, 3), a.endpoints[0]!, b.endpoints[0]!);
    const arrives = received(b);
    a.send([packet], 1);
    expect(toHex(await arrives)).toBe(toHex(packet.copy()));
    expect(a.refused).toBe(0);
  });

  test('speaks with a plain socket', async () => {
    const link = await open(text);
    const plain = createSocket(text.includes(':') ? 'udp6' : 'udp4');
    plain.bind(0, text);
    await once(plain, 'listening');
    const there = { address: address(text), port: plain.address().port };
    const message = once(plain, 'message');
    link.send([udp(Uint8Array.of(5, 6), link.endpoints[0]!, there)], 1);
    const [payload, from] = await message;
    expect([...payload]).toEqual([5, 6]);
    expect(from.port).toBe(link.endpoints[0]!.port);
    plain.close();
  });

  test('refuses and counts what it cannot send', async () => {
    const link = await open(text);
    const mine = link.endpoints[0]!;
    const other = { ...mine, port: mine.port ^ 1 };
    const bad = udp(Uint8Array.of(1), mine, other);
    bad.bytes[bad.at + (text.includes(':') ? 6 : 9)] = 50;
    link.send([udp(Uint8Array.of(1), other, mine), bad, packetFrom(new Uint8Array(3))], 3);
    expect(link.refused).toBe(3);
    expect(Object.fromEntries(link.refusals)).toEqual({
      'not from an endpoint of this link': 1,
      'not UDP': 1,
      'not IPv4 or IPv6': 1,
    });
  });
});

test('refuses beyond its queue, and takes packets again when the queue has gone out', async () => {
  const here = { address: address('127.0.0.1'), port: 0 };
  const link = await openUdpUser({ endpoints: [here], sendQueueMax: 4 });
  links.push(link);
  const sink = await open('127.0.0.1');
  const packet = udp(Uint8Array.of(1), link.endpoints[0]!, sink.endpoints[0]!);
  const arrives = received(sink);
  link.send(Array(10).fill(packet), 10);
  expect(link.refusals.get('send queue full')).toBe(6);
  await arrives;
  const again = received(sink);
  link.send([packet], 1);
  await again;
  expect(link.refused).toBe(6);
});

test('a taken port and a wildcard address are refused with a sentence', async () => {
  const first = await open('127.0.0.1');
  await expect(openUdpUser({ endpoints: first.endpoints })).rejects.toThrow(
    /cannot listen on UDP 127\.0\.0\.1 port \d+: .*EADDRINUSE/,
  );
  await expect(open('::')).rejects.toThrow('cannot listen on ::: name one address');
});
