import { type Profiler, Session } from 'node:inspector';

/**
 * What code ran, by V8's precise block coverage of this isolate. A function's signature is all its ranges with whether each was
 * hit: single ranges would not do, since V8 merges a range with the one around it once both were hit.
 */
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

  /** The signatures of all functions that ran since the last call. */
  take(): string[] {
    let scripts: Profiler.ScriptCoverage[] = [];
    this.#session.post('Profiler.takePreciseCoverage', (error, answer) => {
      if (error) throw error;
      scripts = answer.result;
    });
    const signatures: string[] = [];
    for (const script of scripts) {
      if (!script.url.includes(this.#only)) continue;
      for (const { ranges } of script.functions) {
        if (ranges[0]!.count === 0) continue;
        let signature = script.scriptId;
        for (const { startOffset, endOffset, count } of ranges) {
          signature += count > 0 ? ` ${startOffset}` : ` ${startOffset}-${endOffset}`;
        }
        signatures.push(signature);
      }
    }
    return signatures;
  }

  close(): void {
    this.#session.post('Profiler.stopPreciseCoverage');
    this.#session.disconnect();
  }
}
