import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ERRNO } from '../../src/base/errno.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import { KeyEngine } from '../../src/key/engine.ts';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import { decode, encode, errorReply } from '../../src/wire/pfkey.ts';
import { extension, type Message } from '../../src/wire/pfkey-message.ts';
import { rig, TestClient } from './rig.ts';

/** What OpenIKED 7.2 sent when it made SAs of each kind, and ended. */
const folder = new URL('../vectors/data/openiked/', import.meta.url);

interface Line {
  readonly dir: 'to-kernel' | 'from-kernel';
  readonly msg: string;
}

function dialogue(name: string): readonly Line[] {
  return readFileSync(new URL(name, folder), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
}

/** An engine that lets the old suites in, and one client at it. */
function host() {
  const { env, sad, spd } = rig();
  const engine = new KeyEngine({ env, sad, spd, crypto: nodeCrypto, allowLegacy: true });
  return { sad, spd, engine, client: new TestClient(engine, {}) };
}

/**
 * The program would use the SPI that our GETSPI gave it, not the one that another kernel gave it
 * then: ours is put where it sends theirs.
 */
function replay(lines: readonly Line[]) {
  const { client, sad, spd } = host();
  const sent = lines.filter((line) => line.dir === 'to-kernel').map((line) => fromHex(line.msg));
  const theirs = extension(decode(sent.find((one) => one[1] === 2)!, 'linux'), 'SA')!.spi;
  let ours = 0;
  const answers: Message[] = [];
  let most = 0;
  for (const octets of sent) {
    const asked = decode(octets, 'linux');
    const extensions = asked.extensions.map((one) =>
      one.type === 'SA' && one.spi === theirs ? { ...one, spi: ours } : one,
    );
    const replies = client.send({ ...asked, extensions });
    expect(replies).toHaveLength(1);
    const [reply] = replies;
    expect([reply!.type, reply!.seq, reply!.pid]).toEqual([asked.type, asked.seq, asked.pid]);
    if (asked.type === 'GETSPI') ours = extension(reply!, 'SA')!.spi;
    most = Math.max(most, sad.size);
    answers.push(reply!);
  }
  return { answers, most, left: [sad.size, spd.size] };
}

describe('OpenIKED', () => {
  const names = readdirSync(folder);

  test('all suites are there', () => expect(names).toHaveLength(7));

  test.each(names)('%s: every request is answered without an error', (name) => {
    const { answers, most, left } = replay(dialogue(name));
    expect(answers).toHaveLength(14);
    expect(answers.map((one) => one.errno)).toEqual(answers.map(() => 0));
    expect(most).toBe(2);
    expect(left).toEqual([0, 0]);
  });

  test('the answers of Linux hold what ours hold, but for what is its own', () => {
    const lines = dialogue('kernel-aes256-sha1.jsonl');
    const { answers } = replay(lines);
    const linux = lines
      .filter((line) => line.dir === 'from-kernel')
      .map((line) => decode(fromHex(line.msg), 'linux'));
    for (const [i, theirs] of linux.entries()) {
      const ours = answers[i]!;
      expect([ours.type, ours.errno, ours.satype]).toEqual([
        theirs.type,
        theirs.errno,
        theirs.satype,
      ]);
      for (const type of ['ADDRESS_SRC', 'ADDRESS_DST'] as const) {
        expect(extension(ours, type)).toEqual(extension(theirs, type));
      }
      const [mine, other] = [extension(ours, 'X_POLICY'), extension(theirs, 'X_POLICY')];
      expect(mine && { ...mine, id: 0 }).toEqual(other && { ...other, id: 0 });
      if (theirs.type !== 'ADD') continue;
      expect(extension(ours, 'SA')).toEqual({ ...extension(theirs, 'SA'), replay: 64 });
      for (const type of ['LIFETIME_HARD', 'LIFETIME_SOFT'] as const) {
        expect(extension(ours, type)).toEqual(extension(theirs, type));
      }
    }
  });

  test('what has gone is ESRCH, what is there is EEXIST', () => {
    const { client } = host();
    const lines = dialogue('aes256-sha1.jsonl').filter((line) => line.dir === 'to-kernel');
    const send = (line: Line) => client.send(decode(fromHex(line.msg), 'linux'))[0]!.errno;
    const [add] = lines.filter((line) => line.msg.startsWith('0203'));
    const [remove] = lines.filter((line) => line.msg.startsWith('0204'));
    expect([add, add, remove, remove].map((line) => send(line!))).toEqual([
      0,
      ERRNO.EEXIST,
      0,
      ERRNO.ESRCH,
    ]);
  });
});

describe('octets', () => {
  test('an error is a header with an errno, and nothing else', () => {
    const { client } = host();
    const { msg } = dialogue('aes256-sha1.jsonl').find((line) => line.msg.startsWith('0204'))!;
    const [reply] = client.send(decode(fromHex(msg), 'linux'));
    const octets = encode(reply!, 'linux');
    expect(toHex(octets)).toBe(`02040303020000000a00000057540000`);
    expect(octets).toEqual(errorReply(fromHex(msg), ERRNO.ESRCH));
  });
});
