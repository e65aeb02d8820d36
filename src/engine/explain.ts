import { assert } from '../base/assert.ts';
import { DROPS, type DropReason } from '../base/drop.ts';
import { describe } from '../sad/sa-checks.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import { dissect } from '../wire/dissect.ts';
import * as icmp from '../wire/icmp.ts';
import { packetFrom } from '../wire/packet.ts';
import type { Core } from './core.ts';
import { decideOutput, protectedLen } from './decide.ts';
import { ADVICE } from './explain-advice.ts';
import { layoutOf } from './explain-layout.ts';
import {
  type Asked,
  metRequests,
  policyChoice,
  requestSteps,
  variables,
} from './explain-policy.ts';
import { nearSpi, saText } from './explain-sa.ts';
import { Shadow, type ShadowOptions } from './explain-shadow.ts';
import type {
  Explanation,
  Outcome,
  PacketText,
  PolicyChoice,
  RequestStep,
  SizeStep,
} from './explanation.ts';
import { Flight } from './flight.ts';
import type { OutputSource } from './output.ts';
import { familyOf, type Side } from './stats.ts';

export interface ExplainOptions extends Omit<ShadowOptions, 'mtu'> {
  /** Also what the packet looks like on the wire, field by field. */
  readonly layout?: boolean | undefined;
  /**
   * Going out: the packet is one of those that must be of a socket of the table; else it goes as
   * the socket wants whose packet it is, if there is one.
   */
  readonly ofSockets?: boolean | undefined;
}

/** What would become of a packet that the local side sends. `octets`: from its IP header on. */
export function explainOutput(
  core: Core,
  octets: Uint8Array,
  options: ExplainOptions = {},
): Explanation {
  return new Explainer(core, options).explain('out', octets);
}

/** What would become of a packet that comes from the wire. */
export function explainInput(
  core: Core,
  octets: Uint8Array,
  options: ExplainOptions = {},
): Explanation {
  return new Explainer(core, options).explain('in', octets);
}

/**
 * Takes packets through the host's own code and tells how each fares; of the host nothing changes.
 * Packets are one after the other, as the host would meet them: fragments are put together, and the
 * second of two equal ones is a replay. To be thrown away before the host goes on.
 */
export class Explainer {
  readonly #core: Core;
  readonly #options: ExplainOptions;
  readonly #shadow: Shadow;
  #met: RequestStep[] = [];

