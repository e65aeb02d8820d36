import { address } from '../../src/base/address.ts';
import { toHex } from '../../src/wire/bytes.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import * as udp from '../../src/wire/udp.ts';
import { Rig } from '../engine/rig.ts';
import {
  type Case,
  type CaseGiven,
  innerAddress,
  makeCase,
  policyOf,
  saFrom,
  startingAfter,
} from './case.ts';
import { ipPacket } from './ip-packet.ts';

/** Any high half but 0 will do, as long as both sides start there. */
export const ESN_LAST = 5 * 2 ** 32 + 99;

const MACS = [
  'hmac-md5',
  'hmac-sha1',
  'hmac-sha256',
  'hmac-sha256-96',
  'hmac-sha384',
  'hmac-sha512',
  'hmac-ripemd160',
  'aes-xcbc-mac',
  'aes-cmac',
];
const SHAPES = [
  { mode: 'transport', inner: 4, outer: 4 },
  { mode: 'transport', inner: 6, outer: 6 },
  { mode: 'tunnel', inner: 4, outer: 4 },
  { mode: 'tunnel', inner: 6, outer: 6 },
  { mode: 'tunnel', inner: 4, outer: 6 },
  { mode: 'tunnel', inner: 6, outer: 4 },
] as const;
const CIPHERS: readonly CaseGiven[] = [
  { enc: 'null' },
  { enc: '3des-cbc' },
  ...[16, 24, 32].map((encKeyLen) => ({ enc: 'aes-cbc', encKeyLen })),
  ...[20, 28, 36].map((encKeyLen) => ({ enc: 'aes-ctr', encKeyLen })),
  ...[16, 32].map((encKeyLen) => ({ enc: 'camellia-cbc', encKeyLen })),
];
const AEADS: readonly CaseGiven[] = [
  ...[8, 12, 16].map((icvLen) => ({ enc: `aes-gcm-${icvLen}` })),
  ...[28, 36].map((encKeyLen) => ({ enc: 'aes-gcm-16', encKeyLen })),
  ...[8, 12, 16].map((icvLen) => ({ enc: `aes-ccm-${icvLen}` })),
  ...[27, 35].map((encKeyLen) => ({ enc: 'aes-ccm-16', encKeyLen })),
  { enc: 'aes-gmac' },
  { enc: 'chacha20-poly1305' },
];

/**
 * The algorithms that this project has and others may have: of cipher and MAC, each with one of the
 * other kind.
 */
export const ESP_ALGORITHMS: readonly CaseGiven[] = [
  ...CIPHERS.map((cipher) => ({ ...cipher, auth: 'hmac-sha256' })),
  ...MACS.map((auth) => ({ enc: 'aes-cbc', auth })),
  ...AEADS,
];
export const AH_ALGORITHMS: readonly CaseGiven[] = MACS.map((auth) => ({
  protocol: 'ah',
  auth,
  // RFC 4302 §3.3.3.2.1; what Linux makes of it is a matter for tests with Linux.
  ahAlignLen: 4,
}));

/** Every algorithm in every mode, over every family, with and without ESN and UDP. */
export function makeMatrix(): readonly Case[] {
  const all: Case[] = [];
  const add = (given: CaseGiven) => all.push(makeCase(all.length + 1, given));
  for (const shape of SHAPES) {
    for (const esn of [{}, { esn: true, lastSeq: ESN_LAST }]) {
      for (const algorithm of ESP_ALGORITHMS) {
        add({ ...algorithm, ...shape, ...esn });
        add({ ...algorithm, ...shape, ...esn, udp: true });
      }
      for (const algorithm of AH_ALGORITHMS) add({ ...algorithm, ...shape, ...esn });
    }
  }
  return all;
}

/**
 * The packet that a case protects: a datagram with some octets, of a length that differs from case
 * to case.
 */
export function plainPacket(of: Case): Uint8Array {
  const data = plainData(of);
  const datagram = new Uint8Array(udp.HEADER_LEN + data.length);
  udp.write(datagram, 0, 6000, 5000, datagram.length);
  datagram.set(data, udp.HEADER_LEN);
  const [from, to] = [innerAddress(of, 'us'), innerAddress(of, 'peer')];
  return ipPacket(address(from), address(to), PROTO.UDP, datagram, of.id);
}

/**
 * Letters, and some: programs that guess see this or that protocol in octets of all values, and in
 * very short packets.
 */
export function plainData(of: Case): Uint8Array {
  return Uint8Array.from({ length: 16 + (of.id % 97) }, (_, i) => 0x41 + ((i + of.id) % 26));
}

/**
 * A host with one direction of a case: what goes out is sealed, what comes in opened, with the same
 * SA.
 */
export function rigOf(of: Case): Rig {
  const rig = new Rig({ buffers: 2, sequences: startingAfter([of]) });
  const sa = rig.sad.add(saFrom(of, 'us'), 'mature');
  if (of.lastSeq > 0) sa.replay.startAt(of.lastSeq);
  const rule = policyOf(of, 'out');
  rig.spd.add(rule);
  rig.spd.add({ ...rule, direction: 'in' });
  return rig;
}

/** The plain packet of a case, sealed. */
export function seal(of: Case, rig: Rig): Uint8Array {
  const [sealed] = rig.output(plainPacket(of));
  if (sealed === undefined) throw new Error(`${of.name}: ${JSON.stringify(rig.drops())}`);
  return sealed;
}

/** What a packet opens to, in hexadecimal; or the reason why it was dropped. */
export function open(of: Case, packet: Uint8Array): string {
  const rig = rigOf(of);
  const [opened] = rig.input(packet);
  return opened === undefined ? JSON.stringify(rig.drops()) : toHex(opened);
}
