import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { ERRNO } from '../../../src/base/errno.ts';
import { nodeCrypto } from '../../../src/crypto/node-provider.ts';
import { PfkeyStream } from '../../../src/daemon/pfkey-stream.ts';
import { KeyEngine } from '../../../src/key/engine.ts';
import { Sad } from '../../../src/sad/sad.ts';
import { memorySequences } from '../../../src/sad/sequence.ts';
import { Spd } from '../../../src/spd/spd.ts';
import { decode, decodeHeader, encode, messageLength } from '../../../src/wire/pfkey.ts';
import type { Message } from '../../../src/wire/pfkey-message.ts';
import { testEnv } from '../../engine/rig.ts';
import { A, B, dst, key, sa, src } from '../../key/rig.ts';
import { must, type Target } from '../target.ts';
import { pfkeySeeds } from './pfkey.ts';

const TABLE_MAX = 50;
/** No request of the fuzzer's has it, but by a chance of one in four thousand millions. */
const PROBE_SEQ = 0x5ea1_ab1e;

/** As much of a socket as `PfkeyStream` uses. What is written is read at once, if it is read. */
class MemorySocket extends EventEmitter {
  destroyed = false;
  writableEnded = false;
  readonly writableLength = 0;
  readonly got: Message[] = [];
  #done: (() => void)[] = [];

  write(written: Uint8Array, done: () => void): boolean {
    // A copy, since the octets are zeroed when they are on their way.
    const octets = Uint8Array.from(written);
    for (let at = 0; at < octets.length; ) {
      const len = messageLength(octets, at)!;
      this.got.push(answerOf(octets.slice(at, at + len)));
      at += len;
    }
    this.#done.push(done);
    return true;
  }

  /** What a real socket does in later turns of the event loop. */
  settle(): void {
    for (let done = this.#done.shift(); done; done = this.#done.shift()) done();
  }

  pause(): this {
    return this;
  }

  resume(): this {
    return this;
  }

  end(): this {
    this.writableEnded = true;
    return this;
  }

  destroy(): this {
    if (this.destroyed) return this;
    this.destroyed = true;
    this.emit('close');
    return this;
  }
}

/** The answer to what is no message has a type of its own. */
function answerOf(octets: Uint8Array): Message {
  if (octets[2] === 0) return decode(octets, 'linux');
  must(octets.length === 16, 'an error is a header');
  const { errno, seq, pid } = decodeHeader(octets);
  return { type: 'X_PCHANGE', satype: 'unspec', errno, seq, pid, reserved: 0, extensions: [] };
}

const SOME_SA: Message = {
  type: 'ADD',
  satype: 'esp',
  errno: 0,
  seq: PROBE_SEQ,
  pid: 1,
  reserved: 0,
  extensions: [sa(0x7777), src(A), dst(B), key()],
};

interface Host {
  readonly sad: Sad;
  readonly spd: Spd;
  connect(): MemorySocket;
}

function makeHost(): Host {
  const env = testEnv();
  const { clock, random } = env;
  const sad = new Sad({ clock, random, sequences: memorySequences(), saMax: TABLE_MAX });
  const spd = new Spd({ clock, policyMax: TABLE_MAX });
  const engine = new KeyEngine({ env, sad, spd, crypto: nodeCrypto, allowLegacy: true });
  const connect = () => {
    const socket = new MemorySocket();
    new PfkeyStream(socket as unknown as Socket, engine, 'linux', () => undefined);
    return socket;
  };
  return { sad, spd, connect };
}

/** The octet in front says where the stream is cut in two, and whether the program is closed. */
function create(): (input: Uint8Array) => void {
  const host = makeHost();
  const [registered, promiscuous, other] = [host.connect(), host.connect(), host.connect()];
  ask(registered, { type: 'REGISTER', satype: 'esp' });
  ask(promiscuous, { type: 'X_PROMISC', satype: 'promisc' });
  let program = host.connect();
  return (input) => {
    if (program.destroyed || program.writableEnded) program = host.connect();
    const listeners = [registered, promiscuous, other];
    for (const one of [program, ...listeners]) one.got.length = 0;
    const before = [host.sad.generation, host.spd.generation];
    feed(program, input);
    mustNotLeak(program.got, listeners);
    const isRefused = program.got.length > 0 && program.got.every(({ errno }) => errno !== 0);
    const after = [host.sad.generation, host.spd.generation];
    must(!isRefused || before.join() === after.join(), 'what is refused changes nothing');
    must(host.sad.size <= TABLE_MAX && host.spd.size <= TABLE_MAX, 'tables are bounded');
    must(answers(other), 'the host answers others');
    if ((input[0]! & 7) === 0) mustHideDump(host, other, [registered, promiscuous]);
    if ((input[0]! & 1) === 1) program.emit('end');
  };
}

function feed(program: MemorySocket, input: Uint8Array): void {
  const octets = input.slice(1);
  const cut = (input[0]! * octets.length) >> 8;
  for (const part of [octets.slice(0, cut), octets.slice(cut)]) {
    if (!program.destroyed) program.emit('data', part);
  }
  program.settle();
}

/** Keys are for who asks for an SA, in an answer that is no error. */
function mustNotLeak(got: readonly Message[], listeners: readonly MemorySocket[]): void {
  for (const one of got) {
    const mayHave = one.errno === 0 && (one.type === 'GET' || one.type === 'DUMP');
    must(mayHave || !hasKeys(one), `no key in ${one.type} to the asker`);
  }
  for (const listener of listeners) {
    // What it is told unasked is on its way until the turn ends, or it says something.
    listener.emit('data', new Uint8Array(0));
    listener.settle();
    for (const one of listener.got) {
      must(!hasKeys(one), `no key in ${one.type} to others`);
      if (one.wrapped) must(!hasKeys(decode(one.wrapped, 'linux')), 'no key in a copy');
    }
  }
}

/** Somebody else looks at all SAs, of which at least one has keys. */
function mustHideDump(host: Host, asker: MemorySocket, listeners: readonly MemorySocket[]): void {
  for (const one of [asker, ...listeners]) one.got.length = 0;
  asker.emit('data', encode(SOME_SA, 'linux'));
  ask(asker, { type: 'DUMP', satype: 'unspec' });
  must(host.sad.size === TABLE_MAX || asker.got.some(hasKeys), 'a dump has keys');
  mustNotLeak([], listeners);
}

function hasKeys({ extensions }: Message): boolean {
  return extensions.some(({ type }) => type === 'KEY_AUTH' || type === 'KEY_ENCRYPT');
}

function answers(program: MemorySocket): boolean {
  ask(program, { type: 'GET', satype: 'esp' });
  return program.got.some(({ seq, errno }) => seq === PROBE_SEQ && errno === ERRNO.EINVAL);
}

function ask(program: MemorySocket, given: Pick<Message, 'type' | 'satype'>): void {
  const head = { errno: 0, seq: PROBE_SEQ, pid: 1, reserved: 0, extensions: [] };
  program.emit('data', encode({ ...head, ...given }, 'linux'));
  program.settle();
}

export const pfkeySocket: Target = {
  name: 'pfkey-socket',
  lenMax: 1200,
  words: Array.from({ length: 28 }, (_, type) => Uint8Array.of(2, type)),
  seeds: () =>
    pfkeySeeds('requests').flatMap((octets) =>
      [0, 127, 254].map((flags) => Uint8Array.of(flags, ...octets, ...octets)),
    ),
  create,
};
