import { table } from '../markdown.ts';
import { median, ratio, spread } from '../numbers.ts';
import type { Bar, Panel } from '../picture.ts';
import { COMMON_RATE, MIXES, type Mix } from './load/datagrams.ts';
import type { Result } from './measure.ts';
import type { Found } from './rounds.ts';

/** A number of each round; undefined where there is none. */
type Series = readonly (number | undefined)[];
type Pick = (result: Result) => number | undefined;

/** Whom others are compared with, if it is there: the beginning of its `id`, and a word for it. */
const COMPARED = [
  ['bare', 'bare veth'],
  ['wireguard', 'wireguard-go'],
  ['strongswan', 'strongSwan'],
  ['openvpn', 'OpenVPN'],
] as const;

/** Of both kinds of wire, each compared with its own. */
export function tcpTable(found: readonly Found[], limited: boolean): string {
  const own = found.filter(({ variant }) => variant.limited === limited);
  const others = COMPARED.flatMap(([id, name]) => {
    return own.filter(({ variant }) => variant.id.startsWith(id)).map((of) => comparison(of, name));
  });
  const head = ['Mbit/s, median [least, most]', 'one stream', ...others.map(({ name }) => name)];
  const rows = own.map((of) => [
    of.variant.name,
    spread(present(series(of, oneStream))),
    ...others.map((other) => ratioText(ratio(series(of, oneStream), series(other.of, oneStream)))),
    spread(present(series(of, ({ tcp4Mbps }) => tcp4Mbps))),
    ...['programs' as const, 'machine' as const].map((whose) => {
      const seconds = present(series(of, ({ secondsPerGbit }) => secondsPerGbit?.[whose]));
      return seconds.length === 0 ? '' : median(seconds).toFixed(2);
    }),
  ]);
  const processor = ['CPU s per Gbit, programs', 'whole machine'];
  return table([...head, 'four streams', ...processor], rows);
}

function comparison(of: Found, name: string): { readonly of: Found; readonly name: string } {
  const version = of.variant.id.startsWith('wireguard') ? of.variant.name.slice(12) : '';
  return { of, name: `÷ ${name}${version}` };
}

/** Thousands of datagrams a second, and what is lost. */
export function datagramTable(found: readonly Found[], limited: boolean): string {
  const own = found.filter(({ variant }) => variant.limited === limited);
  const wireguard = own.find(({ variant }) => variant.id.startsWith('wireguard'));
  const mixes = Object.keys(MIXES) as Mix[];
  const head = mixes.flatMap((mix) => {
    const name = mix === 'IMIX' ? mix : `${mix} octets`;
    const most = [`${name}: kpps`];
    const rest = mix === '64' && wireguard ? ['÷ wireguard-go'] : [];
    return [...most, ...rest, `lost at ${COMMON_RATE / 1000} kpps`];
  });
  const rows = own.map((of) => [
    of.variant.name,
    ...mixes.flatMap((mix) => {
      const sustained: Pick = ({ udp }) => udp?.[mix]?.sustained;
      const lost = present(series(of, ({ udp }) => udp?.[mix]?.lossAtCommon));
      const compared =
        mix === '64' && wireguard
          ? [ratioText(ratio(series(of, sustained), series(wireguard, sustained)))]
          : [];
      const kpps = present(series(of, sustained)).map((rate) => rate / 1000);
      return [spread(kpps), ...compared, percent(median(lost))];
    }),
  ]);
  return table(['', ...head], rows);
}

export function pingTable(found: readonly Found[], limited: boolean): string {
  const own = found.filter(({ variant }) => variant.limited === limited);
  const columns: readonly (readonly [string, Pick])[] = [
    ['idle, median', ({ pingIdle }) => pingIdle?.median],
    ['idle, p99', ({ pingIdle }) => pingIdle?.p99],
    ['four streams, median', ({ pingLoaded }) => pingLoaded?.median],
    ['four streams, p99', ({ pingLoaded }) => pingLoaded?.p99],
  ];
  const rows = own.map((of) => [
    of.variant.name,
    ...columns.map(([, pick]) => spread(present(series(of, pick)), 2)),
    percent(median(present(series(of, ({ pingLoaded }) => pingLoaded?.lost)))),
  ]);
  const head = ['milliseconds', ...columns.map(([name]) => name), 'unanswered under load'];
  return table(head, rows);
}

/** One TCP stream, as bars. */
export function tcpPanel(found: readonly Found[], limited: boolean, title: string): Panel {
  return panel(found, limited, title, 'Gbit/s', (result) => {
    return result.tcpMbps === undefined ? undefined : result.tcpMbps / 1000;
  });
}

/** Datagrams of 64 octets, as bars. */
export function datagramPanel(found: readonly Found[], limited: boolean, title: string): Panel {
  return panel(found, limited, title, 'kpps', ({ udp }) => {
    const sustained = udp?.['64']?.sustained;
    return sustained === undefined ? undefined : sustained / 1000;
  });
}

function panel(
  found: readonly Found[],
  limited: boolean,
  title: string,
  unit: string,
  pick: Pick,
): Panel {
  const bars: Bar[] = [];
  for (const of of found) {
    const values = present(series(of, pick));
    const { id, name } = of.variant;
    if (of.variant.limited !== limited || values.length === 0) continue;
    const kind = id.startsWith('bare') ? 'bare' : id.startsWith('testudo') ? 'ours' : 'peer';
    bars.push({ name, kind, values: [median(values), Math.min(...values), Math.max(...values)] });
  }
  return { title, unit, bars };
}

const oneStream: Pick = ({ tcpMbps }) => tcpMbps;

function series({ results }: Found, pick: Pick): Series {
  return results.map((result) => (result === undefined ? undefined : pick(result)));
}

function present(of: Series): number[] {
  return of.filter((one) => one !== undefined && !Number.isNaN(one)) as number[];
}

function ratioText(of: number): string {
  if (Number.isNaN(of)) return '';
  return of >= 10 ? of.toFixed(0) : of.toPrecision(2);
}

function percent(share: number): string {
  return Number.isNaN(share) ? '' : `${(100 * share).toFixed(1)} %`;
}
