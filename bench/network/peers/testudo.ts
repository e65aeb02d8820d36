import { execFileSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { upCommand } from '../../../src/cli/up.ts';
import { COMPILED_VARIABLE } from '../../../src/drivers/linux/compiled-library.ts';
import { DaemonHost } from '../../../test/hosts/daemon-host.ts';
import { hasTool } from '../../../test/hosts/namespaces.ts';
import { cryptoTiers, uncompiledTiers } from '../../providers.ts';
import { INNER_MTU, type Site, type Testbed } from '../testbed.ts';
import type { Tunnel, Variant } from '../variant.ts';

/** How packets are wrapped. */
export type Way = 'tunnel-udp' | 'transport-udp' | 'tunnel-raw';

export interface TestudoOptions {
  /** As `testudo up --crypto`. */
  readonly crypto: string;
  readonly way: Way;
  /** Segmentation offloads of TUN devices and UDP sockets. */
  readonly offload: boolean;
  /** With what was compiled at installation. */
  readonly compiled: boolean;
  /** Each host stays on a core of its own; all else runs where it likes. */
  readonly pinned: boolean;
  readonly limited: boolean;
}

const WAY_TEXT: Readonly<Record<Way, string>> = {
  'tunnel-udp': 'tunnel in UDP',
  'transport-udp': 'transport in UDP',
  'tunnel-raw': 'tunnel, raw ESP',
};
const PORT = 4500;
/** From A to B, and back. */
const KEYS = [
  '0x8f2a6c1e9b7d4035a1c8e6f20d5b3947c0ffee01',
  '0x17e4b0d98a5c362f4fb1936de8a07c52c0ffee02',
];

/** Our own host, with AES-128-GCM and manual keys. */
export function testudo(options: TestudoOptions): Variant {
  const { crypto, way, offload, compiled, pinned, limited } = options;
  const features = [
    { isOn: !offload, text: ', no offload', id: '-plain' },
    { isOn: !compiled, text: ', no compiler', id: '-koffi' },
    { isOn: pinned, text: ', a core each', id: '-pinned' },
    { isOn: limited, text: '', id: '-1500' },
  ].filter(({ isOn }) => isOn);
  const added = (what: 'text' | 'id') => features.map((one) => one[what]).join('');
  return {
    name: `Testudo ${crypto}, ${WAY_TEXT[way]}${added('text')}`,
    id: `testudo-${crypto}-${way}${added('id')}`,
    limited,
    absent: whyNot(options),
    about: `AES-128-GCM by ${tierOf(options)?.description}`,
    start: (bed) => start(bed, options),
  };
}

function tierOf({ crypto, compiled }: TestudoOptions) {
  const tiers = compiled ? cryptoTiers() : uncompiledTiers();
  return tiers.find(({ name }) => name === crypto);
}

function whyNot(options: TestudoOptions): string | undefined {
  const { crypto, offload, pinned } = options;
  const tier = tierOf(options);
  if (tier?.provider === undefined) return tier?.absent ?? `no provider ${crypto}`;
  const knowsOffload = upCommand().options.some(({ long }) => long === '--offload');
  if (!offload && !knowsOffload) return 'testudo up has no --offload';
  if (pinned && !hasTool('taskset')) return 'no taskset';
  if (pinned && availableParallelism() < 2) return 'one core';
  return undefined;
}

async function start(bed: Testbed, options: TestudoOptions): Promise<Tunnel> {
  const { way } = options;
  const isTunnel = way !== 'transport-udp';
  if (isTunnel) bed.addInner();
  const pids: number[] = [];
  const environment = options.compiled ? {} : { [COMPILED_VARIABLE]: 'off' };
  for (const site of bed.sites) {
    const statements = setkeyFile(bed, site, way);
    const args = upArgs(options);
    const host = await DaemonHost.start(bed.lab, site.space, statements, args, environment);
    pids.push(host.pid);
  }
  // Threads included.
  if (options.pinned) {
    for (const [core, pid] of pids.entries())
      execFileSync('taskset', ['-acp', `${core}`, `${pid}`]);
  }
  return isTunnel
    ? { from: bed.a.inner, to: bed.b.inner, pids }
    : { from: bed.a.wire, to: bed.b.wire, pids };
}

function upArgs({ crypto, way, offload }: TestudoOptions): string[] {
  return [
    ...['--log-level', 'error', '--mtu', String(INNER_MTU), '--crypto', crypto],
    ...(way === 'tunnel-raw' ? [] : ['--no-raw', '--encap-port', String(PORT)]),
    ...(offload ? [] : ['--offload', 'off']),
  ];
}

function setkeyFile(bed: Testbed, site: Site, way: Way): string {
  const { a, b } = bed;
  const peer = bed.other(site);
  const mode = way === 'transport-udp' ? 'transport' : 'tunnel';
  const add = (from: Site, to: Site, spi: string, key: string) => {
    const [port, protocol] = way === 'tunnel-raw' ? ['', 'esp'] : [`[${PORT}]`, 'esp-udp'];
    const ends = `${from.wire}${port} ${to.wire}${port}`;
    return `add ${ends} ${protocol} ${spi} -m ${mode} -r 255 -E aes-gcm-16 ${key};`;
  };
  const policy = (from: Site, to: Site, direction: string) => {
    const isTunnel = mode === 'tunnel';
    const [src, dst] = isTunnel ? [from.net, to.net] : [from.wire, to.wire];
    const ends = isTunnel ? `${from.wire}-${to.wire}` : '';
    return `spdadd ${src} ${dst} any -P ${direction} ipsec esp/${mode}/${ends}/require;`;
  };
  return [
    'flush; spdflush;',
    add(a, b, '0x1001', KEYS[0]!),
    add(b, a, '0x1002', KEYS[1]!),
    policy(site, peer, 'out'),
    policy(peer, site, 'in'),
    '',
  ].join('\n');
}
