import { assert } from '../../base/assert.ts';

/**
 * The octets of netlink (<linux/netlink.h>), in the byte order of the machine, which is
 * little-endian on every platform of koffi:
 *
 *     message    0 len   4 type   6 flags   8 seq   12 port   16 a struct, then attributes
 *     attribute  0 len   2 type   4 value
 *
 * Both lengths count their own header, and not the padding to a multiple of 4 that follows.
 */
export const HEADER_LEN = 16;
const ATTRIBUTE_HEADER_LEN = 4;
/** Of an attribute's type: the bits above say "nested" and "big-endian". */
const TYPE_MASK = 0x3fff;
const NESTED = 0x8000;

/** Writes messages one after the other into a block that it is given. */
export class MessageWriter {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;
  #startAt = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Octets written since the last `clear`. */
  get len(): number {
    return this.#at;
  }

  clear(): void {
    this.#at = 0;
  }

  begin(type: number, flags: number, seq: number): void {
    this.#startAt = this.#at;
    this.u32(0).u16(type).u16(flags).u32(seq).u32(0);
  }

  end(): void {
    this.#view.setUint32(this.#startAt, this.#at - this.#startAt, true);
    this.#pad();
  }

  /** Adds flags to the message that was written last. */
  flag(flags: number): void {
    const at = this.#startAt + 6;
    this.#view.setUint16(at, this.#view.getUint16(at, true) | flags, true);
  }

  u8(value: number): this {
    this.#bytes[this.#advance(1)] = value;
    return this;
  }

  u16(value: number): this {
    this.#view.setUint16(this.#advance(2), value, true);
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.#advance(4), value, true);
    return this;
  }

  octets(value: Uint8Array): this {
    this.#bytes.set(value, this.#advance(value.length));
    return this;
  }

  /** The one writer of attributes: `write` writes the value, which may be attributes again. */
  attribute(type: number, write: (writer: this) => void): void {
    const at = this.#at;
    this.u16(0).u16(type);
    write(this);
    const len = this.#at - at;
    assert(len <= 0xffff, 'an attribute fits into its length field');
    this.#view.setUint16(at, len, true);
    this.#pad();
  }

  attributeU16(type: number, value: number): void {
    this.attribute(type, () => this.u16(value));
  }

  attributeU32(type: number, value: number): void {
    this.attribute(type, () => this.u32(value));
  }

  attributeOctets(type: number, value: Uint8Array): void {
    this.attribute(type, () => this.octets(value));
  }

  /** With the zero that ends it. */
  attributeText(type: number, text: string): void {
    this.attribute(type, () => this.octets(new TextEncoder().encode(text)).u8(0));
  }

  nest(type: number, write: (writer: this) => void): void {
    this.attribute(type | NESTED, write);
  }

  #pad(): void {
    while (this.#at % 4 !== 0) this.u8(0);
  }

  #advance(len: number): number {
    const at = this.#at;
    assert(at + len <= this.#bytes.length, 'a netlink request fits into its buffer');
    this.#at = at + len;
    return at;
  }
}

/** A message in a buffer that is used again: what is kept must be copied. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly seq: number;
  readonly portId: number;
  /** What follows the header. */
  readonly body: Slice;
}

/** Throws an Error when the lengths do not fit into each other. */
export function* messagesIn(bytes: Uint8Array): IterableIterator<NetlinkMessage> {
  const whole = new Slice(bytes);
  for (let at = 0; at < whole.len; ) {
    const len = whole.u32(at);
    if (len < HEADER_LEN || at + len > whole.len) throw malformed(`a message of ${len} octets`);
    yield {
      type: whole.u16(at + 4),
      flags: whole.u16(at + 6),
      seq: whole.u32(at + 8),
      portId: whole.u32(at + 12),
      body: whole.slice(at + HEADER_LEN, at + len),
    };
    at += align(len);
  }
}

/** Some octets of a message. Reading past their end throws an Error. */
export class Slice {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get len(): number {
    return this.bytes.length;
  }

  u8(at: number): number {
    this.#check(at, 1);
    return this.#view.getUint8(at);
  }

  u16(at: number): number {
    this.#check(at, 2);
    return this.#view.getUint16(at, true);
  }

  u32(at: number): number {
    this.#check(at, 4);
    return this.#view.getUint32(at, true);
  }

  i32(at: number): number {
    return this.u32(at) | 0;
  }

  slice(at: number, end: number): Slice {
    this.#check(at, end - at);
    return new Slice(this.bytes.subarray(at, end));
  }

  /** The attributes from here to the end. */
  attributes(at: number): Attributes {
    const found = new Map<number, Slice>();
    let next = at;
    while (next + ATTRIBUTE_HEADER_LEN <= this.len) {
      const len = this.u16(next);
      if (len < ATTRIBUTE_HEADER_LEN || next + len > this.len) {
        throw malformed(`an attribute of ${len} octets`);
      }
      const value = this.slice(next + ATTRIBUTE_HEADER_LEN, next + len);
      found.set(this.u16(next + 2) & TYPE_MASK, value);
      next += align(len);
    }
    return new Attributes(found);
  }

  #check(at: number, len: number): void {
    if (at < 0 || len < 0 || at + len > this.len) throw malformed('it ends too early');
  }
}

/**
 * Attributes by their type. Types that nobody asks for are passed over, since every kernel adds
 * some; one that is asked for and has another length than it must have throws an Error.
 */
export class Attributes {
  readonly #found: ReadonlyMap<number, Slice>;

  constructor(found: ReadonlyMap<number, Slice>) {
    this.#found = found;
  }

  has(type: number): boolean {
    return this.#found.has(type);
  }

  u32(type: number): number | undefined {
    const value = this.#found.get(type);
    if (value !== undefined && value.len !== 4) throw malformed(`attribute ${type}`);
    return value?.u32(0);
  }

  /** A copy. */
  octets(type: number): Uint8Array | undefined {
    return this.#found.get(type)?.bytes.slice();
  }

  /** Without the zero that ends it. */
  text(type: number): string | undefined {
    const value = this.#found.get(type);
    return value && new TextDecoder().decode(value.bytes).replace(/\0.*$/s, '');
  }

  nested(type: number): Attributes | undefined {
    return this.#found.get(type)?.attributes(0);
  }
}

function align(len: number): number {
  return (len + 3) & ~3;
}

function malformed(what: string): Error {
  return new Error(`a netlink message is malformed: ${what}`);
}
