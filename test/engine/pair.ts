import { formatAddress } from '../../src/base/address.ts';
import { PORT_ANY, PROTOCOL_ANY } from '../../src/spd/policy.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { policy, Rig, type RigOptions, request, type SaOptions, sa } from './rig.ts';

export const A = { 4: '10.0.0.1', 6: '2001:db8::1' } as const;
export const B = { 4: '10.0.0.2', 6: '2001:db8::2' } as const;

/**
 * One layer of protection as seen from A; without `src` and `dst` it is transport mode between the
 * packet's ends.
 */
export type LayerGiven = Omit<Partial<SaOptions>, 'tunnel'> & {
  readonly tunnel?: 4 | 6;
  readonly tunnelOptions?: SaOptions['tunnel'];
};

export interface PairOptions extends RigOptions {
  /** Of the packets that are protected; 4. */
  readonly family?: 4 | 6;
  /** Of B, where it differs from A. */
  readonly peer?: RigOptions;
  /** Of its policies; 0. */
  readonly priority?: number;
  /** Which packets from A to B are protected, and so are their answers; all. */
  readonly ports?: { readonly protocol: number; readonly sport?: number; readonly dport?: number };
}

/** Two hosts that protect what they send each other with the given layers, innermost first. */
export class Pair {
  readonly a: Rig;
  readonly b: Rig;

  constructor(layers: readonly LayerGiven[], options: PairOptions = {}) {
    const { family = 4, priority = 0, peer, ports, ...forA } = options;
    this.a = new Rig(forA);
    this.b = new Rig({ ...forA, ...peer });
    const requests = {
      there: [] as ReturnType<typeof request>[],
      back: [] as ReturnType<typeof request>[],
    };
    let outer: 4 | 6 = family;
    for (const [i, { tunnel, tunnelOptions = {}, ...given }] of layers.entries()) {
      outer = tunnel ?? outer;
      // Or two layers of one kind would both take the newest SA.
      const { protocol = 'esp', reqid = i + 1 } = given;
      const mode = tunnel === undefined ? 'transport' : 'tunnel';
      const auth = protocol === 'ah' ? { auth: 'hmac-sha256' } : {};
      const one = {
        protocol,
        mode,
        src: A[outer],
        dst: B[outer],
        ...auth,
        ...given,
        reqid,
        tunnel: tunnelOptions,
        spi: 0x1001 + i,
      } as const;
      const other = { ...one, src: one.dst, dst: one.src, spi: 0x2001 + i };
      for (const host of [this.a, this.b]) {
        host.sad.add(sa(one), 'mature');
        host.sad.add(sa(other), 'mature');
      }
      const ends = (of: { src: string; dst: string }) =>
        tunnel === undefined ? {} : { src: of.src, dst: of.dst };
      requests.there.push(request({ protocol, mode, reqid, ...ends(one) }));
      requests.back.push(request({ protocol, mode, reqid, ...ends(other) }));
    }
    const all = family === 4 ? '0.0.0.0/0' : '::/0';
    const there = policy('out', all, all, { ...ports, priority, requests: requests.there });
    this.a.spd.add(there);
    this.b.spd.add({ ...there, direction: 'in' });
    const { protocol = PROTOCOL_ANY, sport = PORT_ANY, dport = PORT_ANY } = ports ?? {};
    const turned = { protocol, sport: dport, dport: sport };
    const back = policy('out', all, all, { ...turned, priority, requests: requests.back });
    this.b.spd.add(back);
    this.a.spd.add({ ...back, direction: 'in' });
  }

  /** Sends from A to B in one batch; what is on the wire, and what B delivers. */
  send(...packets: Uint8Array[]): { wire: Uint8Array[]; delivered: Uint8Array[] } {
    const wire = this.a.output(...packets);
    return { wire, delivered: this.b.input(...wire) };
  }
}

/** Source and destination of a packet's outermost header. */
export function endsOf(p: Uint8Array): string {
  const [at, len] = p[0]! >> 4 === 4 ? [ipv4.SRC_AT, 4] : [ipv6.SRC_AT, 16];
  const one = (from: number) =>
    formatAddress({ family: len === 4 ? 4 : 6, bytes: p.slice(from, from + len) });
  return `${one(at)} > ${one(at + len)}`;
}
