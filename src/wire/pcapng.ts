/**
 * Capture files of Wireshark (draft-ietf-opsawg-pcapng), in either byte order. Read: section,
 * interface, enhanced, simple and (obsolete) packet blocks; others are skipped. Written: little
 * endian, one interface, microseconds.
 *
 *   block:     type 4, length 4, body padded to 4, length 4 again
 *   section:   byte order magic 4, major 2, minor 2, length 8, options
 *   interface: link type 2, reserved 2, snapshot length 4, options
 *   enhanced:  interface 4, time (high, low) 8, octets captured 4, on the wire 4, octets padded
 *              to 4, options
 *   simple:    octets on the wire 4, octets padded to 4
 *   option:    code 2, length 2, value padded to 4
 */
import { KeyError } from '../base/error.ts';
import { type CapturedPacket, ipAt, LINKTYPE } from './linktype.ts';

const BLOCK = { INTERFACE: 1, PACKET: 2, SIMPLE: 3, ENHANCED: 6, SECTION: 0x0a0d_0d0a } as const;
const OPTION = { END: 0, COMMENT: 1, IF_TSRESOL: 9, IF_TSOFFSET: 14 } as const;
const BYTE_ORDER_MAGIC = 0x1a2b_3c4d;
/** Type and both lengths. */
const BLOCK_LEN_MIN = 12;
const SECTION_LEN_MIN = 28;
/** Octets in front of the captured ones in the body of each kind of packet block. */
const ENHANCED_LEN = 20;
const SIMPLE_LEN = 4;
const INTERFACE_LEN = 8;

interface Interface {
  readonly linktype: number;
  /** 0: no limit. */
  readonly snapshotLen: number;
  readonly ticksPerSecond: bigint;
  readonly offsetSeconds: bigint;
}

/** Where a block's body is, and how to read it. */
interface Body {
  readonly view: DataView;
  readonly little: boolean;
  readonly at: number;
  readonly end: number;
  /** For messages. */
  readonly where: string;
}

/** The octets of a packet block, link header included. */
interface Frame {
  readonly interfaceId: number;
  readonly ticks: bigint | undefined;
  readonly at: number;
  readonly captured: number;
  readonly wire: number;
}

/** The beginning of a file. */
export function pcapngHeader(linktype: number = LINKTYPE.RAW): Uint8Array {
  const file = new Uint8Array(SECTION_LEN_MIN + BLOCK_LEN_MIN + INTERFACE_LEN);
  const view = new DataView(file.buffer);
  view.setUint32(0, BLOCK.SECTION, true);
  view.setUint32(4, SECTION_LEN_MIN, true);
  view.setUint32(8, BYTE_ORDER_MAGIC, true);
  view.setUint16(12, 1, true);
  // -1: the length of the section is not known while it is written.
  view.setBigInt64(16, -1n, true);
  view.setUint32(24, SECTION_LEN_MIN, true);
  view.setUint32(28, BLOCK.INTERFACE, true);
  view.setUint32(32, BLOCK_LEN_MIN + INTERFACE_LEN, true);
  view.setUint16(36, linktype, true);
  view.setUint32(44, BLOCK_LEN_MIN + INTERFACE_LEN, true);
  return file;
}

/**
 * One packet, octets `at` to `end`, to be appended to the file. `wallMs` may have a fraction. A
 * comment is shown by Wireshark with the packet.
 */
export function pcapngRecord(
  p: Uint8Array,
  at: number,
  end: number,
  wallMs: number,
  comment = '',
): Uint8Array {
  const text = new TextEncoder().encode(comment).subarray(0, 0xffff);
  const optionsLen = text.length === 0 ? 0 : 4 + padded(text.length) + 4;
  const bodyLen = ENHANCED_LEN + padded(end - at) + optionsLen;
  const block = new Uint8Array(BLOCK_LEN_MIN + bodyLen);
  const view = new DataView(block.buffer);
  view.setUint32(0, BLOCK.ENHANCED, true);
  view.setUint32(4, block.length, true);
  const micros = BigInt(Math.round(wallMs * 1000));
  view.setUint32(12, Number(micros >> 32n), true);
  view.setUint32(16, Number(micros & 0xffff_ffffn), true);
  view.setUint32(20, end - at, true);
  view.setUint32(24, end - at, true);
  block.set(p.subarray(at, end), 28);
  if (optionsLen > 0) {
    const optionAt = 28 + padded(end - at);
    view.setUint16(optionAt, OPTION.COMMENT, true);
    view.setUint16(optionAt + 2, text.length, true);
    block.set(text, optionAt + 4);
  }
  view.setUint32(block.length - 4, block.length, true);
  return block;
}

/** Whether a file is of this kind, by its first block. */
export function isPcapng(file: Uint8Array): boolean {
  if (file.length < 4) return false;
  return new DataView(file.buffer, file.byteOffset).getUint32(0) === BLOCK.SECTION;
}

/** The IP packets of a file. Throws EINVAL, saying where, if the file is malformed. */
export function* readPcapng(file: Uint8Array): Generator<CapturedPacket> {
  if (!isPcapng(file)) throw new KeyError('EINVAL', 'pcapng file: no section header at its start');
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let interfaces: Interface[] = [];
  let little = true;
  let number = 0;
  for (let at = 0, count = 1; at < file.length; count++) {
    const where = `pcapng file: block ${count} at octet ${at}`;
    if (file.length - at < BLOCK_LEN_MIN) bad(where, 'the file ends within a block header');
    // The same in both byte orders, so that the order can be learnt from what follows.
    const section = view.getUint32(at) === BLOCK.SECTION;
    if (section) {
      little = byteOrder(view, at, where);
      interfaces = [];
    }
    const len = blockLen(view, at, little, where);
    const body: Body = { view, little, at: at + 8, end: at + len - 4, where };
    const type = view.getUint32(at, little);
    if (section) checkSection(body);
    else if (type === BLOCK.INTERFACE) interfaces.push(readInterface(body));
    const frame = readFrame(type, body, interfaces);
    if (frame !== undefined) {
      number++;
      const packet = packetOf(file, number, frame, interfaces, where);
      if (packet !== undefined) yield packet;
    }
    at += len;
  }
}

