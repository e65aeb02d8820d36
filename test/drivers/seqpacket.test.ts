import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Libc, libc } from '../../src/drivers/linux/libc.ts';
import { withBlock } from '../../src/drivers/linux/native-memory.ts';
import type { Watch } from '../../src/drivers/linux/poll.ts';
import { listenSeqpacket, type SeqpacketSocket } from '../../src/drivers/linux/seqpacket.ts';

const AF_UNIX = 1;
const SEQPACKET_NONBLOCK = 5 | 0o4000;
const SIOCOUTQ = 0x5411;

/** A program's end, as C would write it. */
class Client {
  readonly #c: Libc;
  readonly fd: number;

  constructor(c: Libc, name: string) {
    this.#c = c;
    this.fd = c.socket(AF_UNIX, SEQPACKET_NONBLOCK, 0);
    const connect = c.koffi.load(null).func('int connect(int fd, uintptr_t name, uint32_t len)');
    const result = withBlock(c, 128, ({ view, bytes, base }) => {
      view.setUint16(0, AF_UNIX, true);
      bytes.set(new TextEncoder().encode(name), 3);
      return connect(this.fd, base, 3 + name.length);
    });
    if (result !== 0) throw new Error(`connect: ${c.strerror(c.errno())}`);
  }

  send(octets: Uint8Array): number {
    return withBlock(this.#c, Math.max(64, octets.length), ({ bytes, base }) => {
      bytes.set(octets);
      return this.#c.write(this.fd, base, octets.length);
    });
  }

  /** The next message, or undefined. */
  recv(): Uint8Array | undefined {
    return withBlock(this.#c, 65_536, ({ bytes, base }) => {
      const len = this.#c.read(this.fd, base, 65_536);
      return len < 0 ? undefined : bytes.slice(0, len);
    });
  }

  /** What it has sent and the other end has not taken. */
  get untaken(): number {
    return withBlock(this.#c, 64, ({ view, base }) => {
      this.#c.ioctl(this.fd, SIOCOUTQ, base);
      return view.getInt32(0, true);
    });
  }

  close(): void {
    this.#c.close(this.fd);
  }
}

describe.skipIf(process.platform !== 'linux')('sockets of whole messages', () => {
  const c = libc('this test');
  let listening: Watch;
  let client: Client;
  let server: SeqpacketSocket;
  let events: string[];

  beforeEach(async () => {
    const name = `testudo-test-${process.pid}-${Math.random()}`;
    const connected = new Promise<SeqpacketSocket>((resolve) => {
      listening = listenSeqpacket(c, name, resolve);
    });
    client = new Client(c, name);
    server = await connected;
    events = [];
    expect(() => listenSeqpacket(c, name, () => {})).toThrow(/already in use/);
  });
  afterEach(() => {
    server.close();
    client.close();
    listening.close();
  });

  function listen(readable: () => void = () => undefined): void {
    server.listen({
      readable: () => {
        events.push('readable');
        readable();
      },
      writable: () => {
        events.push('writable');
        server.wantsRoom = false;
      },
    });
  }

  /** Until the loop has been around a few times. */
  async function turns(): Promise<void> {
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
  }

  test('a message that was looked at is still there, and its sender can see that', () => {
    client.send(Uint8Array.of(1, 2, 3));
    client.send(Uint8Array.of(4));
    const before = client.untaken;
    expect(server.peek()).toEqual(Uint8Array.of(1, 2, 3));
    expect(server.peek()).toEqual(Uint8Array.of(1, 2, 3));
    expect(client.untaken).toBe(before);
    server.consume();
    expect(client.untaken).toBeGreaterThan(0);
    expect(client.untaken).toBeLessThan(before);
    expect(server.take()).toEqual({ octets: Uint8Array.of(4), fds: [] });
    expect(client.untaken).toBe(0);
    expect(server.peek()).toBeUndefined();
    expect(server.take()).toBeUndefined();
  });

  test('of a long message only the begin is seen, and all of it is taken off', () => {
    expect(client.send(new Uint8Array(100_000).fill(9))).toBe(100_000);
    const seen = server.peek() as Uint8Array;
    expect([seen.length, seen.every((octet) => octet === 9)]).toEqual([65_536, true]);
    server.consume();
    expect(server.peek()).toBeUndefined();
  });

  test('the end comes after the last message', () => {
    client.send(Uint8Array.of(1));
    client.close();
    expect(server.peek()).toEqual(Uint8Array.of(1));
    server.consume();
    expect(server.peek()).toBe('end');
    expect(server.take()).toBe('end');
    expect(server.send(Uint8Array.of(1))).toBe('gone');
  });

  test('what is wanted is told, and nothing else', async () => {
    listen();
    await turns();
    expect(events).toEqual([]);
    server.reading = false;
    client.send(Uint8Array.of(1));
    await turns();
    expect(events).toEqual([]);
    server.wantsRoom = true;
    await turns();
    expect(events).toEqual(['writable']);
    server.reading = true;
    await turns();
    expect(events).toContain('readable');
  });

  test('a reader that does not read makes it full, up to its buffer; then there is room again', async () => {
    listen();
    const message = new Uint8Array(1000);
    const fill = () => {
      let sent = 0;
      while (server.send(message) === 'sent') sent++;
      return sent;
    };
    server.setSendBuffer(16_384);
    const few = fill();
    expect(few).toBeGreaterThan(4);
    server.setSendBuffer(262_144);
    expect(fill()).toBeGreaterThan(few);
    server.wantsRoom = true;
    await turns();
    expect(events).toEqual([]);
    while (client.recv() !== undefined) {}
    await turns();
    // It may also be told that there may be something to read.
    expect(events[0]).toBe('writable');
    expect(server.send(message)).toBe('sent');
    expect(client.recv()).toEqual(message);
  });
});
