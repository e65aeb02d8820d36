import { type Address, addressFrom, type Family } from '../../base/address.ts';
import { AF_INET, AF_INET6, EAGAIN, failure, type Libc } from './libc.ts';
import {
  bindNetlinkSocket,
  Netlink,
  NetlinkError,
  NetlinkReceiver,
  type NetlinkRequest,
  openNetlinkSocket,
  SOL_NETLINK,
} from './netlink.ts';
import { type MessageWriter, messagesIn, type NetlinkMessage } from './netlink-message.ts';
import { type Watch, watch } from './poll.ts';
import { setOption } from './socket.ts';

/**
 * What the kernel knows about the TCP and UDP sockets of this network namespace, asked over netlink
 * (sock_diag(7)): which socket a packet belongs to, and that a socket is no more. A socket is known
 * by its cookie (SO_COOKIE), which is never given out twice.
 *
 *     inet_diag_req_v2    0 family  1 protocol  2 extensions  4 states  8 sockid
 *     inet_diag_msg       0 family  1 state  4 sockid  52 expires … 64 uid  68 inode
 *     sockid (48)         0 sport  2 dport  4 src(16)  20 dst(16)  36 device  40 cookie(8)
 *
 * Ports and addresses are in network order, everything else in that of the machine.
 */
const NETLINK_SOCK_DIAG = 4;
const NETLINK_ADD_MEMBERSHIP = 1;
const SOCK_DIAG_BY_FAMILY = 20;
const ANSWER_LEN_MIN = 72;
const ANSWER_SOCKID_AT = 4;
const ANSWER_UID_AT = 64;
const NO_COOKIE = 0xffff_ffff;
const ALL_STATES = 0xffff_ffff;

/** SKNLGRP_INET_TCP_DESTROY and its like, of <linux/sock_diag.h>. */
const DESTROY_GROUPS = [1, 2, 3, 4];

export const TCP = 6;
export const UDP = 17;
/** Of <net/tcp_states.h>. */
export const TCP_STATE = {
  SYN_RECEIVED: 3,
  /** What is left of a connection for a minute, without a socket. */
  TIME_WAIT: 6,
  LISTEN: 10,
  NEW_SYN_RECEIVED: 12,
} as const;

/** A packet's two ends, seen from this machine. */
export interface Tuple {
  readonly protocol: typeof TCP | typeof UDP;
  readonly local: Address;
  readonly localPort: number;
  readonly remote: Address;
  readonly remotePort: number;
  /** Index of the device that the socket is bound to. */
  readonly device: number;
}

export interface KernelSocket {
  readonly family: Family;
  readonly cookie: number;
  readonly state: number;
  readonly local: Address;
  readonly localPort: number;
  readonly remote: Address;
  readonly remotePort: number;
  readonly uid: number;
}

export interface SockDiagEvents {
  /** A socket is no more. Of TCP there may be a connection in TIME_WAIT with its cookie. */
  readonly destroyed: (cookie: number) => void;
  /** Some of these were lost: ask for `all`. */
  readonly lost: () => void;
}

/** The kernel answers while it is asked: nothing here waits. */
export class SockDiag {
  readonly #c: Libc;
  readonly #questions: Netlink;
  readonly #noticesFd: number;
  readonly #notices: NetlinkReceiver;
  readonly #watching: Watch;
  readonly #events: SockDiagEvents;

