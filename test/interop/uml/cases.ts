import type { Family } from '../../../src/base/address.ts';
import type { SaSpec } from '../../../src/sad/sa.ts';
import type { PolicySpec } from '../../../src/spd/policy.ts';
import { policy, request, sa, someKey } from '../../engine/rig.ts';

/** One way to protect what goes between us and the kernel: a pair of SAs and of policies, with addresses of their own. */
export interface Case {
  readonly id: number;
  readonly name: string;
  readonly protocol: 'esp' | 'ah';
  readonly mode: 'transport' | 'tunnel';
  /** IP versions of what is protected, and of what carries it. */
  readonly inner: Family;
  readonly outer: Family;
  readonly enc?: string;
  /** Octets of the encryption key; the shortest if absent. */
  readonly encKeyLen?: number;
  readonly auth?: string;
  readonly udp: boolean;
  readonly esn: boolean;
  /** The sequence number that was the last one before the test. */
  readonly lastSeq: number;
  readonly ahAlignLen: 4 | 8;
  /** Whether a stream goes through it, too, or only echo requests. */
  readonly stream: boolean;
}

const NATT_PORT = 4500;
const MODES = ['transport', 'tunnel'] as const;
const FAMILIES = [4, 6] as const;
type Given = Partial<Omit<Case, 'id' | 'name'>>;

/** Every combination that a host can be asked for, and every algorithm once. */
export function makeCases(): readonly Case[] {
  const all: Case[] = [];
  const add = (given: Given) => all.push(complete(all.length + 1, given));
  for (const mode of MODES) {
    for (const family of FAMILIES) {
      const shape = { mode, inner: family, outer: family, stream: true } as const;
      add({ ...shape, enc: 'aes-gcm-16' });
      add({ ...shape, enc: 'aes-cbc', auth: 'hmac-sha256' });
      add({ ...shape, protocol: 'ah', auth: 'hmac-sha256', ahAlignLen: 8 });
      add({ ...shape, enc: 'aes-gcm-16', udp: true });
      add({ ...shape, enc: 'aes-cbc', auth: 'hmac-sha1', udp: true });
      if (family === 4) add({ ...shape, protocol: 'ah', auth: 'hmac-sha256', ahAlignLen: 4 });
    }
  }
  for (const [inner, outer] of [[4, 6] as const, [6, 4] as const]) {
    add({ mode: 'tunnel', inner, outer, enc: 'aes-gcm-16', stream: true });
    add({ mode: 'tunnel', inner, outer, protocol: 'ah', auth: 'hmac-sha1' });
    add({ mode: 'tunnel', inner, outer, enc: 'aes-gcm-16', udp: true });
  }
  // The stream crosses the point where the high half of the sequence number becomes 1.
  const esn = { esn: true, lastSeq: 0xffff_fff0, stream: true } as const;
  add({ ...esn, enc: 'aes-gcm-16' });
  add({ ...esn, enc: 'aes-cbc', auth: 'hmac-sha256', mode: 'tunnel', inner: 6, outer: 6 });
  add({ ...esn, protocol: 'ah', auth: 'hmac-sha1' });
  for (const given of ALGORITHMS) add(given);
  return all;
}

/** One ping each: what the matrix above does not use. */
const ALGORITHMS: readonly Given[] = [
  { enc: 'aes-cbc', encKeyLen: 24, auth: 'hmac-sha384' },
  { enc: 'aes-cbc', encKeyLen: 32, auth: 'hmac-sha512' },
  { enc: 'aes-cbc', auth: 'hmac-sha256-96' },
  { enc: 'aes-cbc', auth: 'hmac-md5' },
  { enc: 'aes-cbc', auth: 'aes-xcbc-mac' },
  { enc: 'aes-cbc', auth: 'aes-cmac' },
  { enc: 'aes-ctr', auth: 'hmac-sha256' },
  { enc: 'aes-ctr', encKeyLen: 36, auth: 'hmac-sha1' },
  { enc: '3des-cbc', auth: 'hmac-sha1' },
  { enc: 'camellia-cbc', auth: 'hmac-sha256' },
  { enc: 'null', auth: 'hmac-sha256' },
  { enc: 'aes-gcm-8' },
  { enc: 'aes-gcm-12' },
  { enc: 'aes-gcm-16', encKeyLen: 28 },
  { enc: 'aes-gcm-16', encKeyLen: 36 },
  { enc: 'aes-ccm-8' },
  { enc: 'aes-ccm-12' },
  { enc: 'aes-ccm-16', encKeyLen: 35 },
  { enc: 'aes-gmac' },
  { enc: 'chacha20-poly1305' },
  { protocol: 'ah', auth: 'hmac-md5' },
  { protocol: 'ah', auth: 'hmac-sha1' },
  { protocol: 'ah', auth: 'hmac-sha384' },
  { protocol: 'ah', auth: 'hmac-sha512' },
  { protocol: 'ah', auth: 'hmac-sha256-96' },
  { protocol: 'ah', auth: 'aes-xcbc-mac' },
  { protocol: 'ah', auth: 'aes-cmac' },
  { protocol: 'ah', auth: 'hmac-sha512', mode: 'tunnel', inner: 6, outer: 6 },
];

