import { spawn } from 'node:child_process';
import { Command, Option } from 'commander';
import type { Address } from '../base/address.ts';
import type { LogLevel } from '../base/env.ts';
import { inlineDeeply } from '../daemon/inlining.ts';
import { attachmentStatePath, controlPath, stateFolder } from '../daemon/paths.ts';
import { systemResolver } from '../daemon/resolver.ts';
import { type RunOptions, runHost } from '../daemon/run.ts';
import { RULE_PREF_DEFAULT, TABLE_DEFAULT, TUN_DEFAULT } from '../drivers/linux/attachment.ts';
import type { OffloadWish } from '../drivers/linux/offload.ts';
import { CRYPTO_CHOICES, type CryptoChoice } from '../drivers/native/tier.ts';
import type { Endpoint } from '../drivers/udp-packet.ts';
import { collectAddress, collectEndpoint, collectText, integer, socketOption } from './options.ts';

/** Each has a ring to each other one, of a megabyte. */
const WORKERS_MAX = 16;

interface UpOptions {
  readonly file?: string;
  readonly socket: string;
  readonly state: string;
  readonly user?: boolean;
  readonly address: readonly Address[];
  readonly listen: readonly Endpoint[];
  readonly service: readonly string[];
  readonly raw: boolean;
  readonly encapPort?: number;
  readonly keepalive: number;
  readonly followNat: boolean;
  readonly wire: readonly string[];
  readonly tun: string;
  readonly mtu?: number;
  readonly offload: OffloadWish;
  readonly workers: number;
  readonly mark: number;
  readonly table: number;
  readonly rulePref: number;
  readonly defPolicy: 'discard' | 'none';
  readonly policyCheck: 'strict' | 'loose';
  readonly sysctl: readonly string[];
  readonly trace?: string;
  readonly traceRate: number;
  readonly allowLegacy?: boolean;
  readonly crypto: CryptoChoice;
  readonly pcap?: string;
  readonly keyTable?: string;
  readonly logLevel: LogLevel;
}

export function upCommand(): Command {
  const command = new Command('up').description('run an IPsec host until it is told to stop');
  command
    .option('-f, --file <setkey file>', 'SAs and policies to begin with; read again on SIGHUP')
    .addOption(socketOption())
    .option('--state <folder>', 'what outlives the host', stateFolder(process.env));
  addAttachmentOptions(command);
  return command
    .addOption(
      new Option('--def-policy <what>', 'packets that no policy matches')
        .choices(['none', 'discard'])
        .default('none'),
    )
    .addOption(
      new Option('--policy-check <how>', 'which SAs satisfy an inbound policy')
        .choices(['strict', 'loose'])
        .default('strict'),
    )
    .option('--sysctl <name=value>', 'a variable to begin with', collectText, [])
    .option(
      '--trace <selector>',
      'explain packets on standard error: "out tcp 10.0.0.0/8 any[80]", or a reason for drops',
    )
    .option('--trace-rate <number>', 'the most packets a second', integer(1, 1000), 10)
    .option('--allow-legacy', 'allow algorithms that are broken or obsolete (RFC 8221)')
    .addOption(
      new Option('--crypto <provider>', 'what does the cryptography; auto: the fastest there is')
        .choices(CRYPTO_CHOICES)
        .default('auto'),
    )
    .option('--pcap <file>', 'write the packets of the wire to a capture file')
    .option(
      '--key-table <file>',
      "write the keys for Wireshark's esp_sa table: it lets anybody read the traffic",
    )
    .addOption(
      new Option('--log-level <level>').choices(['error', 'warn', 'info', 'debug']).default('warn'),
    )
    .action(up);
}

