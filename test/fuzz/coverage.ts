import { type Profiler, Session } from 'node:inspector';

/** A function that ran. */
export interface Ran {
  readonly id: string;
  /** All its ranges, with whether each was hit: the same for the same set of blocks. */
  readonly signature: string;
  readonly ranges: readonly Profiler.CoverageRange[];
}

/** What code ran, by V8's precise block coverage of this isolate. */
export class Coverage {
  readonly #session = new Session();
  readonly #only: string;

  /** `only`: what the URL of a script must hold to be looked at. */
  constructor(only: string) {
    this.#only = only;
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** All functions that ran since the last call. Costs most of a millisecond. */
  take(): Ran[] {
    let scripts: Profiler.ScriptCoverage[] = [];
    this.#session.post('Profiler.takePreciseCoverage', (error, answer) => {
      if (error) throw error;
      scripts = answer.result;
    });
    const ran: Ran[] = [];
    for (const { url, scriptId, functions } of scripts) {
      if (!url.includes(this.#only)) continue;
      for (const { ranges } of functions) {
        if (ranges[0]!.count === 0) continue;
        const id = `${scriptId} ${ranges[0]!.startOffset}`;
        ran.push({ id, signature: `${id} ${signatureOf(ranges)}`, ranges });
      }
    }
    return ran;
  }

  close(): void {
    this.#session.post('Profiler.stopPreciseCoverage');
    this.#session.disconnect();
  }
}

function signatureOf(ranges: readonly Profiler.CoverageRange[]): string {
  let text = '';
  for (const { startOffset, endOffset, count } of ranges) {
    text += count > 0 ? ` ${startOffset}` : ` ${startOffset}-${endOffset}`;
  }
  return text;
}

/** All code that ever ran, by character of the source. */
export class Territory {
  readonly #signatures = new Set<string>();
  readonly #covered = new Map<string, Uint8Array>();

  /** Adds what ran; whether some of it had never run before. */
  add(ran: readonly Ran[]): boolean {
    let isNew = false;
    for (const one of ran) {
      if (this.#signatures.has(one.signature)) continue;
      this.#signatures.add(one.signature);
      if (this.#cover(one)) isNew = true;
    }
    return isNew;
  }

  #cover({ id, ranges }: Ran): boolean {
    const { startOffset, endOffset } = ranges[0]!;
    // Ranges come from the outside in, so that the innermost has the last word.
    const hit = new Uint8Array(endOffset - startOffset);
    for (const range of ranges) {
      const from = range.startOffset - startOffset;
      hit.fill(range.count > 0 ? 1 : 0, from, range.endOffset - startOffset);
    }
    const known = this.#covered.get(id);
    if (known === undefined) {
      this.#covered.set(id, hit);
      return true;
    }
    let isNew = false;
    for (let i = 0; i < hit.length; i++) {
      if (hit[i] === 0 || known[i] === 1) continue;
      known[i] = 1;
      isNew = true;
    }
    return isNew;
  }
}
