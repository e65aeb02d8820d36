import { type Address, formatAddress } from '../base/address.ts';
import type { Sa } from '../sad/sa.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Layer } from './flight.ts';

/**
 * No error makes a path narrower than this: what every IPv4 host can take in one piece (RFC 1122
 * §3.3.3), and what every IPv6 link carries (RFC 8201 §4).
 */
export const PATH_MTU_MIN = { 4: 576, 6: ipv6.MTU_MIN } as const;

/** RFC 1191 §6.3 and RFC 8201 §5.3 say ten minutes. */
const AGE_MS = 600_000;
const PATHS_MAX = 1024;
/** Real routes do not change faster; what is more than this is somebody who plays. */
const NEWS_PER_SECOND_MAX = 64;

/** What a path was said to carry. */
export interface Path {
  readonly destination: Address;
  /** In octets, of the packet as the router sees it. */
  readonly mtu: number;
  /** When it is forgotten, so that a route that carries more again is found (monotonic ms). */
  readonly dueMs: number;
}

interface Line {
  readonly generation: number;
  readonly destination: Address;
  readonly mtu: number;
}

/**
 * The MTU of paths to the other ends of SAs, as learned from ICMP errors (RFC 4301 §8.2): by
 * destination, so that it outlives the SA that the error was about. Errors only ever lower it,
 * never below `PATH_MTU_MIN`; time alone raises it.
 */
export class PathMtus {
  /** In the order in which they are due. */
  readonly #paths = new Map<string, Path>();
  /** The last answer for each SA: most packets ask what the one before asked. */
  readonly #lines = new WeakMap<Sa, Line>();
  #generation = 1;
  #secondBeganMs = Number.NEGATIVE_INFINITY;
  #newsThisSecond = 0;

  /** How many paths are known: with none nobody needs to ask. */
  get size(): number {
    return this.#paths.size;
  }

  /** Changes with every change. */
  get generation(): number {
    return this.#generation;
  }

  /** Forgets what it knows, and knows what somebody else has learned. */
  become(paths: readonly Path[]): void {
    this.#paths.clear();
    for (const path of paths) this.#paths.set(formatAddress(path.destination), path);
    this.#generation++;
  }

  /** The same knowledge, which then goes its own way. */
  copy(): PathMtus {
    const copy = new PathMtus();
    for (const [key, path] of this.#paths) copy.#paths.set(key, path);
    copy.#secondBeganMs = this.#secondBeganMs;
    copy.#newsThisSecond = this.#newsThisSecond;
    return copy;
  }

  list(): readonly Path[] {
    return [...this.#paths.values()];
  }

  /** What the path carries that a packet takes once this layer is on; Infinity: nobody has said. */
  of({ sa, tunnel }: Layer): number {
    const destination = (tunnel ? sa.peer?.address : undefined) ?? sa.spec.dst;
    const known = this.#lines.get(sa);
    if (known?.generation === this.#generation && known.destination === destination) {
      return known.mtu;
    }
    const mtu = this.#paths.get(formatAddress(destination))?.mtu ?? Number.POSITIVE_INFINITY;
    this.#lines.set(sa, { generation: this.#generation, destination, mtu });
    return mtu;
  }

  /** An error says that the path to `destination` carries `mtu` octets. */
  lower(
    destination: Address,
    mtu: number,
    nowMs: number,
  ): 'lowered' | 'not-lower' | 'too-many-news' {
    const key = formatAddress(destination);
    const believed = Math.max(mtu, PATH_MTU_MIN[destination.family]);
    if (believed >= (this.#paths.get(key)?.mtu ?? Number.POSITIVE_INFINITY)) return 'not-lower';
    if (!this.#mayLearn(nowMs)) return 'too-many-news';
    this.#paths.delete(key);
    if (this.#paths.size >= PATHS_MAX) this.#forgetOldest();
    this.#paths.set(key, { destination, mtu: believed, dueMs: nowMs + AGE_MS });
    this.#generation++;
    return 'lowered';
  }

  /** Forgets what is old; returns when that is next due. */
  poll(nowMs: number): number {
    for (const { dueMs } of this.#paths.values()) {
      if (dueMs > nowMs) return dueMs;
      this.#forgetOldest();
    }
    return Number.POSITIVE_INFINITY;
  }

  #forgetOldest(): void {
    for (const key of this.#paths.keys()) {
      this.#paths.delete(key);
      this.#generation++;
      return;
    }
  }

  #mayLearn(nowMs: number): boolean {
    if (nowMs - this.#secondBeganMs >= 1000) {
      this.#secondBeganMs = nowMs;
      this.#newsThisSecond = 0;
    }
    this.#newsThisSecond++;
    return this.#newsThisSecond <= NEWS_PER_SECOND_MAX;
  }
}
