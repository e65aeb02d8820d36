import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadState, removeState, saveState } from '../../src/drivers/linux/state-file.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'testudo-state-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

test('what was saved is loaded, in a file for its owner alone', () => {
  const file = join(dir, 'deep', 'state.json');
  const state = new Map([
    ['eth0', { reversePathFilter: '1', madeIngress: true }],
    ['wlan0.7', { reversePathFilter: '0', madeIngress: false }],
  ]);
  expect(loadState(file)).toEqual(new Map());
  saveState(file, state);
  expect(loadState(file)).toEqual(state);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  removeState(file);
  expect(loadState(file)).toEqual(new Map());
});

test('a file that others could read is replaced by one that they cannot', () => {
  const file = join(dir, 'state.json');
  writeFileSync(file, '{"wires":{}}');
  chmodSync(file, 0o666);
  saveState(file, new Map());
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readFileSync(file, 'utf8')).toContain('wires');
});

test.each([
  ['not JSON', '{'],
  ['not an object', '7'],
  ['no wires', '{}'],
  ['a name that is a path', '{"wires":{"../x":{"reversePathFilter":"1","madeIngress":true}}}'],
  ['another value', '{"wires":{"eth0":{"reversePathFilter":"1; rm","madeIngress":true}}}'],
  ['a field missing', '{"wires":{"eth0":{"madeIngress":true}}}'],
])('a damaged file is refused by name: %s', (_what, text) => {
  const file = join(dir, 'state.json');
  writeFileSync(file, text);
  expect(() => loadState(file)).toThrow(`${file} does not hold the state`);
});
