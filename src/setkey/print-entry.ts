import { formatAddress } from '../base/address.ts';
import { formatPolicy, formatRequest } from '../spd/set-policy.ts';
import { toHex } from '../wire/bytes.ts';
import {
  type AddressExtension,
  extension,
  type LifetimeExtension,
  type Message,
} from '../wire/pfkey-message.ts';
import {
  authenticationName,
  compressionName,
  encryptionName,
  hex32,
  hostText,
  modeName,
  protocolOf,
  selectorText,
  stateName,
  upperText,
} from './print-parts.ts';

/** What JSON can say. Numbers are the wire's; times are seconds. */
export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [key: string]: Json };

/** An SA for programs (--json), keys included as `-D` includes them. */
export function saJson(message: Message): Json {
  const sa = extension(message, 'SA');
  const sa2 = extension(message, 'X_SA2');
  const encrypt = extension(message, 'KEY_ENCRYPT');
  const auth = extension(message, 'KEY_AUTH');
  const own = extension(message, 'X_TESTUDO');
  const ipcomp = message.satype === 'ipcomp';
  return {
    protocol: protocolOf(message),
    ...endsJson(message),
    spi: sa?.spi ?? 0,
    mode: modeName(sa2?.mode ?? 0),
    reqid: sa2?.reqid ?? 0,
    state: stateName(sa?.state ?? 0),
    ...(ipcomp ? { compression: compressionName(sa?.encrypt ?? 0) } : {}),
    ...(!ipcomp && sa?.encrypt ? { encryption: encryptionName(sa.encrypt) } : {}),
    ...(sa?.auth ? { authentication: authenticationName(sa.auth) } : {}),
    ...(encrypt ? { encryptionKey: toHex(encrypt.key) } : {}),
    ...(auth ? { authenticationKey: toHex(auth.key) } : {}),
    replay: own?.replayPackets || (extension(message, 'X_SA_REPLAY')?.packets ?? sa?.replay ?? 0),
    sequence: sa2?.sequence ?? 0,
    flags: sa?.flags ?? 0,
    ...natJson(message),
    ...(own ? { ahAlign: own.ahAlign, df: own.df, ecn: own.ecn } : {}),
    ...limitsJson(message),
  };
}

/** A policy for programs (--json). */
export function policyJson(message: Message): Json {
  const policy = extension(message, 'X_POLICY');
  const [direction = '', ...rest] = policy
    ? formatPolicy({ ...policy, priority: 0, requests: [] }, { ports: false }).split(' ')
    : [];
  return {
    id: policy?.id ?? 0,
    direction,
    action: rest.join(' '),
    priority: policy?.priority ?? 0,
    ...selectorJson(message),
    requests: (policy?.requests ?? []).map((one) => formatRequest(one, true)),
    ...limitsJson(message),
  };
}

/** An SA on one line, without its keys: for grep and for logs. */
export function saLine(message: Message): string {
  const sa = extension(message, 'SA');
  const sa2 = extension(message, 'X_SA2');
  const current = extension(message, 'LIFETIME_CURRENT');
  const ipcomp = message.satype === 'ipcomp';
  const encrypt = sa?.encrypt ?? 0;
  const src = plainHost(extension(message, 'ADDRESS_SRC'));
  const dst = plainHost(extension(message, 'ADDRESS_DST'));
  const parts = [
    protocolOf(message),
    `${src} -> ${dst}`,
    `spi=0x${hex32(sa?.spi ?? 0)}`,
    `mode=${modeName(sa2?.mode ?? 0)}`,
    `reqid=${sa2?.reqid ?? 0}`,
    encrypt === 0 ? '' : ipcomp ? compressionName(encrypt) : encryptionName(encrypt),
    sa?.auth ? authenticationName(sa.auth) : '',
    `state=${stateName(sa?.state ?? 0)}`,
    `bytes=${current?.bytes ?? 0}`,
    `packets=${current?.allocations ?? 0}`,
  ];
  return `${parts.filter((part) => part !== '').join(' ')}\n`;
}

/** A policy on one line. */
export function policyLine(message: Message): string {
  const policy = extension(message, 'X_POLICY');
  const src = extension(message, 'ADDRESS_SRC');
  const dst = extension(message, 'ADDRESS_DST');
  const selector =
    src && dst ? `${selectorText(src)} -> ${selectorText(dst)} ${upperText(src, dst)}` : '(socket)';
  const text = policy ? formatPolicy(policy, { ports: false }).replaceAll('\n\t', ' ') : '';
  return `${selector} ${text} spid=${policy?.id ?? 0}\n`;
}

function plainHost(one: AddressExtension | undefined): string {
  return one ? hostText(one) : '?';
}

function endsJson(message: Message): Record<string, Json> {
  const src = extension(message, 'ADDRESS_SRC');
  const dst = extension(message, 'ADDRESS_DST');
  return { src: plainHost(src), dst: plainHost(dst) };
}

function natJson(message: Message): Record<string, Json> {
  if (!extension(message, 'X_NAT_T_TYPE')?.encapsulation) return {};
  const original = extension(message, 'X_NAT_T_OAI');
  return {
    sourcePort: extension(message, 'X_NAT_T_SPORT')?.port ?? 0,
    destinationPort: extension(message, 'X_NAT_T_DPORT')?.port ?? 0,
    ...(original ? { originalAddress: formatAddress(original.address) } : {}),
  };
}

function selectorJson(message: Message): Record<string, Json> {
  const src = extension(message, 'ADDRESS_SRC');
  const dst = extension(message, 'ADDRESS_DST');
  if (!src || !dst) return { socket: true };
  return { src: selectorText(src), dst: selectorText(dst), upper: upperText(src, dst) };
}

function limitsJson(message: Message): Record<string, Json> {
  const json: Record<string, Json> = {};
  for (const name of ['CURRENT', 'HARD', 'SOFT'] as const) {
    const one: LifetimeExtension | undefined = extension(message, `LIFETIME_${name}`);
    if (!one) continue;
    const { allocations, bytes, addTime, useTime } = one;
    json[name.toLowerCase()] = { packets: allocations, bytes, addTime, useTime };
  }
  return json;
}
