import { type Address, addressFrom, formatAddress } from '../../src/base/address.ts';
import { Reassembly } from '../../src/engine/reassembly.ts';
import { equal, toHex } from '../../src/wire/bytes.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as icmp from '../../src/wire/icmp.ts';
import { type Packet, PacketArena, type PacketSink } from '../../src/wire/packet.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import * as tcp from '../../src/wire/tcp.ts';
import * as udp from '../../src/wire/udp.ts';
import { ipPacket } from './ip-packet.ts';
import { TcpClient } from './tcp-client.ts';

/** Far more than an answer ever takes; only a failing test waits for it. */
const ANSWER_LIMIT_MS = 5_000;
const FIRST_PORT = 40_000;

/**
 * What a conversation is known by when an answer comes: protocol, our address, and port or echo
 * identifier.
 */
type Key = string;
type Listener = (p: Uint8Array, cursor: Cursor) => void;

/**
 * The local side of a host in tests: answers ICMP echo on every address, pings, asks by UDP, and
 * sends streams by TCP. It is a test tool: nothing is lost on the wires it is used on, so only TCP
 * sends anything twice.
 */
export class Stack {
  /** Checksums that were wrong, and other packets that nobody wanted: no test expects one. */
  readonly strays: string[] = [];
  readonly #send: (octets: Uint8Array) => void;
  readonly #listeners = new Map<Key, Listener>();
  readonly #cursor = new Cursor();
  readonly #arena = new PacketArena(2);
  readonly #reassembly = new Reassembly({
    take: () => this.#arena.take(),
    dropped: (reason) => this.strays.push(reason),
  });
  #number = FIRST_PORT;
  #id = 0;

  constructor(send: (octets: Uint8Array) => void) {
    this.#send = send;
  }

  /** The host's `deliver`. */
  deliver: PacketSink = (packets, count) => {
    for (let i = 0; i < count; i++) this.#arrived(packets[i]!);
  };

  /** Resolves when an echo request with `len` octets of data has come back unaltered. */
  async ping(from: Address, to: Address, len: number): Promise<void> {
    const { family } = from;
    const id = this.#nextNumber();
    const message = new Uint8Array(icmp.HEADER_LEN + len);
    const type = family === 4 ? icmp.TYPE4.ECHO : icmp.TYPE6.ECHO;
    icmp.write(message, 0, type, 0, id * 0x1_0000 + 1);
    for (let i = 0; i < len; i++) message[icmp.HEADER_LEN + i] = i * 3 + id;
    const protocol = icmp.protocolOf(family);
    const answer = this.#answerTo(`${protocol} ${toHex(from.bytes)} ${id}`, (p, cursor) => {
      const isWhole = cursor.end - cursor.upperAt === message.length;
      const bodyAt = icmp.HEADER_LEN - 4;
      return isWhole && equal(p, cursor.upperAt + bodyAt, message, bodyAt, message.length - bodyAt);
    });
    this.#sendIp(from, to, protocol, message);
    if (!(await answer)) throw new Error('the echo reply was altered');
  }

  /** Sends a datagram and resolves to the one that comes back. */
  async ask(from: Address, to: Address, port: number, text: string): Promise<string> {
    const own = this.#nextNumber();
    const data = new TextEncoder().encode(text);
    const datagram = new Uint8Array(udp.HEADER_LEN + data.length);
    udp.write(datagram, 0, own, port, datagram.length);
    datagram.set(data, udp.HEADER_LEN);
    const answer = this.#answerTo(`${PROTO.UDP} ${toHex(from.bytes)} ${own}`, (p, cursor) =>
      new TextDecoder().decode(p.subarray(cursor.upperAt + udp.HEADER_LEN, cursor.end)),
    );
    this.#sendIp(from, to, PROTO.UDP, datagram);
    return answer;
  }

  /**
   * Sends a stream to a TCP port, ends it, and resolves to all that comes back until the peer ends
   * its own.
   */
  async stream(from: Address, to: Address, port: number, data: Uint8Array): Promise<Uint8Array> {
    const own = this.#nextNumber();
    const key = `${PROTO.TCP} ${toHex(from.bytes)} ${own}`;
    const client = new TcpClient(own, port, data, (segment) =>
      this.#sendIp(from, to, PROTO.TCP, segment),
    );
    this.#listeners.set(key, (p, cursor) => client.arrived(p, cursor.upperAt, cursor.end));
    try {
      return await client.run();
    } finally {
      this.#listeners.delete(key);
    }
  }

  #answerTo<T>(key: Key, read: (p: Uint8Array, cursor: Cursor) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const limit = setTimeout(() => {
        this.#listeners.delete(key);
        reject(new Error(`no answer in ${ANSWER_LIMIT_MS} ms (${key})`));
      }, ANSWER_LIMIT_MS);
      this.#listeners.set(key, (p, cursor) => {
        clearTimeout(limit);
        this.#listeners.delete(key);
        resolve(read(p, cursor));
      });
    });
  }

  #arrived(packet: Packet): void {
    const cursor = this.#cursor;
    const bad = decode(packet.bytes, packet.at, packet.end, cursor);
    if (bad !== undefined) {
      this.strays.push(bad);
    } else if (cursor.isFragment) {
      // A tunnel may carry fragments, and handing them on as they are is right.
      const whole = this.#reassembly.add(packet.bytes, cursor, 0);
      if (whole === undefined) return;
      this.#arrived(whole);
      this.#arena.give(whole);
    } else {
      this.#dispatch(packet.bytes, cursor);
    }
  }

  #dispatch(p: Uint8Array, cursor: Cursor): void {
    const { family, protocol, upperAt, dstAt } = cursor;
    const what = `protocol ${protocol} to ${formatAddress(addressFrom(family, p, dstAt))}`;
    if (!checksum.transportChecksumOk(p, cursor)) {
      this.strays.push(`wrong checksum: ${what}`);
      return;
    }
    const isIcmp = protocol === icmp.protocolOf(family) && cursor.portsKnown;
    if (isIcmp && icmp.isEcho(p, upperAt, family)) return this.#reply(p, cursor);
    const number = isIcmp ? icmp.echoId(p, upperAt) : cursor.dport;
    const addressLen = family === 4 ? 4 : 16;
    const key = `${protocol} ${toHex(p, dstAt, dstAt + addressLen)} ${number}`;
    const listener = this.#listeners.get(key);
    if (listener) listener(p, cursor);
    else if (!isLateTcp(p, cursor)) this.strays.push(`nobody waits for ${what}, ${number}`);
  }

  #reply(p: Uint8Array, cursor: Cursor): void {
    const { family, upperAt, end, srcAt, dstAt } = cursor;
    const message = p.slice(upperAt, end);
    icmp.setType(message, 0, family === 4 ? icmp.TYPE4.ECHO_REPLY : icmp.TYPE6.ECHO_REPLY);
    const [to, from] = [addressFrom(family, p, srcAt), addressFrom(family, p, dstAt)];
    this.#sendIp(from, to, icmp.protocolOf(family), message);
  }

  #sendIp(from: Address, to: Address, protocol: number, upper: Uint8Array): void {
    // Not 0, and none that is still in flight (RFC 6864 §4.1).
    this.#id = (this.#id % 0xffff) + 1;
    this.#send(ipPacket(from, to, protocol, upper, this.#id));
  }

  #nextNumber(): number {
    return this.#number++;
  }
}

/** The last acknowledgement of a connection that has ended here. */
function isLateTcp(p: Uint8Array, cursor: Cursor): boolean {
  return cursor.protocol === PROTO.TCP && tcp.flags(p, cursor.upperAt) === tcp.FLAG.ACK;
}
