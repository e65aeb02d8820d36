import { type Credentials, credentialsOf } from './credentials.ts';
import { EAGAIN, failure, type Libc, MSG_DONTWAIT, SOCK_FLAGS } from './libc.ts';
import { type NativeBlock, nativeBlock, setWord, withBlock } from './native-memory.ts';
import { type EventWatch, type Watch, watch } from './poll.ts';
import { SOL_SOCKET, setOption } from './socket.ts';

/**
 * AF_UNIX SOCK_SEQPACKET sockets, which Node has none of: connections that carry whole messages.
 */

const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;
const MSG_PEEK = 0x2;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const SO_SNDBUF = 7;
const SO_SNDBUFFORCE = 32;
const SO_DOMAIN = 39;
const SO_MARK = 36;
const SCM_RIGHTS = 1;
const BACKLOG = 64;
/** Octets of one message that are read or written. */
const MESSAGE_LEN_MAX = 65_536;
/** A msghdr (56 octets, rounded up), its iovec, and control data for a few descriptors. */
const IOVEC_AT = 64;
const CONTROL_AT = 80;
const CONTROL_LEN = 64;
const CMSG_LEN = 16;
/** How long a listener rests after an error such as too many open files. */
const REST_MS = 1000;

/**
 * Listens on an abstract address of this network namespace: a name without a file, which programs
 * reach from any root directory and as any user. `onConnection` must take the socket over. Throws
 * an Error.
 */
export function listenSeqpacket(
  c: Libc,
  name: string,
  onConnection: (socket: SeqpacketSocket) => void,
): Watch {
  const fd = c.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_FLAGS, 0);
  if (fd < 0) throw failure(c, 'open a socket for programs');
  if (bindAbstract(c, fd, name) < 0 || c.listen(fd, BACKLOG) < 0) {
    const error = failure(c, `listen on the abstract address ${name}`);
    c.close(fd);
    throw error;
  }
  const memory = messageMemory(c);
  let resting: NodeJS.Timeout | undefined;
  const watching = watch(c, fd, () => {
    for (;;) {
      const accepted = c.accept4(fd, 0, 0, SOCK_FLAGS);
      if (accepted >= 0) {
        onConnection(new SeqpacketSocket(c, accepted, memory));
        continue;
      }
      if (c.errno() === EAGAIN) return;
      // It stays readable, and we would do nothing else.
      watching.want({ readable: false, writable: false });
      resting ??= setTimeout(() => {
        resting = undefined;
        watching.want({ readable: true, writable: false });
      }, REST_MS);
      return;
    }
  });
  return {
    close(): void {
      clearTimeout(resting);
      watching.close();
      c.close(fd);
    },
  };
}

function bindAbstract(c: Libc, fd: number, name: string): number {
  return withBlock(c, 128, ({ view, bytes, base }) => {
    view.setUint16(0, AF_UNIX, true);
    const { written } = new TextEncoder().encodeInto(name, bytes.subarray(3));
    return c.bind(fd, base, 3 + written);
  });
}

interface MessageMemory {
  readonly header: NativeBlock;
  readonly octets: NativeBlock;
}

/** Shared by all sockets of a listener, since one message is read or written at a time. */
function messageMemory(c: Libc): MessageMemory {
  const header = nativeBlock(c, CONTROL_AT + CONTROL_LEN);
  const octets = nativeBlock(c, MESSAGE_LEN_MAX);
  setWord(header.view, 16, header.base + IOVEC_AT);
  setWord(header.view, 24, 1);
  setWord(header.view, IOVEC_AT, octets.base);
  setWord(header.view, IOVEC_AT + 8, MESSAGE_LEN_MAX);
  return { header, octets };
}

/** The overflow user, who owns nothing. */
const NOBODY: Credentials = { pid: 0, uid: 65_534 };

export interface SeqpacketEvents {
  /** There may be a message, or the end. */
  readonly readable: () => void;
  /** There may be room again; only after `wantRoom(true)`. */
  readonly writable: () => void;
}

/** One end of a connection. Nothing here throws: what the other end does is its business. */
export class SeqpacketSocket {
  readonly #c: Libc;
  readonly #fd: number;
  readonly #memory: MessageMemory;
  #watching: EventWatch | undefined;
  #events: SeqpacketEvents | undefined;
  #isReading = true;
  #wantsRoom = false;
  #isClosed = false;

