import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { request } from '../daemon/control-client.ts';
import { controlPath } from '../daemon/paths.ts';
import type { EchoResult, PingLine } from '../daemon/services.ts';
import { readCapture } from '../wire/capture.ts';
import { dissect } from '../wire/dissect.ts';
import { pingText } from './ping.ts';
import { askStatus, statusText } from './status.ts';

const EXAMPLES = ['../../examples', '../../../examples'];
const ALICE = {
  name: 'alice',
  listen: '127.0.0.1:4501',
  v4: '10.7.0.1',
  v6: 'fd07::1',
  port: 4501,
};
const BOB = { name: 'bob', listen: '127.0.0.1:4502', v4: '10.7.0.2', v6: 'fd07::2', port: 4502 };
type Person = typeof ALICE;

export function demoCommand(): Command {
  return new Command('demo')
    .description('two hosts as two processes, real UDP between them, and a look at what happened')
    .option('--folder <folder>', 'where sockets, capture and key table go', 'testudo-demo')
    .action(({ folder }: { folder: string }) => demo(folder));
}

async function demo(folder: string): Promise<void> {
  removeLastOne(folder);
  mkdirSync(join(folder, 'wireshark'), { recursive: true, mode: 0o700 });
  const children: ChildProcess[] = [];
  try {
    say('Two hosts, each an ordinary process without privileges, each from its own setkey file:');
    for (const person of [ALICE, BOB]) {
      children.push(start(person, folder));
      say(`  ${person.name}  ${person.v4} and ${person.v6}, ESP in UDP at ${person.listen}`);
    }
    for (const { name } of [ALICE, BOB]) await askStatus(socketOf(folder, name), 20);
    await traffic(socketOf(folder, ALICE.name));
    await look(folder);
  } finally {
    for (const child of children) await stop(child);
  }
}

/** What a demo has left there. A folder that has anything else in it is not one of a demo. */
function removeLastOne(folder: string): void {
  if (!existsSync(folder)) return;
  const ours = [ALICE.name, BOB.name, 'wire.pcap', 'wireshark'];
  const stranger = readdirSync(folder).find((name) => !ours.includes(name));
  if (stranger !== undefined) {
    throw new Error(`${folder} has ${stranger} in it, and is left alone; give another --folder`);
  }
  for (const name of ours) rmSync(join(folder, name), { recursive: true, force: true });
}

function start(person: Person, folder: string): ChildProcess {
  const args = [
    'up',
    '--user',
    '--file',
    join(examplesFolder(), 'two-hosts', `${person.name}.conf`),
  ];
  args.push(
    '--socket',
    socketOf(folder, person.name),
    '--state',
    join(folder, person.name, 'state'),
  );
  args.push('--listen', person.listen, '--address', person.v4, '--address', person.v6);
  if (person === BOB) args.push('--service', 'echo');
  else
    args.push(
      '--pcap',
      join(folder, 'wire.pcap'),
      '--key-table',
      join(folder, 'wireshark', 'esp_sa'),
    );
  const main = fileURLToPath(new URL('./testudo.js', import.meta.url));
  return spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** Ping in both families, then datagrams whose every octet is compared when they come back. */
async function traffic(alice: string): Promise<void> {
  const control = controlPath(alice);
  for (const to of [BOB.v4, BOB.v6]) {
    title(`testudo ping ${to}`);
    const onLine = (line: unknown) => say(pingText(line as PingLine));
    await request(control, 'ping', { to, count: 3, intervalMs: 200 }, { timeoutMs: 0, onLine });
  }
  title('2,000 UDP datagrams of 1,024 octets to the echo service of bob, and back');
  const args = { to: BOB.v4, count: 2000, size: 1024 };
  const echo = (await request(control, 'udp-echo', args, { timeoutMs: 0 })) as EchoResult;
  const megabits = (2 * 8 * echo.octets) / echo.milliseconds / 1000;
  say(
    `${echo.received} of ${echo.sent} came back, ${echo.corrupted} altered, ${megabits.toFixed(0)} Mbit/s`,
  );
  if (echo.received !== echo.sent || echo.corrupted > 0)
    throw new Error('the echo is not what was sent');
}

async function look(folder: string): Promise<void> {
  const alice = socketOf(folder, ALICE.name);
  title('setkey -D      (the SAs of alice)');
  setkey(alice, '-D');
  title('setkey -DP     (the policies of alice)');
  setkey(alice, '-DP');
  title('testudo status');
  say(statusText(await askStatus(alice, 1)).trimEnd());
  const pcap = join(folder, 'wire.pcap');
  title(`The wire, as ${pcap} has it`);
  const packets = [...readCapture(readFileSync(pcap))];
  for (const { bytes, at, end } of packets.slice(0, 4))
    say(dissect(bytes, at, end, { natPort: ALICE.port }));
  const esp = packets.filter(({ bytes, at, end }) =>
    dissect(bytes, at, end, { natPort: ALICE.port }).includes('ESP'),
  );
  say(`… ${packets.length} packets, ${esp.length} of them ESP in UDP`);
  say('');
  say(`Wireshark and tshark decrypt it with the keys in ${join(folder, 'wireshark', 'esp_sa')}:`);
  say(`  XDG_CONFIG_HOME=${folder} tshark -r ${pcap} -d udp.port==${ALICE.port},udpencap \\`);
  say('      -o esp.enable_encryption_decode:TRUE -o esp.enable_authentication_check:TRUE');
}

function setkey(socket: string, flags: string): void {
  const main = fileURLToPath(new URL('./setkey.js', import.meta.url));
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [main, '--socket', socket, flags],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`setkey ${flags}: ${stderr}`);
  say(stdout.trimEnd());
}

function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    child.once('exit', () => resolve());
    child.kill('SIGTERM');
  });
}

function socketOf(folder: string, name: string): string {
  return join(folder, name, 'pfkey');
}

function examplesFolder(): string {
  const place = EXAMPLES.map((path) => fileURLToPath(new URL(path, import.meta.url))).find(
    (path) => {
      try {
        return readFileSync(join(path, 'two-hosts', 'alice.conf')).length > 0;
      } catch {
        return false;
      }
    },
  );
  if (place === undefined) throw new Error('the folder "examples" is not where the package has it');
  return relative(process.cwd(), place) || '.';
}

function title(text: string): void {
  say('');
  say(`── ${text} ${'─'.repeat(Math.max(3, 90 - text.length))}`);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
