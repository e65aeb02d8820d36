import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { Link } from '../../../src/drivers/link.ts';
import { copy, equal, setU16, setU32, u8, u16 } from '../../../src/wire/bytes.ts';
import * as checksum from '../../../src/wire/checksum.ts';
import { Cursor, decode } from '../../../src/wire/cursor.ts';
import * as icmp from '../../../src/wire/icmp.ts';
import * as ipv6 from '../../../src/wire/ipv6.ts';
import { PACKET_LEN_MAX, PacketArena, type PacketSink } from '../../../src/wire/packet.ts';
import { PROTO } from '../../../src/wire/protocol.ts';
import type { Nic } from './uml.ts';

/**
 * The other end of the guest's network card, as a link for IP packets: a wire with two hosts on it.
 * Per datagram
 *
 *     L2TPv3 over UDP (RFC 3931 §4.1.2.1): flags and version 2, reserved 2, session 4
 *     Ethernet: destination 6, source 6, type 2; then the IP packet or ARP (RFC 826)
 */
const L2TP_LEN = 8;
const L2TP_VERSION = 3;
const ETHERNET_LEN = 14;
const TYPE = { IPV4: 0x0800, ARP: 0x0806, IPV6: 0x86dd } as const;
const ARP = { REQUEST: 1, REPLY: 2, LEN: 28 } as const;
const NEIGHBOR_LEN = 24;
const ADVERTISEMENT_FLAGS = 0x6000_0000;
const OUR_MAC = Uint8Array.of(2, 0, 0, 0, 0, 1);
const KERNEL_MAC = Uint8Array.of(2, 0, 0, 0, 0, 2);

export interface EthernetLink extends Link {
  readonly nic: Nic;
}

/**
 * Listens on a free port; `isOurs` says for which addresses ARP and neighbour discovery are
 * answered.
 */
export async function openEthernet(
  isOurs: (address: Uint8Array) => boolean,
): Promise<EthernetLink> {
  const socket = await bound();
  // Nothing can reserve a port for another program: a free one is found, and is free again when the
  // kernel takes it.
  const reserved = await bound();
  const kernelPort = reserved.address().port;
  reserved.close();
  const nic: Nic = {
    mac: [...KERNEL_MAC].map((octet) => octet.toString(16).padStart(2, '0')).join(':'),
    kernelPort,
    ourPort: socket.address().port,
    toKernel: 0x10,
    fromKernel: 0x20,
  };
  return new Ethernet(socket, nic, isOurs);
}

async function bound(): Promise<Socket> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return socket;
}

class Ethernet implements EthernetLink {
  readonly name = 'uml';
  readonly nic: Nic;
  refused = 0;
  readonly #socket: Socket;
  readonly #isOurs: (address: Uint8Array) => boolean;
  readonly #packet = new PacketArena(1).take()!;

  constructor(socket: Socket, nic: Nic, isOurs: (address: Uint8Array) => boolean) {
    this.#socket = socket;
    this.nic = nic;
    this.#isOurs = isOurs;
  }

  receive(handler: PacketSink): void {
    this.#socket.removeAllListeners('message');
    this.#socket.on('message', (datagram) => this.#arrived(datagram, handler));
  }

  send: PacketSink = (packets, count) => {
    for (let i = 0; i < count; i++) {
      const { bytes, at, end } = packets[i]!;
      const type = u8(bytes, at) >>> 4 === 4 ? TYPE.IPV4 : TYPE.IPV6;
      this.#send(type, bytes, at, end);
    }
  };

  close(): void {
    this.#socket.close();
  }

  #arrived(datagram: Uint8Array, handler: PacketSink): void {
    const frameAt = L2TP_LEN;
    const dataAt = frameAt + ETHERNET_LEN;
    if (datagram.length < dataAt || datagram.length - dataAt > PACKET_LEN_MAX) return;
    const type = u16(datagram, dataAt - 2);
    if (type === TYPE.ARP) return this.#answerArp(datagram, dataAt);
    if (type !== TYPE.IPV4 && type !== TYPE.IPV6) return;
    if (type === TYPE.IPV6 && this.#answerSolicitation(datagram, dataAt)) return;
    // Multicast is the kernel's talk to routers that are not there.
    if (!equal(datagram, frameAt, OUR_MAC, 0, 6)) return;
    this.#packet.load(datagram, dataAt);
    handler([this.#packet], 1);
  }

  #answerArp(p: Uint8Array, at: number): void {
    if (p.length < at + ARP.LEN || u16(p, at + 6) !== ARP.REQUEST) return;
    if (!this.#isOurs(p.subarray(at + 24, at + 28))) return;
    const reply = p.slice(at, at + ARP.LEN);
    setU16(reply, 6, ARP.REPLY);
    reply.set(OUR_MAC, 8);
    copy(p, at + 24, reply, 14, 4);
    copy(p, at + 8, reply, 18, 10);
    this.#send(TYPE.ARP, reply, 0, reply.length);
  }

  /** RFC 4861 §7.2.4; true if the packet was a solicitation. */
  #answerSolicitation(p: Uint8Array, at: number): boolean {
    const cursor = new Cursor();
    if (decode(p, at, p.length, cursor) !== undefined) return false;
    const { upperAt, srcAt } = cursor;
    if (cursor.protocol !== PROTO.ICMPV6 || cursor.end - upperAt < NEIGHBOR_LEN) return false;
    if (icmp.type(p, upperAt) !== icmp.TYPE6.NEIGHBOR_SOLICITATION) return false;
    const target = p.subarray(upperAt + 8, upperAt + NEIGHBOR_LEN);
    if (this.#isOurs(target)) {
      const reply = advertisement(target, p.subarray(srcAt, srcAt + 16));
      this.#send(TYPE.IPV6, reply, 0, reply.length);
    }
    return true;
  }

  #send(type: number, p: Uint8Array, at: number, end: number): void {
    const dataAt = L2TP_LEN + ETHERNET_LEN;
    const datagram = new Uint8Array(dataAt + end - at);
    setU16(datagram, 0, L2TP_VERSION);
    setU32(datagram, 4, this.nic.toKernel);
    datagram.set(KERNEL_MAC, L2TP_LEN);
    datagram.set(OUR_MAC, L2TP_LEN + 6);
    setU16(datagram, dataAt - 2, type);
    copy(p, at, datagram, dataAt, end - at);
    this.#socket.send(datagram, this.nic.kernelPort, '127.0.0.1', (error) => {
      if (error) this.refused++;
    });
  }
}

/**
 * A neighbour advertisement, solicited and overriding, with the option that holds our link-layer
 * address.
 */
function advertisement(target: Uint8Array, to: Uint8Array): Uint8Array {
  const len = NEIGHBOR_LEN + 8;
  const p = new Uint8Array(ipv6.HEADER_LEN + len);
  // RFC 4861 §7.1.2: a hop limit below 255 would mean that it crossed a router.
  ipv6.write(p, 0, 0, 0, len, PROTO.ICMPV6, 255);
  p.set(target, ipv6.SRC_AT);
  p.set(to, ipv6.DST_AT);
  const at = ipv6.HEADER_LEN;
  icmp.write(p, at, icmp.TYPE6.NEIGHBOR_ADVERTISEMENT, 0, ADVERTISEMENT_FLAGS);
  p.set(target, at + 8);
  p.set([2, 1, ...OUR_MAC], at + NEIGHBOR_LEN);
  const cursor = new Cursor();
  decode(p, 0, p.length, cursor);
  checksum.updateTransportChecksum(p, cursor);
  return p;
}
