import { expect, test } from 'vitest';
import { Spread } from '../../../src/drivers/linux/spread.ts';
import {
  PACKET_LEN_MAX,
  PACKET_LEN_SMALL,
  PacketArena,
  slotLen,
} from '../../../src/wire/packet.ts';
import { counting } from '../../wire/octets.ts';

const LEN_MAX = 65_535;

test('the next packet is expected to be cut as the last one was', () => {
  const spread = new Spread(LEN_MAX, 64);
  expect(spread.isOn).toBe(false);
  expect(spread.learn(52, 1348)).toBe(true);
  expect(spread).toMatchObject({ isOn: true, slots: 49 });
  expect(spread.matches(52, 1348)).toBe(true);
  expect(spread.matches(64, 1348)).toBe(false);
  expect(spread.matches(52, 1360)).toBe(false);
  expect(spread.learn(52, 1348)).toBe(false);
  expect(spread.learn(64, 1348)).toBe(true);
  expect(spread.forget()).toBe(true);
  expect(spread.isOn).toBe(false);
  expect(spread.forget()).toBe(false);
});

test.each([
  ['is more slots than there are', 52, 1000],
  ['does not fit a slot', 52, PACKET_LEN_SMALL - 51],
  ['has no segments', 52, 0],
])('nothing is expected after a packet that %s', (_, headersLen, segment) => {
  const spread = new Spread(LEN_MAX, 64);
  spread.learn(52, 1348);
  expect(spread.learn(headersLen, segment)).toBe(true);
  expect(spread).toMatchObject({ isOn: false, slots: 0 });
});

test('what was read into slots is put together, wherever their packets have moved', () => {
  const spread = new Spread(LEN_MAX, 64);
  spread.learn(40, 1200);
  const bytes = new Uint8Array(6 * slotLen(PACKET_LEN_MAX));
  const arena = new PacketArena(6, { memory: { bytes, at: 0 } });
  const [large, ...slots] = Array.from({ length: 6 }, () => arena.take()!);
  for (const len of [1, 40, 1240, 1241, 2440, 3000, 4840]) {
    const octets = counting(len);
    for (const slot of slots) slot.reset();
    // From the second slot on; headers and a payload into that.
    const firstAt = slots[1]!.at;
    bytes.set(octets.subarray(0, 1240), firstAt);
    for (let i = 0; 1240 + i * 1200 < len; i++) {
      bytes.set(octets.subarray(1240 + i * 1200, 2440 + i * 1200), slots[2 + i]!.at + 40);
      slots[2 + i]!.at -= 28;
    }
    large!.reset();
    large!.end = large!.at + len;
    spread.gather(slots, 1, firstAt, 1240, large!);
    expect(large!.copy()).toEqual(octets);
  }
});
