import type { Family } from '../base/address.ts';
import { DROPS, type DropReason, type KameCounter } from '../base/drop.ts';
import { ALGORITHMS } from '../crypto/algorithms.ts';
import type { FamilyStats, LayerStats, Side } from '../engine/stats.ts';
import { count, histogram, type StatGroup, type StatLine } from './netstat-table.ts';

/** The counters of the packet engine, in the wording of KAME and, per protocol, of FreeBSD. */

/** KAME's wording of a field of ipsecstat, behind the direction. */
const WORDING: readonly (readonly [KameCounter, string])[] = [
  ['polvio', 'violated process security policy'],
  ['nosa', 'with no SA available'],
  ['inval', ''],
  ['nomem', 'failed due to insufficient memory'],
  ['badspi', 'failed getting SPI'],
  ['ahreplay', 'failed on AH replay check'],
  ['espreplay', 'failed on ESP replay check'],
];

export const IPSEC_GROUPS: readonly StatGroup[] = [ipsec('ipsec', 4), ipsec('ipsec6', 6)];

export const ENGINE_GROUPS: readonly StatGroup[] = [
  ...IPSEC_GROUPS,
  { name: 'esp', header: 'esp:', lines: ({ stats }) => espLines(stats.families) },
  { name: 'ah', header: 'ah:', lines: ({ stats }) => ahLines(stats.families) },
  { name: 'ip', header: 'ip:', lines: ({ stats }) => ipLines(stats.families[4]) },
  { name: 'ip6', header: 'ip6:', lines: ({ stats }) => ipLines(stats.families[6]) },
  {
    name: 'icmp',
    header: 'icmp:',
    lines: ({ stats }) => [
      histogram(
        'outhist',
        { 'destination unreachable': stats.families[4].tooBigSent },
        'Output histogram',
      ),
      count('needfrag', stats.families[4].tooBigSent, 'fragmentation needed message(s) sent'),
    ],
  },
  {
    name: 'icmp6',
    header: 'icmp6:',
    lines: ({ stats }) => [
      histogram('outhist', { 'packet too big': stats.families[6].tooBigSent }, 'Output histogram'),
      count('toobig', stats.families[6].tooBigSent, 'packet too big message(s) sent'),
    ],
  },
];

type Families = Readonly<Record<Family, FamilyStats>>;

function ipsec(name: 'ipsec' | 'ipsec6', family: Family): StatGroup {
  return {
    name,
    header: `${name}:`,
    lines: (daemon) => {
      const { stats } = daemon;
      const counters = stats.families[family];
      const cache = daemon.cacheCounters[family];
      return [
        ...ipsecLines('in', counters),
        ...ipsecLines('out', counters),
        count('spdcachelookup', cache.lookups, 'SPD cache lookup(s)'),
        count('spdcachemiss', cache.misses, 'SPD cache miss(es)'),
      ];
    },
  };
}

function ipsecLines(side: Side, counters: FamilyStats): StatLine[] {
  const direction = side === 'in' ? 'inbound' : 'outbound';
  const layers = side === 'in' ? counters.opened : counters.sealed;
  const drops = dropsByCounter(side, counters);
  const authFailed = drops.ahauthfail + drops.espauthfail;
  const successes = layers.esp + layers.ah;
  const what = `${direction} packet(s)`;
  return [
    count(`${side}_success`, successes, `${what} processed successfully`),
    ...WORDING.filter(([counter]) => side === 'in' || !counter.endsWith('replay')).map(
      ([counter, text]) => {
        const words = counter === 'inval' ? `invalid ${what}` : `${what} ${text}`;
        return count(`${side}_${counter}`, drops[counter], words);
      },
    ),
    ...(side === 'in'
      ? [
          count('in_authsucc', layers.ah + layers.espAuthentic, `${what} considered authentic`),
          count('in_authfail', authFailed, `${what} failed on authentication`),
        ]
      : [count('out_noroute', drops.noroute, `${what} with no route`)]),
    ...histograms(side, layers),
  ];
}

function histograms(side: Side, layers: LayerStats): StatLine[] {
  const way = side === 'in' ? 'input' : 'output';
  return [
    histogram(`${side}_ahhist`, byName(layers.ahMacs, 'mac'), `AH ${way} histogram`),
    histogram(`${side}_esphist`, byName(layers.espCiphers, 'cipher'), `ESP ${way} histogram`),
  ];
}

/** By the names that setkey knows algorithms by; `#n` for a number without one. */
function byName(counts: Float64Array, kind: 'mac' | 'cipher'): Record<string, number> {
  const named: Record<string, number> = {};
  for (const [number, packets] of counts.entries()) {
    if (packets === 0) continue;
    const row = ALGORITHMS.find((one) => {
      return one.pfkey === number && (one.kind === 'mac') === (kind === 'mac');
    });
    named[row?.name ?? `#${number}`] = packets;
  }
  return named;
}

function dropsByCounter(side: Side, { drops }: FamilyStats): Record<KameCounter, number> {
  const sums: Record<KameCounter, number> = {
    ...{ success: 0, inval: 0, nomem: 0, nosa: 0, badspi: 0, polvio: 0, noroute: 0 },
    ...{ espauthfail: 0, ahauthfail: 0, espreplay: 0, ahreplay: 0 },
  };
  for (const [reason, packets] of Object.entries(drops[side])) {
    sums[DROPS[reason as DropReason].counter] += packets;
  }
  return sums;
}