function bad(where: string, what: string): never {
  throw new KeyError('EINVAL', `${where}: ${what}`);
}

function byteOrder(view: DataView, at: number, where: string): boolean {
  if (view.getUint32(at + 8, true) === BYTE_ORDER_MAGIC) return true;
  if (view.getUint32(at + 8, false) === BYTE_ORDER_MAGIC) return false;
  return bad(where, 'the byte order magic of the section is wrong');
}

function blockLen(view: DataView, at: number, little: boolean, where: string): number {
  const len = view.getUint32(at + 4, little);
  const left = view.byteLength - at;
  if (len < BLOCK_LEN_MIN || len % 4 !== 0) bad(where, `${len} is no possible block length`);
  if (len > left) bad(where, `says ${len} octets, but ${left} are left`);
  if (view.getUint32(at + len - 4, little) !== len) bad(where, 'its two lengths differ');
  return len;
}

function checkSection(body: Body): void {
  if (body.end - body.at < SECTION_LEN_MIN - BLOCK_LEN_MIN) bad(body.where, 'too short');
  const major = body.view.getUint16(body.at + 4, body.little);
  if (major !== 1) bad(body.where, `version ${major} is unknown, only 1 is`);
}

function readInterface(body: Body): Interface {
  const { view, little, at, end, where } = body;
  if (end - at < INTERFACE_LEN) bad(where, 'too short');
  let ticksPerSecond = 1_000_000n;
  let offsetSeconds = 0n;
  for (let i = at + INTERFACE_LEN; i + 4 <= end; ) {
    const code = view.getUint16(i, little);
    const len = view.getUint16(i + 2, little);
    if (code === OPTION.END) break;
    if (i + 4 + len > end) bad(where, `option ${code} is longer than its block`);
    if (code === OPTION.IF_TSRESOL && len === 1) {
      const exponent = view.getUint8(i + 4);
      ticksPerSecond = (exponent & 0x80 ? 2n : 10n) ** BigInt(exponent & 0x7f);
    }
    if (code === OPTION.IF_TSOFFSET && len === 8) offsetSeconds = view.getBigInt64(i + 4, little);
    i += 4 + padded(len);
  }
  return {
    linktype: view.getUint16(at, little),
    snapshotLen: view.getUint32(at + 4, little),
    ticksPerSecond,
    offsetSeconds,
  };
}

/** The packet of a packet block; undefined for other blocks. */
function readFrame(type: number, body: Body, interfaces: readonly Interface[]): Frame | undefined {
  if (type === BLOCK.SIMPLE) return readSimple(body, interfaces);
  if (type !== BLOCK.ENHANCED && type !== BLOCK.PACKET) return undefined;
  const { view, little, at, end, where } = body;
  if (end - at < ENHANCED_LEN) bad(where, 'too short');
  const captured = view.getUint32(at + 12, little);
  if (captured > end - at - ENHANCED_LEN) bad(where, `says ${captured} octets, but has fewer`);
  const high = view.getUint32(at + 4, little);
  return {
    interfaceId: type === BLOCK.ENHANCED ? view.getUint32(at, little) : view.getUint16(at, little),
    ticks: (BigInt(high) << 32n) | BigInt(view.getUint32(at + 8, little)),
    at: at + ENHANCED_LEN,
    captured,
    wire: view.getUint32(at + 16, little),
  };
}

/** It does not say how much was captured: all, up to the snapshot length of the first interface. */
function readSimple(body: Body, interfaces: readonly Interface[]): Frame {
  const { view, little, at, end, where } = body;
  if (end - at < SIMPLE_LEN) bad(where, 'too short');
  const wire = view.getUint32(at, little);
  const limit = described(interfaces, 0, where).snapshotLen || wire;
  const captured = Math.min(wire, limit);
  if (captured > end - at - SIMPLE_LEN) bad(where, `says ${captured} octets, but has fewer`);
  return { interfaceId: 0, ticks: undefined, at: at + SIMPLE_LEN, captured, wire };
}

function packetOf(
  file: Uint8Array,
  number: number,
  frame: Frame,
  interfaces: readonly Interface[],
  where: string,
): CapturedPacket | undefined {
  const on = described(interfaces, frame.interfaceId, where);
  const end = frame.at + frame.captured;
  const at = ipAt(on.linktype, file, frame.at, end);
  if (at < 0) return undefined;
  const missing = Math.max(0, frame.wire - frame.captured);
  return { number, wallMs: wallMsOf(frame.ticks, on), bytes: file, at, end, missing };
}

function described(interfaces: readonly Interface[], id: number, where: string): Interface {
  return interfaces[id] ?? bad(where, `interface ${id} is not described before`);
}

/**
 * Whole seconds and the rest apart: nanoseconds since 1970 are more than a number holds exactly.
 */
function wallMsOf(ticks: bigint | undefined, on: Interface): number {
  if (ticks === undefined) return 0;
  const seconds = ticks / on.ticksPerSecond + on.offsetSeconds;
  const rest = Number(ticks % on.ticksPerSecond) / Number(on.ticksPerSecond);
  return (Number(seconds) + rest) * 1000;
}

function padded(len: number): number {
  return (len + 3) & ~3;
}
