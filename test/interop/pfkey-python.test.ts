import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { startPfkeyServer } from '../../src/daemon/pfkey-server.ts';
import { rig } from '../key/rig.ts';
import { describeWithPeer, missingProgram } from './peer.ts';

const PYTHON = 'python3';
const PROGRAM = fileURLToPath(new URL('pfkey.py', import.meta.url));

/**
 * A client in Python that knows RFC 2367 and nothing of ours: every kind of message, octet for
 * octet, its errno, and who gets it.
 */
describeWithPeer('a client in Python', missingProgram(PYTHON, ['--version'], 'python3'), () => {
  test('gets the octets that RFC 2367 has', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'testudo-python-'));
    const host = rig();
    const path = join(folder, 'pfkey');
    const server = await startPfkeyServer({ engine: host.engine, path, log: host.env.log });
    const time = setInterval(() => host.advance(50), 10);
    const child = spawn(PYTHON, [PROGRAM, path], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    child.stdout.on('data', (text) => {
      said += text;
    });
    child.stderr.on('data', (text) => {
      said += text;
    });
    const [status] = await once(child, 'close');
    clearInterval(time);
    await server.close();
    rmSync(folder, { recursive: true });
    expect([status, said]).toEqual([0, '252 checks, 0 failed\n']);
  });
});
