import { connect, type Socket } from 'node:net';

/**
 * A PF_KEY program made of octets alone: it knows the layout of RFC 2367 by itself, and shares no
 * code with the server.
 */
export class OctetsClient {
  readonly #socket: Socket;
  #unread = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  closed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk) => {
      this.#unread = Buffer.concat([this.#unread, chunk]);
      this.#wake?.();
    });
    socket.on('close', () => {
      this.closed = true;
      this.#wake?.();
    });
    socket.on('error', () => undefined);
  }

  static open(path: string): Promise<OctetsClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new OctetsClient(socket));
      });
    });
  }

  send(...octets: readonly Uint8Array[]): void {
    for (const one of octets) this.#socket.write(one);
  }

  /** The next whole message; undefined when the connection is closed. */
  async read(): Promise<Buffer | undefined> {
    for (;;) {
      const length = this.#unread.length < 16 ? Infinity : 8 * this.#unread.readUInt16LE(4);
      if (this.#unread.length >= length) {
        const message = this.#unread.subarray(0, length);
        this.#unread = this.#unread.subarray(length);
        return message;
      }
      if (this.closed) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    this.#socket.end();
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** sadb_msg and extensions that are whole already. */
export function message(
  type: number,
  satype: number,
  seq: number,
  ...extensions: readonly Uint8Array[]
): Buffer {
  const head = Buffer.alloc(16);
  const whole = Buffer.concat([head, ...extensions]);
  whole.set([2, type, 0, satype], 0);
  whole.writeUInt16LE(whole.length / 8, 4);
  whole.writeUInt32LE(seq, 8);
  whole.writeUInt32LE(4711, 12);
  return whole;
}

/** sadb_sa: AES-GCM with an ICV of 16 octets. */
export function sa(spi: number): Buffer {
  const octets = Buffer.alloc(16);
  octets.writeUInt16LE(2, 0);
  octets.writeUInt16LE(1, 2);
  octets.writeUInt32BE(spi, 4);
  octets[11] = 20;
  return octets;
}

/** sadb_address 5 (source) or 6 (destination) of an IPv4 host. */
export function address(type: 5 | 6, ...ip: readonly number[]): Buffer {
  const octets = Buffer.alloc(24);
  octets.writeUInt16LE(3, 0);
  octets.writeUInt16LE(type, 2);
  octets[5] = 32;
  octets.writeUInt16LE(2, 8);
  octets.set(ip, 12);
  return octets;
}

/** sadb_key 9 (encryption) of 160 bits, every octet the same. */
export function key(octet: number): Buffer {
  const octets = Buffer.alloc(32);
  octets.writeUInt16LE(4, 0);
  octets.writeUInt16LE(9, 2);
  octets.writeUInt16LE(160, 4);
  octets.fill(octet, 8, 28);
  return octets;
}

/** sadb_x_policy 18: discard, in the direction. */
export function discard(direction: number): Buffer {
  const octets = Buffer.alloc(16);
  octets.writeUInt16LE(2, 0);
  octets.writeUInt16LE(18, 2);
  octets[6] = direction;
  return octets;
}

/** The extension of that number in a message. */
export function find(whole: Buffer, number: number): Buffer | undefined {
  for (let at = 16; at < whole.length; at += 8 * whole.readUInt16LE(at)) {
    const length = 8 * whole.readUInt16LE(at);
    if (whole.readUInt16LE(at + 2) === number) return whole.subarray(at, at + length);
  }
  return undefined;
}
