import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { addressFrom, formatAddress } from '../../src/base/address.ts';
import { u8, u16, u32 } from '../../src/wire/bytes.ts';
import { readCapture } from '../../src/wire/capture.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';

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

export function readWire(octets: Uint8Array): Wire {
  const packets: Protected[] = [];
  const fragments = new Map<string, number>();
  const keepalives = new Map<string, number>();
  const clear: string[] = [];
  const cursor = new Cursor();
  // The protocol of later IPv6 fragments is in each of them, the ports of UDP only in the first.
  const udpFragments = new Set<string>();
  for (const { bytes: p, at, end } of readCapture(octets)) {
    const bad = decode(p, at, end, cursor);
    if (bad !== undefined) {
      clear.push(`unreadable: ${bad}`);
      continue;
    }
    const src = formatAddress(addressFrom(cursor.family, p, cursor.srcAt));
    const dst = formatAddress(addressFrom(cursor.family, p, cursor.dstAt));
    const { upperAt, protocol } = cursor;
    const isOurPort = protocol === 17 && (cursor.sport === PORT || cursor.dport === PORT);
    const id = `${src} ${dst} ${cursor.family === 4 ? u16(p, at + 4) : cursor.fragmentHeaderAt > 0 && u32(p, cursor.fragmentHeaderAt + 4)}`;
    if (protocol === 17 && isOurPort && cursor.moreFragments) udpFragments.add(id);
    const isOurs =
      protocol === 50 ||
      protocol === 51 ||
      isOurPort ||
      (cursor.fragmentOffset > 0 && udpFragments.has(id));
    if (!isOurs) {
      if (!isDiscovery(p, cursor)) clear.push(`${src} > ${dst} protocol ${protocol}`);
      continue;
    }
    if (cursor.isFragment) fragments.set(src, (fragments.get(src) ?? 0) + 1);
    if (cursor.fragmentOffset > 0) continue;
    const kind = NAMES[protocol]!;
    if (kind === 'udp' && cursor.end - upperAt === 9 && u8(p, upperAt + 8) === 0xff) {
      keepalives.set(src, (keepalives.get(src) ?? 0) + 1);
      continue;
    }
    // AH: next header, length and two octets of zero come first (RFC 4302 §2).
    const spiAt = upperAt + { esp: 0, ah: 4, udp: 8 }[kind];
    packets.push({
      kind,
      src,
      dst,
      spi: u32(p, spiAt),
      seq: u32(p, spiAt + 4),
      iv: Buffer.from(p.subarray(spiAt + 8, spiAt + 16)).toString('hex'),
      sport: cursor.sport,
      dport: cursor.dport,
      isFragment: cursor.isFragment,
      hopLimit: u8(p, at + (cursor.family === 4 ? 8 : 7)),
    });
  }
  return { octets, packets, fragments, keepalives, clear };
}

/** Neighbour discovery (RFC 4861) and listener discovery (RFC 3810), which hosts do by themselves. */
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
