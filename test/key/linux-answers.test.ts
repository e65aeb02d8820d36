import { beforeAll, describe, expect, test } from 'vitest';
import {
  type Difference,
  differencesFromLinux,
  nameOf,
  type Recorded,
  recordedCommands,
} from './linux-answers.ts';
import { DIFFERENCE_ROWS, type DifferenceRow, differencesDocument } from './linux-differences.ts';

/**
 * The answers of Linux 6.1 to the commands of setkey, against ours: equal, or different by exactly
 * one row of the table.
 */
describe('answers to the messages of setkey.json', () => {
  let commands: readonly Recorded[];
  let differences: readonly Difference[];
  let compared: number;

  beforeAll(() => {
    commands = recordedCommands();
    ({ differences, compared } = differencesFromLinux(commands));
  });

  test('all of them were compared', () => {
    expect([commands.length, compared]).toEqual([258, 1165]);
  });

  test('each difference belongs to one row, and to one only', () => {
    const wrong = differences.flatMap((one) => {
      const rows = DIFFERENCE_ROWS.filter(({ isIt }) => isIt(one)).map(({ name }) => name);
      return rows.length === 1 ? [] : [`${text(one)}: ${rows.join(', ') || 'no row'}`];
    });
    expect(wrong).toEqual([]);
  });

  test('an entry that only one host lists is one that a row has kept from the other', () => {
    const changed = differences.filter(
      ({ what, request }) =>
        request.type !== 'DUMP' && (what === 'errno' || what.endsWith('.address')),
    );
    const names = new Set(changed.flatMap(({ request }) => namesOf(request)));
    const unknown = differences
      .filter(({ what }) => what === 'entry')
      .filter(({ ours, linux }) => !names.has(ours || linux));
    expect(unknown.map(text)).toEqual([]);
  });

  test('docs/pfkey-differences.md lists them all', async () => {
    const counts = new Map<DifferenceRow, number>();
    for (const one of differences) {
      const row = DIFFERENCE_ROWS.find(({ isIt }) => isIt(one));
      if (row) counts.set(row, (counts.get(row) ?? 0) + 1);
    }
    expect(DIFFERENCE_ROWS.filter((row) => !counts.has(row)).map(({ name }) => name)).toEqual([]);
    const document = differencesDocument(counts);
    await expect(document).toMatchFileSnapshot('../../docs/pfkey-differences.md');
  });
});

/** As a dump would show it, with the address as given and as a network. */
function namesOf(request: Difference['request']): string[] {
  const masked = nameOf({
    ...request,
    extensions: request.extensions.map((one) =>
      one.type === 'ADDRESS_SRC' || one.type === 'ADDRESS_DST'
        ? { ...one, address: { ...one.address, bytes: mask(one.address.bytes, one.prefixLen) } }
        : one,
    ),
  });
  return [nameOf(request), masked];
}

function mask(bytes: Uint8Array, length: number): Uint8Array {
  return bytes.map((octet, i) => octet & (0xff00 >> Math.min(8, Math.max(0, length - 8 * i))));
}

function text({ recorded, request, what, ours, linux }: Difference): string {
  return `${recorded.id} ${recorded.command.slice(0, 80)}: ${request.type} ${what} ${ours} | ${linux}`;
}
