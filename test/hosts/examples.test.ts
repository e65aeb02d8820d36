import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DaemonHost, SETKEY, TESTUDO, upArgs } from './daemon-host.ts';
import { announceSkip, hasTool, Lab, whyNoHosts } from './namespaces.ts';
import { config, makePair } from './pair.ts';

const skipped = announceSkip('examples.test.ts', whyNoHosts('curl', 'setpriv'));
const ROOT = fileURLToPath(new URL('../../', import.meta.url));

function example(path: string): string {
  return readFileSync(`${ROOT}examples/${path}`, 'utf8');
}

describe('the files of the examples', () => {
  test('can be read by setkey', () => {
    const files = readdirSync(`${ROOT}examples`, { recursive: true, encoding: 'utf8' }).filter(
      // Those of OpenIKED are its own.
      (name) => name.endsWith('.conf') && !name.startsWith('openiked'),
    );
    expect(files.length).toBeGreaterThanOrEqual(6);
    for (const file of files) {
      const args = [SETKEY, '-n', '-f', `${ROOT}examples/${file}`];
      const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
      expect({ file, status, stderr }).toEqual({ file, status: 0, stderr: '' });
    }
  });
});

describe.skipIf(skipped)('the examples', () => {
  let lab: Lab;
  beforeEach(() => {
    lab = new Lab();
  });
  afterEach(() => lab.close());

  test('namespaces.sh shows ping and curl through ESP, and leaves nothing behind', () => {
    const { status, stdout, stderr } = spawnSync(`${ROOT}examples/namespaces.sh`, {
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.match(/ 0% packet loss/g)).toHaveLength(2);
    expect(stdout.match(/^Hello from B, through ESP\.$/gm)).toHaveLength(2);
    const [, all, esp] = /… (\d+) packets, (\d+) of them ESP/.exec(stdout) ?? [];
    expect(Number(esp)).toBeGreaterThanOrEqual(20);
    // The others are neighbour and listener discovery.
    expect(Number(all)).toBeLessThan(Number(esp) + 15);
    expect(stdout).not.toMatch(/ICMP echo|ICMP6, echo|Flags \[/);
    const [, pid] = /pid (\d+)/.exec(stdout) ?? [];
    expect(() => process.kill(Number(pid), 0)).toThrow('ESRCH');
  });

  test('the two gateways need no routes to the networks behind each other', async () => {
    const [left, right] = [lab.space('left'), lab.space('right')];
    lab.wire(
      { space: left, device: 'w0', addresses: ['198.51.100.1/24'] },
      { space: right, device: 'w0', addresses: ['198.51.100.2/24'] },
    );
    // Hosts of the networks behind them, reduced to addresses of the gateways.
    lab.sh(left, 'ip addr add 10.1.0.1/24 dev lo; ip addr add fd01::1/64 dev lo');
    lab.sh(right, 'ip addr add 10.2.0.1/24 dev lo; ip addr add fd02::1/64 dev lo');
    await Promise.all([
      DaemonHost.start(lab, left, example('gateways/left.conf')),
      DaemonHost.start(lab, right, example('gateways/right.conf')),
    ]);
    const capture = await lab.capture(left, 'w0');
    expect(lab.ping(left, '10.2.0.1') + lab.ping(right, 'fd01::1')).toBe(4);
    const { clear, packets } = await capture.stop();
    expect({ clear, count: packets.length }).toEqual({ clear: [], count: 8 });
  });
});

describe.skipIf(skipped)('the systemd unit', () => {
  const unit = readFileSync(`${ROOT}packaging/testudo.service`, 'utf8');

  test('gives a host all the capabilities that it needs', async () => {
    const { lab, a, b } = makePair();
    try {
      const peer = await DaemonHost.start(lab, b, config('b'));
      const [, bounding = ''] = /^CapabilityBoundingSet=(.+)$/m.exec(unit) ?? [];
      const kept = bounding.toLowerCase().replaceAll('cap_', '+').replaceAll(' ', ',');
      expect(kept).toBe('+net_admin,+net_raw');
      const host = await DaemonHost.start(lab, a, config('a'));
      await host.stop();
      const child = lab.spawn(a, 'setpriv', [
        ...['--bounding-set', `-all,${kept}`, '--no-new-privs', process.execPath, TESTUDO, 'up'],
        ...upArgs(lab, a),
      ]);
      await once(child.stdout!, 'data');
      expect(lab.ping(a, '10.9.0.2')).toBe(2);
      expect(lab.try(a, `grep CapEff /proc/${child.pid}/status`).stdout).toMatch(/0000003000$/m);
      const ended = once(child, 'close');
      child.kill('SIGTERM');
      expect(await ended).toEqual([0, null]);
      expect(await peer.count('ESP opened')).toBe(2);
    } finally {
      lab.close();
    }
  });

  const why = ['systemd-notify', 'python3'].find((tool) => !hasTool(tool));
  if (why !== undefined) console.log(`examples.test.ts: no notice of readiness: no ${why}`);
  test.skipIf(why)('waits for the notice of readiness that a host sends', async () => {
    const { lab, a } = makePair();
    try {
      expect(unit).toMatch(/^Type=notify$/m);
      expect(unit).toMatch(/^NotifyAccess=all$/m);
      const path = `${lab.dir}/notify`;
      const listen =
        'import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); s.bind(sys.argv[1]); ' +
        'print("bound",flush=True); print(s.recv(999).decode(),flush=True)';
      const listener = lab.spawn(a, 'python3', ['-c', listen, path]);
      let heard = '';
      listener.stdout!.on('data', (text) => {
        heard += text;
      });
      await expect.poll(() => heard, { timeout: 10_000 }).toContain('bound');
      const host = await DaemonHost.start(lab, a, config('a'), [], { NOTIFY_SOCKET: path });
      await expect.poll(() => heard, { timeout: 10_000 }).toContain('READY=1');
      await host.stop();
    } finally {
      lab.close();
    }
  });
});