  constructor(core: Core, options: ExplainOptions = {}) {
    this.#core = core;
    this.#options = options;
    this.#shadow = new Shadow(core, options);
    this.#shadow.checked = (flight, verdict) => {
      this.#met = metRequests(core, flight, verdict, (sa) => this.#shadow.original(sa));
    };
  }

  explain(side: Side, octets: Uint8Array): Explanation {
    const shadow = this.#shadow;
    const { held, fragments } = shadow;
    this.#met = [];
    shadow.run(side, octets, side === 'out' ? this.#sourceOf(octets) : 'host');
    const { asked, quoted } = shadow.traces;
    const policy = asked && policyChoice(this.#core, side, asked, quoted);
    const decided = side === 'out' && asked ? this.#decide(asked) : undefined;
    const requests = decided?.requests ?? this.#met;
    const waits = { held: shadow.held > held, fragment: shadow.fragments > fragments };
    const fault = (reason: DropReason) =>
      this.#fault(reason, octets, policy, requests, decided?.size);
    const isInner = asked !== undefined && !beginsWith(octets, asked.octets);
    const outcome = this.#outcome(side, decided?.sas.length ?? 0, waits, fault);
    const isSent = outcome.kind === 'protected' || outcome.kind === 'clear';
    return {
      side,
      packet: this.#packetText(octets),
      opened: this.#opened(),
      ...(isInner ? { inner: this.#packetText(asked.octets) } : {}),
      ...(policy === undefined ? {} : { policy }),
      requests,
      ...(decided?.size === undefined ? {} : { size: decided.size }),
      outcome,
      ...(this.#options.layout && isSent && asked
        ? { layout: layoutOf(this.#core, this.#options, asked.octets, decided!.sas) }
        : {}),
    };
  }

  #sourceOf(octets: Uint8Array): OutputSource {
    if (this.#options.ofSockets) return 'sockets';
    const cursor = new Cursor();
    if (decode(octets, 0, octets.length, cursor) !== undefined || cursor.isFragment) return 'host';
    return this.#core.sockets.sender(octets, cursor) ?? 'host';
  }

  /** The engine's own decision once more, to look at what it leaves in the flight. */
  #decide({ octets, socket }: Asked) {
    const { core } = this.#shadow;
    const flight = new Flight();
    flight.begin(packetFrom(octets), false);
    flight.socket = socket;
    const { packet, cursor } = flight;
    assert(decode(packet.bytes, packet.at, packet.end, cursor) === undefined, 'it was readable');
    const verdict = decideOutput(core, flight);
    const after = protectedLen(flight, packet.len, cursor.insertAt - cursor.at);
    const reason = typeof verdict === 'object' ? verdict.drop : undefined;
    const isSized = reason === undefined || reason === 'too-big' || reason === 'packet-too-long';
    const sizes = {
      before: packet.len,
      after,
      mtu: reason === 'packet-too-long' ? core.mtu : flight.mtu,
    };
    const size: SizeStep | undefined =
      verdict === 'reassemble' || !isSized ? undefined : { ...sizes, ...this.#room(reason, sizes) };
    const requests = requestSteps(this.#core, flight, (sa) => this.#shadow.original(sa));
    const layers = flight.layers.slice(0, flight.layerCount);
    return { size, requests, sas: layers.map((layer) => layer!.sa) };
  }

  #room(
    reason: DropReason | undefined,
    { after, mtu }: { readonly after: number; readonly mtu: number },
  ): Pick<SizeStep, 'verdict' | 'reported'> {
    if (reason === 'packet-too-long') return { verdict: 'too-long' };
    if (reason !== 'too-big') return { verdict: after > mtu ? 'fragments' : 'fits' };
    const error = this.#shadow.traces.delivered[0];
    const cursor = new Cursor();
    if (error === undefined || decode(error, 0, error.length, cursor))
      return { verdict: 'too-big' };
    return { verdict: 'too-big', reported: icmp.mtu(error, cursor.upperAt, cursor.family) };
  }

  #opened(): Explanation['opened'] {
    const { wanted, opened } = this.#shadow.traces;
    return wanted.map(({ protocol, spi, dst, sa }, i) => ({
      ...{ protocol, spi, state: i < opened ? 'opened' : 'failed' },
      ...(sa ? { sa: saText(sa) } : {}),
      near: sa ? [] : nearSpi(this.#core, protocol, spi, dst),
    }));
  }

  #outcome(
    side: Side,
    layers: number,
    waits: { readonly held: boolean; readonly fragment: boolean },
    fault: (reason: DropReason) => string,
  ): Outcome {
    const { sent, delivered, drops } = this.#shadow.traces;
    const reason = drops.at(-1);
    if (reason !== undefined) {
      const { text } = DROPS[reason];
      const advice = ADVICE[reason].text;
      return { kind: 'dropped', reason, text, fault: fault(reason), advice };
    }
    if (waits.held) {
      const text = 'key exchange is asked for the SA that is missing';
      return { kind: 'waits', reason: 'held-too-long', text };
    }
    if (waits.fragment) {
      const text = 'it is a fragment, and the answer needs the whole datagram';
      return { kind: 'waits', reason: 'fragment-timeout', text };
    }
    const packets = (side === 'out' ? sent : delivered).map((one) => this.#packetText(one));
    if (side === 'in') return { kind: 'delivered', packets };
    return { kind: layers > 0 ? 'protected' : 'clear', packets };
  }

  /** The entry that decided, or what about the packet. */
  #fault(
    reason: DropReason,
    octets: Uint8Array,
    policy: PolicyChoice | undefined,
    requests: readonly RequestStep[],
    size: SizeStep | undefined,
  ): string {
    const { core, traces } = this.#shadow;
    const family = familyOf(packetFrom(octets));
    switch (ADVICE[reason].fault) {
      case 'packet':
        return `the packet: ${this.#packetText(octets).text}`;
      case 'default':
        return `no policy fits, and ${variables(family)}.def_policy decides`;
      case 'mtu':
        if (size === undefined) return `the packet: ${this.#packetText(octets).text}`;
        return `the MTU of the ${size.mtu < core.mtu ? 'path' : 'wire'}: ${size.mtu}`;
      case 'host':
        return `the host: ${core.arena.available} buffers are free`;
      case 'sa':
        return saFault(traces, requests);
      case 'policy': {
        const found = policy?.found ?? policy?.quoted;
        if (found === undefined) return `the packet: ${this.#packetText(octets).text}`;
        const lacking = requests.filter((one) => one.unmet !== undefined || one.sa === undefined);
        const culprit = lacking.find((one) => one.level === 'require') ?? lacking[0];
        const which = culprit && found.type === 'ipsec' ? `, request ${culprit.request}` : '';
        if (policy?.socket?.decides) return `the policy of socket ${policy.socket.ends}${which}`;
        return `policy ${found.id}: ${found.selector}${which}`;
      }
    }
  }

  #packetText(octets: Uint8Array): PacketText {
    const natPort = this.#core.settings.encapsulationPorts[0];
    const options = natPort === undefined ? {} : { natPort };
    return { text: dissect(octets, 0, octets.length, options), len: octets.length };
  }
}

/** The SA at which a packet failed: coming in the last looked for, going out the next layer's. */
function saFault({ wanted, sealed }: Shadow['traces'], requests: readonly RequestStep[]): string {
  const last = wanted.at(-1);
  if (last?.sa !== undefined) return `SA ${describe(last.sa.spec)}`;
  if (last !== undefined) return `no SA: ${describe(last)}`;
  const sa = requests.filter((one) => one.sa !== undefined)[sealed]?.sa;
  if (sa === undefined) return 'the packet: its ESP or AH is too short to name an SA';
  const spi = sa.spi.toString(16).padStart(8, '0');
  return `SA ${sa.protocol} SPI 0x${spi} to ${sa.dst}`;
}

/** Behind the packet there may be padding of the link. */
function beginsWith(octets: Uint8Array, packet: Uint8Array): boolean {
  return packet.every((octet, i) => octet === octets[i]);
}

/** Which way a packet goes when nobody says: IPsec comes in, everything else goes out. */
export function sideOf(core: Core, octets: Uint8Array): Side {
  const cursor = new Cursor();
  if (decode(octets, 0, octets.length, cursor) !== undefined) return 'in';
  const { protocol, dport } = cursor;
  const isEncapsulated = protocol === 17 && core.settings.encapsulationPorts.includes(dport);
  return protocol === 50 || protocol === 51 || isEncapsulated ? 'in' : 'out';
}
