import {
  EAGAIN,
  failure,
  type Libc,
  MSG_DONTWAIT,
  MSG_TRUNC,
  SOCK_FLAGS,
  SOCK_RAW,
} from './libc.ts';
import { type NativeBlock, nativeBlock, setWord, unpin, withBlock } from './native-memory.ts';
import { MessageWriter, messagesIn, type NetlinkMessage } from './netlink-message.ts';
import { SOL_SOCKET, setOption } from './socket.ts';

const AF_NETLINK = 16;
export const NETLINK_ROUTE = 0;
export const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const SO_RCVBUFFORCE = 33;
const SOCKET_BUFFER_LEN = 1 << 20;

const NLMSG_NOOP = 1;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLM_F_DUMP_INTR = 0x10;
const NLM_F_DUMP = 0x300;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
const NLMSGERR_ATTR_MSG = 1;

/** Linux's error numbers that callers tell apart. */
export const ENOENT = 2;
export const ESRCH = 3;
export const EEXIST = 17;
export const ENODEV = 19;
export const EAFNOSUPPORT = 97;
export const ENETDOWN = 100;
export const ENOBUFS = 105;

/** One request; it has to fit into this together with its header. */
const REQUEST_LEN_MAX = 32_768;
const SEND_LEN = 2 * REQUEST_LEN_MAX;
/** Requests in one send: all their answers must fit into the socket's buffer, errors or routes. */
const BATCH_MAX = 64;
/** The kernel makes parts of a dump no larger than 32,768. */
const RECEIVE_LEN = 65_536;
/** A table that changes all the time is read so often before it counts as an error. */
const DUMP_TRIES = 8;
/** Entries of one dump, however large the machine's tables are. */
const DUMP_MAX = 4_000_000;
/** A msghdr (56 octets), its iovec and a sockaddr_nl. */
const IOVEC_AT = 64;
const NAME_AT = 80;
const NAME_LEN = 12;

/** What is asked of the kernel. */
export interface NetlinkRequest {
  /** For messages about its failure: `add route 10.0.0.0/8`. */
  readonly what: () => string;
  readonly type: number;
  /** Besides "request" and those that say how it is answered. */
  readonly flags: number;
  /** Writes what follows the header. */
  readonly write: (writer: MessageWriter) => void;
}

/** The kernel's refusal, with its own words where it has some. */
export class NetlinkError extends Error {
  /** The error number; 0 when no answer could be had. */
  readonly errno: number;

  constructor(sentence: string, errno: number) {
    super(sentence);
    this.name = 'NetlinkError';
    this.errno = errno;
  }
}

/** A socket of a netlink protocol, with room for many messages. Throws an Error. */
export function openNetlinkSocket(c: Libc, protocol: number, what: string): number {
  const fd = c.socket(AF_NETLINK, SOCK_RAW | SOCK_FLAGS, protocol);
  if (fd < 0) throw failure(c, what);
  setOption(c, fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER_LEN);
  return fd;
}

/**
 * Gives the socket a number of its own, and has it hear of `groups`, a bit for each of the first
 * 32. Throws an Error, and leaves the socket open.
 */
export function bindNetlinkSocket(c: Libc, fd: number, groups: number, what: string): void {
  const bound = withBlock(c, 64, ({ view, base }) => {
    view.setUint16(0, AF_NETLINK, true);
    view.setUint32(8, groups, true);
    return c.bind(fd, base, NAME_LEN);
  });
  if (bound < 0) throw failure(c, what);
}

