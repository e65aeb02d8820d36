import { readFileSync } from 'node:fs';
import { formatAddress } from '../../src/base/address.ts';
import { errnoName } from '../../src/base/errno.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import { PfkeyConnection } from '../../src/daemon/pfkey-connection.ts';
import { KeyEngine } from '../../src/key/engine.ts';
import { Sad } from '../../src/sad/sad.ts';
import { memorySequences } from '../../src/sad/sequence.ts';
import { Spd } from '../../src/spd/spd.ts';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import { decode } from '../../src/wire/pfkey.ts';
import {
  type Extension,
  extension,
  type Message,
  type PolicyRequest,
} from '../../src/wire/pfkey-message.ts';
import { REQID_MANUAL_MAX, SA_STATE } from '../../src/wire/pfkey-table.ts';
import { testEnv } from '../engine/rig.ts';
import { vectorFile } from '../files.ts';

/** One command of setkey.json: what was sent to Linux 6.1, and what it answered. */
export interface Recorded {
  readonly id: number;
  readonly command: string;
  readonly messages: readonly string[];
  readonly kernelReplies: readonly string[];
}

/** One thing in which our answer to one message is not Linux's. */
export interface Difference {
  readonly recorded: Recorded;
  readonly request: Message;
  /** `errno`, `+KEY_AUTH` only ours has it, `-KEY_AUTH` only Linux's, or `SA.flags`. */
  readonly what: string;
  readonly ours: string;
  readonly linux: string;
}

export function recordedCommands(): readonly Recorded[] {
  const text = readFileSync(vectorFile('setkey.json'), 'utf8');
  return (JSON.parse(text) as { vectors: readonly Recorded[] }).vectors;
}

/** The first `deleteall`. */
const FIRST_OF_THE_LAST = 246;

/** Runs all commands against one host of ours, and says where its answers are different. */
export function differencesFromLinux(commands: readonly Recorded[]): {
  readonly differences: readonly Difference[];
  /** Answers of Linux that were compared with ours, or have no counterpart. */
  readonly compared: number;
} {
  const { ask, wait } = newHost();
  const differences: Difference[] = [];
  let compared = 0;
  for (const recorded of commands) {
    // By then, those that live for 60 and 100 seconds were gone.
    if (recorded.id === FIRST_OF_THE_LAST) wait(100);
    const theirs = recorded.kernelReplies.map((one) => decode(fromHex(one), 'linux'));
    compared += theirs.length;
    for (const octets of recorded.messages) {
      const request = decodeOrHead(octets);
      const ours = ask(fromHex(octets));
      const pairs = isDump(request) ? pairUp(ours, take(theirs, request)) : oneOf(ours, theirs);
      for (const pair of pairs) {
        for (const [what, a, b] of compare(...pair)) {
          differences.push({ recorded, request, what, ours: a, linux: b });
        }
      }
    }
    for (const left of theirs) {
      const head = { recorded, request: left, what: 'second answer' };
      differences.push({ ...head, ours: '', linux: left.type });
    }
  }
  return { differences, compared };
}

type Pair = readonly [mine: Message | undefined, linux: Message | undefined];

/** A host that allows what Linux allows: octets of a message in, its answers out. */
function newHost(): {
  readonly ask: (octets: Uint8Array) => Message[];
  readonly wait: (seconds: number) => void;
} {
  const env = testEnv();
  const { clock, random } = env;
  const sad = new Sad({ clock, random, sequences: memorySequences() });
  const spd = new Spd({ clock });
  const engine = new KeyEngine({ env, sad, spd, crypto: nodeCrypto, allowLegacy: true });
  const answers: Message[] = [];
  const outlet = {
    isClosed: false,
    waiting: 0,
    noticeQueueLen: 0,
    write: (octets: Uint8Array) => void answers.push(decode(octets, 'linux')),
    dumped: () => undefined,
  };
  const connection = new PfkeyConnection(outlet, engine, 'linux');
  const ask = (octets: Uint8Array) => {
    connection.handle(octets.slice());
    return answers.splice(0);
  };
  const wait = (seconds: number) => {
    env.advance(1000 * seconds);
    sad.poll(clock.monotonicMs());
  };
  return { ask, wait };
}

/** What cannot be decoded has a type all the same. */
function decodeOrHead(octets: string): Message {
  try {
    return decode(fromHex(octets), 'linux');
  } catch {
    const head = fromHex(octets).slice(0, 16);
    head.set([2, 0], 4);
    return decode(head, 'linux');
  }
}

function isDump({ type }: Message): boolean {
  return type === 'DUMP' || type === 'X_SPDDUMP';
}

