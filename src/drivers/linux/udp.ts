import type { Family } from '../../base/address.ts';
import { addressFrom, isUnspecified } from '../../base/address.ts';
import type { Packet, PacketSink } from '../../wire/packet.ts';
import { Refusals } from '../refusals.ts';
import { prependUdp, UDP_PAYLOAD_MAX } from '../udp-packet.ts';
import {
  Control,
  IP_PKTINFO,
  IP_RECVTOS,
  IP_RECVTTL,
  IPV6_RECVHOPLIMIT,
  IPV6_RECVPKTINFO,
  IPV6_RECVTCLASS,
  IPV6_V6ONLY,
} from './control.ts';
import { AF_INET, AF_INET6, failure, type Libc, libc, SOCK_DGRAM } from './libc.ts';
import type { MessageVector } from './messages.ts';
import { withBlock } from './native-memory.ts';
import { Receiver } from './receiver.ts';
import { IPPROTO_IP, IPPROTO_IPV6, openSocket } from './socket.ts';

export interface UdpEncapOptions {
  /** 4500 (RFC 3948 §2.1), or what both sides agreed on. */
  readonly port: number;
  readonly mark: number;
  readonly families: readonly Family[];
  /** Octets that may wait in the kernel for each socket. Default 8 MiB. */
  readonly bufferLen?: number;
}

/** Receives ESP in UDP. Sending is done by raw sockets, from the same port. */
export interface UdpEncap {
  readonly port: number;
  /** Sets who gets what arrives: whole IP packets with UDP inside. */
  receive(handler: PacketSink): void;
  readonly refused: number;
  readonly refusals: ReadonlyMap<string, number>;
  close(): void;
}

const OPTIONS = {
  4: [IP_PKTINFO, IP_RECVTTL, IP_RECVTOS].map((name) => [IPPROTO_IP, name] as const),
  6: [IPV6_V6ONLY, IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS].map(
    (name) => [IPPROTO_IPV6, name] as const,
  ),
};
const CONTROL_LEN = 256;

/**
 * Binds the encapsulation port on all addresses of the host, so that the kernel accepts these
 * datagrams, reassembles them and does not answer "port unreachable". Throws an Error, also when
 * another program has the port.
 */
export function openUdpEncap(options: UdpEncapOptions): UdpEncap {
  const c = libc('ESP in UDP');
  const refusals = new Refusals();
  const receiver = new Receiver(c, refusals, CONTROL_LEN);
  const control = new Control();
  try {
    for (const family of options.families) {
      receiver.add(openPort(c, options, family), (vector, i, packet) =>
        rebuild(vector, i, packet, family, options.port, control),
      );
    }
  } catch (error) {
    receiver.close();
    throw error;
  }
  return {
    port: options.port,
    receive: (handler) => receiver.receive(handler),
    get refused() {
      return refusals.total;
    },
    get refusals() {
      return refusals.byReason;
    },
    close: () => receiver.close(),
  };
}

function openPort(c: Libc, options: UdpEncapOptions, family: Family): number {
  const what = `listen on UDP port ${options.port} for IPv${family}`;
  const fd = openSocket(c, what, {
    family,
    type: SOCK_DGRAM,
    protocol: 0,
    mark: options.mark,
    bufferLen: options.bufferLen ?? 8 << 20,
    on: OPTIONS[family],
  });
  // No SO_REUSEADDR: two programs that share the port would each get some of the packets.
  const bound = withBlock(c, 64, (name) => {
    name.view.setUint16(0, family === 4 ? AF_INET : AF_INET6, true);
    name.view.setUint16(2, options.port, false);
    return c.bind(fd, name.base, family === 4 ? 16 : 28);
  });
  if (bound < 0) {
    const error = failure(c, what);
    c.close(fd);
    throw error;
  }
  return fd;
}

function rebuild(
  vector: MessageVector,
  i: number,
  packet: Packet,
  family: Family,
  port: number,
  control: Control,
): string | undefined {
  control.read(vector, i);
  if (control.dstAt < 0) return 'destination not told';
  if (packet.len > UDP_PAYLOAD_MAX[family]) return 'too long to receive';
  const nameAt = vector.nameAt(i);
  const from = addressFrom(family, vector.bytes, nameAt + (family === 4 ? 4 : 8));
  const to = addressFrom(family, vector.bytes, control.dstAt);
  if (isUnspecified(from)) return 'source not told';
  const fromPort = vector.view.getUint16(nameAt + 2, false);
  prependUdp(packet, { address: from, port: fromPort }, { address: to, port }, control);
  return undefined;
}