/** Opens a socket to this network namespace's rtnetlink. Throws an Error. */
export function openNetlink(c: Libc): Netlink {
  const fd = openNetlinkSocket(c, NETLINK_ROUTE, 'open a netlink socket');
  // Each is of use where the kernel knows it (Linux 4.12, 4.3, 4.20), and not needed.
  setOption(c, fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
  setOption(c, fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
  setOption(c, fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
  const netlink = new Netlink(c, fd);
  try {
    netlink.run(NOTHING);
  } catch (error) {
    netlink.close();
    throw error;
  }
  return netlink;
}

/** The answer says by which number the kernel knows the socket. */
const NOTHING: NetlinkRequest = {
  what: () => 'open a netlink socket',
  type: NLMSG_NOOP,
  flags: 0,
  write: () => undefined,
};

/** Opens a socket for a few requests. */
export function withNetlink<T>(c: Libc, use: (netlink: Netlink) => T): T {
  const netlink = openNetlink(c);
  try {
    return use(netlink);
  } finally {
    netlink.close();
  }
}

/**
 * Requests and their answers. The kernel carries a request out while it is sent, so nothing here
 * waits. Many requests go in one send and are carried out in order, whether or not those before
 * them fail.
 */
export class Netlink {
  readonly #c: Libc;
  readonly #fd: number;
  readonly #send: NativeBlock;
  readonly #writer: MessageWriter;
  readonly #receiver: NetlinkReceiver;
  #seq = 0;
  #portId = 0;

  constructor(c: Libc, fd: number) {
    this.#c = c;
    this.#fd = fd;
    this.#send = nativeBlock(c, SEND_LEN);
    this.#writer = new MessageWriter(this.#send.bytes);
    this.#receiver = new NetlinkReceiver(c, fd);
  }

  /**
   * By which number the kernel knows this socket: it stands in notices about changes that were
   * asked for here.
   */
  get portId(): number {
    return this.#portId;
  }

  /**
   * Carries the requests out in order. Returns what failed, by the index of its request. Throws a
   * NetlinkError when answers were lost: then nobody knows what was done.
   */
  execute(requests: readonly NetlinkRequest[]): Map<number, NetlinkError> {
    const failed = new Map<number, NetlinkError>();
    this.#batches(requests, NLM_F_ACK, (i, message) => {
      const error = this.#errorOf(message, requests[i]!);
      if (error) failed.set(i, error);
    });
    return failed;
  }

  /** The same, and throws the first failure. */
  run(...requests: readonly NetlinkRequest[]): void {
    for (const error of this.execute(requests).values()) throw error;
  }

  /**
   * Asks questions that each have one answer, and returns them in order: what `decode` makes of it,
   * or the refusal.
   */
  ask<T>(
    questions: readonly NetlinkRequest[],
    decode: (message: NetlinkMessage) => T,
  ): (T | NetlinkError)[] {
    const answers: (T | NetlinkError)[] = [];
    this.#batches(questions, 0, (i, message) => {
      answers[i] = this.#errorOf(message, questions[i]!) ?? decode(message);
    });
    return answers;
  }

  /**
   * All entries of a table, as `decode` makes them; undefined ones are left out. Reads again when
   * the table has changed meanwhile. Throws a NetlinkError.
   */
  dump<T>(request: NetlinkRequest, decode: (message: NetlinkMessage) => T | undefined): T[] {
    for (let tries = 0; tries < DUMP_TRIES; tries++) {
      const entries = this.#dumpOnce(request, decode);
      if (entries) return entries;
    }
    throw new NetlinkError(`${request.what()}: it changes faster than it can be read`, 0);
  }

  close(): void {
    this.#c.close(this.#fd);
    this.#receiver.close();
    unpin(this.#send.bytes);
  }

  #batches(
    requests: readonly NetlinkRequest[],
    lastFlags: number,
    visit: (i: number, message: NetlinkMessage) => void,
  ): void {
    const writer = this.#writer;
    for (let first = 0; first < requests.length; ) {
      writer.clear();
      const firstSeq = this.#seq + 1;
      let count = 0;
      while (first + count < requests.length && count < BATCH_MAX) {
        if (writer.len > SEND_LEN - REQUEST_LEN_MAX) break;
        this.#write(requests[first + count]!, NLM_F_REQUEST);
        count++;
      }
      // Failures are told anyway, and that the last one is done says that all are.
      writer.flag(lastFlags);
      const base = first;
      this.#exchange(requests[base]!, firstSeq, count, (i, message) => visit(base + i, message));
      first += count;
    }
  }

  #write(request: NetlinkRequest, flags: number): void {
    this.#seq = (this.#seq + 1) >>> 0;
    this.#writer.begin(request.type, request.flags | flags, this.#seq);
    request.write(this.#writer);
    this.#writer.end();
  }

  /** Sends what is written, and reads until the last of `count` requests is answered. */
  #exchange(
    request: NetlinkRequest,
    firstSeq: number,
    count: number,
    visit: (i: number, message: NetlinkMessage) => void,
  ): void {
    this.#sendAll(request);
    for (let isOpen = true; isOpen; ) {
      for (const message of this.#receive(request)) {
        const i = (message.seq - firstSeq) >>> 0;
        // Of an exchange that was given up.
        if (i >= count) continue;
        this.#portId = message.portId;
        visit(i, message);
        if (i === count - 1) isOpen = false;
      }
    }
  }

  /** Undefined if the table has changed meanwhile. */
  #dumpOnce<T>(
    request: NetlinkRequest,
    decode: (message: NetlinkMessage) => T | undefined,
  ): T[] | undefined {
    this.#writer.clear();
    this.#write(request, NLM_F_REQUEST | NLM_F_DUMP);
    const seq = this.#seq;
    this.#sendAll(request);
    const entries: T[] = [];
    let isWhole = true;
    for (;;) {
      for (const message of this.#receive(request)) {
        if (message.seq !== seq) continue;
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) isWhole = false;
        const error = this.#errorOf(message, request);
        if (error) throw error;
        if (message.type === NLMSG_DONE) return isWhole ? entries : undefined;
        const entry = decode(message);
        if (entry !== undefined) entries.push(entry);
        if (entries.length > DUMP_MAX) {
          throw new NetlinkError(`${request.what()}: more than ${DUMP_MAX} entries`, 0);
        }
      }
    }
  }

  #sendAll(request: NetlinkRequest): void {
    const { base } = this.#send;
    if (this.#c.sendto(this.#fd, base, this.#writer.len, MSG_DONTWAIT, 0, 0) < 0) {
      const errno = this.#c.errno();
      throw new NetlinkError(`${request.what()}: ${this.#c.strerror(errno)}`, errno);
    }
  }

  #receive(request: NetlinkRequest): IterableIterator<NetlinkMessage> {
    const octets = this.#receiver.receive();
    if (octets instanceof Uint8Array) return messagesIn(octets);
    const why = octets === EAGAIN ? 'the kernel gave no answer' : this.#c.strerror(octets);
    throw new NetlinkError(`${request.what()}: ${why}`, 0);
  }

  /** What a message says about its request: undefined for success, and for all other messages. */
  #errorOf({ type, flags, body }: NetlinkMessage, request: NetlinkRequest) {
    if (type !== NLMSG_ERROR && type !== NLMSG_DONE) return undefined;
    const errno = -body.i32(0);
    if (errno === 0) return undefined;
    // An error repeats the header of the request, or all of it, and then come attributes.
    let words: string | undefined;
    if (type === NLMSG_ERROR && (flags & NLM_F_ACK_TLVS) !== 0) {
      const quotedLen = (flags & NLM_F_CAPPED) !== 0 ? 16 : body.u32(4);
      words = body.attributes(4 + ((quotedLen + 3) & ~3)).text(NLMSGERR_ATTR_MSG);
    }
    const sentence = `${request.what()}: ${this.#c.strerror(errno)}`;
    return new NetlinkError(words === undefined ? sentence : `${sentence} (${words})`, errno);
  }
}

