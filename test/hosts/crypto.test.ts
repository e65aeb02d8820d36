import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { request } from '../../src/daemon/control-client.ts';
import { controlPath } from '../../src/daemon/paths.ts';
import type { EchoResult } from '../../src/daemon/services.ts';
import type { Status } from '../../src/daemon/status.ts';
import { chooseCrypto, type TierName } from '../../src/drivers/native/tier.ts';
import { TESTUDO } from './daemon-host.ts';
import { Program } from './exec-host.ts';

/** Two hosts whose cryptography is done by different providers understand each other. */

const SUITES = [
  '-E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213',
  '-E aes-cbc 0x000102030405060708090a0b0c0d0e0f -A hmac-sha256 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',
  `-E chacha20-poly1305 0x${'0123456789ab'.repeat(6)}`,
];
const PAIRS: readonly (readonly [TierName, TierName])[] = [
  ['ipsec-mb', 'node'],
  ['node', 'openssl'],
  ['openssl', 'ipsec-mb'],
];

const folders: string[] = [];
const running: ChildProcess[] = [];

afterEach(async () => {
  for (const child of running.splice(0)) {
    if (child.exitCode !== null) continue;
    child.kill();
    await once(child, 'close');
  }
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

describe.each(PAIRS)('%s and %s', (left, right) => {
  const why = absence(left) ?? absence(right);
  if (why !== undefined) console.log(`crypto.test.ts: ${left} and ${right} skipped: ${why}`);

  test.skipIf(why !== undefined).each(SUITES)('%s', async (suite) => {
    const [a, b] = [await start('a', left, suite), await start('b', right, suite)];
    const echo = (await request(controlPath(a), 'udp-echo', {
      ...{ to: '10.9.0.2', count: 300, size: 1300, timeoutMs: 5000 },
    })) as EchoResult;
    expect(echo).toMatchObject({ sent: 300, received: 300, corrupted: 0 });
    for (const [socket, tier] of [
      [a, left],
      [b, right],
    ] as const) {
      const { crypto, packets, drops } = (await request(controlPath(socket), 'status')) as Status;
      expect(crypto).toBe(chooseCrypto(tier).describe());
      expect(packets).toMatchObject({ 'ESP sealed': 300, 'ESP opened': 300 });
      expect(drops).toEqual([]);
    }
  });
});

function absence(tier: TierName): string | undefined {
  try {
    chooseCrypto(tier);
    return undefined;
  } catch (error) {
    if (process.env.CI === 'true') throw error;
    return String(error);
  }
}

/** A host in user space; returns its socket. */
async function start(name: 'a' | 'b', crypto: TierName, suite: string): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'testudo-crypto-'));
  folders.push(folder);
  const [socket, file] = [join(folder, 'pfkey'), join(folder, 'conf')];
  writeFileSync(file, configOf(name, suite));
  const end = name === 'a' ? '127.0.9.1:4500' : '127.0.9.2:4500';
  const child = spawn(process.execPath, [
    ...[TESTUDO, 'up', '--user', '--crypto', crypto, '--socket', socket, '--file', file],
    ...['--state', join(folder, 'state'), '--service', 'echo', '--listen', end],
    ...['--address', name === 'a' ? '10.9.0.1' : '10.9.0.2'],
  ]);
  running.push(child);
  const program = new Program(child);
  while (!program.stdout.includes('ready')) {
    if (child.exitCode !== null) throw new Error(program.stderr);
    await Promise.race([once(child.stdout!, 'data'), once(child, 'close')]);
  }
  return socket;
}

function configOf(name: 'a' | 'b', suite: string): string {
  const [ours, theirs] = name === 'a' ? [1, 2] : [2, 1];
  return [
    `add 127.0.9.1[4500] 127.0.9.2[4500] esp-udp 0x1001 -m tunnel -u 1 -r 64 ${suite};`,
    `add 127.0.9.2[4500] 127.0.9.1[4500] esp-udp 0x1002 -m tunnel -u 2 -r 64 ${suite};`,
    ...[[ours, theirs, 'out'] as const, [theirs, ours, 'in'] as const].map(
      ([from, to, direction]) =>
        `spdadd 10.9.0.${from} 10.9.0.${to} any -P ${direction} ipsec ` +
        `esp/tunnel/127.0.9.${from}-127.0.9.${to}/unique:${from};`,
    ),
  ].join('\n');
}
