import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DaemonHost, TESTUDO } from './daemon-host.ts';
import { Program, whyNoExec } from './exec-host.ts';
import { announceSkip, Lab, whyNoHosts } from './namespaces.ts';

/** A program and the host share a UDP port (RFC 3948): ESP for one, IKE for the other. */

const skipped = announceSkip('exec-encap.test.ts', whyNoHosts() ?? whyNoExec());
const PROGRAM = fileURLToPath(new URL('pfkey_program.py', import.meta.url));
const KEYS = [
  '8f2a6c1e9b7d4035a1c8e6f20d5b3947c0ffee01',
  '17e4b0d98a5c362f4fb1936de8a07c52c0ffee02',
];

/** From 10.8.0.1 to 10.8.0.2 in the given direction, and back in the other. */
function config(there: 'out' | 'in', back: 'out' | 'in'): string {
  return `
add 10.9.0.1[4500] 10.9.0.2[4500] esp-udp 0x1001 -m tunnel -E aes-gcm-16 0x${KEYS[0]};
add 10.9.0.2[4500] 10.9.0.1[4500] esp-udp 0x1002 -m tunnel -E aes-gcm-16 0x${KEYS[1]};
spdadd 10.8.0.1 10.8.0.2 any -P ${there} ipsec esp/tunnel/10.9.0.1-10.9.0.2/require;
spdadd 10.8.0.2 10.8.0.1 any -P ${back} ipsec esp/tunnel/10.9.0.2-10.9.0.1/require;
`;
}

describe.skipIf(skipped)('a port that is shared with a program', () => {
  let lab: Lab;
  let a: string;
  let b: string;
  let host: DaemonHost;
  const programs: Program[] = [];

  beforeAll(async () => {
    lab = new Lab();
    [a, b] = [lab.space('a'), lab.space('b')];
    lab.wire(
      { space: a, device: 'w0', addresses: ['10.9.0.1/24', '10.8.0.1/32'] },
      { space: b, device: 'w0', addresses: ['10.9.0.2/24', '10.8.0.2/32'] },
    );
    lab.ping(a, '10.9.0.2');
    // Only one end shares; the other has the port for itself.
    host = await DaemonHost.start(lab, a, config('out', 'in'));
    await DaemonHost.start(lab, b, config('in', 'out'), ['--encap-port', '4500']);
  });
  afterAll(async () => {
    for (const program of programs) program.child.kill('SIGTERM');
    await Promise.all(programs.map((program) => program.end()));
    lab.close();
  });

  function run(...args: readonly string[]): Program {
    const exec = [TESTUDO, 'exec', '--socket', host.socket, '--', 'python3', PROGRAM];
    const program = new Program(lab.spawn(a, process.execPath, [...exec, ...args]));
    programs.push(program);
    return program;
  }

  /** Sends datagrams from a port of the other end that is not ESP's. */
  function send(...datagrams: readonly string[]): void {
    const lines = datagrams.map((data) => `s.sendto(${data}, ('10.9.0.1', 4500))`);
    const script = ['import socket', 's = socket.socket(2, 2)', ...lines].join('\n');
    lab.sh(b, `python3 - <<'END'\n${script}\nEND`);
  }

  const ping = () => lab.ping(a, '10.8.0.2', { count: 2 });

  test('without a program nobody listens', () => {
    expect(ping()).toBe(0);
  });

  test.each(['after', 'before'] as const)(
    'ESP is ours and IKE the program’s; UDP_ENCAP is set %s bind',
    async (order) => {
      const program = run('encapsulate', '4500', order);
      await program.says();
      expect(ping()).toBe(2);
      const opened = await host.count('ESP opened');
      // ESP that nobody has keys for, a keep-alive, IKE in one piece and in fragments.
      send(
        `b'\\x00\\x00\\x20\\x01' * 8`,
        `b'\\xff'`,
        `bytes(4) + b'ike'`,
        `bytes(4) + b'k' * 4000`,
      );
      // In pieces it takes another way, and may come later than what was sent later.
      await program.says(4);
      send(`bytes(4) + b'end'`);
      await program.end();
      const hex = (text: string) => `00000000${Buffer.from(text).toString('hex')}`;
      const got = program.said.slice(1).map((line) => line.got);
      expect(got.slice(0, 3).sort()).toEqual([hex('ike'), hex('k'.repeat(4000)), 'ff']);
      expect(got.slice(3)).toEqual([hex('end')]);
      expect(await host.count('ESP opened')).toBe(opened);
      expect(await host.dropped('in', 'no-sa-for-spi')).toBeGreaterThan(0);
    },
  );

  test('IKE’s own sockets are marked, so that nothing is diverted that they send', async () => {
    const program = run('options');
    await program.end();
    const mark = 0x7557;
    expect(program.said[0]).toMatchObject({
      bypass: [null, null, mark],
      six: [null, null, mark],
      entrust: [null, null, 0],
      ipsec: null,
      encap: null,
    });
  });
});
