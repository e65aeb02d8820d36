import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { KeyError } from '../../src/base/error.ts';
import { request } from '../../src/daemon/control-client.ts';
import { ControlServer } from '../../src/daemon/control-server.ts';

let folder: string;
let path: string;
let server: ControlServer;
let logged: string[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'testudo-'));
  path = join(folder, 'pfkey.control');
  logged = [];
  server = new ControlServer((_level, line) => logged.push(line));
  server.command('echo', (args) => args);
  server.command('later', async ({ value }) => {
    await Promise.resolve();
    return value;
  });
  server.command('nothing', () => undefined);
  server.command('refuse', () => {
    throw new KeyError('ESRCH', 'there is no such thing');
  });
  server.command('fail', async () => {
    throw new Error('disk is full');
  });
  server.command('count', ({ to }, stream) => {
    for (let i = 1; i <= Number(to); i++) stream.send(i);
    return 'done';
  });
  await server.listen(path);
});

afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

/** Sends text as it is, and returns all that comes until the server ends. */
function raw(...text: readonly string[]): Promise<unknown[]> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(path);
    socket.on('error', reject);
    socket.on('data', (chunk) => {
      answer += chunk.toString();
    });
    socket.on('close', () => {
      const lines = answer.trim().split('\n');
      resolve(lines.map((line): unknown => JSON.parse(line)));
    });
    for (const one of text) socket.write(one);
    socket.end();
  });
}

describe('commands', () => {
  test('get their arguments, and answer now or later', async () => {
    expect(await request(path, 'echo', { a: 1, b: ['ü'] })).toEqual({ id: 1, a: 1, b: ['ü'] });
    expect(await request(path, 'later', { value: 5 })).toBe(5);
    expect(await request(path, 'nothing')).toBeNull();
  });

  test('that refuse or fail say why', async () => {
    await expect(request(path, 'refuse')).rejects.toMatchObject({
      errno: 'ESRCH',
      message: 'there is no such thing',
    });
    expect(logged).toEqual([]);
    await expect(request(path, 'fail')).rejects.toMatchObject({
      errno: 'EIO',
      message: 'disk is full',
    });
    expect(logged[0]).toContain('disk is full');
    await expect(request(path, 'fly')).rejects.toThrow(
      'there is no command "fly"; there are count, echo, fail, later, nothing, refuse',
    );
  });

  test('that go on send lines first, and hear when the client has gone', async () => {
    const lines: unknown[] = [];
    const onLine = (line: unknown) => lines.push(line);
    expect(await request(path, 'count', { to: 3 }, { onLine })).toBe('done');
    expect(lines).toEqual([1, 2, 3]);

    let hasStarted = () => {};
    const started = new Promise<void>((resolve) => {
      hasStarted = resolve;
    });
    const gone = new Promise<string>((resolve) => {
      server.command('watch', async (_args, { signal }) => {
        await new Promise((go) => {
          signal.addEventListener('abort', go);
          hasStarted();
        });
        resolve(signal.aborted ? 'gone' : 'there');
      });
    });
    const stop = new AbortController();
    const asked = request(path, 'watch', {}, { signal: stop.signal });
    await started;
    stop.abort();
    expect(await asked).toBeUndefined();
    expect(await gone).toBe('gone');
  });

  test('a client that does not read loses lines, and the command knows', async () => {
    const sent = new Promise<boolean[]>((resolve) => {
      server.command('flood', (_args, { send }) => {
        resolve(Array.from({ length: 40 }, () => send('x'.repeat(100_000))));
      });
    });
    const socket = connect(path);
    socket.write('{"cmd":"flood"}\n');
    socket.pause();
    const results = await sent;
    expect(results[0]).toBe(true);
    expect(results.at(-1)).toBe(false);
    socket.destroy();
  });
});

describe('the wire', () => {
  test('lines in any pieces; each answer names its request', async () => {
    const answers = await raw(
      '{"id":7,"cmd":"la',
      'ter","value":1}\n\n{"id":"x","cmd":"nothing"}\n',
    );
    expect(answers).toHaveLength(2);
    expect(answers).toContainEqual({ id: 7, ok: true, result: 1 });
    expect(answers).toContainEqual({ id: 'x', ok: true, result: null });
  });

  test('more requests than may be under way are answered all the same', async () => {
    const lines = Array.from({ length: 200 }, (_, i) => `{"id":${i},"cmd":"later","value":${i}}\n`);
    const answers = (await raw(lines.join(''))) as { id: number; result: number }[];
    expect(answers.map((one) => one.id).sort((a, b) => a - b)).toEqual(lines.map((_, i) => i));
    expect(answers.every((one) => one.id === one.result)).toBe(true);
  });

  test('of one client, 16 requests are under way at most', async () => {
    let [now, most] = [0, 0];
    server.command('slow', async () => {
      most = Math.max(most, ++now);
      await new Promise((resolve) => setImmediate(resolve));
      now--;
    });
    await raw('{"cmd":"slow"}\n'.repeat(100));
    expect(most).toBe(16);
  });

  const bad: [string, RegExp][] = [
    ['{"id":1,', /^the line is not JSON: /],
    ['[1]', /^the line is JSON, but not an object/],
    ['null', /not an object/],
    ['{"id":1}', /^"cmd" must be the name of a command: count, echo/],
    ['{"cmd":{"a":1}}', /^"cmd" must be the name/],
    ['{"cmd":"constructor"}', /^there is no command "constructor"/],
  ];
  test.each(bad)('%s is refused, and the next line is read', async (line, why) => {
    const answers = await raw(`${line}\n{"id":2,"cmd":"nothing"}\n`);
    expect(answers).toHaveLength(2);
    expect(answers).toContainEqual({
      id: line.startsWith('{"id":1}') ? 1 : null,
      ok: false,
      errno: expect.stringMatching(/^EINVAL|ENOSYS$/),
      error: expect.stringMatching(why),
    });
    expect(answers).toContainEqual({ id: 2, ok: true, result: null });
  });

  test('a line without end is cut off', async () => {
    const answers = await raw('x'.repeat(65_537));
    expect(answers).toEqual([
      { id: null, ok: false, errno: 'EMSGSIZE', error: 'a line is longer than 65536 octets' },
    ]);
  });
});

describe('the client', () => {
  test('says that no host is running', async () => {
    await expect(request(join(folder, 'nobody'), 'status')).rejects.toMatchObject({
      errno: 'ENOENT',
      message: expect.stringMatching(
        /no host is listening on .*nobody: start one with "testudo up"/,
      ),
    });
  });

  test('does not wait for ever, and notices when the host goes away or answers nonsense', async () => {
    server.command('never', () => new Promise(() => undefined));
    await expect(request(path, 'never', {}, { timeoutMs: 20 })).rejects.toMatchObject({
      errno: 'ETIMEDOUT',
    });
    const answers: (string | undefined)[] = ['nonsense\n', undefined];
    const other = createServer((socket) => {
      const answer = answers.shift();
      socket.resume();
      if (answer === undefined) socket.destroy();
      else socket.write(answer);
    });
    const strange = join(folder, 'strange');
    await new Promise<void>((resolve) => other.listen(strange, resolve));
    await expect(request(strange, 'status')).rejects.toThrow(
      /answered what is no answer: nonsense/,
    );
    await expect(request(strange, 'status')).rejects.toThrow(/strange has gone away/);
    await new Promise((resolve) => other.close(resolve));
  });

  test('the socket is private', () => {
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });
});
