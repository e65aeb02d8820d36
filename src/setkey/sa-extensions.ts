import { ADDRESS_BITS, type Address } from '../base/address.ts';
import type {
  AddressExtension,
  Extension,
  KeyExtension,
  LifetimeExtension,
  SaExtension,
} from '../wire/pfkey-message.ts';
import { NAT_T_ESP_IN_UDP, PROTO_ANY, SA_FLAG } from '../wire/pfkey-table.ts';
import type { Keyed, Limits, SaOptions, SaStatement, SecurityContext } from './statement.ts';

/** Where ESP in UDP goes unless a port is given (RFC 3948). */
const NAT_T_PORT = 4500;

/**
 * The algorithm fields of sadb_sa: encryption, or the compression of IPComp, and authentication.
 */
export function algorithmNumbers(statement: SaStatement): { auth: number; encrypt: number } {
  return {
    auth: statement.authentication?.algorithm.pfkey ?? 0,
    encrypt: statement.encryption?.algorithm.pfkey ?? statement.compression ?? 0,
  };
}

/**
 * The extensions of a message about one SA, in the order of ipsec-tools: keys first, addresses
 * last.
 */
export function saExtensions(
  statement: SaStatement,
  addresses: readonly AddressExtension[],
  originalAddress: Address | undefined,
  ports: { readonly src: number; readonly dst: number },
): Extension[] {
  const { options, command } = statement;
  const sa2: Extension = { type: 'X_SA2', mode: options.mode, sequence: 0, reqid: options.reqid };
  if (command === 'getspi') {
    // A requested SPI is a range of one; 0 lets the host choose.
    const { spi } = statement;
    const range: Extension[] = spi === 0 ? [] : [{ type: 'SPIRANGE', min: spi, max: spi }];
    return [sa2, ...addresses, ...range];
  }
  const nat = statement.protocol === 'esp-udp' && (command === 'add' || command === 'update');
  return [
    ...keyExtension('KEY_ENCRYPT', statement.encryption),
    ...keyExtension('KEY_AUTH', statement.authentication),
    ...lifetime('LIFETIME_HARD', options.hard),
    ...lifetime('LIFETIME_SOFT', options.soft),
    ...contextExtension(options.context),
    saExtension(statement),
    sa2,
    ...(nat ? natType(originalAddress) : []),
    ...addresses,
    ...(nat ? natPorts(ports) : []),
    ...privateExtension(options),
  ];
}

export function contextExtension(context: SecurityContext | undefined): Extension[] {
  if (!context) return [];
  // SELinux counts the zero at the end of the string.
  const text = new TextEncoder().encode(`${context.text}\0`);
  const { algorithm, doi } = context;
  return [{ type: 'X_SEC_CTX', algorithm, doi, context: text }];
}

function saExtension(statement: SaStatement): SaExtension {
  const { options, protocol, spi } = statement;
  const old = protocol.endsWith('-old') ? SA_FLAG.old : 0;
  const replay = Math.min(options.windowPackets ?? options.replay, 255);
  const flags = (options.flags | old) >>> 0;
  return { type: 'SA', spi, replay, state: 0, flags, ...algorithmNumbers(statement) };
}

/**
 * A null cipher still sends an extension, of no bits; null authentication sends none, as
 * ipsec-tools has it.
 */
function keyExtension(type: KeyExtension['type'], keyed: Keyed | undefined): Extension[] {
  if (!keyed || (type === 'KEY_AUTH' && keyed.key.length === 0)) return [];
  return [{ type, bits: keyed.key.length * 8, key: keyed.key }];
}

function lifetime(type: LifetimeExtension['type'], { seconds, bytes }: Limits): Extension[] {
  if (seconds === undefined && bytes === undefined) return [];
  return [{ type, allocations: 0, bytes: bytes ?? 0, addTime: seconds ?? 0, useTime: 0 }];
}

function natType(originalAddress: Address | undefined): Extension[] {
  const type: Extension = { type: 'X_NAT_T_TYPE', encapsulation: NAT_T_ESP_IN_UDP };
  if (!originalAddress) return [type];
  const prefixLen = ADDRESS_BITS[originalAddress.family];
  const address = { proto: PROTO_ANY, prefixLen, address: originalAddress, port: 0 };
  return [type, { type: 'X_NAT_T_OAI', ...address }];
}

function natPorts(ports: { readonly src: number; readonly dst: number }): Extension[] {
  return [
    { type: 'X_NAT_T_SPORT', port: ports.src || NAT_T_PORT },
    { type: 'X_NAT_T_DPORT', port: ports.dst || NAT_T_PORT },
  ];
}

/** Sent only when a value needs it, so that every other host understands the rest. */
function privateExtension(options: SaOptions): Extension[] {
  const { windowPackets = 0, ahAlign, df, ecn } = options;
  const replayPackets = windowPackets > 255 ? windowPackets : 0;
  if (replayPackets === 0 && ahAlign === 0 && df === 'default' && ecn === 'default') return [];
  return [{ type: 'X_TESTUDO', replayPackets, ahAlign, df, ecn }];
}