function complete(id: number, given: Given): Case {
  const rest = {
    protocol: 'esp',
    mode: 'transport',
    inner: 4,
    outer: 4,
    udp: false,
    esn: false,
    lastSeq: 0,
    ahAlignLen: 8,
    stream: false,
  } as const;
  const one = { ...rest, ...given };
  const { enc, encKeyLen, auth } = one;
  const words = [
    one.protocol,
    one.udp ? 'in UDP' : '',
    one.mode,
    one.inner === one.outer ? `IPv${one.inner}` : `IPv${one.inner} in IPv${one.outer}`,
    [enc === undefined ? '' : `${enc}${encKeyLen ? `/${encKeyLen}` : ''}`, auth ?? '']
      .filter((word) => word !== '')
      .join(' '),
    one.protocol === 'ah' && one.outer === 4 ? `padded to ${one.ahAlignLen}` : '',
    one.esn ? 'esn' : '',
  ];
  return { ...one, id, name: words.filter((word) => word !== '').join(' ') };
}

export type Side = 'us' | 'kernel';

/** Where the protected traffic of a case begins and ends. */
export function innerAddress(of: Case, side: Side): string {
  return of.mode === 'transport' ? outerAddress(of, side) : addressOn(82, of.inner, of.id, side);
}

/** What stands in the IP header on the wire. */
export function outerAddress(of: Case, side: Side): string {
  return addressOn(81, of.outer, of.id, side);
}

/** Ours all end with 1, and the kernel's with 2. */
function addressOn(net: number, family: Family, id: number, side: Side): string {
  const last = side === 'us' ? 1 : 2;
  return family === 4 ? `10.${net}.${id}.${last}` : `fd${net}:0:0:${id.toString(16)}::${last}`;
}

/** The SA from one side to the other; both directions have keys of their own. */
export function saFrom(of: Case, from: Side): SaSpec {
  const { id, protocol, mode, enc, auth, esn, ahAlignLen } = of;
  const given = {
    protocol,
    mode,
    esn,
    ahAlignLen,
    spi: 0x1_0000 * (from === 'us' ? 1 : 2) + id,
    src: outerAddress(of, from),
    dst: outerAddress(of, from === 'us' ? 'kernel' : 'us'),
    reqid: id,
    ...(enc === undefined ? {} : { enc }),
    ...(auth === undefined ? {} : { auth }),
    ...(of.encKeyLen === undefined ? {} : { encKey: someKey(of.encKeyLen) }),
    ...(of.udp ? { encapsulation: { srcPort: NATT_PORT, dstPort: NATT_PORT } } : {}),
  };
  const plain = sa(given);
  const vary = (key: Uint8Array) => key.map((octet, i) => octet ^ (from === 'us' ? i : i + id));
  const { encryptKey, authKey } = plain.keys;
  return sa({
    ...given,
    ...(encryptKey.length === 0 ? {} : { encKey: vary(encryptKey) }),
    ...(authKey.length === 0 ? {} : { authKey: vary(authKey) }),
  });
}

/** Our policy for what we send, or for what comes. */
export function policyOf(of: Case, direction: 'in' | 'out'): PolicySpec {
  const [from, to] =
    direction === 'out' ? (['us', 'kernel'] as const) : (['kernel', 'us'] as const);
  const ends = { src: outerAddress(of, from), dst: outerAddress(of, to) };
  const rule = request({
    protocol: of.protocol,
    mode: of.mode,
    level: 'unique',
    reqid: of.id,
    ...(of.mode === 'tunnel' ? ends : {}),
  });
  return policy(direction, innerAddress(of, from), innerAddress(of, to), { requests: [rule] });
}
