import { describe, expect, test } from 'vitest';
import { COMMON_RATE, judge, MIXES, RATES } from '../../bench/network/load/datagrams.ts';
import { pingsOf } from '../../bench/network/load/ping.ts';
import {
  busyTicks,
  processorTime,
  residentOctets,
  ticksOf,
} from '../../bench/network/load/processor.ts';

/** At a rate, for a second: how many were sent, and how many arrived. */
function step(rate: number, received: number, sent = rate) {
  return { rate, sent, received, milliseconds: 1000 };
}

describe('datagrams', () => {
  test('what is sustained is the most that arrives with at most 1 % lost', () => {
    const steps = [step(10_000, 10_000), step(50_000, 49_600), step(100_000, 60_000)];
    expect(judge(steps)).toMatchObject({ sustained: 49_600, most: 60_000, lossAtCommon: 0.4 });
  });

  test('two in a hundred are too many', () => {
    expect(judge([step(10_000, 10_000), step(50_000, 49_000)]).sustained).toBe(10_000);
  });

  test('a hiccup at a low rate does not hide what higher rates have shown', () => {
    expect(judge([step(10_000, 5_000), step(50_000, 50_000)]).sustained).toBe(50_000);
  });

  test('nothing is sustained when too much is lost everywhere', () => {
    expect(judge([step(10_000, 9_000)])).toMatchObject({ sustained: 0, most: 9_000 });
  });

  test('there is no loss at a rate that the sender has not reached', () => {
    expect(judge([step(COMMON_RATE, 40_000, 40_000)]).lossAtCommon).toBeNaN();
  });

  test('the rate at which losses are compared is one of those that are offered', () => {
    expect(RATES).toContain(COMMON_RATE);
    expect([...RATES].sort((a, b) => a - b)).toEqual(RATES);
  });

  test('the mix is seven to four to one, and fits the inner MTU', () => {
    const count = (octets: number) => MIXES.IMIX.filter((one) => one === octets).length;
    expect([count(64), count(576), count(1400)]).toEqual([7, 4, 1]);
    expect(MIXES.IMIX).toHaveLength(12);
  });
});

describe('pings', () => {
  test('are read from what ping prints', () => {
    const lines = [
      'PING 10.98.2.1 (10.98.2.1) from 10.98.1.1 : 56(84) bytes of data.',
      '64 bytes from 10.98.2.1: icmp_seq=1 ttl=64 time=0.043 ms',
      '64 bytes from 10.98.2.1: icmp_seq=2 ttl=64 time=1.5 ms',
      '64 bytes from 10.98.2.1: icmp_seq=4 ttl=64 time=0.051 ms',
      '4 packets transmitted, 3 received, 25% packet loss, time 3051ms',
    ];
    expect(pingsOf(lines.join('\n'), 4)).toEqual({ median: 0.051, p99: 1.5, lost: 0.25 });
  });
});

describe.skipIf(process.platform !== 'linux')('processor time', () => {
  test('of a program whose name looks like more fields', () => {
    const stat = '4242 (a) b (c 1) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20 0 1 0 100 1 1';
    expect(ticksOf(stat)).toBe(154);
  });

  test('of a machine: neither idle nor waiting', () => {
    expect(busyTicks('cpu  1 2 4 1000 5000 8 16 32 0 0\ncpu0 9 9 9 9\n')).toBe(31);
  });

  test('of this program rises while it computes', () => {
    const before = processorTime([process.pid]);
    let after = before;
    // The kernel counts the two by different clocks, which tick a hundred times a second.
    while (after.programs < before.programs + 0.02 || after.machine <= before.machine)
      after = processorTime([process.pid]);
    expect(after.programs).toBeLessThan(before.programs + 10);
    expect(residentOctets(process.pid)).toBeGreaterThan(2 ** 20);
  });
});