  constructor(c: Libc, fd: number, memory: MessageMemory) {
    this.#c = c;
    this.#fd = fd;
    this.#memory = memory;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Replaces who is called when something happens. */
  listen(events: SeqpacketEvents): void {
    this.#events = events;
    this.#watching ??= watch(this.#c, this.#fd, () => {
      if (this.#wantsRoom) this.#events?.writable();
      if (this.#isReading && !this.#isClosed) this.#events?.readable();
    });
  }

  /** While false, `readable` is not called, and the other end's messages wait. */
  set reading(on: boolean) {
    this.#isReading = on;
    this.#update();
  }

  set wantsRoom(on: boolean) {
    this.#wantsRoom = on;
    this.#update();
  }

  /**
   * The next message, which stays where it is: `consume` takes it off, and the other end can see
   * that. The octets are lent until the next call of anything here; of a message longer than 65,536
   * octets there are only as many. `undefined`: none yet; `end`: there will be none.
   */
  peek(): Uint8Array | 'end' | undefined {
    const { octets } = this.#memory;
    const flags = MSG_PEEK | MSG_DONTWAIT;
    const len = this.#c.recv(this.#fd, octets.base, MESSAGE_LEN_MAX, flags);
    if (len === 0) return 'end';
    if (len < 0) return this.#c.errno() === EAGAIN ? undefined : 'end';
    return octets.bytes.subarray(0, len);
  }

  consume(): void {
    this.#c.recv(this.#fd, this.#memory.octets.base, 0, MSG_DONTWAIT);
  }

  /** As `peek` and `consume`, with the descriptors that came along; the caller closes them. */
  take(): { readonly octets: Uint8Array; readonly fds: readonly number[] } | 'end' | undefined {
    const { header, octets } = this.#memory;
    setWord(header.view, 32, header.base + CONTROL_AT);
    setWord(header.view, 40, CONTROL_LEN);
    const len = this.#c.recvmsg(this.#fd, header.base, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len === 0) return 'end';
    if (len < 0) return this.#c.errno() === EAGAIN ? undefined : 'end';
    return { octets: octets.bytes.subarray(0, len), fds: this.#descriptors() };
  }

  /** `full`: there is no room now. `gone`: nor will there ever be. */
  send(octets: Uint8Array): 'sent' | 'full' | 'gone' {
    if (octets.length > MESSAGE_LEN_MAX) return 'gone';
    const { octets: to } = this.#memory;
    to.bytes.set(octets);
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    const sent = this.#c.sendto(this.#fd, to.base, octets.length, flags, 0, 0);
    // It may hold keys that the program has asked for.
    to.bytes.fill(0, 0, octets.length);
    if (sent >= 0) return 'sent';
    return this.#c.errno() === EAGAIN ? 'full' : 'gone';
  }

  /** Who was at the other end when it connected (SO_PEERCRED). */
  get peer(): Credentials {
    return credentialsOf(this.#c, this.#fd) ?? NOBODY;
  }

  /** How many octets may wait for the other end, by the kernel's count, which doubles it. */
  setSendBuffer(len: number): void {
    // Past the limit for ordinary users if we may.
    if (!setOption(this.#c, this.#fd, SOL_SOCKET, SO_SNDBUFFORCE, len)) {
      setOption(this.#c, this.#fd, SOL_SOCKET, SO_SNDBUF, len);
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#watching?.close();
    this.#c.close(this.#fd);
  }

  #update(): void {
    if (this.#isClosed) return;
    this.#watching?.want({ readable: this.#isReading, writable: this.#wantsRoom });
  }

  #descriptors(): number[] {
    const { view } = this.#memory.header;
    const end = CONTROL_AT + view.getUint32(40, true);
    const fds: number[] = [];
    for (let at = CONTROL_AT; at + CMSG_LEN <= end; ) {
      const len = view.getUint32(at, true);
      if (len < CMSG_LEN || at + len > end) break;
      const isRights = view.getInt32(at + 8, true) === SOL_SOCKET;
      if (isRights && view.getInt32(at + 12, true) === SCM_RIGHTS) {
        for (let i = at + CMSG_LEN; i + 4 <= at + len; i += 4) fds.push(view.getInt32(i, true));
      }
      at += (len + 7) & ~7;
    }
    return fds;
  }
}

function getInt(c: Libc, fd: number, option: number): number | undefined {
  return withBlock(c, 64, ({ view, base }) => {
    view.setUint32(8, 4, true);
    if (c.getsockopt(fd, SOL_SOCKET, option, base, base + 8) < 0) return undefined;
    return view.getInt32(0, true);
  });
}

const AF_INET = 2;
const AF_INET6 = 10;

/**
 * Sets SO_MARK of a socket of another program, or takes it off if it is that one. Returns the error
 * number, or 0; ENOTSOCK (88) for what is no socket of IP.
 */
export function markSocket(c: Libc, fd: number, mark: number, on: 'set' | 'unset'): number {
  const domain = getInt(c, fd, SO_DOMAIN);
  if (domain !== AF_INET && domain !== AF_INET6) return 88;
  if (on === 'unset' && getInt(c, fd, SO_MARK) !== mark) return 0;
  return setOption(c, fd, SOL_SOCKET, SO_MARK, on === 'set' ? mark : 0) ? 0 : c.errno();
}
