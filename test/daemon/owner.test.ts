import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ControlServer } from '../../src/daemon/control-server.ts';
import { startPfkeyServer } from '../../src/daemon/pfkey-server.ts';
import { rig } from '../key/rig.ts';

/** A system program, since another user may not be able to run the one that runs this test. */
const PERL = '/usr/bin/perl';
const NOBODY = 65_534;
const SKIPPED = whySkipped();
if (SKIPPED !== undefined) console.log(`owner.test.ts skipped: ${SKIPPED}`);

function whySkipped(): string | undefined {
  if (process.geteuid?.() !== 0) return 'not root';
  if (spawnSync('setpriv', ['--version']).status !== 0) return 'no setpriv';
  return existsSync(PERL) ? undefined : 'no perl';
}

/** Connects, writes what it is given in hexadecimal, and prints what it gets, likewise. */
const CLIENT = `
use Socket;
socket(S, PF_UNIX, SOCK_STREAM, 0) or die;
connect(S, pack_sockaddr_un($ARGV[0])) or do { print "refused: $!"; exit };
$SIG{PIPE} = 'IGNORE';
syswrite S, pack("H*", $ARGV[1]);
shutdown S, 1;
my $got = "";
while (sysread(S, my $more, 4096)) { $got .= $more }
print unpack("H*", $got);
`;

async function ask(uid: number, path: string, octets: Uint8Array): Promise<Buffer | string> {
  const user = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
  const hex = Buffer.from(octets).toString('hex');
  const child = spawn('setpriv', [...user, PERL, '-e', CLIENT, path, hex]);
  let said = '';
  for await (const chunk of child.stdout) said += String(chunk);
  return said.startsWith('refused') ? said : Buffer.from(said, 'hex');
}

describe.skipIf(SKIPPED !== undefined)('who is let in', () => {
  let folder: string;
  let path: string;
  let logged: string[];
  const log = (_level: string, line: string) => void logged.push(line);

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'testudo-owner-'));
    chmodSync(folder, 0o755);
    path = join(folder, 'socket');
    logged = [];
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  /** FLUSH, which changes something. */
  const FLUSH = Uint8Array.of(2, 9, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0);

  test('PF_KEY: nobody else, although the file is open to all', async () => {
    const { engine } = rig();
    const server = await startPfkeyServer({ engine, path, log });
    expect(await ask(NOBODY, path, FLUSH)).toMatch(/refused: Permission denied/);
    chmodSync(path, 0o777);
    expect(await ask(NOBODY, path, FLUSH)).toEqual(Buffer.alloc(0));
    expect(engine.counters).toMatchObject({ clients: 0, requests: 0 });
    expect(logged).toEqual(['PF_KEY: a program of another user was turned away']);
    const answer = await ask(0, path, FLUSH);
    expect([answer[1], answer[2]]).toEqual([9, 0]);
    await server.close();
  });

  test('control: the same, and it is told why', async () => {
    const control = new ControlServer(log);
    let calls = 0;
    control.command('count', () => ++calls);
    await control.listen(path);
    chmodSync(path, 0o777);
    const line = Buffer.from('{"id":1,"cmd":"count"}\n');
    const refused = JSON.parse(String(await ask(NOBODY, path, line)));
    expect(refused).toEqual({ id: null, ok: false, errno: 'EPERM', error: expect.any(String) });
    expect(calls).toBe(0);
    expect(logged).toEqual(['control: a program of another user was turned away']);
    expect(JSON.parse(String(await ask(0, path, line)))).toEqual({ id: 1, ok: true, result: 1 });
    await control.close();
  });
});
