import { DROPS } from '../base/drop.ts';
import { type BacklogCounts, sumOfBacklogs } from '../drivers/backlog-counts.ts';
import { isAbsent } from '../drivers/native/koffi.ts';
import type { Side } from '../engine/stats.ts';
import type { Daemon } from './daemon.ts';
import type { ShardStatus } from './shards/shards.ts';

/** What `testudo status` shows, and its `--json`. */
export interface Status {
  readonly pid: number;
  readonly version: string;
  readonly attachment: string;
  /** What does the cryptography, and why nothing better does. */
  readonly crypto: string;
  /** What searches large tables of policies, and why nothing better does. */
  readonly search: string;
  /** How packets are exchanged with the kernel, and why not better. */
  readonly io: readonly string[];
  readonly wireMtu: number;
  readonly uptimeSeconds: number;
  readonly sas: { readonly larval: number; readonly mature: number; readonly dying: number };
  readonly policies: { readonly in: number; readonly out: number; readonly fwd: number };
  readonly packets: Readonly<Record<string, number>>;
  readonly drops: readonly DropLine[];
  /** Packets that a link had no room for, or could not send. */
  readonly refused: Readonly<Record<string, number>>;
  /** Packets that had to wait, since the wire was slower; none where that cannot be told. */
  readonly backlog?: BacklogCounts;
  /** What each thread has done; none where there is one. */
  readonly workers: readonly ShardStatus[];
}

export interface DropLine {
  readonly side: Side;
  readonly reason: string;
  readonly count: number;
  readonly text: string;
}

export function statusOf(daemon: Daemon, version: string, startedMs: number): Status {
  const { host, attachment, sad, spd, env, crypto, search } = daemon;
  const states = { larval: 0, mature: 0, dying: 0, dead: 0 };
  for (const sa of sad.all()) states[sa.state]++;
  const { stats, shards } = daemon;
  const elsewhere = shards?.refusedElsewhere ?? { wire: 0, local: 0 };
  return {
    pid: process.pid,
    version,
    attachment: attachment.description,
    crypto: crypto.describe(),
    search: isAbsent(search) ? `JavaScript; ${search.why}` : search.name,
    io: attachment.describeIo?.() ?? [],
    wireMtu: host.mtu,
    uptimeSeconds: Math.floor((env.clock.monotonicMs() - startedMs) / 1000),
    sas: { larval: states.larval, mature: states.mature, dying: states.dying },
    policies: {
      in: spd.count('in'),
      out: spd.count('out'),
      fwd: spd.count('fwd'),
    },
    packets: {
      'from the local side': stats.outPackets,
      'sent protected': stats.outProtected,
      'sent in the clear': stats.outClear,
      'from the wire': stats.inPackets,
      delivered: stats.inDelivered,
      'ESP sealed': stats.espSealed,
      'ESP opened': stats.espOpened,
      'AH sealed': stats.ahSealed,
      'AH opened': stats.ahOpened,
      'outer fragments made': stats.fragmentsMade,
      'datagrams reassembled': stats.reassembled,
      'too-big errors sent': stats.tooBigSent,
      acquires: stats.acquires,
      'kept for an SA': stats.held,
      'kept for the keys of an SA': stats.early,
      'NAT mappings changed': stats.natMappings,
      'keep-alives sent': stats.keepalivesSent,
    },
    drops: (['in', 'out'] as const).flatMap((side) =>
      stats
        .dropped(side)
        .map(([reason, count]) => ({ side, reason, count, text: DROPS[reason].text })),
    ),
    refused: {
      wire: attachment.wire.refused + elsewhere.wire,
      local: attachment.local.refused + elsewhere.local,
      ...(attachment.inspect ? { inspect: attachment.inspect.refused } : {}),
      ...(attachment.socketDevice ? { sockets: attachment.socketDevice.link.refused } : {}),
    },
    ...(attachment.backlog
      ? { backlog: sumOfBacklogs([attachment.backlog, ...(shards?.backlogsElsewhere ?? [])]) }
      : {}),
    workers: shards?.status(host.stats) ?? [],
  };
}
