import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { addressFrom, formatAddress } from '../../src/base/address.ts';
import { toHex, u8, u32 } from '../../src/wire/bytes.ts';
import { readCapture } from '../../src/wire/capture.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';

const SUMMARY =
  /(\d+) packets? captured\s+(\d+) packets? received by filter\s+(\d+) packets? dropped/;

/** A tcpdump that runs. */
export class Capture {
  readonly #child: ChildProcess;
  readonly #file: string;
  #said = '';

  private constructor(child: ChildProcess, file: string) {
    this.#child = child;
    this.#file = file;
    child.stderr!.on('data', (text) => {
      this.#said += text;
    });
  }

  /** Resolves once it listens. */
  static async start(child: ChildProcess, file: string): Promise<Capture> {
    const capture = new Capture(child, file);
    while (!capture.#said.includes('listening on')) {
      if (child.exitCode !== null) throw new Error(capture.#said);
      await once(child.stderr!, 'data');
    }
    return capture;
  }

  /** What was seen. Throws when tcpdump was too slow for some of it. */
  async stop(): Promise<Wire> {
    // At a signal it drops what is still in the kernel's ring, so it has to come to rest first.
    for (let before = -1, size = 0; size !== before; ) {
      await sleep(200);
      before = size;
      size = statSync(this.#file).size;
    }
    const ended = once(this.#child, 'close');
    this.#child.kill('SIGINT');
    await ended;
    const [, captured, received, dropped] = SUMMARY.exec(this.#said) ?? [];
    if (captured !== received || dropped !== '0') throw new Error(`tcpdump: ${this.#said}`);
    return readWire(readFileSync(this.#file));
  }
}

/** A packet of ours as it was on the wire; fragments other than the first are not in this list. */
export interface Protected {
  readonly kind: 'esp' | 'ah' | 'udp';
  readonly src: string;
  readonly dst: string;
  readonly spi: number;
  readonly seq: number;
  /** The eight octets behind the sequence number: of AES-GCM the IV, in hexadecimal. */
  readonly iv: string;
  /** Of UDP, else 0. */
  readonly sport: number;
  readonly dport: number;
  readonly isFragment: boolean;
  readonly hopLimit: number;
}

export interface Wire {
  readonly octets: Uint8Array;
  readonly packets: readonly Protected[];
  /** Fragments of protected packets, first ones included, by source address. */
  readonly fragments: ReadonlyMap<string, number>;
  /** Keep-alives of RFC 3948, by source address. */
  readonly keepalives: ReadonlyMap<string, number>;
  /** Everything else that is IP, in a few words; without neighbour and listener discovery. */
  readonly clear: readonly string[];
}

const PORT = 4500;
const NAMES: Readonly<Record<number, 'esp' | 'ah' | 'udp'>> = { 17: 'udp', 50: 'esp', 51: 'ah' };

/** Sorts the packets of a capture file. */
export function readWire(octets: Uint8Array): Wire {
  const packets: Protected[] = [];
  const fragments = new Map<string, number>();
  const keepalives = new Map<string, number>();
  const clear: string[] = [];
  const cursor = new Cursor();
  const udpDatagrams = new Set<string>();
  for (const { bytes: p, at, end } of readCapture(octets)) {
    const bad = decode(p, at, end, cursor);
    if (bad !== undefined) {
      clear.push(`unreadable: ${bad}`);
      continue;
    }
    const src = formatAddress(addressFrom(cursor.family, p, cursor.srcAt));
    const dst = formatAddress(addressFrom(cursor.family, p, cursor.dstAt));
    if (!isProtected(p, cursor, `${src} ${dst}`, udpDatagrams)) {
      if (!isDiscovery(p, cursor)) clear.push(`${src} > ${dst} protocol ${cursor.protocol}`);
      continue;
    }
    if (cursor.isFragment) fragments.set(src, (fragments.get(src) ?? 0) + 1);
    if (cursor.fragmentOffset > 0) continue;
    if (isKeepalive(p, cursor)) keepalives.set(src, (keepalives.get(src) ?? 0) + 1);
    else packets.push({ src, dst, ...fieldsOf(p, cursor) });
  }
  return { octets, packets, fragments, keepalives, clear };
}

/** Of UDP only the first fragment has ports; `udpDatagrams` remembers which datagrams are ours. */
function isProtected(
  p: Uint8Array,
  cursor: Cursor,
  ends: string,
  udpDatagrams: Set<string>,
): boolean {
  const { protocol, sport, dport } = cursor;
  if (protocol !== 17) return protocol === 50 || protocol === 51;
  const datagram = `${ends} ${fragmentId(p, cursor)}`;
  if (cursor.fragmentOffset > 0) return udpDatagrams.has(datagram);
  if (sport !== PORT && dport !== PORT) return false;
  if (cursor.isFragment) udpDatagrams.add(datagram);
  return true;
}

function fragmentId(p: Uint8Array, { family, at, fragmentHeaderAt }: Cursor): number {
  if (family === 4) return ipv4.id(p, at);
  return fragmentHeaderAt > 0 ? ipv6.fragmentId(p, fragmentHeaderAt) : 0;
}

/** RFC 3948 §2.3. */
function isKeepalive(p: Uint8Array, { protocol, upperAt, end }: Cursor): boolean {
  return protocol === 17 && end - upperAt === 9 && u8(p, upperAt + 8) === 0xff;
}

function fieldsOf(p: Uint8Array, cursor: Cursor): Omit<Protected, 'src' | 'dst'> {
  const { family, at, upperAt, sport, dport, isFragment } = cursor;
  const kind = NAMES[cursor.protocol]!;
  // AH: next header, length and two octets of zero come first (RFC 4302 §2).
  const spiAt = upperAt + { esp: 0, ah: 4, udp: 8 }[kind];
  return {
    kind,
    spi: u32(p, spiAt),
    seq: u32(p, spiAt + 4),
    iv: toHex(p, spiAt + 8, spiAt + 16),
    sport,
    dport,
    isFragment,
    hopLimit: family === 4 ? ipv4.ttl(p, at) : ipv6.hopLimit(p, at),
  };
}

/** Neighbour discovery (RFC 4861) and listener discovery (RFC 3810): hosts do it by themselves. */
function isDiscovery(p: Uint8Array, { family, protocol, upperAt }: Cursor): boolean {
  if (family !== 6 || protocol !== 58) return false;
  const type = u8(p, upperAt);
  return (type >= 133 && type <= 137) || (type >= 130 && type <= 132) || type === 143;
}

/** How often a text is in the capture. */
export function occurrences(wire: Wire, text: string): number {
  const octets = Buffer.from(wire.octets.buffer, wire.octets.byteOffset, wire.octets.byteLength);
  let count = 0;
  for (let at = octets.indexOf(text); at >= 0; at = octets.indexOf(text, at + text.length)) count++;
  return count;
}
