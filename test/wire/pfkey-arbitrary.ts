import fc from 'fast-check';
import type { Address } from '../../src/base/address.ts';
import type {
  Dialect,
  Extension,
  ExtensionType,
  Message,
  PolicyRequest,
} from '../../src/wire/pfkey-message.ts';
import { EXTENSIONS, MESSAGE_TYPES, SA_TYPES } from '../../src/wire/pfkey-table.ts';

const u8 = fc.integer({ min: 0, max: 0xff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const u53 = fc.maxSafeNat();
const octets = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });

export const address: fc.Arbitrary<Address> = fc.oneof(
  octets(4).map((bytes): Address => ({ family: 4, bytes })),
  octets(16).map((bytes): Address => ({ family: 6, bytes })),
);

const prefixed = address.chain((one) =>
  fc.record({
    proto: u8,
    prefixLen: fc.integer({ min: 0, max: one.bytes.length * 8 }),
    address: fc.constant(one),
    port: u16,
  }),
);

const limits = { allocations: u32, bytes: u53, addTime: u53, useTime: u53 };

function request(dialect: Dialect): fc.Arbitrary<PolicyRequest> {
  const head = { proto: u16, mode: u8, level: u8, reqid: dialect === 'linux' ? u32 : u16 };
  const end = (length: 4 | 16) =>
    fc.record({
      address: octets(length).map((bytes): Address => ({ family: length === 4 ? 4 : 6, bytes })),
      port: u16,
    });
  return fc.oneof(
    fc.record(head),
    fc.record({ ...head, src: end(4), dst: end(4) }),
    fc.record({ ...head, src: end(16), dst: end(16) }),
  );
}

/** An opaque body fills its extension: 4 octets of head and a multiple of 8 in all. */
const opaque = (min: number) =>
  fc.integer({ min, max: min + 5 }).chain((units) => octets(8 * units - 4));

function bodyOf(type: ExtensionType, dialect: Dialect): fc.Arbitrary<object> {
  switch (type) {
    case 'SA':
      return fc.record({ spi: u32, replay: u8, state: u8, auth: u8, encrypt: u8, flags: u32 });
    case 'LIFETIME_CURRENT':
    case 'LIFETIME_HARD':
    case 'LIFETIME_SOFT':
      return fc.record(limits);
    case 'ADDRESS_SRC':
    case 'ADDRESS_DST':
    case 'ADDRESS_PROXY':
      return fc
        .tuple(prefixed, u32)
        .map(([one, scope]) => ({ ...one, scopeId: one.address.family === 6 ? scope : 0 }));
    case 'X_NAT_T_OAI':
    case 'X_NAT_T_OAR':
    case 'X_NEW_ADDRESS_SRC':
    case 'X_NEW_ADDRESS_DST':
      return prefixed;
    case 'KEY_AUTH':
    case 'KEY_ENCRYPT':
      return fc
        .integer({ min: 0, max: 600 })
        .chain((bits) => fc.record({ bits: fc.constant(bits), key: octets(Math.ceil(bits / 8)) }));
    case 'IDENTITY_SRC':
    case 'IDENTITY_DST':
      return fc.record({
        idType: u16,
        id: u53,
        text: fc
          .array(fc.integer({ min: 1, max: 255 }), { maxLength: 40 })
          .map((codes) => String.fromCharCode(...codes)),
      });
    case 'PROPOSAL': {
      const range = fc.record({ min: u16, max: u16 });
      const lifetime = fc.record(limits);
      const comb = fc.record({
        auth: u8,
        encrypt: u8,
        flags: u16,
        authBits: range,
        encryptBits: range,
        soft: lifetime,
        hard: lifetime,
      });
      return fc.record({ replay: u8, combs: fc.array(comb, { maxLength: 4 }) });
    }
    case 'SUPPORTED_AUTH':
    case 'SUPPORTED_ENCRYPT': {
      const algorithm = fc.record({ id: u8, ivLen: u8, minBits: u16, maxBits: u16 });
      return fc.record({ algorithms: fc.array(algorithm, { maxLength: 20 }) });
    }
    case 'SPIRANGE':
      return fc.record({ min: u32, max: u32 });
    case 'X_POLICY':
      return fc.record({
        policyType: u16,
        direction: u8,
        reserved: u8,
        id: u32,
        priority: u32,
        requests: fc.array(request(dialect), { maxLength: 6 }),
      });
    case 'X_SA2':
      return fc.record({ mode: u8, sequence: u32, reqid: u32 });
    case 'X_NAT_T_TYPE':
      return fc.record({ encapsulation: u8 });
    case 'X_NAT_T_SPORT':
    case 'X_NAT_T_DPORT':
      return fc.record({ port: u16 });
    case 'X_NAT_T_FRAG':
      return fc.record({ fragmentLen: u16 });
    case 'X_SA_REPLAY':
      return fc.record({ packets: u32 });
    case 'X_SEC_CTX':
      return fc.record({
        algorithm: u8,
        doi: u8,
        context: fc.uint8Array({ maxLength: 40 }),
      });
    case 'X_TESTUDO':
      return fc.record({
        replayPackets: u32,
        ahAlign: fc.constantFrom(0, 4, 8),
        df: fc.constantFrom('default', 'clear', 'set', 'copy'),
        ecn: fc.constantFrom('default', 'forbidden', 'allowed'),
      });
    case 'SENSITIVITY':
      return fc.record({ body: opaque(2) });
    case 'X_FILTER':
      return fc.record({ body: opaque(5) });
    case 'X_TAG':
      return fc.record({ body: opaque(3) });
    default:
      return fc.record({ body: opaque(1) });
  }
}

/** Any message that the dialect can say, well-formed but not necessarily meaningful. */
export function message(dialect: Dialect): fc.Arbitrary<Message> {
  const known = EXTENSIONS.filter((one) => one[dialect] > 0).map((one) => one.type);
  const extensions = fc
    .shuffledSubarray(known, { maxLength: 6 })
    .chain((types) =>
      fc.tuple(
        ...types.map((type) =>
          bodyOf(type, dialect).map((body) => ({ type, ...body }) as unknown as Extension),
        ),
      ),
    );
  return fc.record({
    type: fc.constantFrom(...names(MESSAGE_TYPES).filter((one) => one !== 'X_PROMISC')),
    errno: u8,
    satype: fc.constantFrom(...names(SA_TYPES)),
    seq: u32,
    pid: u32,
    reserved: u16,
    extensions,
  });
}

function names<Name extends string>(table: Readonly<Record<Name, number>>): Name[] {
  return Object.keys(table) as Name[];
}