/** Of both families, since the protocol does not care. */
function summed(
  families: Families,
  layersOf: (one: FamilyStats) => LayerStats,
  field: 'esp' | 'ah' | 'espBytes' | 'ahBytes',
): number {
  return layersOf(families[4])[field] + layersOf(families[6])[field];
}

function dropped(families: Families, side: Side, ...reasons: readonly DropReason[]): number {
  let packets = 0;
  for (const family of [4, 6] as const) {
    for (const reason of reasons) packets += families[family].drops[side][reason];
  }
  return packets;
}

const opened = (one: FamilyStats): LayerStats => one.opened;
const sealed = (one: FamilyStats): LayerStats => one.sealed;

function espLines(families: Families): StatLine[] {
  const into = (...reasons: readonly DropReason[]) => dropped(families, 'in', ...reasons);
  return [
    count('hdrops', into('esp-truncated'), 'packet(s) shorter than header shows'),
    count('wrap', dropped(families, 'out', 'sequence-exhausted'), 'replay counter wrap(s)'),
    count('badauth', into('esp-bad-icv'), 'bad authentication detected'),
    count(
      'badilen',
      into('esp-bad-alignment'),
      'packet(s) with payload not multiple of block size',
    ),
    count('badenc', into('esp-bad-padding'), 'bad encryption detected'),
    count('replay', into('esp-replay'), 'possible replay packet(s) detected'),
    count('input', summed(families, opened, 'esp') + into('esp-dummy'), 'packet(s) in'),
    count('dummy', into('esp-dummy'), 'dummy packet(s) in'),
    count('output', summed(families, sealed, 'esp'), 'packet(s) out'),
    count('ibytes', summed(families, opened, 'espBytes'), 'byte(s) in'),
    count('obytes', summed(families, sealed, 'espBytes'), 'byte(s) out'),
    histogram(
      'hist',
      byName(
        bothCounts(families, (one) => one.sealed.espCiphers),
        'cipher',
      ),
      'ESP output histogram',
    ),
  ];
}

function ahLines(families: Families): StatLine[] {
  const into = (...reasons: readonly DropReason[]) => dropped(families, 'in', ...reasons);
  return [
    count('hdrops', into('ah-truncated'), 'packet(s) shorter than header shows'),
    count('badauth', into('ah-bad-icv'), 'bad authentication detected'),
    count('badauthl', into('ah-bad-length'), 'bad authentication length'),
    count('replay', into('ah-replay'), 'possible replay packet(s) detected'),
    count('input', summed(families, opened, 'ah'), 'packet(s) in'),
    count('output', summed(families, sealed, 'ah'), 'packet(s) out'),
    count('ibytes', summed(families, opened, 'ahBytes'), 'byte(s) in'),
    count('obytes', summed(families, sealed, 'ahBytes'), 'byte(s) out'),
    histogram(
      'hist',
      byName(
        bothCounts(families, (one) => one.sealed.ahMacs),
        'mac',
      ),
      'AH output histogram',
    ),
  ];
}

function bothCounts(families: Families, of: (one: FamilyStats) => Float64Array): Float64Array {
  return of(families[4]).map((packets, i) => packets + of(families[6])[i]!);
}

function ipLines(counters: FamilyStats): StatLine[] {
  const { drops } = counters;
  const either = (reason: DropReason) => drops.in[reason] + drops.out[reason];
  const overlapping = either('fragment-overlap') + either('fragment-bad-length');
  return [
    count('total', counters.inPackets, 'total packet(s) received'),
    count('badsum', drops.in['bad-header-checksum'], 'bad header checksum(s)'),
    count('tooshort', drops.in['truncated-header'], 'with size smaller than minimum'),
    count('badlen', drops.in['bad-total-length'], 'with data size < data length'),
    count('badoptions', drops.in['bad-option'], 'with bad options'),
    count('fragments', counters.fragmentsJoined, 'fragment(s) reassembled'),
    count('fragdups', either('fragment-duplicate'), 'fragment(s) dropped (dup)'),
    count('fragoverlap', overlapping, 'fragment(s) dropped (overlap or bad length)'),
    count('fragspace', either('fragment-queue-full'), 'fragment(s) dropped (out of space)'),
    count('fragtimeout', either('fragment-timeout'), 'fragment(s) dropped after timeout'),
    count('reassembled', counters.reassembled, 'packet(s) reassembled ok'),
    count('delivered', counters.inDelivered, 'packet(s) for this host'),
    count('localout', counters.outPackets, 'packet(s) sent from this host'),
    count('fragmented', counters.fragmented, 'output datagram(s) fragmented'),
    count('ofragments', counters.fragmentsMade, 'fragment(s) created'),
    count('cantfrag', drops.out['too-big'], "datagram(s) that can't be fragmented"),
  ];
}

/** For whoever wants a group as a struct. */
export function fieldsOf(lines: readonly StatLine[]): Record<string, unknown> {
  return Object.fromEntries(
    lines.map((line) => [line.key, line.kind === 'count' ? line.count : line.counts]),
  );
}
