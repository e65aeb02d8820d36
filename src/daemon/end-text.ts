import { type Family, type Prefix, parsePrefix } from '../base/address.ts';
import { KeyError } from '../base/error.ts';

/** One end of packets, as people write it. */
export interface End {
  /** Undefined: any. */
  readonly prefix: Prefix | undefined;
  /** Undefined: any. */
  readonly port: number | undefined;
}

const FORMS = [
  // [2001:db8::1]:80, [2001:db8::/32]
  /^\[(?<prefix>[0-9a-fA-F:.]+(?:\/\d+)?)\](?::(?<port>\d{1,5}|any))?$/,
  // 10.0.0.0/8[80], as setkey(8) has it
  /^(?<prefix>[0-9a-fA-F:.]+(?:\/\d+)?|any)\[(?<port>\d{1,5}|any)\]$/,
  // 10.0.0.1:80
  /^(?<prefix>[0-9.]+(?:\/\d+)?|any):(?<port>\d{1,5}|any)$/,
  // 10.0.0.1, 2001:db8::1
  /^(?<prefix>[0-9a-fA-F:.]+(?:\/\d+)?|any)$/,
];

/** Reads an address or prefix with or without a port. Throws EINVAL. */
export function parseEnd(text: string): End {
  for (const form of FORMS) {
    const { prefix, port = 'any' } = form.exec(text)?.groups ?? {};
    if (prefix === undefined) continue;
    const parsed = prefix === 'any' ? undefined : parsePrefix(prefix);
    if (prefix !== 'any' && parsed === undefined) continue;
    if (port !== 'any' && Number(port) > 65_535) continue;
    return { prefix: parsed, port: port === 'any' ? undefined : Number(port) };
  }
  throw new KeyError(
    'EINVAL',
    `"${text.slice(0, 80)}": expected any, an address or a prefix, and a port as in 10.0.0.1:80, [2001:db8::1]:80 or 10.0.0.0/8[80]`,
  );
}

/** The family of both ends; undefined if either will do. Throws EINVAL for two of them. */
export function familyOfEnds(src: End, dst: End): Family | undefined {
  const [a, b] = [src.prefix?.address.family, dst.prefix?.address.family];
  if (a === undefined || b === undefined || a === b) return a ?? b;
  throw new KeyError('EINVAL', 'source and destination are of different families');
}
