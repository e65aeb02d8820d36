import { type Coverage, type Ran, Territory } from './coverage.ts';
import { type Dice, Mutator } from './mutate.ts';
import type { Target } from './target.ts';

/** Inputs run between two looks at the coverage, which costs as much as some of them. */
const BATCH = 32;
/** One in so many batches is looked at closely although it reached no new code. */
const CURIOSITY = 20;
/** After so many inputs a target begins anew, so that a crash depends on no more than these. */
const LIFE = 1000;
/** An input that takes longer is a hang; measured twice, since the machine may have been busy. */
const HANG_MS = 1000;
const CORPUS_MAX = 5000;

export interface Crash {
  readonly target: string;
  /** The same for crashes at the same place. */
  readonly key: string;
  readonly stack: string;
  /** What was run since the target was made; one input when that is enough. */
  readonly inputs: readonly Uint8Array[];
}

/** Feeds one target; `coverage` leads it to inputs that reach code which none before did. */
export class Fuzzer {
  readonly target: Target;
  readonly crashes = new Map<string, Crash>();
  execs = 0;

  readonly #dice: Dice;
  readonly #coverage: Coverage | undefined;
  readonly #note: (input: Uint8Array) => void;
  readonly #mutator: Mutator;
  readonly #corpus: Uint8Array[] = [];
  readonly #territory = new Territory();
  /** Signatures of functions, of single inputs. */
  readonly #seen = new Set<string>();
  #seedsLeft: Uint8Array[];
  #run: (input: Uint8Array) => void;
  #history: Uint8Array[] = [];

  /** `note` is told of every input before it runs, for whoever watches for hangs. */
  constructor(
    target: Target,
    dice: Dice,
    coverage: Coverage | undefined,
    note: (input: Uint8Array) => void = () => {},
  ) {
    this.target = target;
    this.#dice = dice;
    this.#coverage = coverage;
    this.#note = note;
    this.#mutator = new Mutator(dice, target.words ?? [], target.lenMax);
    this.#seedsLeft = target.seeds();
    this.#corpus.push(...this.#seedsLeft);
    this.#run = target.create();
  }

  get corpus(): readonly Uint8Array[] {
    return this.#corpus;
  }

  /** Signatures of functions seen so far. */
  get signatures(): number {
    return this.#seen.size;
  }

  /** Runs some more inputs. */
  step(): void {
    const inputs = Array.from({ length: BATCH }, () => this.#next());
    this.#coverage?.take();
    for (const input of inputs) this.#exec(input);
    if (this.#coverage === undefined) return;
    const isNew = this.#territory.add(this.#coverage.take());
    // Now and then all the same: an input that combines known blocks in a new way leads on, too.
    if (!isNew && this.#dice.below(CURIOSITY) !== 0) return;
    for (const input of inputs) {
      this.#exec(input);
      if (this.#notice(this.#coverage.take())) this.#keep(input);
    }
  }

  /** Whether a function took a way that it never took before. */
  #notice(ran: readonly Ran[]): boolean {
    const before = this.#seen.size;
    for (const { signature } of ran) this.#seen.add(signature);
    return this.#seen.size > before;
  }

  #next(): Uint8Array {
    const seed = this.#seedsLeft.pop();
    if (seed !== undefined) return seed;
    const corpus = this.#corpus;
    // Half of them from what was found last, which is where new code is near.
    const recent = Math.max(1, Math.ceil(corpus.length / 8));
    const from = this.#dice.below(2) === 0 ? corpus.length - recent : 0;
    const input = corpus[from + this.#dice.below(corpus.length - from)]!;
    return this.#mutator.mutate(input, this.#dice.pick(corpus));
  }

  #keep(input: Uint8Array): void {
    if (this.#corpus.length < CORPUS_MAX) this.#corpus.push(input);
    else this.#corpus[this.#dice.below(CORPUS_MAX)] = input;
  }

  #exec(input: Uint8Array): void {
    if (this.#history.length >= LIFE) this.#renew();
    this.#history.push(input);
    this.execs++;
    this.#note(input);
    const startedMs = performance.now();
    let error = attempt(this.#run, input);
    if (error === undefined && performance.now() - startedMs > HANG_MS) {
      error = hang(this.target, this.#history);
    }
    if (error === undefined) return;
    const key = keyOf(error);
    if (!this.crashes.has(key)) this.crashes.set(key, this.#describe(key, error, input));
    this.#renew();
  }

  #renew(): void {
    this.#history = [];
    this.#run = this.target.create();
  }

  #describe(key: string, error: Error, input: Uint8Array): Crash {
    const { target } = this;
    const alone = attempt(target.create(), input);
    const inputs =
      alone !== undefined && keyOf(alone) === key ? [shrink(target, key, input)] : this.#history;
    return { target: target.name, key, stack: error.stack ?? String(error), inputs };
  }
}

/** Runs an input; the error if it threw. */
export function attempt(run: (input: Uint8Array) => void, input: Uint8Array): Error | undefined {
  try {
    run(input);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Whether the last of these inputs is slow again. */
function hang(target: Target, history: readonly Uint8Array[]): Error | undefined {
  const run = target.create();
  for (const input of history.slice(0, -1)) attempt(run, input);
  const startedMs = performance.now();
  attempt(run, history.at(-1)!);
  return performance.now() - startedMs > HANG_MS ? new Error('hang') : undefined;
}

/** The message without numbers, and where it was thrown. */
function keyOf(error: Error): string {
  const lines = (error.stack ?? '').split('\n').filter((line) => /^ +at /.test(line));
  const place = lines.slice(0, 2).map((line) => line.trim().replace(/^at /, ''));
  return `${error.message.split('\n')[0]!.replace(/[0-9]+/g, 'N')} | ${place.join(' | ')}`;
}

/** A shorter input that crashes in the same way: parts are left out as long as that works. */
function shrink(target: Target, key: string, input: Uint8Array): Uint8Array {
  let best = input;
  for (let size = best.length >> 1; size > 0; size >>= 1) {
    for (let at = 0; at + size <= best.length; ) {
      const shorter = new Uint8Array(best.length - size);
      shorter.set(best.subarray(0, at));
      shorter.set(best.subarray(at + size), at);
      const error = attempt(target.create(), shorter);
      if (error !== undefined && keyOf(error) === key) best = shorter;
      else at += size;
    }
  }
  return best;
}
