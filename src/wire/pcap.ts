/**
 * Capture files of libpcap (draft-ietf-opsawg-pcap), in either byte order, with micro- or
 * nanoseconds. Written: little endian, microseconds.
 *
 *   file:   magic 4, major 2, minor 2, zone 4, accuracy 4, snapshot length 4, link type 4; records
 *   record: seconds 4, fraction 4, octets captured 4, octets on the wire 4; octets captured
 */
import { KeyError } from '../base/error.ts';
import { type CapturedPacket, ipAt, LINKTYPE } from './linktype.ts';

const FILE_HEADER_LEN = 24;
const RECORD_HEADER_LEN = 16;
const MAGIC_MICRO = 0xa1b2_c3d4;
const MAGIC_NANO = 0xa1b2_3c4d;
const SNAPSHOT_LEN = 262_144;

/** The beginning of a file. */
export function pcapHeader(linktype: number = LINKTYPE.RAW): Uint8Array {
  const view = new DataView(new ArrayBuffer(FILE_HEADER_LEN));
  view.setUint32(0, MAGIC_MICRO, true);
  view.setUint16(4, 2, true);
  view.setUint16(6, 4, true);
  view.setUint32(16, SNAPSHOT_LEN, true);
  view.setUint32(20, linktype, true);
  return new Uint8Array(view.buffer);
}

/** One packet, octets `at` to `end`, to be appended to the file. `wallMs` may have a fraction. */
export function pcapRecord(p: Uint8Array, at: number, end: number, wallMs: number): Uint8Array {
  const len = end - at;
  const record = new Uint8Array(RECORD_HEADER_LEN + len);
  const view = new DataView(record.buffer);
  const micros = Math.round(wallMs * 1000);
  view.setUint32(0, Math.floor(micros / 1e6), true);
  view.setUint32(4, micros % 1e6, true);
  view.setUint32(8, len, true);
  view.setUint32(12, len, true);
  record.set(p.subarray(at, end), RECORD_HEADER_LEN);
  return record;
}

/** Whether a file is of this kind, by its magic number. */
export function isPcap(file: Uint8Array): boolean {
  return file.length >= 4 && magicOf(viewOf(file)) !== undefined;
}

/** The IP packets of a file. Throws EINVAL, saying where, if the file is malformed. */
export function* readPcap(file: Uint8Array): Generator<CapturedPacket> {
  const view = viewOf(file);
  const magic = file.length < FILE_HEADER_LEN ? undefined : magicOf(view);
  if (magic === undefined) throw new KeyError('EINVAL', 'pcap file: no pcap header at its start');
  const { little, perSecond } = magic;
  const major = view.getUint16(4, little);
  if (major !== 2) {
    throw new KeyError('EINVAL', `pcap file: version ${major} is unknown, only 2 is`);
  }
  // The upper bits say whether frames end with a checksum, which the IP length tells apart anyway.
  const linktype = view.getUint32(20, little) & 0x03ff_ffff;
  for (let at = FILE_HEADER_LEN, number = 1; at < file.length; number++) {
    const where = `pcap file: record ${number} at octet ${at}`;
    if (file.length - at < RECORD_HEADER_LEN) {
      throw new KeyError('EINVAL', `${where}: the file ends within the record's header`);
    }
    const captured = view.getUint32(at + 8, little);
    const wire = view.getUint32(at + 12, little);
    const dataAt = at + RECORD_HEADER_LEN;
    const end = dataAt + captured;
    if (end > file.length) {
      const left = file.length - dataAt;
      throw new KeyError('EINVAL', `${where}: says ${captured} octets, but ${left} are left`);
    }
    const fraction = view.getUint32(at + 4, little) / perSecond;
    const wallMs = (view.getUint32(at, little) + fraction) * 1000;
    const packetAt = ipAt(linktype, file, dataAt, end);
    const missing = Math.max(0, wire - captured);
    if (packetAt >= 0) yield { number, wallMs, bytes: file, at: packetAt, end, missing };
    at = end;
  }
}

function viewOf(file: Uint8Array): DataView {
  return new DataView(file.buffer, file.byteOffset, file.byteLength);
}

function magicOf(view: DataView): { little: boolean; perSecond: number } | undefined {
  for (const little of [true, false]) {
    const magic = view.getUint32(0, little);
    if (magic === MAGIC_MICRO) return { little, perSecond: 1e6 };
    if (magic === MAGIC_NANO) return { little, perSecond: 1e9 };
  }
  return undefined;
}
