import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { dumpedPair } from '../../src/setkey/delete-all.ts';
import { parseScript } from '../../src/setkey/parser.ts';
import { SetkeyError } from '../../src/setkey/place.ts';
import { actionsOf, deleteOf, request, type Supported } from '../../src/setkey/requests.ts';
import type { Resolver } from '../../src/setkey/resolver.ts';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import { decode, encode } from '../../src/wire/pfkey.ts';
import { extension, type Message } from '../../src/wire/pfkey-message.ts';

/** Commands for which we deliberately send something else than ipsec-tools did, and why. */
const DIFFERENT: ReadonlyMap<string, { readonly why: string; readonly messages: number }> = new Map(
  Object.entries({
    'esp 0x100000000': { why: 'an SPI of 33 bits was sent as SPI 0; we refuse it', messages: 0 },
    '10.5.0.0/33': {
      why: 'a prefix length of 33 was left to the kernel; we refuse it',
      messages: 0,
    },
    '10.4.0.0/16[any] esp -P': {
      why: 'esp is a keyword there; as upper protocol it has a use',
      messages: 1,
    },
    '10.4.0.0/16[any] ah -P': {
      why: 'ah is a keyword there; as upper protocol it has a use',
      messages: 1,
    },
    '10.5.0.1[http]': { why: 'its lookup of service names fails', messages: 1 },
    'deleteall 10.0.0.1 10.0.0.2;': {
      why: 'no SA is of type 0, so nothing matched; we delete all',
      messages: 76,
    },
    'deleteall 2001:db8::1 2001:db8::2 esp;': {
      why: 'it stops after the first SA; we delete all',
      messages: 3,
    },
  }),
);

interface Recorded {
  readonly group: string;
  readonly command: string;
  readonly argv: readonly string[];
  readonly messages: readonly string[];
  readonly kernelReplies: readonly string[];
}

const file = new URL('data/setkey.json', import.meta.url);
const { vectors, register } = JSON.parse(readFileSync(file, 'utf8')) as {
  vectors: readonly Recorded[];
  register: { reply: string };
};

const resolver: Resolver = {
  addresses: (name, family) =>
    name === 'localhost' ? (family === 4 ? [address('127.0.0.1')] : [address('::1')]) : [],
  service: (name) => (name === 'http' ? 80 : undefined),
  interfaceIndex: (name) => (name === 'lo' ? 1 : undefined),
};

describe('every command of setkey.json', () => {
  test('all are there', () => expect(vectors.length).toBe(258));

  for (const [i, one] of vectors.entries()) {
    if (one.group === 'cli') continue;
    test(`${i} ${one.command.slice(0, 90)}`, () => {
      const sent = messagesOf(one);
      const key = [...DIFFERENT.keys()].find((part) => one.command.includes(part));
      if (key === undefined) expect(sent).toEqual(one.messages.map(masked));
      else {
        expect(sent).not.toEqual(one.messages.map(masked));
        expect(sent.length).toBe(DIFFERENT.get(key)!.messages);
      }
    });
  }

  test('every difference is still one', () => {
    for (const part of DIFFERENT.keys()) {
      expect(vectors.some(({ command }) => command.includes(part))).toBe(true);
    }
  });
});

/** What our setkey sends for a command, given what the kernel answered. */
function messagesOf(one: Recorded): string[] {
  const context = { resolver, supported: supported(), forwardToo: true };
  const sent: Message[] = [];
  for (const entry of parseScript(one.command, 'stdin').entries) {
    if (entry instanceof SetkeyError) continue;
    for (const action of attempt(() => actionsOf(entry, context))) {
      if (action.kind === 'send') sent.push(action.message);
      if (action.kind !== 'delete-all') continue;
      sent.push(request('DUMP', action.satype, []));
      const dumped = one.kernelReplies.map((hex) => decode(fromHex(hex), 'linux'));
      for (const sa of dumped.filter(({ type, errno }) => type === 'DUMP' && errno === 0)) {
        const pair = dumpedPair(sa, action.pairs);
        if (pair) sent.push(deleteOf(sa, pair));
      }
    }
  }
  return sent.map((message) => masked(toHex(encode(message, 'linux'))));
}

function attempt<T>(act: () => T[]): T[] {
  try {
    return act();
  } catch (error) {
    if (error instanceof SetkeyError) return [];
    throw error;
  }
}

function supported(): Supported {
  const reply = decode(fromHex(register.reply), 'linux');
  const ids = (type: 'SUPPORTED_AUTH' | 'SUPPORTED_ENCRYPT') =>
    new Set(extension(reply, type)!.algorithms.map(({ id }) => id));
  return { auth: ids('SUPPORTED_AUTH'), encrypt: ids('SUPPORTED_ENCRYPT') };
}

/** Without sadb_msg_pid. */
function masked(hex: string): string {
  return `${hex.slice(0, 24)}00000000${hex.slice(32)}`;
}