/** Reads a netlink socket into one buffer. */
export class NetlinkReceiver {
  readonly #c: Libc;
  readonly #fd: number;
  readonly #octets: NativeBlock;
  readonly #header: NativeBlock;

  constructor(c: Libc, fd: number) {
    this.#c = c;
    this.#fd = fd;
    this.#octets = nativeBlock(c, RECEIVE_LEN);
    this.#header = nativeBlock(c, NAME_AT + 16);
    const { view, base } = this.#header;
    setWord(view, 0, base + NAME_AT);
    setWord(view, 16, base + IOVEC_AT);
    setWord(view, 24, 1);
    setWord(view, IOVEC_AT, this.#octets.base);
    setWord(view, IOVEC_AT + 8, RECEIVE_LEN);
  }

  /**
   * What the kernel has sent, lent until the next call, or the error number: EAGAIN when there is
   * nothing, ENOBUFS when something was lost.
   */
  receive(): Uint8Array | number {
    const { view, base } = this.#header;
    for (;;) {
      view.setUint32(8, NAME_LEN, true);
      const len = this.#c.recvmsg(this.#fd, base, MSG_DONTWAIT);
      if (len < 0) return this.#c.errno();
      // Only the kernel is number 0; what a program sends us is no answer.
      if (view.getUint32(NAME_AT + 4, true) !== 0) continue;
      if ((view.getUint32(48, true) & MSG_TRUNC) !== 0) return ENOBUFS;
      return this.#octets.bytes.subarray(0, len);
    }
  }

  close(): void {
    unpin(this.#octets.bytes);
    unpin(this.#header.bytes);
  }
}
