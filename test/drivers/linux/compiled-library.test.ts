import { afterEach, expect, test, vi } from 'vitest';
import {
  COMPILED_LIBRARY,
  COMPILED_VARIABLE,
  compiledLibrary,
} from '../../../src/drivers/linux/compiled-library.ts';
import { libc } from '../../../src/drivers/linux/libc.ts';
import { PacketMemory } from '../../../src/drivers/linux/packet-memory.ts';
import { segments } from '../../../src/drivers/linux/segments.ts';

afterEach(() => vi.unstubAllEnvs());

const found = (name: string) => `/there/${name}`;
const missing = () => undefined;

test('is what the installation has left', () => {
  expect(compiledLibrary({}, found)).toEqual({ path: `/there/${COMPILED_LIBRARY}` });
  expect(compiledLibrary({}, missing)).toEqual({
    why: expect.stringContaining('for want of a C compiler'),
  });
});

test('is not used when the variable says so, and only then', () => {
  expect(compiledLibrary({ [COMPILED_VARIABLE]: 'off' }, found)).toEqual({
    why: expect.stringContaining('TESTUDO_COMPILED=off'),
  });
  expect(compiledLibrary({ [COMPILED_VARIABLE]: 'on' }, found)).toHaveProperty('path');
});

test('without it loops are WebAssembly', () => {
  vi.stubEnv(COMPILED_VARIABLE, 'off');
  const c = libc('the test');
  const memory = new PacketMemory(c);
  expect(segments(c, memory)).toMatchObject({ name: 'WebAssembly loops' });
});
