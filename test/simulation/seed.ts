import type { Faults } from '../../src/drivers/fault.ts';
import { World } from './world.ts';

const PACKETS = 60;

/** Runs one seed; what it found wrong. */
export function runSeed(seed: number): string[] {
  const world = new World(seed);
  const { dice } = world;
  const chance = () => dice.below(4) * 0.08;
  const faults: Faults = {
    loss: chance(),
    duplicate: chance(),
    reorder: chance(),
    corrupt: chance(),
    truncate: chance(),
  };
  for (const wire of world.wires) {
    // What nothing protects may be altered, and nobody will notice.
    const altered = world.secret.has(wire) ? {} : { corrupt: 0, truncate: 0 };
    wire.setFaults({ ...faults, ...altered });
  }
  const lenMax = dice.pick([40, 400, 2500]);
  for (let number = 1; number <= PACKETS; number++) {
    world.send(number, dice.below(2) === 0, dice.below(lenMax));
    if (dice.below(4) === 0) world.settle();
    if (dice.below(20) === 0) world.wait(dice.below(40_000));
  }
  world.settle();
  const wrong = safety(world);
  wrong.push(...liveness(world));
  return wrong;
}

/** Holds at any time, whatever the network does. */
function safety(world: World): string[] {
  const wrong: string[] = [];
  // Where nothing protects a wire, the network may double what it carries.
  const doubles = world.wires.length > 1 ? 4 : 1;
  for (const [number, count] of world.arrivals) {
    if (count > doubles) wrong.push(`packet ${number} arrived ${count} times`);
  }
  wrong.push(...world.leaks.map((leak) => `plaintext on the wire: ${leak}`));
  wrong.push(...world.strangers.map((one) => `never sent: ${one}`));
  if (world.unaccounted() !== 0) wrong.push(`${world.unaccounted()} packets are unaccounted for`);
  for (const [i, { host }] of world.hosts.entries()) {
    if (host.buffersFree !== 48) wrong.push(`host ${i} has ${host.buffersFree} of 48 buffers`);
  }
  return wrong;
}

/**
 * Once the network is sound, everything arrives, once: a host that drops everything would pass all
 * the rest.
 */
function liveness(world: World): string[] {
  for (const wire of world.wires) wire.setFaults({});
  world.settle();
  world.wait(31_000);
  const before = world.arrivals.size;
  for (let number = PACKETS + 1; number <= PACKETS + 20; number++) {
    world.send(number, number % 2 === 0, (number * 97) % 2500);
    world.settle();
  }
  const missing = 20 - (world.arrivals.size - before);
  const late = [...world.arrivals].filter(([number, count]) => number > PACKETS && count > 1);
  const wrong = safety(world);
  if (missing > 0)
    wrong.push(`${missing} of 20 packets did not arrive after the network had healed`);
  if (late.length > 0) wrong.push('a sound network doubled packets');
  return wrong;
}