  /**
   * Throws an Error where the kernel has no sock_diag, or does not let us hear of sockets that end,
   * which needs CAP_NET_ADMIN.
   */
  constructor(c: Libc, events: SockDiagEvents) {
    this.#c = c;
    this.#events = events;
    this.#noticesFd = openDiag(c);
    try {
      joinGroups(c, this.#noticesFd);
      this.#questions = new Netlink(c, openDiag(c));
    } catch (error) {
      c.close(this.#noticesFd);
      throw error;
    }
    this.#notices = new NetlinkReceiver(c, this.#noticesFd);
    this.#watching = watch(c, this.#noticesFd, () => this.catchUp());
  }

  /** The socket that a packet with these ends is of, and for; of TCP it may be one that listens. */
  find(tuple: Tuple): KernelSocket | undefined {
    try {
      const [found] = this.#questions.ask([question(tuple)], socketOf);
      return found instanceof NetlinkError ? undefined : found;
    } catch (error) {
      // No answer: as if there were no such socket.
      if (error instanceof NetlinkError) return undefined;
      throw error;
    }
  }

  /** All there are, connections in TIME_WAIT included. Throws a NetlinkError. */
  all(): KernelSocket[] {
    const found: KernelSocket[] = [];
    for (const family of [4, 6] as const) {
      for (const protocol of [TCP, UDP] as const) {
        const request = requestOf('list the sockets', family, protocol, () => {});
        for (const socket of this.#questions.dump(request, socketOf)) found.push(socket);
      }
    }
    return found;
  }

  /** Reports now what would be reported in a moment. */
  catchUp(): void {
    for (;;) {
      const octets = this.#notices.receive();
      if (octets === EAGAIN) return;
      // ENOBUFS, once: the next ones are those behind what was lost.
      if (!(octets instanceof Uint8Array)) return this.#events.lost();
      for (const message of messagesIn(octets)) {
        const socket = socketOf(message);
        if (socket !== undefined) this.#events.destroyed(socket.cookie);
      }
    }
  }

  close(): void {
    this.#watching.close();
    this.#c.close(this.#noticesFd);
    this.#notices.close();
    this.#questions.close();
  }
}

function openDiag(c: Libc): number {
  const fd = openNetlinkSocket(c, NETLINK_SOCK_DIAG, 'open a netlink socket for sock_diag');
  try {
    // Without a number of its own it would be the kernel's, who tells itself nothing.
    bindNetlinkSocket(c, fd, 0, 'bind a netlink socket for sock_diag');
  } catch (error) {
    c.close(fd);
    throw error;
  }
  return fd;
}

function joinGroups(c: Libc, fd: number): void {
  for (const group of DESTROY_GROUPS) {
    if (!setOption(c, fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)) {
      throw failure(c, 'hear of sockets that end');
    }
  }
}

function question({ protocol, local, localPort, remote, remotePort, device }: Tuple) {
  // TCP is looked up from the socket's side, UDP as a packet that comes in.
  const [a, b] = [
    { address: local, port: localPort },
    { address: remote, port: remotePort },
  ];
  const [first, second] = protocol === TCP ? [a, b] : [b, a];
  return requestOf('find a socket', local.family, protocol, (writer) => {
    writer.octets(bigEndian(first.port)).octets(bigEndian(second.port));
    writer.octets(padded(first.address)).octets(padded(second.address));
    writer.u32(device).u32(NO_COOKIE).u32(NO_COOKIE);
  });
}

function requestOf(
  what: string,
  family: Family,
  protocol: number,
  writeId: (writer: MessageWriter) => void,
): NetlinkRequest {
  return {
    what: () => what,
    type: SOCK_DIAG_BY_FAMILY,
    flags: 0,
    write(writer) {
      const startAt = writer.len;
      writer.u8(family === 4 ? AF_INET : AF_INET6).u8(protocol);
      writer.u16(0).u32(ALL_STATES);
      writeId(writer);
      writer.octets(new Uint8Array(8 + SOCKID_LEN - (writer.len - startAt)));
    },
  };
}

const SOCKID_LEN = 48;

function bigEndian(port: number): Uint8Array {
  return Uint8Array.of(port >> 8, port & 0xff);
}

function padded({ bytes }: Address): Uint8Array {
  const whole = new Uint8Array(16);
  whole.set(bytes);
  return whole;
}

function socketOf({ type, body }: NetlinkMessage): KernelSocket | undefined {
  if (type !== SOCK_DIAG_BY_FAMILY || body.len < ANSWER_LEN_MIN) return undefined;
  const family: Family = body.u8(0) === AF_INET6 ? 6 : 4;
  const at = ANSWER_SOCKID_AT;
  const port = (portAt: number) => (body.u8(portAt) << 8) | body.u8(portAt + 1);
  return {
    family,
    state: body.u8(1),
    localPort: port(at),
    remotePort: port(at + 2),
    local: addressFrom(family, body.bytes, at + 4),
    remote: addressFrom(family, body.bytes, at + 20),
    // 64 bits, of which the machine would have to run for centuries to use more than 53.
    cookie: body.u32(at + 40) + 2 ** 32 * body.u32(at + 44),
    uid: body.u32(ANSWER_UID_AT),
  };
}
