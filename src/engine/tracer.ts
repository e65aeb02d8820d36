import { DROPS, type DropReason } from '../base/drop.ts';
import type { Clock } from '../base/env.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import { dissect } from '../wire/dissect.ts';
import type { Packet } from '../wire/packet.ts';
import { ADVICE } from './explain-advice.ts';
import type { Explanation, PacketText } from './explanation.ts';
import type { Side } from './stats.ts';

/** Who watches a host's packets. Packets are borrowed; without a tracer a host pays nothing. */
export interface Tracer {
  /** Packets that are about to be processed. */
  seen(side: Side, packets: readonly Packet[], count: number): void;
  /** A packet was dropped, as it was then; undefined: a fragment that is no longer there. */
  dropped(side: Side, reason: DropReason, packet: Packet | undefined): void;
}

/** Which packets to trace: those that `matches` says, or those that are dropped for a reason. */
export interface TraceFilter {
  readonly reason?: DropReason | undefined;
  /** `cursor` has been filled from `p`. */
  readonly matches?: ((side: Side, p: Uint8Array, cursor: Cursor) => boolean) | undefined;
}

export type TraceLine =
  | { readonly kind: 'packet'; readonly wallMs: number; readonly explanation: Explanation }
  | {
      readonly kind: 'drop';
      readonly wallMs: number;
      readonly side: Side;
      readonly reason: DropReason;
      readonly text: string;
      readonly advice: string;
      readonly packet?: PacketText;
    }
  /** So many more would have been shown in the second before. */
  | { readonly kind: 'missed'; readonly wallMs: number; readonly count: number };

export interface SamplingOptions {
  readonly clock: Clock;
  readonly filter: TraceFilter;
  /** The most lines in one second. */
  readonly perSecond: number;
  /** What will become of a packet, `Host.explain`. */
  readonly explain: (side: Side, octets: Uint8Array) => Explanation;
  readonly emit: (line: TraceLine) => void;
}

/**
 * Explains some of the packets that a filter lets through, just before the host processes them:
 * nothing comes in between but packets of the same batch.
 */
export class SamplingTracer implements Tracer {
  readonly #options: SamplingOptions;
  readonly #cursor = new Cursor();
  #secondBeganMs = Number.NEGATIVE_INFINITY;
  #shown = 0;
  #missed = 0;

  constructor(options: SamplingOptions) {
    this.#options = options;
  }

  seen(side: Side, packets: readonly Packet[], count: number): void {
    const { clock, filter, explain, emit } = this.#options;
    if (filter.matches === undefined) return;
    for (let i = 0; i < count; i++) {
      const { bytes, at, end } = packets[i]!;
      if (decode(bytes, at, end, this.#cursor) !== undefined) continue;
      if (!filter.matches(side, bytes, this.#cursor) || !this.#mayShow()) continue;
      const explanation = explain(side, packets[i]!.copy());
      emit({ kind: 'packet', wallMs: clock.wallMs(), explanation });
    }
  }

  dropped(side: Side, reason: DropReason, packet: Packet | undefined): void {
    const { clock, filter, emit } = this.#options;
    if (filter.reason !== reason || !this.#mayShow()) return;
    const about =
      packet === undefined
        ? {}
        : { packet: { text: dissect(packet.bytes, packet.at, packet.end), len: packet.len } };
    emit({
      ...{ kind: 'drop', wallMs: clock.wallMs(), side, reason, text: DROPS[reason].text },
      advice: ADVICE[reason].text,
      ...about,
    });
  }

  /** A second begins with the first packet after the one before has ended. */
  #mayShow(): boolean {
    const { clock, perSecond, emit } = this.#options;
    const now = clock.monotonicMs();
    if (now - this.#secondBeganMs >= 1000) {
      this.#secondBeganMs = now;
      this.#shown = 0;
      if (this.#missed > 0) emit({ kind: 'missed', wallMs: clock.wallMs(), count: this.#missed });
      this.#missed = 0;
    }
    if (this.#shown === perSecond) this.#missed++;
    else this.#shown++;
    return this.#missed === 0;
  }
}