/** Takes the entries of a dump out of the answers. */
function take(theirs: Message[], { type }: Message): Message[] {
  const found = theirs.filter((one) => one.type === type);
  for (const one of found) theirs.splice(theirs.indexOf(one), 1);
  return found;
}

/** The one answer of ours and that of Linux, which is taken out of its list. */
function oneOf([mine]: readonly Message[], theirs: Message[]): Pair[] {
  const alike = theirs.filter((one) => one.type === mine?.type);
  const same = alike.find((one) => mine && nameOf(one) === nameOf(mine)) ?? alike[0];
  if (same) theirs.splice(theirs.indexOf(same), 1);
  return [[mine, same]];
}

/** By SA or by policy, in whatever order. */
function pairUp(ours: readonly Message[], theirs: readonly Message[]): Pair[] {
  // "There are none" is no entry, where the other has some.
  const listed = theirs.some((one) => one.errno === 0) ? ours.filter(hasNoError) : ours;
  const left = new Map(listed.map((one) => [nameOf(one), one]));
  const pairs: Pair[] = theirs.map((linux) => {
    const mine = left.get(nameOf(linux));
    left.delete(nameOf(linux));
    return [mine, linux];
  });
  return [...pairs, ...[...left.values()].map((mine): Pair => [mine, undefined])];
}

function hasNoError({ errno }: Message): boolean {
  return errno === 0;
}

/** Which SA or policy an entry of a dump is about. */
export function nameOf(entry: Message): string {
  const sa = extension(entry, 'SA');
  const ends = (['ADDRESS_SRC', 'ADDRESS_DST'] as const).map((type) => {
    const one = extension(entry, type);
    if (!one) return '';
    const { address, prefixLen, port, proto } = one;
    return `${formatAddress(address)}/${prefixLen}[${port}]${proto === 0 ? 255 : proto}`;
  });
  const policy = extension(entry, 'X_POLICY');
  if (policy) return `${policy.direction} ${ends.join(' ')}`;
  return `${entry.satype} ${sa?.spi ?? 0} ${ends.join(' ')}`;
}

function compare(
  mine: Message | undefined,
  linux: Message | undefined,
): [string, string, string][] {
  if (!mine || !linux) {
    return [['entry', mine ? nameOf(mine) : '', linux ? nameOf(linux) : '']];
  }
  if (mine.errno !== linux.errno) return [['errno', errnoText(mine), errnoText(linux)]];
  const found: [string, string, string][] = [];
  if (mine.satype !== linux.satype) found.push(['satype', mine.satype, linux.satype]);
  const types = new Set([...mine.extensions, ...linux.extensions].map(({ type }) => type));
  for (const type of types) {
    const [a, b] = [extension(mine, type), extension(linux, type)];
    if (!a) found.push([`-${type}`, '', JSON.stringify(fieldsOf(b!))]);
    else if (!b) found.push([`+${type}`, JSON.stringify(fieldsOf(a)), '']);
    else found.push(...compareFields(type, fieldsOf(a), fieldsOf(b)));
  }
  return found;
}

type Fields = Readonly<Record<string, unknown>>;

function compareFields(type: string, a: Fields, b: Fields): [string, string, string][] {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...names].flatMap((name): [string, string, string][] => {
    const [mine, linux] = [JSON.stringify(a[name]) ?? '', JSON.stringify(b[name]) ?? ''];
    return mine === linux ? [] : [[`${type}.${name}`, mine, linux]];
  });
}

function errnoText({ errno }: Message): string {
  return errno === 0 ? '0' : (errnoName(errno) ?? `${errno}`);
}

/** Octets and addresses as text; times and numbers that a host gives out are left out. */
function fieldsOf(one: Extension): Fields {
  const plain = JSON.parse(
    JSON.stringify(one, (_, value: unknown) =>
      value instanceof Uint8Array ? toHex(value) : value,
    ),
  ) as Record<string, unknown>;
  if (one.type === 'LIFETIME_CURRENT') {
    delete plain.addTime;
    delete plain.useTime;
  }
  // A recorded SA that grew old in the minute that the recording took.
  if (one.type === 'SA' && one.state === SA_STATE.dying) plain.state = SA_STATE.mature;
  if (one.type === 'X_POLICY') {
    delete plain.id;
    plain.requests = one.requests.map(requestText);
  }
  return plain;
}

function requestText({ proto, mode, level, reqid, src, dst }: PolicyRequest): string {
  const number = reqid > REQID_MANUAL_MAX ? 'given out' : `${reqid}`;
  const ends = [src, dst].map((one) => one && `${formatAddress(one.address)}[${one.port}]`);
  return `proto ${proto} mode ${mode} level ${level} reqid ${number} ${ends.join(' ')}`;
}
