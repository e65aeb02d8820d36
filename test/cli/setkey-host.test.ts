import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runSetkey } from '../../src/cli/setkey-main.ts';
import { type PfkeyServer, startPfkeyServer } from '../../src/daemon/pfkey-server.ts';
import { rig } from '../key/rig.ts';

/** What our host answers otherwise than Linux did, and why; the first that fits counts. */
const DIFFERENT: readonly {
  readonly command: RegExp;
  readonly stdout: string;
  readonly why: string;
}[] = [
  {
    command: /^add .* -E (null|simple);$/,
    stdout: 'Invalid argument.\n',
    why: 'ESP without encryption and integrity protects nothing (RFC 4303 §3.2)',
  },
  {
    command: /-lh 3600 -E|-ls 3000 -E|-bh \d+ -E|x1050 -bs/,
    stdout: '',
    why: 'HARD or SOFT alone',
  },
  { command: / -ctx /, stdout: 'Operation not supported.\n', why: 'no security labels' },
  { command: /^(add|get) .* ipcomp /, stdout: 'Protocol not supported.\n', why: 'no IPComp' },
  { command: /ipcomp\/transport/, stdout: 'Protocol not supported.\n', why: 'no IPComp' },
  { command: /^dump (ah|ipcomp);/, stdout: 'No SAD entries.\n', why: 'none of them was accepted' },
  { command: / esp 0 -E/, stdout: 'Invalid argument.\n', why: 'SPI 0 is reserved (RFC 4303 §2.1)' },
  { command: / esp 0x1001 -E aes/, stdout: '', why: 'DES was refused, so the SPI is free' },
  { command: /\bah 0x4003;$/, stdout: 'No such process.\n', why: 'HMAC-MD5 was refused' },
  { command: /any -P out ipsec;$/, stdout: 'Invalid argument.\n', why: 'no request: said first' },
  {
    command: /\[http\]/,
    stdout: 'File exists.\n',
    why: 'a service name, of the policy of port 80',
  },
  { command: /\/33\[any\]/, stdout: '', why: 'refused before it is sent' },
  { command: /^deleteall/, stdout: '', why: 'it printed what it did not delete' },
];

interface Recorded {
  readonly group: string;
  readonly command: string;
  readonly argv: readonly string[];
  readonly messages: readonly string[];
  readonly stdout: string;
}

const file = new URL('../vectors/data/setkey.json', import.meta.url);
const { vectors } = JSON.parse(readFileSync(file, 'utf8')) as { vectors: readonly Recorded[] };

describe('the commands of setkey.json, one after the other, against a host of ours', () => {
  const { engine, env } = rig();
  let directory: string;
  let server: PfkeyServer;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'setkey-'));
    server = await startPfkeyServer({ engine, path: join(directory, 'pfkey'), log: env.log });
  });

  afterAll(async () => {
    await server.close();
    rmSync(directory, { recursive: true });
  });

  for (const [i, one] of vectors.entries()) {
    test(`${i} ${one.command.slice(0, 90)}`, async () => {
      const { exit, stdout, stderr } = await setkey(one.argv, one.command);
      expect(exit).toBe(0);
      const known = DIFFERENT.find(({ command }) => command.test(one.command));
      if (known) expect(stdout).toBe(known.stdout);
      else if (stdout.includes('pid=')) compareDumps(stdout, one.stdout);
      else if (one.messages.length > 0) expect(stdout).toBe(one.stdout);
      else if (!/16\[any\] (esp|ah) -P/.test(one.command))
        expect(stderr).toMatch(/^stdin:\d+:\d+:/);
    });
  }

  /**
   * Who and what, in any order: the SAs and policies that only one of the two has are those of the
   * table.
   */
  function compareDumps(ours: string, linux: string): void {
    const isPolicies = ours.includes('spid=');
    const [mine, theirs] = [entries(ours), entries(linux)];
    const onlyMine = [...mine].filter((one) => !theirs.has(one));
    const onlyTheirs = [...theirs].filter((one) => !mine.has(one));
    if (isPolicies) {
      // Upper protocols that are keywords there, and prefixes whose host bits we clear.
      expect(onlyMine.map((one) => one.split('\n', 1)[0])).toEqual([
        '10.3.0.0/16[any] 10.4.0.0/16[any] esp',
        '10.3.0.0/16[any] 10.4.0.0/16[any] ah',
        '2001:db8::1[any] 2001:db8::/64[500] udp',
        '10.9.8.0/24[any] 10.9.8.0/24[any] any',
      ]);
      expect(onlyTheirs.map((one) => one.split('\n', 1)[0])).toEqual([
        '10.6.0.1[any] 10.6.0.2[any] any',
        '10.9.8.7/24[any] 10.9.8.7/24[any] any',
        '2001:db8::1[any] 2001:db8::2/64[500] udp',
        '10.1.33.0/24[any] 10.2.33.0/24[any] any',
        '10.1.31.0/24[any] 10.2.31.0/24[any] any',
      ]);
    } else {
      // Lifetimes of one kind alone.
      expect(onlyMine.every((one) => /spi=0x000010(4c|4d|4f|50)$/.test(one))).toBe(true);
      expect(onlyTheirs.length).toBeLessThan(theirs.size / 2);
      expect(mine.size).toBeGreaterThan(0);
    }
  }

  /**
   * What of each entry is the same on every host. Linux makes `default` and `any` what they mean.
   */
  function entries(stdout: string): Set<string> {
    const text = stdout
      .replaceAll(/ 255$/gm, ' any')
      .replaceAll(/#\d+/g, '#N')
      .replaceAll(/\/default$/gm, '/require');
    const found = text.split(/^(?=[0-9a-f.:]+[[/ ])/m).map((one) => {
      const spi = /\((0x[0-9a-f]{8})\) reqid/.exec(one)?.[1];
      return spi ? `${one.split('\n', 1)[0]!.trim()} spi=${spi}` : one.split('\n\tcreated')[0]!;
    });
    return new Set(found.filter((one) => one !== '' && !one.startsWith('00000000:')));
  }

  async function setkey(argv: readonly string[], stdin: string) {
    let stdout = '';
    let stderr = '';
    const exit = await runSetkey(argv, {
      out: (text) => {
        stdout += text;
      },
      err: (text) => {
        stderr += text;
      },
      stdin: Readable.from([stdin]),
      environment: { TESTUDO_SOCKET: server.path },
      pid: 77,
    });
    return { exit, stdout, stderr };
  }
});
