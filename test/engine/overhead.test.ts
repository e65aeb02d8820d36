import { expect, test } from 'vitest';
import { Overhead } from '../../src/engine/overhead.ts';
import { policy, Rig, request, sa } from './rig.ts';

const ENDS = { src: '10.0.0.1', dst: '10.0.0.2' };
const ALL = '0.0.0.0/0';

/** UDP, ESP header, IV, padding up to a block, trailer, ICV. */
const GCM = 8 + 8 + 3 + 2 + 16;
const CBC_SHA512 = 8 + 16 + 15 + 2 + 32;
const USUAL = 8 + CBC_SHA512;

test('follows policies and SAs, the largest one of those that are there', () => {
  const { sad, spd } = new Rig();
  const overhead = new Overhead(sad);
  expect(overhead.most).toBe(0);
  const made = spd.add(policy('out', ALL, ALL, { requests: [request({ protocol: 'esp' })] }));
  overhead.added(made);
  expect(overhead.most).toBe(USUAL);
  const small = sad.add(sa({ ...ENDS, spi: 0x1001 }), 'mature');
  expect(overhead.most).toBe(GCM);
  const large = { enc: 'aes-cbc', auth: 'hmac-sha512' };
  const one = sad.add(sa({ ...ENDS, ...large, spi: 0x1002 }), 'mature');
  const two = sad.add(sa({ ...ENDS, ...large, spi: 0x1003 }), 'mature');
  expect(overhead.most).toBe(CBC_SHA512);
  sad.remove(one);
  expect(overhead.most).toBe(CBC_SHA512);
  sad.remove(two);
  expect(overhead.most).toBe(GCM);
  sad.update(small, { ...small.spec, encapsulation: { srcPort: 4500, dstPort: 4500 } });
  expect(overhead.most).toBe(8 + GCM);
  overhead.removed(made);
  expect(overhead.most).toBe(0);
});

test('AH is padded to 4 octets on IPv4 and to 8 on IPv6', () => {
  const { sad, spd } = new Rig();
  const overhead = new Overhead(sad);
  overhead.added(spd.add(policy('out', ALL, ALL, { requests: [request({ protocol: 'ah' })] })));
  sad.add(sa({ protocol: 'ah', ...ENDS, spi: 0x1001, auth: 'hmac-sha256' }), 'mature');
  expect(overhead.most).toBe(12 + 16);
  const six = { src: '2001:db8::1', dst: '2001:db8::2' };
  sad.add(sa({ protocol: 'ah', ...six, spi: 0x1001, auth: 'hmac-sha256' }), 'mature');
  expect(overhead.most).toBe(12 + 16 + 4);
});

test('is that of the largest policy, which others may share', () => {
  const { sad, spd } = new Rig();
  const overhead = new Overhead(sad);
  const both = { requests: [request({ protocol: 'esp' }), request({ protocol: 'ah' })] };
  const esp = { requests: [request({ protocol: 'esp' })] };
  const small = spd.add(policy('out', ALL, '10.0.0.1', esp));
  const [one, two] = ['10.0.0.2', '10.0.0.3'].map((to) => spd.add(policy('out', ALL, to, both)));
  for (const each of [small, one!, two!]) overhead.added(each);
  const most = overhead.most;
  expect(most).toBeGreaterThan(USUAL);
  overhead.removed(one!);
  expect(overhead.most).toBe(most);
  overhead.removed(two!);
  expect(overhead.most).toBe(USUAL);
  overhead.added(spd.add(policy('in', ALL, ALL, both)));
  expect(overhead.most).toBe(USUAL);
});
