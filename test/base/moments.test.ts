import { expect, test } from 'vitest';
import { Moments } from '../../src/base/moments.ts';

/** A number that changes, and a reader that notes what it was. */
class Item {
  value = 0;
  moment: number;
  readonly #moments: Moments<Item, number>;

  constructor(moments: Moments<Item, number>) {
    this.#moments = moments;
    this.moment = moments.now;
  }

  set(value: number): void {
    if (this.moment !== this.#moments.now) this.#moments.changing(this);
    this.value = value;
  }
}

function table() {
  let looks = 0;
  const moments = new Moments<Item, number>(({ value }) => {
    looks++;
    return value;
  });
  const item = new Item(moments);
  const reader = (expects = true) => {
    const kept: number[] = [];
    const one = { expects: () => expects, keep: (_: Item, view: number) => void kept.push(view) };
    moments.begin(one);
    return { kept, end: () => moments.end(one) };
  };
  return { moments, item, reader, looks: () => looks };
}

test('each reader gets what there was at its moment, once', () => {
  const { item, reader, looks } = table();
  item.set(1);
  const first = reader();
  item.set(2);
  item.set(3);
  const [second, third] = [reader(), reader()];
  item.set(4);
  item.set(5);
  expect([first.kept, second.kept, third.kept]).toEqual([[1], [3], [3]]);
  expect(looks()).toBe(2);
});

test('nobody looks when nobody reads, or when readers have passed it', () => {
  const { moments, item, reader, looks } = table();
  const [passed, ended] = [reader(false), reader()];
  ended.end();
  item.set(1);
  passed.end();
  item.set(2);
  expect([passed.kept, ended.kept, looks(), moments.readers]).toEqual([[], [], 0, 0]);
  expect(item.moment).toBe(moments.now);
});

test('what came after a moment is not of it', () => {
  const { moments, reader } = table();
  const early = reader();
  const late = new Item(moments);
  late.set(7);
  const next = reader();
  late.set(8);
  expect([early.kept, next.kept]).toEqual([[], [7]]);
});
