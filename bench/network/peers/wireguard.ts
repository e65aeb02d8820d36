import { execFileSync, spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasTool } from '../../../test/hosts/namespaces.ts';
import { INNER_MTU, type Site, type Testbed } from '../testbed.ts';
import type { Tunnel, Variant } from '../variant.ts';

const PORT = 51_820;
const READY_MS = 5_000;

/**
 * wireguard-go, by the program's path. Since November 2023 it uses segmentation offloads, which
 * makes five times the difference; Debian 12 has one from before.
 */
export function wireguard(program: string, limited: boolean): Variant {
  const absent = whyNot(program);
  const version = absent === undefined ? versionOf(program) : '';
  return {
    name: `wireguard-go ${version}`.trim(),
    id: `wireguard-${version || 'go'}${limited ? '-1500' : ''}`,
    limited,
    absent,
    about: `ChaCha20-Poly1305, user space, ${program} ${version}`,
    start: (bed) => start(bed, program),
  };
}

function whyNot(program: string): string | undefined {
  if (!hasTool(program)) return `no ${program}: apt-get install wireguard-go`;
  return hasTool('wg') ? undefined : 'no wg: apt-get install wireguard-tools';
}

function versionOf(program: string): string {
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return /wireguard-go v?(\S+)/.exec(stdout)?.[1] ?? 'of unknown version';
}

async function start(bed: Testbed, program: string): Promise<Tunnel> {
  const keys = bed.sites.map(() => execFileSync('wg', ['genkey'], { encoding: 'utf8' }).trim());
  const pids: number[] = [];
  for (const [i, site] of bed.sites.entries()) {
    // Devices of one name would share a control socket, wherever they are.
    const device = `wg${process.pid}${'ab'[i]}`;
    const env = { WG_PROCESS_FOREGROUND: '1', LOG_LEVEL: 'error' };
    const child = bed.spawn(site, program, ['--foreground', device], env);
    bed.atEnd(() => rmSync(`/var/run/wireguard/${device}.sock`, { force: true }));
    pids.push(child.pid!);
    await configure(bed, site, device, keys[i]!, keys[1 - i]!);
  }
  return { from: bed.a.inner, to: bed.b.inner, pids };
}

async function configure(
  bed: Testbed,
  site: Site,
  device: string,
  key: string,
  peerKey: string,
): Promise<void> {
  const { lab } = bed;
  const file = join(lab.dir, `${device}.key`);
  writeFileSync(file, key, { mode: 0o600 });
  await bed.until(site, `wg show ${device}`, READY_MS, 'wireguard-go does not start');
  const peer = bed.other(site);
  const publicKey = execFileSync('wg', ['pubkey'], { input: peerKey, encoding: 'utf8' }).trim();
  const commands = [
    `wg set ${device} listen-port ${PORT} private-key ${file}`,
    `wg set ${device} peer ${publicKey} allowed-ips ${peer.net} endpoint ${peer.wire}:${PORT}`,
    `ip addr add ${site.inner}/32 dev ${device}`,
    `ip link set ${device} mtu ${INNER_MTU} up`,
    `ip route add ${peer.net} dev ${device} src ${site.inner}`,
  ];
  lab.sh(site.space, commands.join(' && '));
}
