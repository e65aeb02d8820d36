import { addressFrom, formatAddress } from '../base/address.ts';
import { encryptionById } from '../crypto/algorithms.ts';
import type { Sa } from '../sad/sa.ts';
import * as ah from '../wire/ah.ts';
import { toHex, u8 } from '../wire/bytes.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import * as esp from '../wire/esp.ts';
import { PACKET_LEN_MAX } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';
import type { Core } from './core.ts';
import { Shadow, type ShadowOptions } from './explain-shadow.ts';
import type { Layout, LayoutField } from './explanation.ts';

/** Ciphers that leave the text as it is: RFC 2410, and GMAC of RFC 4543. */
const CLEAR = ['null', 'aes-gmac'];

/**
 * The finished packet of `octets`, field by field, before it is cut into fragments. `sas`: those
 * that protect it.
 */
export function layoutOf(
  core: Core,
  options: ShadowOptions,
  octets: Uint8Array,
  sas: readonly Sa[],
): Layout {
  const shadow = new Shadow(core, { ...options, mtu: PACKET_LEN_MAX });
  shadow.run('out', octets);
  const packet = shadow.traces.sent[0] ?? octets;
  const walk = new Walk(packet, sas);
  walk.packet(0, packet.length);
  for (const [at, end] of walk.secret) core.env.random.fill(packet.subarray(at, end));
  return { fields: walk.fields, octets: toHex(packet) };
}

/** One way through a packet that was put together but not encrypted. */
class Walk {
  readonly fields: LayoutField[] = [];
  /** What is ciphertext on the wire. */
  readonly secret: (readonly [number, number])[] = [];
  readonly #p: Uint8Array;
  readonly #sas: readonly Sa[];

  constructor(p: Uint8Array, sas: readonly Sa[]) {
    this.#p = p;
    this.#sas = sas;
  }

  packet(at: number, end: number): void {
    const p = this.#p;
    const cursor = new Cursor();
    if (decode(p, at, end, cursor) !== undefined) return this.#add(at, end, 'payload');
    const { family, upperAt, protocol } = cursor;
    const src = formatAddress(addressFrom(family, p, cursor.srcAt));
    const dst = formatAddress(addressFrom(family, p, cursor.dstAt));
    this.#add(at, upperAt, `IPv${family} header: ${src} > ${dst}, protocol ${protocol}`);
    this.#upper(protocol, upperAt, cursor.end);
  }

  #upper(protocol: number, at: number, end: number): void {
    const p = this.#p;
    if (protocol === PROTO.IPIP || protocol === PROTO.IPV6) return this.packet(at, end);
    if (protocol === PROTO.ESP) return this.#esp(at, end, 'ip');
    if (protocol === PROTO.AH) return this.#ah(at, end);
    if (protocol === PROTO.UDP && end - at >= udp.HEADER_LEN) {
      const dataAt = at + udp.HEADER_LEN;
      this.#add(at, dataAt, `UDP header: ${udp.sport(p, at)} > ${udp.dport(p, at)}`);
      const isEsp = this.#find(dataAt, end, 'udp') !== undefined;
      return isEsp ? this.#esp(dataAt, end, 'udp') : this.#add(dataAt, end, 'data');
    }
    this.#add(at, end, `protocol ${protocol}: header and data`);
  }

  #esp(at: number, end: number, carrier: 'ip' | 'udp'): void {
    const p = this.#p;
    const sa = this.#find(at, end, carrier);
    if (sa === undefined) return this.#add(at, end, 'ESP of others');
    const { ivLen, icvLen } = sa.spec.esp!;
    const textAt = at + esp.HEADER_LEN + ivLen;
    const textEnd = end - icvLen;
    this.#add(at, at + esp.HEADER_LEN, `ESP: SPI ${hex32(esp.spi(p, at))}, seq ${esp.seq(p, at)}`);
    this.#add(at + esp.HEADER_LEN, textAt, 'IV');
    const padLen = u8(p, textEnd - 2);
    const payloadEnd = textEnd - esp.TRAILER_LEN - padLen;
    const cipher = encryptionById(sa.spec.keys.encrypt)?.name ?? '';
    const isSecret = !CLEAR.includes(cipher);
    if (isSecret) this.secret.push([textAt, textEnd]);
    this.#upper(u8(p, textEnd - 1), textAt, payloadEnd);
    const trailer = `padding ${padLen}, its length, next header ${u8(p, textEnd - 1)}`;
    this.#add(payloadEnd, textEnd, trailer);
    if (isSecret) this.#add(textAt, textEnd, `(octets ${textAt} to ${textEnd} are ${cipher})`);
    this.#add(textEnd, end, 'ICV');
  }

  #ah(at: number, end: number): void {
    const p = this.#p;
    const bodyAt = at + ah.len(p, at);
    const title = `AH: SPI ${hex32(ah.spi(p, at))}, seq ${ah.seq(p, at)}`;
    this.#add(at, at + ah.HEADER_LEN, title);
    this.#add(at + ah.HEADER_LEN, bodyAt, 'ICV');
    this.#upper(ah.nextHeader(p, at), bodyAt, end);
  }

  /** The SA behind ESP: in UDP or not, as the SA has it. */
  #find(espAt: number, end: number, carrier: 'ip' | 'udp'): Sa | undefined {
    if (esp.check(this.#p, espAt, end) !== undefined) return undefined;
    const spi = esp.spi(this.#p, espAt);
    return this.#sas.find(({ spec }) => {
      const isInUdp = spec.encapsulation !== undefined;
      return spec.protocol === 'esp' && spec.spi === spi && isInUdp === (carrier === 'udp');
    });
  }

  #add(at: number, end: number, what: string): void {
    if (end > at) this.fields.push({ at, len: end - at, what });
  }
}

function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
