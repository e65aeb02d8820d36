import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type MonitorOptions, monitor } from '../../src/cli/monitor.ts';
import { type PfkeyServer, startPfkeyServer } from '../../src/daemon/pfkey-server.ts';
import { toHex } from '../../src/wire/bytes.ts';
import { A, B, dst, key, type Rig, rig, sa, secret, src } from '../key/rig.ts';

const ENDS = [src(A), dst(B)] as const;
const SECRET = toHex(secret(20));

let folder: string;
let host: Rig;
let server: PfkeyServer;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'testudo-monitor-'));
  host = rig();
  server = await startPfkeyServer({
    engine: host.engine,
    path: join(folder, 'pfkey'),
    log: host.env.log,
  });
});
afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

/** A monitor that runs; `until` waits for a text in what it has printed. */
async function start(options: MonitorOptions) {
  const stop = new AbortController();
  let printed = '';
  let look: () => void = () => {};
  const out = (text: string) => {
    printed += text;
    look();
  };
  const world = { out, now: () => 1_700_000_000_000, pid: 99_999, signal: stop.signal };
  const ended = monitor(server.path, options, world);
  ended.catch(() => undefined);
  const until = async (text: string) => {
    while (!printed.includes(text)) {
      await new Promise<void>((resolve) => {
        look = resolve;
      });
    }
  };
  // It is connected when it hears of something.
  const teller = host.connect();
  while (printed === '') {
    teller.one('FLUSH', 'ah');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  printed = '';
  return { stop, ended, until, printed: () => printed };
}

describe('testudo monitor', () => {
  test('text, as setkey -x, without keys; each message once', async () => {
    const one = await start({});
    const client = host.connect();
    client.one('ADD', 'esp', sa(0x1001), ...ENDS, key());
    client.one('GET', 'esp', sa(0x1001), ...ENDS);
    client.one('GET', 'esp', sa(0x1002), ...ENDS);
    client.ask('DUMP', 'esp');
    await one.until('DUMP esp');
    const heads = one.printed().match(/^[A-Z]+ .*$/gm);
    expect(heads!.filter((line) => !line.startsWith('FLUSH'))).toEqual([
      `ADD esp seq=1 pid=${client.pid}`,
      `GET esp seq=2 pid=${client.pid}`,
      `GET esp seq=3 pid=${client.pid} errno=3 (No such process)`,
      `DUMP esp seq=0 pid=${client.pid}`,
    ]);
    expect(one.printed()).toContain('\tSA spi=0x00001001 ');
    expect(one.printed()).not.toContain(SECRET);
    one.stop.abort();
    await one.ended;
  });

  test('--json: an object per line, addresses as people write them', async () => {
    const one = await start({ json: true });
    const client = host.connect();
    client.one('ADD', 'esp', sa(0x1001), ...ENDS, key());
    client.one('ADD', 'esp', sa(0x1001), ...ENDS, key());
    await one.until('EEXIST');
    const lines = one.printed().trim().split('\n');
    const [added, again] = lines
      .map((line) => JSON.parse(line))
      .filter(({ type }) => type === 'ADD');
    expect(added).toMatchObject({
      time: '2023-11-14T22:13:20.000Z',
      ...{ type: 'ADD', satype: 'esp', errno: null, seq: 1, pid: client.pid },
    });
    const addressOf = (type: string) =>
      added.extensions.find((each: { type: string }) => each.type === type).address;
    expect([addressOf('ADDRESS_SRC'), addressOf('ADDRESS_DST')]).toEqual(['10.0.0.1', '10.0.0.2']);
    expect(again).toMatchObject({ errno: 'EEXIST', extensions: [] });
    expect(one.printed()).not.toContain(SECRET);
    one.stop.abort();
    await one.ended;
  });

  test('--keys: asks for the keys of an SA that is added, and shows them', async () => {
    const one = await start({ keys: true });
    host.connect().one('ADD', 'esp', sa(0x1001), ...ENDS, key());
    await one.until(`KEY_ENCRYPT 0x${SECRET}`);
    const printed = one.printed();
    expect(printed.match(/^(ADD|GET) /gm)).toEqual(['ADD ', 'GET ']);
    one.stop.abort();
    await one.ended;
  });

  test('ends at once when it is told to, and says when the host has gone', async () => {
    const [one, other] = [await start({}), await start({})];
    one.stop.abort();
    await one.ended;
    await server.close();
    await expect(other.ended).rejects.toThrow('the host closed the connection');
    const world = {
      out: () => undefined,
      now: () => 0,
      pid: 1,
      signal: new AbortController().signal,
    };
    await expect(monitor(server.path, {}, world)).rejects.toThrow('no host is listening');
  });
});
