import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseAddress } from '../../../src/base/address.ts';
import { AF_INET, failure, type Libc, libc, SOCK_DGRAM } from '../../../src/drivers/linux/libc.ts';

/**
 * Sends and counts datagrams, 60 to a system call:
 *
 *     datagram-program.js receive ADDRESS PORT
 *     datagram-program.js send FROM TO PORT PAYLOADS RATES MILLISECONDS
 *
 * PAYLOADS: lengths, in turn. RATES: datagrams a second, each for so many milliseconds and with a
 * pause behind it. The sender prints how many it sent at each rate, the receiver how many came.
 */

/** Ends with whole turns of the mix of sizes, which is of twelve. */
const BATCH = 60;
const PAYLOAD_MAX = 2048;
/** What a datagram begins with: the number of its rate, or that there are no more. */
const NO_MORE = 0xffff_ffff;
const NO_MORE_TIMES = 20;
const PAUSE_MS = 50;
/** The receiver does not wait longer than this for anything. */
const IDLE_MS = 3_000;

const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SO_RCVBUFFORCE = 33;
const RECEIVE_BUFFER = 16 << 20;
const MSG_WAITFORONE = 0x10000;

/** `struct mmsghdr` and `struct iovec` of 64-bit Linux. */
const MESSAGE_LEN = 64;
const IOVEC_LEN = 16;
const SOCKADDR_LEN = 16;

/** One native block: a batch of messages, each with a buffer, and the address that all go to. */
class Messages {
  readonly #buffer = new ArrayBuffer(
    BATCH * (MESSAGE_LEN + IOVEC_LEN + PAYLOAD_MAX) + SOCKADDR_LEN,
  );
  readonly #view = new DataView(this.#buffer);
  /** Native address of the first message header. */
  readonly base: number;

  constructor(c: Libc, payloads: readonly number[]) {
    this.base = Number(c.koffi.address(new Uint8Array(this.#buffer)));
    for (let i = 0; i < BATCH; i++) {
      const [message, iovec] = [i * MESSAGE_LEN, BATCH * MESSAGE_LEN + i * IOVEC_LEN];
      this.#setWord(iovec, this.base + this.#payloadAt(i));
      this.#setWord(iovec + 8, payloads[i % payloads.length]!);
      this.#setWord(message + 16, this.base + iovec);
      this.#setWord(message + 24, 1);
    }
  }

  /** Lets all messages go to an address. */
  sendTo(address: Uint8Array, port: number): void {
    const at = this.#buffer.byteLength - SOCKADDR_LEN;
    writeSockaddr(this.#view, at, address, port);
    for (let i = 0; i < BATCH; i++) {
      this.#setWord(i * MESSAGE_LEN, this.base + at);
      this.#view.setUint32(i * MESSAGE_LEN + 8, SOCKADDR_LEN, true);
    }
  }

  setNumbers(number: number): void {
    for (let i = 0; i < BATCH; i++) this.#view.setUint32(this.#payloadAt(i), number);
  }

  numberOf(i: number): number {
    return this.#view.getUint32(this.#payloadAt(i));
  }

  #payloadAt(i: number): number {
    return BATCH * (MESSAGE_LEN + IOVEC_LEN) + i * PAYLOAD_MAX;
  }

  #setWord(at: number, value: number): void {
    this.#view.setBigUint64(at, BigInt(value), true);
  }
}

function writeSockaddr(view: DataView, at: number, address: Uint8Array, port: number): void {
  view.setUint16(at, AF_INET, true);
  view.setUint16(at + 2, port);
  for (let i = 0; i < 4; i++) view.setUint8(at + 4 + i, address[i]!);
}

/** A blocking UDP socket with that address. */
function openSocket(c: Libc, address: Uint8Array, port: number): number {
  const fd = c.socket(AF_INET, SOCK_DGRAM, 0);
  const name = new Uint8Array(new ArrayBuffer(256));
  writeSockaddr(new DataView(name.buffer), 0, address, port);
  if (fd < 0 || c.bind(fd, Number(c.koffi.address(name)), SOCKADDR_LEN) < 0) {
    throw failure(c, 'a socket for datagrams');
  }
  const values = new DataView(name.buffer);
  values.setUint32(64, RECEIVE_BUFFER, true);
  values.setBigUint64(128, BigInt(IDLE_MS / 1000), true);
  const at = Number(c.koffi.address(name));
  c.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, at + 64, 4);
  c.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, at + 128, 16);
  return fd;
}

function receive(address: string, port: number): void {
  const c = libc('the receiver of datagrams');
  const fd = openSocket(c, parseAddress(address)!.bytes, port);
  const messages = new Messages(c, [PAYLOAD_MAX]);
  const counts: number[] = [];
  process.stdout.write('ready\n');
  for (;;) {
    const count = c.recvmmsg(fd, messages.base, BATCH, MSG_WAITFORONE, 0);
    let ended = count <= 0;
    for (let i = 0; i < count; i++) {
      const number = messages.numberOf(i);
      if (number === NO_MORE) ended = true;
      else counts[number] = (counts[number] ?? 0) + 1;
    }
    if (ended) break;
  }
  console.log(JSON.stringify(Array.from(counts, (count) => count ?? 0)));
}

export interface Sent {
  readonly rate: number;
  readonly sent: number;
  readonly milliseconds: number;
}

async function send(
  from: string,
  to: string,
  port: number,
  payloads: readonly number[],
  rates: readonly number[],
  milliseconds: number,
): Promise<void> {
  const c = libc('the sender of datagrams');
  const fd = openSocket(c, parseAddress(from)!.bytes, 0);
  const messages = new Messages(c, payloads);
  messages.sendTo(parseAddress(to)!.bytes, port);
  const steps: Sent[] = [];
  for (const [i, rate] of rates.entries()) {
    messages.setNumbers(i);
    steps.push(sendAt(c, fd, messages, rate, milliseconds));
    await sleep(PAUSE_MS);
  }
  messages.setNumbers(NO_MORE);
  for (let i = 0; i < NO_MORE_TIMES; i++) {
    c.sendmmsg(fd, messages.base, 1, 0);
    await sleep(PAUSE_MS / 5);
  }
  console.log(JSON.stringify(steps));
}

/** Sends at a rate, or as fast as it can. Waits between batches, and does not spin. */
function sendAt(c: Libc, fd: number, messages: Messages, rate: number, milliseconds: number): Sent {
  const clock = new Int32Array(new SharedArrayBuffer(4));
  const began = performance.now();
  let sent = 0;
  for (;;) {
    const elapsed = performance.now() - began;
    if (elapsed >= milliseconds) return { rate, sent, milliseconds: elapsed };
    const due = Math.floor((rate * elapsed) / 1000) - sent;
    if (due < BATCH) {
      Atomics.wait(clock, 0, 0, Math.min(1, (1000 * (BATCH - due)) / rate));
      continue;
    }
    const count = c.sendmmsg(fd, messages.base, BATCH, 0);
    if (count < 0) throw failure(c, 'sendmmsg');
    sent += count;
  }
}

const [mode, ...args] = process.argv.slice(2);
const list = (text = '') => text.split(',').map(Number);
if (mode === 'receive') {
  receive(args[0]!, Number(args[1]));
} else {
  const [from, to, port, payloads, rates, milliseconds] = args;
  await send(from!, to!, Number(port), list(payloads), list(rates), Number(milliseconds));
}
