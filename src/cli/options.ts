import { InvalidArgumentError, Option } from 'commander';
import { type Address, parseAddress } from '../base/address.ts';
import { socketPath } from '../daemon/paths.ts';
import type { Endpoint } from '../drivers/udp-packet.ts';

/** Options that several commands have, and readers of their values: each says what it expected. */

export function socketOption(): Option {
  return new Option('--socket <path>', 'PF_KEY socket of the host')
    .env('TESTUDO_SOCKET')
    .default(socketPath(process.env));
}

export function readAddress(text: string): Address {
  const parsed = parseAddress(text);
  if (!parsed) throw new InvalidArgumentError('Expected an IPv4 or IPv6 address.');
  return parsed;
}

/** For options that may be given several times. */
export function collectAddress(text: string, before: readonly Address[]): readonly Address[] {
  return [...before, readAddress(text)];
}

/** `127.0.0.1:4500` or `[::1]:4500`. */
export function collectEndpoint(text: string, before: readonly Endpoint[]): readonly Endpoint[] {
  const parts = /^(?:\[([^\]]+)\]|([0-9.]+)):([0-9]{1,5})$/.exec(text);
  const parsed = parts && parseAddress(parts[1] ?? parts[2]!);
  const port = Number(parts?.[3]);
  if (!parsed || port > 65_535)
    throw new InvalidArgumentError('Expected ADDRESS:PORT or [IPV6]:PORT.');
  return [...before, { address: parsed, port }];
}

export function collectText(text: string, before: readonly string[]): readonly string[] {
  return [...before, text];
}

/** A whole number within bounds. */
export function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const number = /^(0x[0-9a-fA-F]+|[0-9]+)$/.test(text) ? Number(text) : Number.NaN;
    if (!(number >= min && number <= max)) {
      throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
    }
    return number;
  };
}
