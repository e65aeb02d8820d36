import fc from 'fast-check';
import { expect, test } from 'vitest';
import { address, formatPrefix, type Prefix, prefix } from '../../../src/base/address.ts';
import { DiversionTable, EVERYTHING, prefixKey } from '../../../src/drivers/linux/diversion.ts';

const ANY = EVERYTHING[4];

function changed(table: DiversionTable): string[] {
  return [...table.takeChanges().out].map((key) => {
    const one = table.out.get(key);
    return one ? formatPrefix(one.destination) : 'gone';
  });
}

test('a destination that many policies name is diverted as long as one does', () => {
  const table = new DiversionTable();
  const to = prefix('10.0.0.0/24');
  table.addOut(to, ANY);
  expect(changed(table)).toEqual(['10.0.0.0/24']);
  table.addOut(to, ANY);
  table.addOut(to, ANY);
  expect(table.hasChanged).toBe(false);
  table.removeOut(to, ANY);
  table.removeOut(to, ANY);
  expect(table.hasChanged).toBe(false);
  expect(table.out.has(prefixKey(to))).toBe(true);
  table.removeOut(to, ANY);
  expect(changed(table)).toEqual(['gone']);
  expect([table.out.size, table.outCount(4)]).toEqual([0, 0]);
  // What was never there cannot go.
  table.removeOut(to, ANY);
  table.removeIn(to, ANY);
  expect(table.hasChanged).toBe(false);
});

test('another source is a change, and the sources are those of the policies', () => {
  const table = new DiversionTable();
  const to = prefix('10.0.0.1');
  const [net, host] = [prefix('192.0.2.0/24'), prefix('198.51.100.7')];
  for (const source of [net, net, host]) table.addOut(to, source);
  table.takeChanges();
  const one = table.out.get(prefixKey(to))!;
  const covered = (text: string) => one.covers(address(text));
  expect(['192.0.2.9', '192.0.3.9', '198.51.100.7', '2001:db8::1'].map(covered)).toEqual([
    true,
    false,
    true,
    false,
  ]);
  table.removeOut(to, net);
  expect(table.hasChanged).toBe(false);
  table.removeOut(to, net);
  expect(changed(table)).toEqual(['10.0.0.1/32']);
  expect(covered('192.0.2.9')).toBe(false);
  table.addOut(to, ANY);
  expect(changed(table)).toEqual(['10.0.0.1/32']);
  expect(covered('203.0.113.1')).toBe(true);
});

test('pairs of clear packets are counted too', () => {
  const table = new DiversionTable();
  const [a, b] = [prefix('10.0.0.1'), prefix('2001:db8::/32')];
  table.addIn(a, a);
  expect(table.takeChanges().in).toBe(true);
  table.addIn(a, a);
  expect(table.takeChanges().in).toBe(false);
  table.addIn(b, b);
  expect([...table.in].map(({ source }) => formatPrefix(source))).toEqual([
    '10.0.0.1/32',
    '2001:db8::/32',
  ]);
  table.removeIn(a, a);
  expect([...table.in]).toHaveLength(2);
  table.removeIn(a, a);
  expect([...table.in].map(({ source }) => formatPrefix(source))).toEqual(['2001:db8::/32']);
});

test('everything is two more destinations, besides what policies name', () => {
  const table = new DiversionTable();
  table.addOut(ANY, prefix('10.0.0.1'));
  table.takeChanges();
  table.all = true;
  table.all = true;
  expect(changed(table).sort()).toEqual(['0.0.0.0/0', '::/0']);
  table.all = false;
  expect(changed(table).sort()).toEqual(['0.0.0.0/0', 'gone']);
  expect([table.outCount(4), table.outCount(6)]).toEqual([1, 0]);
});

/** The dumbest table: a list. */
function sourcesOf(list: readonly (readonly [Prefix, Prefix])[], to: Prefix): string[] {
  const named = list.filter(([destination]) => prefixKey(destination) === prefixKey(to));
  return named.map(([, source]) => formatPrefix(source));
}

test('says what a list of the policies says, and what has changed since it was asked', () => {
  const places = ['10.0.0.0/8', '10.1.0.0/16', '10.1.2.3', '0.0.0.0/0', 'fd00::/8'].map(prefix);
  const place = fc.nat(places.length - 1);
  const step = fc.record({ isMore: fc.boolean(), to: place, from: place, asks: fc.boolean() });
  const probes = ['10.1.2.3', '10.200.0.1', '192.0.2.1', 'fd00::1'].map(address);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const table = new DiversionTable();
      const list: [Prefix, Prefix][] = [];
      let told = new Map(places.map((to) => [prefixKey(to), '']));
      for (const { isMore, to, from, asks } of steps) {
        const [destination, source] = [places[to]!, places[from]!];
        const i = list.findIndex(([d, s]) => d === destination && s === source);
        if (isMore) {
          list.push([destination, source]);
          table.addOut(destination, source);
        } else if (i >= 0) {
          list.splice(i, 1);
          table.removeOut(destination, source);
        }
        if (!asks) continue;
        const now = new Map(
          places.map((one) => [prefixKey(one), [...new Set(sourcesOf(list, one))].sort().join()]),
        );
        const { out } = table.takeChanges();
        for (const [key, sources] of now) {
          if (sources !== told.get(key)) expect(out.has(key)).toBe(true);
          expect(table.out.has(key)).toBe(sources !== '');
        }
        told = now;
      }
      for (const one of places) {
        const diversion = table.out.get(prefixKey(one));
        const sources = sourcesOf(list, one).map(prefix);
        for (const probe of probes) {
          const isCovered = sources.some(
            ({ address: { family }, length, address: net }) =>
              family === probe.family &&
              [...net.bytes].every((octet, k) => {
                const mask = (0xff00 >> Math.min(8, Math.max(0, length - 8 * k))) & 0xff;
                return ((octet ^ probe.bytes[k]!) & mask) === 0;
              }),
          );
          expect(diversion?.covers(probe) ?? false).toBe(isCovered);
        }
      }
    }),
  );
});