function addAttachmentOptions(command: Command): void {
  command
    .option('--user', 'in user space: ESP in UDP through ordinary sockets, no privilege needed')
    .option(
      '--address <address>',
      'with --user: an address of the host inside its tunnels',
      collectAddress,
      [],
    )
    .option(
      '--listen <address:port>',
      'with --user: where ESP in UDP is sent from and arrives',
      collectEndpoint,
      [],
    )
    .option('--service <name>', 'with --user: offer a service to peers (echo)', collectText, [])
    .option('--no-raw', 'do not receive ESP and AH as IP protocols 50 and 51')
    .option('--encap-port <port>', 'UDP port for ESP in UDP, usually 4500', integer(1, 65_535))
    .option(
      '--keepalive <seconds>',
      'after so long a silence a NAT is sent a keep-alive; 0: never',
      integer(0, 3600),
      20,
    )
    .option('--no-follow-nat', 'do not follow peers whose NAT changes its mapping')
    .option(
      '--wire <device>',
      'a device to guard; all if none is named, also later ones',
      collectText,
      [],
    )
    .option('--tun <device>', 'name of the TUN device', TUN_DEFAULT)
    .option(
      '--mtu <octets>',
      'of the TUN device; what the wire leaves if not given',
      integer(576, 65_535),
    )
    .addOption(
      new Option('--offload <how>', 'large packets from and to the kernel, cut and joined here')
        .choices(['auto', 'off'])
        .default('auto'),
    )
    .option(
      '--workers <number>',
      'threads that share the work by SAs: no more than there are processors',
      integer(1, WORKERS_MAX),
      1,
    )
    .option(
      '--mark <number>',
      'SO_MARK of packets that bypass the host',
      integer(1, 2 ** 32 - 1),
      0x7557,
    )
    .option('--table <number>', 'routing table to use', integer(1, 2 ** 31), TABLE_DEFAULT)
    .option(
      '--rule-pref <number>',
      'preference of the routing rule',
      integer(1, 32_765),
      RULE_PREF_DEFAULT,
    );
}

async function up(options: UpOptions): Promise<void> {
  inlineDeeply();
  await runHost({ ...runOptions(options), ready: announceReady });
}

function runOptions(options: UpOptions): Omit<RunOptions, 'ready'> {
  const { socket, encapPort, followNat, keepalive, defPolicy, policyCheck } = options;
  const settings = {
    policyCheck,
    followNat,
    keepaliveSeconds: keepalive,
    encapsulationPorts: encapPort === undefined ? [] : [encapPort],
  };
  return {
    socket,
    controlSocket: controlPath(socket),
    stateFolder: options.state,
    resolve: systemResolver,
    settings,
    defPolicy,
    variables: options.sysctl,
    tracePerSecond: options.traceRate,
    ...(options.trace === undefined ? {} : { trace: options.trace }),
    allowLegacy: options.allowLegacy ?? false,
    crypto: options.crypto,
    logLevel: options.logLevel,
    ...(options.file === undefined ? {} : { file: options.file }),
    ...(options.pcap === undefined ? {} : { pcap: options.pcap }),
    ...(options.keyTable === undefined ? {} : { keyTable: options.keyTable }),
    attach: options.user ? userAttachment(options) : tunAttachment(options),
  };
}

function userAttachment(options: UpOptions): RunOptions['attach'] {
  if (options.listen.length === 0) throw new Error('--user needs --listen ADDRESS:PORT');
  if (options.address.length === 0) throw new Error('--user needs --address ADDRESS');
  if (options.workers > 1) throw new Error('--workers needs a TUN device, and not --user');
  const { address, listen, service } = options;
  return { kind: 'user', addresses: address, endpoints: listen, services: service };
}

function tunAttachment(options: UpOptions): RunOptions['attach'] {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    throw new Error('a host on the network of this machine needs Linux and root; try --user');
  }
  const { tun, mark, table, rulePref, wire, raw, encapPort, offload, workers, socket } = options;
  if (!raw && encapPort === undefined) throw new Error('--no-raw needs --encap-port');
  const stateFile = attachmentStatePath(socket);
  if (workers > 1) checkWorkers(options);
  const wires = wire.length === 0 ? ('auto' as const) : wire;
  const ways = { wires, rawIp: raw, offload, workers };
  const common = { tunName: tun, mark, table, rulePref, ...ways, stateFile };
  const mtu = options.mtu ?? ('auto' as const);
  const tunOptions = encapPort === undefined ? { ...common, mtu } : { ...common, mtu, encapPort };
  return { kind: 'tun', options: tunOptions };
}

/** What looks at every packet does so on one thread. */
function checkWorkers({ pcap, trace }: UpOptions): void {
  if (pcap !== undefined) throw new Error('--pcap needs --workers 1');
  if (trace !== undefined) throw new Error('--trace needs --workers 1');
}

/** For scripts a line on standard output, for systemd what Type=notify waits for. */
function announceReady(socket: string): void {
  process.stdout.write(`testudo: ready, pid ${process.pid}, socket ${socket}\n`);
  if (process.env.NOTIFY_SOCKET)
    spawn('systemd-notify', ['--ready'], { stdio: 'ignore' }).on('error', () => {});
}
