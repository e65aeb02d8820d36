import { describe, expect, test } from 'vitest';
import { DROPS, type DropReason } from '../../src/base/drop.ts';
import { CASES, changed, FOUR } from './drop-cases.ts';
import { Rig } from './rig.ts';

/** Everything that a dropped packet must leave as it was. */
function state(rig: Rig, withSas: boolean) {
  // Those who came are counted in any case, also those that were joined, and what was opened and
  // sealed is where `uses` says so.
  const { stats } = rig.host;
  const counters = Object.values(stats.families).map((family) => {
    const { drops: _, inPackets: __, outPackets: ___, ...rest } = family;
    return { ...rest, reassembled: 0, fragmentsJoined: 0, keepalivesSent: stats.keepalivesSent };
  });
  const sas = [...rig.sad.all()].map(({ spec, state, usage, replay, sentSeq, seenAt, peer }) => [
    spec.spi,
    state,
    { ...usage },
    replay.top,
    // A lease of sequence numbers is taken with the first one.
    usage.packets > 0 ? sentSeq : 0,
    seenAt,
    peer,
  ]);
  return withSas ? { counters, sas } : { delivered: stats.inDelivered, sent: stats.outProtected };
}

describe('every reason', () => {
  for (const [reason, cases] of Object.entries(CASES)) {
    test.each(cases.map((one, i) => [i, one] as const))(`${reason} %i`, (_, make) => {
      const { side, rig, packets, count = 1, uses = false, ofSockets, after } = make();
      const before = state(rig, !uses);
      const buffers = rig.host.buffersFree;
      const droppedBefore = rig.drops();
      if (side === 'in') expect(rig.input(...packets)).toEqual([]);
      else if (ofSockets) expect(rig.outputOfSockets(...packets)).toEqual([]);
      else expect(rig.output(...packets)).toEqual([]);
      after?.();
      expect(droppedBefore).toEqual({});
      expect(rig.drops()).toEqual({ [`${side} ${reason}`]: count });
      expect([rig.sent, rig.delivered]).toEqual([[], []]);
      expect(state(rig, !uses)).toEqual(before);
      expect(rig.host.buffersFree).toBe(buffers);
    });
  }

  test('is in the table on the side on which it was counted', () => {
    for (const [reason, cases] of Object.entries(CASES)) {
      const { side } = DROPS[reason as DropReason];
      const sides = new Set(cases.map((make) => make().side));
      expect([reason, [...sides].sort()]).toEqual([
        reason,
        side === 'both' ? ['in', 'out'] : [side],
      ]);
    }
  });
});

test('listeners are told of the packet that was dropped', () => {
  const told: string[] = [];
  const rig = new Rig({
    events: { dropped: (side, reason, packet) => told.push(`${side} ${reason} ${packet.len}`) },
  });
  rig.input(changed(FOUR, 0, 0x55));
  rig.output(FOUR.slice(0, 19));
  expect(told).toEqual(['in bad-version 68', 'out truncated-header 19']);
});
