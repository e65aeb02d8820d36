import type { Family } from '../../src/base/address.ts';
import type { SaSpec } from '../../src/sad/sa.ts';
import type { SequenceStore } from '../../src/sad/sequence.ts';
import type { PolicySpec } from '../../src/spd/policy.ts';
import { u32 } from '../../src/wire/bytes.ts';
import { policy, request, sa, someKey } from '../engine/rig.ts';

/** One way to protect what goes between us and a peer: a pair of SAs and of policies. */
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
  /** The MAC of an AH SA in transport mode around it all: a bundle of two. */
  readonly ahAround?: string;
  /** Whether a stream goes through it, too, or only echo requests. */
  readonly stream: boolean;
}

const NATT_PORT = 4500;
/** What the SPIs of the SAs around others have more, so that none is used twice. */
const SPI_AROUND = 0x8000;

export type CaseGiven = Partial<Omit<Case, 'id' | 'name'>>;

/** A case with the usual values for what is not given, and a name that says what is not usual. */
export function makeCase(id: number, given: CaseGiven): Case {
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
    one.ahAround === undefined ? '' : `in ah ${one.ahAround}`,
  ];
  return { ...one, id, name: words.filter((word) => word !== '').join(' ') };
}

export type Side = 'us' | 'peer';

/** Where the protected traffic of a case begins and ends. */
export function innerAddress(of: Case, side: Side): string {
  return of.mode === 'transport' ? outerAddress(of, side) : addressOn(82, of.inner, of.id, side);
}

/** What stands in the IP header on the wire. */
export function outerAddress(of: Case, side: Side): string {
  return addressOn(81, of.outer, of.id, side);
}

/** Ours all end with 1, and the peer's with 2. */
function addressOn(net: number, family: Family, id: number, side: Side): string {
  const last = side === 'us' ? 1 : 2;
  return family === 4
    ? `10.${net}.${id & 255}.${last}`
    : `fd${net}:0:0:${id.toString(16)}::${last}`;
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
    dst: outerAddress(of, from === 'us' ? 'peer' : 'us'),
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

/** All SAs from one side to the other, the innermost first. */
export function sasFrom(of: Case, from: Side): readonly SaSpec[] {
  const main = saFrom(of, from);
  if (of.ahAround === undefined) return [main];
  const around = saFrom({ ...of, protocol: 'ah', mode: 'transport', auth: of.ahAround }, from);
  return [main, { ...around, spi: around.spi + SPI_AROUND }];
}

/** Our policy for what we send, or for what comes. */
export function policyOf(of: Case, direction: 'in' | 'out'): PolicySpec {
  const [from, to] = direction === 'out' ? (['us', 'peer'] as const) : (['peer', 'us'] as const);
  const ends = { src: outerAddress(of, from), dst: outerAddress(of, to) };
  const { protocol, mode, id: reqid } = of;
  const level = 'unique' as const;
  const requests = [
    request({ protocol, mode, level, reqid, ...(mode === 'tunnel' ? ends : {}) }),
    ...(of.ahAround === undefined ? [] : [request({ protocol: 'ah', level, reqid })]),
  ];
  return policy(direction, innerAddress(of, from), innerAddress(of, to), { requests });
}

/** Sequence numbers that go on where the cases say. */
export function startingAfter(cases: readonly Case[]): SequenceStore {
  const bySpi = new Map(cases.map((one) => [saFrom(one, 'us').spi, one.lastSeq]));
  return {
    lease(material) {
      // The material begins with the protocol and the SPI.
      const last = bySpi.get(u32(material[0]!, 1)) ?? 0;
      return { start: last + 1, extend: (needed) => needed + 1000, release: () => {} };
    },
  };
}
