import { readFileSync } from 'node:fs';
import { parseScript } from '../../../src/setkey/parser.ts';
import { SetkeyError } from '../../../src/setkey/place.ts';
import { actionsOf } from '../../../src/setkey/requests.ts';
import type { Resolver } from '../../../src/setkey/resolver.ts';
import type { Statement } from '../../../src/setkey/statement.ts';
import { decode, encode } from '../../../src/wire/pfkey.ts';
import { vectorFile } from '../../files.ts';
import { must, type Target } from '../target.ts';

const utf8 = new TextEncoder();
const text = new TextDecoder();

const resolver: Resolver = {
  addresses: () => [],
  service: (name) => (name === 'http' ? 80 : undefined),
  interfaceIndex: (name) => (name === 'lo' ? 1 : undefined),
};

function run(input: Uint8Array): void {
  const { entries } = parseScript(text.decode(input), 'fuzz');
  for (const entry of entries) {
    if (entry instanceof SetkeyError) {
      const { line, column } = entry.place;
      must(line >= 1 && column >= 1, 'an error has a place');
    } else {
      carryOut(entry);
    }
  }
}

/** What is sent can be read by whoever gets it. */
function carryOut(statement: Statement): void {
  try {
    const actions = actionsOf(statement, { resolver, supported: undefined, forwardToo: true });
    for (const action of actions) {
      if (action.kind === 'send') decode(encode(action.message, 'linux'), 'linux');
    }
  } catch (error) {
    if (!(error instanceof SetkeyError)) throw error;
  }
}

const WORDS =
  'add update delete deleteall get getspi flush dump spdadd spdupdate spddelete spdflush '
    .concat(
      'spddump exit esp ah ipcomp esp-udp -m tunnel transport any -r -f -u -E -A -C -lh -ls -bh ',
    )
    .concat(
      'aes-cbc hmac-sha1 "key" 0x00 10.0.0.1 ::1 /24 [500] -P in out ipsec none discard prio def ',
    )
    .concat('esp/transport//require ah/tunnel/1.1.1.1-2.2.2.2/unique:7 tcp udp icmp6 128,0 ; # ..');

export const setkey: Target = {
  name: 'setkey',
  lenMax: 600,
  words: WORDS.split(' ').map((word) => utf8.encode(` ${word} `)),
  seeds: () => {
    const file = readFileSync(vectorFile('setkey.json'), 'utf8');
    const { vectors } = JSON.parse(file) as { vectors: readonly { command: string }[] };
    return vectors.map(({ command }) => utf8.encode(command));
  },
  create: () => run,
};
