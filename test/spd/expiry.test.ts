import { expect, test } from 'vitest';
import { Spd } from '../../src/spd/spd.ts';
import { policy } from '../engine/rig.ts';

test('policies end in time among many, and only then are they looked at', () => {
  let now = 0;
  let ended = 0;
  const clock = { monotonicMs: () => now, wallMs: () => now };
  const spd = new Spd({ clock, expired: () => ended++ });
  for (let i = 0; i < 2000; i++) {
    const lifetimeSeconds = i % 100 === 0 ? 1 + i / 100 : 0;
    spd.add(policy('out', `10.${i >> 8}.${i & 255}.0/24`, '0.0.0.0/0', { lifetimeSeconds }));
  }
  expect(spd.poll(0)).toBe(1000);
  for (now = 1000; now <= 20_000; now += 1000) {
    expect(spd.poll(now)).toBe(now === 20_000 ? Infinity : now + 1000);
    expect(ended).toBe(now / 1000);
  }
  expect(spd.size).toBe(1980);
});

test('policies that come and go before their time leave nothing behind', () => {
  const clock = { monotonicMs: () => 0, wallMs: () => 0 };
  const spd = new Spd({ clock });
  const one = policy('out', '10.0.0.0/8', '0.0.0.0/0', { lifetimeSeconds: 3600 });
  for (let i = 0; i < 1000; i++) spd.remove(spd.add(one));
  spd.add(one);
  expect(spd.size).toBe(1);
  expect(spd.poll(3_600_000)).toBe(Infinity);
  expect(spd.size).toBe(0);
});
