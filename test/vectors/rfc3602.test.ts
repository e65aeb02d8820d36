import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { fromHex, setU32, toHex, u32 } from '../../src/wire/bytes.ts';
import { policy, Rig, request, sa, testEnv } from '../engine/rig.ts';
import { vectorFile } from '../files.ts';
import { ipv4Packet } from '../wire/octets.ts';

interface Example {
  readonly case: string;
  readonly key: string;
  readonly esp: string;
  readonly payload: string;
  readonly nextHeader: number;
  readonly padLen: number;
}

const examples = JSON.parse(
  readFileSync(vectorFile('rfc3602-esp.json'), 'utf8'),
) as readonly Example[];

function rigFor(example: Example, direction: 'in' | 'out') {
  const esp = fromHex(example.esp);
  const env = testEnv();
  const iv = esp.slice(8, 24);
  env.random.fill = (octets) => octets.length > 2 && octets.set(iv);
  const lease = () => ({
    start: u32(esp, 4),
    extend: (needed: number) => needed,
    release: () => {},
  });
  const rig = new Rig({ env, sequences: { lease } });
  const ends = { src: '10.0.0.1', dst: '10.0.0.2' };
  const tunnel = example.nextHeader === 4;
  const mode = tunnel ? ('tunnel' as const) : ('transport' as const);
  rig.sad.add(
    sa({ ...ends, spi: u32(esp, 0), mode, enc: 'aes-cbc', encKey: fromHex(example.key) }),
    'mature',
  );
  const one = request({ mode, ...(tunnel ? ends : {}) });
  rig.spd.add(policy(direction, '0.0.0.0/0', '0.0.0.0/0', { requests: [one] }));
  const plain = tunnel
    ? fromHex(example.payload)
    : ipv4Packet({ protocol: 1 }, fromHex(example.payload));
  return { rig, plain, esp };
}

/** Cases 5 to 8 of RFC 3602 §4: whole ESP packets of AES-CBC without authentication. */
test.each(examples.map((one) => [one.case, one] as const))('%s', (_, example) => {
  const coming = rigFor(example, 'in');
  expect(coming.rig.input(ipv4Packet({ protocol: 50 }, coming.esp)).map((p) => toHex(p))).toEqual([
    toHex(coming.plain),
  ]);
  const going = rigFor(example, 'out');
  expect(going.rig.output(going.plain).map((p) => toHex(p.slice(20)))).toEqual([example.esp]);
  // The SPI decides, and without it nothing is opened.
  const other = going.esp.slice();
  setU32(other, 0, 7);
  expect(coming.rig.input(ipv4Packet({ protocol: 50 }, other))).toEqual([]);
});

test('all four are there', () => expect(examples.length).toBe(4));
