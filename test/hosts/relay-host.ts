/**
 * The drivers of a host with nothing between them: what a TUN device sends goes to the peer as UDP,
 * behind eight octets in place of ESP, and back. Run inside a network namespace of its own, with
 * the options as JSON; ends with its standard input, after a line of JSON with what it counted.
 */
import { address } from '../../src/base/address.ts';
import { openTun } from '../../src/drivers/linux/tun.ts';
import { openWire } from '../../src/drivers/linux/wire-link.ts';
import {
  finishUdpHeaders,
  UDP_HEADERS_LEN,
  writeUdpHeaders,
} from '../../src/drivers/udp-packet.ts';
import type { Packet } from '../../src/wire/packet.ts';

interface Options {
  readonly tun: string;
  readonly mtu: number;
  readonly offload: 'auto' | 'off';
  /** Of the TUN device. Default 1. */
  readonly queues?: number;
  /** Addresses of the wire. */
  readonly local: string;
  readonly peer: string;
}

const PORT = 4500;
const MARK = 7557;
const GAP = 8;

const {
  tun: name,
  mtu,
  offload,
  queues = 1,
  local,
  peer,
} = JSON.parse(process.argv[2]!) as Options;
const us = { bytes: address(local).bytes, at: 0, port: PORT };
const them = { bytes: address(peer).bytes, at: 0, port: PORT };
const { family } = address(local);
const headersLen = UDP_HEADERS_LEN[family];
const meta = { trafficClass: 0, hopLimit: 64 };

const udp = { encapPort: PORT, rawIp: false };
const wire = openWire({ mark: MARK, families: [family], offload, ...udp });
const tuns = Array.from({ length: queues }, (_, i) => {
  const queue = i === 0 ? ('first' as const) : ('further' as const);
  return openTun({ name, mtu, offload, ...(queues > 1 ? { queue } : {}) });
});
const tun = tuns[0]!;
for (const queue of tuns) wire.backlog.pauses(queue);
const perQueue = tuns.map(() => 0);
const seen = { batches: 0, packets: 0, follows: 0, received: 0, receivedBatches: 0 };
const inner: Packet[] = [];

for (const [i, queue] of tuns.entries()) {
  queue.receive((packets, count) => {
    perQueue[i]! += count;
    seal(packets, count);
  });
}

function seal(packets: readonly Packet[], count: number): void {
  seen.batches++;
  seen.packets += count;
  for (let i = 0; i < count; i++) {
    const packet = packets[i]!;
    if (packet.follows) seen.follows++;
    packet.at -= GAP;
    packet.bytes.fill(0x5a, packet.at, packet.at + GAP);
    packet.at -= headersLen;
    writeUdpHeaders(packet.bytes, packet.at, family, us, them, meta);
    finishUdpHeaders(packet, family);
  }
  wire.send(packets, count);
}

wire.receive((packets, count) => {
  seen.receivedBatches++;
  seen.received += count;
  inner.length = 0;
  for (let i = 0; i < count; i++) {
    const packet = packets[i]!;
    packet.at += headersLen + GAP;
    inner.push(packet);
  }
  tun.send(inner, count);
});
console.log(JSON.stringify({ ready: true, tun: tun.describe(), udp: wire.describeEncap() }));

process.stdin.on('end', () => {
  const refused = [...tuns, wire].flatMap(({ refusals }) => [...refusals]);
  console.log(JSON.stringify({ ...seen, perQueue, refused }));
  for (const queue of tuns) queue.close();
  wire.close();
});
process.stdin.resume();
