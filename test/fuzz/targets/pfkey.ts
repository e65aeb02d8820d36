import { readFileSync } from 'node:fs';
import { KeyError } from '../../../src/base/error.ts';
import { formatMessage } from '../../../src/setkey/print-message.ts';
import { fromHex, toHex } from '../../../src/wire/bytes.ts';
import { decode, encode, messageLength } from '../../../src/wire/pfkey.ts';
import type { Dialect, Message } from '../../../src/wire/pfkey-message.ts';
import { vectorFile } from '../../files.ts';
import { must, type Target } from '../target.ts';

/** PF_KEY messages that setkey and Linux exchanged. */
export function pfkeySeeds(what: 'requests' | 'all'): Uint8Array[] {
  const { vectors } = JSON.parse(readFileSync(vectorFile('setkey.json'), 'utf8')) as {
    vectors: readonly { messages: readonly string[]; kernelReplies: readonly string[] }[];
  };
  const texts = vectors.flatMap(({ messages, kernelReplies }) =>
    what === 'all' ? [...messages, ...kernelReplies] : messages,
  );
  // One of each length and type is enough to begin with.
  const kinds = new Map(texts.map((text) => [`${text.length} ${text.slice(0, 8)}`, text]));
  return [...kinds.values()].map(fromHex);
}

/** A message, or undefined for octets that are refused. */
export function decoded(input: Uint8Array, dialect: Dialect): Message | undefined {
  try {
    return decode(input, dialect);
  } catch (error) {
    if (error instanceof KeyError) return undefined;
    throw error;
  }
}

function run(input: Uint8Array): void {
  const message = input.slice(1);
  // The length field is the first thing that is checked, so most inputs have a right one.
  if ((input[0]! & 2) === 0 && message.length >= 16) {
    message[4] = message.length >> 3;
    message[5] = message.length >> 11;
  }
  try {
    messageLength(message);
  } catch (error) {
    if (!(error instanceof KeyError)) throw error;
  }
  const dialect = (input[0]! & 1) === 0 ? 'linux' : 'bsd';
  const first = decoded(message, dialect);
  if (first === undefined) return;
  formatMessage(first);
  const octets = encode(first, dialect);
  const again = encode(decode(octets, dialect), dialect);
  must(toHex(again) === toHex(octets), 'what is encoded is decoded to the same');
}

export const pfkey: Target = {
  name: 'pfkey',
  lenMax: 1200,
  words: Array.from({ length: 32 }, (_, type) => Uint8Array.of(2, 0, type, 0)),
  seeds: () =>
    pfkeySeeds('all').flatMap((octets) => [0, 1].map((flags) => Uint8Array.of(flags, ...octets))),
  create: () => run,
};
