import { ADDRESS_LEN, addressFrom } from '../base/address.ts';
import type { Sa } from '../sad/sa.ts';
import type { Request } from '../spd/policy.ts';
import { equal } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import type { SaTable } from './core.ts';

interface Line {
  readonly generation: number;
  readonly preferOld: boolean;
  /**
   * The packet's addresses that the answer is for; empty for a tunnel, whose ends stand in the
   * request.
   */
  readonly addresses: Uint8Array;
  readonly sa: Sa | undefined;
}

/**
 * The last answer of `Sad.outbound` for each request of each policy: most packets ask what the one
 * before asked.
 */
export class SaCache {
  readonly #lines = new WeakMap<Request, Line>();
  /** The one that was asked for last: looking into the table takes as long as all else here. */
  #request: Request | undefined;
  #line: Line | undefined;

  /** The SA for a request of a packet whose addresses are at the cursor. */
  outbound(
    sad: SaTable,
    request: Request,
    p: Uint8Array,
    cursor: Cursor,
    preferOld: boolean,
  ): Sa | undefined {
    if (request !== this.#request) {
      this.#request = request;
      this.#line = this.#lines.get(request);
    }
    const line = this.#line;
    if (line?.generation === sad.generation && line.preferOld === preferOld) {
      const len = line.addresses.length;
      if (len === 0) return line.sa;
      if (
        len === 2 * ADDRESS_LEN[cursor.family] &&
        equal(line.addresses, 0, p, cursor.srcAt, len)
      ) {
        return line.sa;
      }
    }
    return this.#lookUp(sad, request, p, cursor, preferOld);
  }

  #lookUp(
    sad: SaTable,
    request: Request,
    p: Uint8Array,
    cursor: Cursor,
    preferOld: boolean,
  ): Sa | undefined {
    const fixed =
      request.mode === 'tunnel' && request.src !== undefined && request.dst !== undefined;
    const src = fixed ? request.src! : addressFrom(cursor.family, p, cursor.srcAt);
    const dst = fixed ? request.dst! : addressFrom(cursor.family, p, cursor.dstAt);
    const sa = sad.outbound(request.protocol, request.mode, src, dst, request.reqid, preferOld);
    // Both headers have the destination right behind the source.
    const addresses = fixed
      ? new Uint8Array(0)
      : p.slice(cursor.srcAt, cursor.srcAt + 2 * ADDRESS_LEN[cursor.family]);
    this.#line = { generation: sad.generation, preferOld, addresses, sa };
    this.#lines.set(request, this.#line);
    return sa;
  }
}
