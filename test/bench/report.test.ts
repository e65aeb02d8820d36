import { describe, expect, test } from 'vitest';
import type { Result } from '../../bench/network/measure.ts';
import type { Found } from '../../bench/network/rounds.ts';
import { datagramTable, pingTable, tcpPanel, tcpTable } from '../../bench/network/tables.ts';
import type { Variant } from '../../bench/network/variant.ts';
import { picture } from '../../bench/picture.ts';
import { report, reportPicture } from '../../bench/report.ts';

function variant(id: string, name: string, limited = false): Variant {
  const start = () => Promise.reject(new Error('not to be started'));
  return { id, name, limited, absent: undefined, about: `about ${name}`, start };
}

function tcp(tcpMbps: number): Result {
  return { tcpMbps, secondsPerGbit: { programs: 0.5, machine: 1 } };
}

const BARE: Found = { variant: variant('bare', 'bare veth'), results: [tcp(1000), tcp(500)] };
const WIREGUARD: Found = {
  variant: variant('wireguard-1', 'wireguard-go 1'),
  results: [tcp(100), tcp(50)],
};
const OURS: Found = {
  variant: variant('testudo-x', 'Testudo <x> & y'),
  results: [tcp(400), undefined],
};
const ALL = [BARE, WIREGUARD, OURS];

/** The cells of the row that begins with a name. */
function cells(text: string, name: string): string[] {
  const line = text.split('\n').find((one) => one.startsWith(`| ${name}`))!;
  return line
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim());
}

describe('tables', () => {
  test('compare TCP within rounds, with all that is there', () => {
    const text = tcpTable(ALL, false);
    expect(cells(text, 'Mbit/s')).toContain('÷ wireguard-go 1');
    expect(cells(text, 'Testudo').slice(1, 4)).toEqual(['400', '0.40', '4.0']);
    expect(cells(text, 'wireguard-go').slice(1, 4)).toEqual(['100 [50, 100]', '0.10', '1.0']);
  });

  test('leave out what ran on the other wire', () => {
    const other = { variant: variant('bare-1500', 'bare veth', true), results: [tcp(7)] };
    expect(tcpTable([...ALL, other], true)).not.toContain('Testudo');
    expect(cells(tcpTable([...ALL, other], true), 'bare')[1]).toBe('7');
  });

  test('show datagrams in thousands, and the loss at the common rate', () => {
    const at = (sustained: number, lossAtCommon: number) => ({
      udp: { '64': { sustained, lossAtCommon, most: sustained, steps: [] } },
    });
    const found = [
      { ...WIREGUARD, results: [at(50_000, 0.5)] },
      { ...OURS, results: [at(150_000, Number.NaN)] },
    ];
    const text = datagramTable(found, false);
    expect(cells(text, 'Testudo').slice(1, 4)).toEqual(['150', '3.0', '']);
    expect(cells(text, 'wireguard-go').slice(1, 4)).toEqual(['50', '1.0', '50.0 %']);
  });

  test('show pings, idle and under load', () => {
    const pings = { median: 0.25, p99: 1, lost: 0.02 };
    const found = [
      { ...OURS, results: [{ pingIdle: pings, pingLoaded: { ...pings, median: 2 } }] },
    ];
    expect(cells(pingTable(found, false), 'Testudo').slice(1)).toEqual([
      ...['0.25', '1.00', '2.00', '1.00', '2.0 %'],
    ]);
  });
});

describe('pictures', () => {
  test('have a bar for each variant, as long as its median', () => {
    const panel = tcpPanel(ALL, false, 'TCP');
    expect(panel.bars.map(({ kind }) => kind)).toEqual(['bare', 'peer', 'ours']);
    const svg = picture([panel]);
    const widths = [...svg.matchAll(/<rect class="(?:bare|peer|ours)".*? width="([\d.]+)"/g)].map(
      (match) => Number(match[1]),
    );
    expect(widths).toHaveLength(3);
    // Of two rounds the upper one is the median.
    expect(widths[1]! / widths[0]!).toBeCloseTo(0.1, 2);
    expect(svg).toContain('Testudo &lt;x> &amp; y');
    expect(svg).toContain('prefers-color-scheme: dark');
  });

  test('have numbers of three digits', () => {
    const bar = (median: number) => ({ name: 'x', kind: 'ours', values: [median, 1, 2] }) as const;
    const svg = picture([{ title: 't', unit: 'u', bars: [bar(1234.5), bar(0.5), bar(12.34)] }]);
    for (const text of ['1235 u', '0.500 u', '12.3 u']) expect(svg).toContain(text);
  });
});

describe('the report', () => {
  const findings = {
    machine: 'a machine.',
    rounds: 2,
    seconds: 5,
    congestion: 'cubic',
    found: ALL,
    missing: [{ variant: variant('openvpn', 'OpenVPN'), why: 'no openvpn' }],
  };

  test('has what was measured, and says what was not', () => {
    const text = report(findings, 'picture.svg');
    for (const part of ['## TCP', '(picture.svg)', '- OpenVPN: no openvpn', 'about bare veth']) {
      expect(text).toContain(part);
    }
    expect(text).not.toContain('## Datagrams');
    expect(text).not.toContain('undefined');
    expect(text).not.toContain('NaN');
  });

  test('has a picture without empty panels', () => {
    expect([...reportPicture(findings).matchAll(/class="title"/g)]).toHaveLength(1);
  });
});
