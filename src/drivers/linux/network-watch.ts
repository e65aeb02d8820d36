import { EAGAIN, failure, type Libc } from './libc.ts';
import { setWord, withBlock } from './native-memory.ts';
import { bindNetlinkSocket, NETLINK_ROUTE, NetlinkReceiver, openNetlinkSocket } from './netlink.ts';
import { messagesIn, type NetlinkMessage } from './netlink-message.ts';
import { type Watch, watch } from './poll.ts';
import { SOL_SOCKET } from './socket.ts';

/** RTNLGRP_… of <linux/rtnetlink.h>: a bit for each group, the first one for group 1. */
const GROUPS = [
  1, // devices
  4, // filters and queueing disciplines
  5, // IPv4 addresses
  7, // IPv4 routes
  8, // IPv4 rules
  9, // IPv6 addresses
  11, // IPv6 routes
  19, // IPv6 rules
];
const SO_ATTACH_FILTER = 26;
const PORT_ID_AT = 12;
/** Datagrams that are read in one turn of the event loop. */
const READ_MAX = 1000;

export interface NetworkEvents {
  /** One change. The octets are lent. */
  note(message: NetlinkMessage): void;
  /** The kernel had to drop notices: nobody knows what has changed. */
  lost(): void;
  /** All that was there to be told is told. */
  settled(): void;
}

/** Notices about changes of this namespace's network. */
export interface NetworkWatch extends Watch {
  /** Tells what has not been told yet, at once, without `settled`. */
  drain(): void;
}

/**
 * Calls back from the event loop when devices, addresses, routes, rules or filters of this
 * namespace have changed. Changes that were asked for by the netlink socket with the number
 * `except` are not told. Throws an Error when the kernel does not tell any.
 */
export function watchNetwork(c: Libc, except: number, events: NetworkEvents): NetworkWatch {
  const fd = openNetlinkSocket(c, NETLINK_ROUTE, 'open a netlink socket');
  try {
    leaveOut(c, fd, except);
    join(c, fd);
  } catch (error) {
    c.close(fd);
    throw error;
  }
  const receiver = new NetlinkReceiver(c, fd);
  const drain = () => readAll(receiver, events);
  const watching = watch(c, fd, () => {
    drain();
    events.settled();
  });
  return {
    drain,
    close(): void {
      watching.close();
      c.close(fd);
      receiver.close();
    },
  };
}

function readAll(receiver: NetlinkReceiver, events: NetworkEvents): void {
  for (let i = 0; i < READ_MAX; i++) {
    const octets = receiver.receive();
    if (octets === EAGAIN) return;
    // ENOBUFS, and whatever else makes us miss something.
    if (typeof octets === 'number' || !isNoted(octets, events)) events.lost();
  }
}

function isNoted(octets: Uint8Array, events: NetworkEvents): boolean {
  try {
    for (const message of messagesIn(octets)) events.note(message);
    return true;
  } catch {
    // Malformed: as good as lost, since all of it will be read again.
    return false;
  }
}

function join(c: Libc, fd: number): void {
  const groups = GROUPS.reduce((bits, group) => bits | (1 << (group - 1)), 0);
  bindNetlinkSocket(c, fd, groups, 'listen to changes of the network');
}

/**
 * A classic BPF program on the socket, so that a hundred thousand routes of our own are neither
 * copied to us nor push out what others do.
 */
function leaveOut(c: Libc, fd: number, portId: number): void {
  // The program reads in network order.
  const swapped = new DataView(new ArrayBuffer(4));
  swapped.setUint32(0, portId, true);
  const program = [
    [0x20, 0, 0, PORT_ID_AT],
    [0x15, 0, 1, swapped.getUint32(0)],
    [0x06, 0, 0, 0],
    [0x06, 0, 0, 0xffff_ffff],
  ] as const;
  const programAt = 16;
  const set = withBlock(c, 64, ({ view, base }) => {
    view.setUint16(0, program.length, true);
    setWord(view, 8, base + programAt);
    for (const [i, [code, jt, jf, k]] of program.entries()) {
      const at = programAt + 8 * i;
      view.setUint16(at, code, true);
      view.setUint8(at + 2, jt);
      view.setUint8(at + 3, jf);
      view.setUint32(at + 4, k, true);
    }
    return c.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, base, 16);
  });
  if (set < 0) throw failure(c, 'filter changes of the network');
}
