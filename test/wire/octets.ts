/** Packets written out by hand for the tests of the wire layer. */
import { readFileSync } from 'node:fs';
import { fromHex, setU16 } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { vectorFile } from '../files.ts';

/** Hexadecimal with blanks between, as much as reads well. */
export function hex(text: string): Uint8Array {
  return fromHex(text.replace(/\s+/g, ''));
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Octets 0, 1, 2 ... so that a misplaced one is seen. */
export function counting(len: number): Uint8Array {
  const octets = new Uint8Array(len);
  for (let i = 0; i < len; i++) octets[i] = i * 7 + (i >> 8);
  return octets;
}

export interface Ipv4Fields {
  readonly protocol: number;
  readonly id?: number;
  /** FLAG_DF, FLAG_MF. */
  readonly flags?: number;
  readonly offset?: number;
  readonly options?: Uint8Array;
  readonly src?: number;
}

/** 10.0.0.1 > 10.0.0.2, with a right header checksum. */
export function ipv4Packet(fields: Ipv4Fields, payload: Uint8Array): Uint8Array {
  const options = fields.options ?? new Uint8Array(0);
  const p = concat(new Uint8Array(20), options, payload);
  const id = fields.id ?? 0x1234;
  ipv4.write(p, 0, 0, p.length, id, 0, 64, fields.protocol);
  ipv4.setFragment(p, 0, fields.flags ?? 0, fields.offset ?? 0);
  ipv4.setHeaderLen(p, 0, 20 + options.length);
  p.set([10, 0, 0, fields.src ?? 1, 10, 0, 0, 2], ipv4.SRC_AT);
  ipv4.updateChecksum(p, 0);
  return p;
}

/** 2001:db8::1 > 2001:db8::2; `payload` begins with the headers that `next` names. */
export function ipv6Packet(next: number, ...payload: readonly Uint8Array[]): Uint8Array {
  const p = concat(new Uint8Array(40), ...payload);
  ipv6.write(p, 0, 0, 0, p.length - 40, next, 64);
  p.set(hex('20010db8000000000000000000000001'), ipv6.SRC_AT);
  p.set(hex('20010db8000000000000000000000002'), ipv6.DST_AT);
  return p;
}

/** A fragment header. */
export function fragmentHeader(next: number, offset: number, more: number, id: number): Uint8Array {
  const p = new Uint8Array(8);
  ipv6.writeFragmentHeader(p, 0, next, offset, more, id);
  return p;
}

/** Ports 1000 and 2000, checksum 0. */
export function udp(data: Uint8Array): Uint8Array {
  const p = concat(hex('03e8 07d0 0000 0000'), data);
  setU16(p, 4, p.length);
  return p;
}

export interface LinuxFrame {
  readonly proto: 'esp' | 'ah';
  readonly mode: 'transport' | 'tunnel';
  readonly inner: number;
  readonly outer: number;
  readonly encap: boolean;
  readonly spi: number;
  readonly frame: string;
  readonly src: string;
  readonly dst: string;
  readonly esn: boolean;
  readonly id: number;
  readonly sport: number;
  readonly dport: number;
  readonly icv: number;
}

/** Ethernet frames with ESP and AH that Linux 6.1 made. */
export function linuxFrames(): readonly LinuxFrame[] {
  return readJson('linux-6.1-esp-ah.json').frames as LinuxFrame[];
}

/** Plain UDP packets that scapy made, with checksums. */
export function scapyPackets(): readonly Uint8Array[] {
  const frames = readJson('scapy-2.5.0.json').frames as { readonly plain: string }[];
  return frames.map((frame) => fromHex(frame.plain));
}

function readJson(name: string): { readonly frames: readonly unknown[] } {
  return JSON.parse(readFileSync(vectorFile(name), 'utf8'));
}

/**
 * What Linux sent over its loopback interface: ping and refused connections, with checksums by the
 * kernel.
 */
export const CAPTURED = {
  echo6:
    hex(`6007effb 00133a40 00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000001
    8000488a 190c0001 00010203 04050607 08090a`),
  echo4: hex(
    '45000027 12724000 40012a62 7f000001 7f000001 0800c0d7 190e0001 00010203 04050607 08090a',
  ),
  echoReply4: hex(
    '45000027 12730000 40016a61 7f000001 7f000001 0000c8d7 190e0001 00010203 04050607 08090a',
  ),
  reset4: hex(
    '45000028 00004000 40063cce 7f000001 7f000001 0009e716 00000000 383fd407 50140000 be670000',
  ),
  /** Its TCP checksum is left to the network card, as loopback has none. */
  syn4: hex(`4500003c bb144000 400681a5 7f000001 7f000001 e7160009 383fd406 00000000 a002ffd7 fe300000
    0204ffd7 0402080a 7f19bbc9 00000000 0103030a`),
} as const;
