import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildSanitized, LIBRARY, type Preload, UserHost, whyNoExec } from './exec-host.ts';
import { announceSkip } from './namespaces.ts';

/** Programs that know nothing of us, with our host for their kernel. */

const skipped = announceSkip('exec.test.ts', whyNoExec());

describe.skipIf(skipped)('testudo exec', () => {
  let host: UserHost;
  const preloads = new Map<string, Preload | undefined>();
  beforeAll(async () => {
    host = await UserHost.start();
    preloads.set('with sanitizers', buildSanitized(host.dir));
  });
  afterAll(() => host.close());

  describe.each(['as installed', 'with sanitizers'])('the library %s', (name) => {
    const ask = (...args: string[]) => {
      const preload = preloads.get(name);
      if (name !== 'as installed' && !preload) {
        if (process.env.CI === 'true') throw new Error('CI needs a compiler with sanitizers');
        console.log('exec.test.ts: no sanitizers, tested without');
      }
      return host.ask(args, preload);
    };

    test('carries whole messages, which can be looked at before they are taken', async () => {
      const { said, len, ...rest } = await ask('whole');
      expect(rest).toEqual({
        ready: true,
        peeked: 16,
        same: true,
        seq: 7,
        short: 8,
        next: 9,
        empty: true,
        domain: 15,
        type: 3,
      });
      // All algorithms are in it.
      expect(len).toBe(said);
      expect(len).toBeGreaterThan(100);
    });

    test('has the answer there when a write returns, whatever the way to write', async () => {
      expect(await ask('writes')).toEqual({
        write: true,
        writev: true,
        send: true,
        sendto: true,
        sendmsg: true,
        sendmmsg: true,
        short: 'EMSGSIZE',
        long: 'EMSGSIZE',
      });
    });

    test('does not block who asks not to be blocked', async () => {
      expect(await ask('nonblocking')).toEqual({
        nothing: 'EAGAIN',
        first: true,
        poll: true,
        again: 'EAGAIN',
        inheritable: false,
      });
    });

    test('works on in a process that was given the descriptor', async () => {
      expect(await ask('passing')).toEqual({ answered: true, uid: process.getuid!() });
    });

    test('lets a child in that has given up its user and root directory', async () => {
      const uid = process.getuid!() === 0 ? 65_534 : process.getuid!();
      expect(await ask('opening')).toEqual({ parent: true, child: [uid, true] });
    });

    test('does the socket options of IKE daemons, or says that it cannot', async () => {
      expect(await ask('options')).toEqual({
        bypass: [null, null, 0],
        six: [null, null, 0],
        entrust: [null, null, 0],
        ipsec: 'EOPNOTSUPP',
        // Each family has its own option.
        other: 'EOPNOTSUPP',
        short: 'EINVAL',
        unix: 'ENOPROTOOPT',
        // The caller's buffer has to name a direction.
        got: 'EINVAL',
        // A host in user space has ports of its own, and no way to the packets of others.
        encap: 'EOPNOTSUPP',
        stream: 'ESOCKTNOSUPPORT',
        protocol: 'EPROTONOSUPPORT',
      });
    });
  });

  test('drops notices for lack of room, which SO_RCVBUF decides, as a kernel does', async () => {
    const count = 400;
    const { small, usual, large, set } = await host.ask(['receive_buffer', String(count)]);
    expect(small).toBeGreaterThan(4);
    expect(small).toBeLessThan(count / 4);
    expect(usual).toBeGreaterThan(small as number);
    expect(large).toBeGreaterThanOrEqual(usual as number);
    // A message of 16 octets counts for less than a kilobyte.
    expect(large).toBeGreaterThanOrEqual(Math.min(count, (set as number) / 1024));
  });

  test('loses nothing of a dump, and lets a slow reader keep nobody waiting', async () => {
    expect(await host.ask(['dump', '2000'])).toEqual({
      made: 2000,
      dumped: 2000,
      inOrder: true,
      meanwhile: true,
    });
  });

  test('two programs at once hear of each other', async () => {
    const hearing = host.role(['hear', '20']);
    await hearing.says();
    expect(await host.ask(['flush', '20'])).toEqual({ answered: 20 });
    expect(await hearing.end()).toBe(0);
    expect(hearing.said[1]).toEqual({ types: Array(20).fill(9), others: Array(20).fill(true) });
  });

  test('ends as the program ends, and tells it what it is told', async () => {
    expect(await host.exec(['--', 'sh', '-c', 'exit 7']).end()).toBe(7);
    expect(await host.exec(['sh', '-c', 'kill -KILL $$']).end()).toBe('SIGKILL');
    const program = host.role(['stay']);
    await program.says();
    program.child.kill('SIGTERM');
    expect(await program.end()).toBe(9);
    expect(program.said[1]).toEqual({ told: 'SIGTERM' });
  });

  test('a program that is killed leaves a host that goes on', async () => {
    const program = host.role(['stay']);
    const { pid } = await program.says();
    process.kill(pid as number, 'SIGKILL');
    expect(await program.end()).toBe('SIGKILL');
    expect(await host.ask(['flush', '3'])).toEqual({ answered: 3 });
  });

  test('a program may go on in the background', async () => {
    const program = host.role(['background']);
    // The child has its output still, so there is no end of that yet.
    await once(program.child, 'exit');
    program.child.stdin!.end();
    expect(await program.says()).toEqual({ again: true });
  });

  test('a crowd is served, however many ask at one moment', async () => {
    expect(await host.ask(['crowd', '60'])).toEqual({ failed: 0 });
  });

  test('strangers who say nothing keep nobody out', async () => {
    expect(await host.ask(['strangers', '200'])).toEqual({ opened: true, turnedAway: true });
  });

  test('nobody gets in without a credential', async () => {
    const shown = host.role(['stay']);
    await shown.says();
    const credential = String(shown.said[0]!.credential);
    const env = { LD_PRELOAD: LIBRARY, TESTUDO_EXEC: credential };
    expect(attempt(env)).toEqual({ opened: true });
    const other = credential.replace(/.$/, (digit) => (digit === '0' ? '1' : '0'));
    expect(attempt({ ...env, TESTUDO_EXEC: other })).toEqual({ opened: 'EPERM' });
    shown.child.kill('SIGTERM');
    await shown.end();
    // Without any, the program is where it was: with a kernel that has no PF_KEY, or has.
    expect(attempt({ LD_PRELOAD: LIBRARY })).toEqual(attempt({}));
  });

  function attempt(env: Readonly<Record<string, string>>): unknown {
    const program = new URL('pfkey_program.py', import.meta.url).pathname;
    const { TESTUDO_EXEC: _, ...clean } = process.env;
    const options = { env: { ...clean, ...env }, encoding: 'utf8' } as const;
    return JSON.parse(spawnSync('python3', [program, 'open_one'], options).stdout);
  }

  test('says what is wrong', async () => {
    const complaint = async (...args: string[]) => {
      const program = host.exec(args);
      expect(await program.end()).toBe(1);
      return program.stderr;
    };
    expect(await complaint('no-such-program')).toContain('there is no program "no-such-program"');
    const spaced = join(host.dir, 'a library.so');
    writeFileSync(spaced, '');
    expect(await complaint('--library', spaced, 'true')).toContain('cannot be preloaded');
    expect(await complaint('--library', '/nowhere.so', 'true')).toContain(
      'there is no /nowhere.so',
    );
    const nobody = await complaint('--socket', join(host.dir, 'nobody'), 'true');
    expect(nobody).toContain('start one with "testudo up"');
    const source = join(host.dir, 'empty.c');
    writeFileSync(source, 'int main(void) { return 0; }\n');
    const linked = join(host.dir, 'static');
    expect(spawnSync('cc', ['-static', '-o', linked, source]).status).toBe(0);
    expect(await complaint(linked)).toContain('linked statically');
    spawnSync('cc', ['-o', linked, source]);
    expect(await host.exec([linked]).end()).toBe(0);
  });

  test('when the host is killed, programs are told, and ended if they go on', async () => {
    const second = await UserHost.start();
    try {
      const waiting = second.role(['wait_for_end']);
      await waiting.says();
      const staying = second.role(['stay']);
      await staying.says();
      await second.kill();
      await waiting.end();
      expect(waiting.said).toEqual([
        { waiting: true },
        { end: 0, write: 'EPIPE', open: 'EAFNOSUPPORT' },
      ]);
      expect(waiting.stderr).toContain('the host has gone away');
      expect(await staying.end()).toBe(1);
      expect(staying.said.at(-1)).toEqual({ told: 'SIGTERM' });
    } finally {
      await second.close();
    }
  });
});
