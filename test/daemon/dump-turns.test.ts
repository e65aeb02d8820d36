import { describe, expect, test } from 'vitest';
import { DumpTurns } from '../../src/daemon/dump-turns.ts';

/** An event loop whose turns take as long as the test says, and which is otherwise idle. */
class FakeLoop {
  #now = 0;
  #active = 0;
  #planned: { readonly atMs: number; readonly call: () => void }[] = [];
  sliceMs = 0;

  nowMs(): number {
    return this.#now;
  }

  usage(): { active: number; idle: number } {
    return { active: this.#active, idle: this.#now - this.#active };
  }

  later(ms: number, call: () => void): void {
    this.#planned.push({ atMs: this.#now + Math.max(ms, 0), call });
  }

  work(ms: number): void {
    this.#now += ms;
    this.#active += ms;
  }

  /** One slice of a dump. */
  slice(ms: number): void {
    this.work(ms);
    this.sliceMs += ms;
  }

  /** Runs what is planned for `ms`; other things take a share of the time in between. */
  run(ms: number, share: number): void {
    for (const end = this.#now + ms; this.#now < end; ) {
      this.work(share / 10);
      this.#now += (1 - share) / 10;
      const due = this.#planned.filter(({ atMs }) => atMs <= this.#now);
      this.#planned = this.#planned.filter(({ atMs }) => atMs > this.#now);
      for (const { call } of due) call();
    }
  }
}

/** Asks for the next slice in each. */
function dump(turns: DumpTurns, loop: FakeLoop, sliceMs: number) {
  const done = { slices: 0 };
  const slice = () => {
    done.slices++;
    loop.slice(sliceMs);
    turns.wait(slice);
  };
  turns.wait(slice);
  return { done, slice };
}

describe('turns of dumps', () => {
  test('take half of the time when there is nothing else to do', () => {
    const loop = new FakeLoop();
    dump(new DumpTurns(loop), loop, 1);
    loop.run(1000, 0);
    expect(loop.sliceMs).toBeGreaterThan(450);
  });

  test.each([1, 5])('get a 64th of a busy loop, however many there are: %i', (count) => {
    const loop = new FakeLoop();
    const turns = new DumpTurns(loop);
    const all = Array.from({ length: count }, () => dump(turns, loop, 1));
    loop.run(10_000, 1);
    expect(loop.sliceMs / 10_000).toBeGreaterThan(1 / 68);
    expect(loop.sliceMs / 10_000).toBeLessThan(1 / 62);
    const slices = all.map(({ done }) => done.slices);
    expect(Math.max(...slices) - Math.min(...slices)).toBeLessThanOrEqual(1);
  });

  test('do not give way to a loop that is idle for half of the time', () => {
    const loop = new FakeLoop();
    dump(new DumpTurns(loop), loop, 1);
    loop.run(1000, 0.4);
    expect(loop.sliceMs).toBeGreaterThan(450);
  });

  test('take more again when the others have done', () => {
    const loop = new FakeLoop();
    dump(new DumpTurns(loop), loop, 1);
    loop.run(1000, 1);
    const before = loop.sliceMs;
    loop.run(1000, 0);
    expect(before).toBeLessThan(40);
    // Half of what is left when the pause after its last turn is over.
    expect(loop.sliceMs - before).toBeGreaterThan(420);
  });

  test('one that is forgotten has none', () => {
    const loop = new FakeLoop();
    const turns = new DumpTurns(loop);
    const [first, second] = [dump(turns, loop, 1), dump(turns, loop, 1)];
    turns.forget(second.slice);
    loop.run(20, 0);
    expect(first.done.slices).toBeGreaterThan(0);
    expect(second.done.slices).toBe(0);
  });

  test('a slice that fails does not stop those of others', () => {
    const loop = new FakeLoop();
    const turns = new DumpTurns(loop);
    turns.wait(() => {
      throw new Error('a broken invariant');
    });
    const other = dump(turns, loop, 1);
    expect(() => loop.run(10, 0)).toThrow('a broken invariant');
    loop.run(10, 0);
    expect(other.done.slices).toBeGreaterThan(0);
  });
});
