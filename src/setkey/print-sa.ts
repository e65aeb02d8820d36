import { formatAddress } from '../base/address.ts';
import { extension, type Message } from '../wire/pfkey-message.ts';
import {
  authenticationName,
  compressionName,
  contextText,
  encryptionName,
  hex32,
  hostText,
  keyText,
  modeName,
  type PrintContext,
  protocolOf,
  stateName,
  timeText,
} from './print-parts.ts';

/** An SA as `setkey -D` shows it, keys included, in the wording and spacing of ipsec-tools. */
export function formatSa(message: Message, context: PrintContext): string {
  const sa = extension(message, 'SA');
  if (!sa) return `(no SA in this ${message.type})\n`;
  const sa2 = extension(message, 'X_SA2');
  const reqid = sa2?.reqid ?? 0;
  const replay = extension(message, 'X_SA_REPLAY')?.packets ?? sa.replay;
  return (
    `${ends(message, context)}\n` +
    `\t${protocolOf(message)} mode=${modeName(sa2?.mode ?? 0)} ` +
    `spi=${sa.spi}(0x${hex32(sa.spi)}) reqid=${reqid}(0x${hex32(reqid)})\n` +
    originalAddress(message) +
    algorithms(message) +
    `\tseq=0x${hex32(sa2?.sequence ?? 0)} replay=${replay} ` +
    `flags=0x${hex32(sa.flags)} state=${stateName(sa.state)} \n` +
    lifetimes(message, context) +
    choices(message) +
    contextText(message.extensions) +
    `\tsadb_seq=${message.seq} pid=${message.pid} refcnt=${message.reserved}\n`
  );
}

/** One row of `setkey -l`, under `SHORT_HEADER`. */
export const SHORT_HEADER = 'time p s spi ltime src -> dst\n';

const STATE_LETTERS = ['L', 'M', 'D', 'd'];

export function formatSaShort(message: Message, context: PrintContext): string {
  const sa = extension(message, 'SA');
  const created = extension(message, 'LIFETIME_CURRENT')?.addTime ?? 0;
  const hard = extension(message, 'LIFETIME_HARD')?.addTime ?? 0;
  const age = created === 0 ? 0 : context.now - created;
  const [, minutes, seconds] = context.time(context.now).split(':');
  const columns = [
    `${minutes}${seconds?.slice(0, 2)}`,
    protocolOf(message),
    STATE_LETTERS[sa?.state ?? 0] ?? '?',
    hex32(sa?.spi ?? 0),
    `${short(age)}/${short(hard)}`,
    ends(message, context).trim().replace(' ', ' -> '),
  ];
  return `${columns.join(' ')}\n`;
}

/** Seconds in a narrow column. */
function short(seconds: number): string {
  return seconds >= 1000 ? 'big' : `${seconds}`;
}

/** Source and destination, each with a blank behind it; ports with -p, and those of UDP always. */
function ends(message: Message, { ports }: PrintContext): string {
  const nat = (extension(message, 'X_NAT_T_TYPE')?.encapsulation ?? 0) !== 0;
  const natPorts = {
    ADDRESS_SRC: extension(message, 'X_NAT_T_SPORT')?.port ?? 0,
    ADDRESS_DST: extension(message, 'X_NAT_T_DPORT')?.port ?? 0,
  };
  return (['ADDRESS_SRC', 'ADDRESS_DST'] as const)
    .map((type) => {
      const one = extension(message, type);
      if (!one) return '? ';
      const port = ports ? `[${one.port}]` : '';
      return `${hostText(one)}${port}${nat ? `[${natPorts[type]}]` : ''} `;
    })
    .join('');
}

function originalAddress(message: Message): string {
  const one = extension(message, 'X_NAT_T_OAI');
  return one ? `\tNAT OA=${formatAddress(one.address)}\n` : '';
}

/** IPComp has no line of its own there, and we keep the spacing that scripts have learned. */
function algorithms(message: Message): string {
  const sa = extension(message, 'SA')!;
  if (message.satype === 'ipcomp') return `\tC: ${compressionName(sa.encrypt)} `;
  const encrypt = extension(message, 'KEY_ENCRYPT');
  const auth = extension(message, 'KEY_AUTH');
  const lines: string[] = [];
  if (encrypt) lines.push(`\tE: ${encryptionName(sa.encrypt)} ${keyText(encrypt.key)}\n`);
  if (auth) lines.push(`\tA: ${authenticationName(sa.auth)} ${keyText(auth.key)}\n`);
  return lines.join('');
}

function lifetimes(message: Message, context: PrintContext): string {
  const current = extension(message, 'LIFETIME_CURRENT');
  if (!current) return '';
  const hard = extension(message, 'LIFETIME_HARD');
  const soft = extension(message, 'LIFETIME_SOFT');
  const age = current.addTime === 0 ? 0 : context.now - current.addTime;
  const limits = (of: 'addTime' | 'useTime' | 'bytes' | 'allocations', unit: string) =>
    `\thard: ${hard?.[of] ?? 0}${unit}\tsoft: ${soft?.[of] ?? 0}${unit}\n`;
  return (
    `\tcreated: ${timeText(current.addTime, context)}` +
    `\tcurrent: ${timeText(context.now, context)}\n` +
    `\tdiff: ${age}(s)${limits('addTime', '(s)')}` +
    `\tlast: ${timeText(current.useTime, context)}${limits('useTime', '(s)')}` +
    `\tcurrent: ${current.bytes}(bytes)${limits('bytes', '(bytes)')}` +
    `\tallocated: ${current.allocations}${limits('allocations', '')}`
  );
}

/** What only our own hosts say, on a line that other tools do not have. */
function choices(message: Message): string {
  const own = extension(message, 'X_TESTUDO');
  if (!own) return '';
  const parts = [
    own.replayPackets === 0 ? '' : `window=${own.replayPackets}(packets)`,
    own.ahAlign === 0 ? '' : `align=${own.ahAlign}`,
    own.df === 'default' ? '' : `df=${own.df}`,
    own.ecn === 'default' ? '' : `ecn=${own.ecn}`,
  ].filter((part) => part !== '');
  return parts.length === 0 ? '' : `\t${parts.join(' ')}\n`;
}
