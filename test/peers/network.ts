import {
  type Address,
  address,
  addressFrom,
  formatAddress,
  type Prefix,
  prefix,
  prefixHas,
} from '../../src/base/address.ts';
import { fragment, fragmentId } from '../../src/engine/fragment.ts';
import { u16, u32 } from '../../src/wire/bytes.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { type Packet, PacketArena, packetFrom } from '../../src/wire/packet.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import { tooBig } from '../engine/errors.ts';
import { testEnv } from '../engine/rig.ts';
import { Node, type NodeOptions } from './node.ts';
import { packetOf } from './octets.ts';

const NAMES: Readonly<Record<number, string>> = {
  [PROTO.ICMP]: 'icmp',
  [PROTO.IPIP]: 'ipip',
  [PROTO.TCP]: 'tcp',
  [PROTO.UDP]: 'udp',
  [PROTO.IPV6]: 'ipv6',
  [PROTO.ESP]: 'esp',
  [PROTO.AH]: 'ah',
  [PROTO.ICMPV6]: 'icmp6',
};

/** Two nodes joined, and everything that has gone from one to the other. */
export class Wire {
  mtu: number;
  readonly ends: readonly [Node, Node];
  readonly #seen: Uint8Array[] = [];

  constructor(ends: readonly [Node, Node], mtu: number) {
    this.ends = ends;
    this.mtu = mtu;
  }

  record(octets: Uint8Array): void {
    this.#seen.push(octets);
  }

  /** The packets since the last call. */
  takeOctets(): Uint8Array[] {
    return this.#seen.splice(0);
  }

  /** The same as text: `esp 20.0.0.1 > 20.0.0.2`, `udp-esp …` where UDP carries ESP. */
  take(): string[] {
    return this.takeOctets().map(flowOf);
  }
}

/** A device of a node that puts packets for a network into IP of another one, as gif(4) does. */
interface Gif {
  readonly network: Prefix;
  readonly from: string;
  readonly to: string;
}

/**
 * Nodes joined by wires, which route and forward for each other as kernels do: along the fewest
 * wires, with a hop limit that goes down, and errors where a wire is too narrow.
 */
export class Network {
  readonly env = testEnv();
  readonly #nodes: Node[] = [];
  readonly #wires: Wire[] = [];
  readonly #gifs = new Map<Node, Gif>();
  readonly #arena = new PacketArena(64);

  /** Its policies may be for what it forwards as well as for its own packets. */
  node(addresses: readonly string[], options: Omit<NodeOptions, 'forward'> = {}): Node {
    const node: Node = new Node(
      this.env,
      addresses.map(address),
      (packet) => this.#route(node, packet),
      { ...options, forward: (packet) => this.#forward(node, packet) },
    );
    this.#nodes.push(node);
    return node;
  }

  wire(a: Node, b: Node, mtu = 1500): Wire {
    const wire = new Wire([a, b], mtu);
    this.#wires.push(wire);
    return wire;
  }

  /** From now on what the node has for `network` goes to `to` in another IP packet. */
  gif(node: Node, network: string, from: string, to: string): void {
    this.#gifs.set(node, { network: prefix(network), from, to });
    const unwrap = (data: Uint8Array) => node.arrived(data.slice());
    for (const protocol of [PROTO.IPIP, PROTO.IPV6]) node.inet.openRaw(protocol, unwrap);
  }

  /** Time passes, a tenth of a second at a time. */
  advance(seconds: number): void {
    for (let i = 0; i < 10 * seconds; i++) {
      this.env.advance(100);
      for (const { host } of this.#nodes) host.poll(this.env.clock.monotonicMs());
    }
  }

  #forward(node: Node, packet: Packet): void {
    const octets = packet.copy();
    const isIpv4 = octets[0]! >> 4 === 4;
    const hops = (isIpv4 ? ipv4.ttl(octets, 0) : ipv6.hopLimit(octets, 0)) - 1;
    if (hops === 0) return;
    if (isIpv4) {
      ipv4.setTtl(octets, 0, hops);
      ipv4.updateChecksum(octets, 0);
    } else {
      ipv6.setHopLimit(octets, 0, hops);
    }
    node.send(octets);
  }

  #route(node: Node, packet: Packet): void {
    const octets = packet.copy();
    const cursor = cursorOf(octets);
    const to = addressFrom(cursor.family, octets, cursor.dstAt);
    // What a node has for itself never leaves it.
    if (node.has(to)) return node.arrived(octets);
    const gif = this.#gifs.get(node);
    if (gif && prefixHas(gif.network, to)) {
      // What comes out of the device is a packet of its own, for which there may be policies.
      const protocol = cursor.family === 4 ? PROTO.IPIP : PROTO.IPV6;
      return node.send(packetOf(gif.from, gif.to, protocol, octets));
    }
    const wire = this.#next(node, to);
    if (wire === undefined) return;
    if (octets.length <= wire.mtu) this.#carry(node, wire, octets);
    else this.#carryLarge(node, wire, octets);
  }

  /** What a router does with it; whoever sent it has to know how narrow its own wire is. */
  #carryLarge(node: Node, wire: Wire, octets: Uint8Array): void {
    const family = octets[0]! >> 4 === 4 ? 4 : 6;
    if (family === 6 || ipv4.dontFragment(octets, 0)) {
      const own = node.addresses.find((one) => one.family === family)!;
      node.send(tooBig(octets, wire.mtu, { src: [...own.bytes] }));
      return;
    }
    const pieces: Packet[] = [];
    const take = () => this.#arena.take();
    const id = fragmentId(this.env.random);
    const packet = packetFrom(octets);
    const cursor = cursorOf(packet.bytes, packet.at, packet.end);
    fragment(packet, cursor, wire.mtu, id, take, (piece) => pieces.push(piece));
    const copies = pieces.map((piece) => piece.copy());
    for (const piece of pieces) this.#arena.give(piece);
    for (const copy of copies) this.#carry(node, wire, copy);
  }

  #carry(node: Node, wire: Wire, octets: Uint8Array): void {
    wire.record(octets);
    otherEnd(wire, node).arrived(octets);
  }

  /** The first wire of a shortest way. */
  #next(from: Node, to: Address): Wire | undefined {
    const seen = new Set([from]);
    let ways = this.#wiresOf(from).map((wire) => ({ first: wire, at: otherEnd(wire, from) }));
    while (ways.length > 0) {
      const found = ways.find(({ at }) => at.has(to));
      if (found) return found.first;
      for (const { at } of ways) seen.add(at);
      ways = ways.flatMap(({ first, at }) =>
        this.#wiresOf(at)
          .map((wire) => ({ first, at: otherEnd(wire, at) }))
          .filter((way) => !seen.has(way.at)),
      );
    }
    return undefined;
  }

  #wiresOf(node: Node): Wire[] {
    return this.#wires.filter(({ ends }) => ends.includes(node));
  }
}

/** `tcp 10.0.1.2 > 10.0.2.2`: protocol and ends of the outermost header. */
export function flowOf(octets: Uint8Array): string {
  const cursor = cursorOf(octets);
  const { family, protocol, upperAt } = cursor;
  const end = (at: number) => formatAddress(addressFrom(family, octets, at));
  const isNatt =
    protocol === PROTO.UDP &&
    cursor.portsKnown &&
    [cursor.sport, cursor.dport].includes(4500) &&
    u32(octets, upperAt + 8) !== 0;
  const name = isNatt ? 'udp-esp' : (NAMES[protocol] ?? String(protocol));
  return `${name} ${end(cursor.srcAt)} > ${end(cursor.dstAt)}`;
}

export function cursorOf(octets: Uint8Array, at = 0, end = octets.length): Cursor {
  const cursor = new Cursor();
  const bad = decode(octets, at, end, cursor);
  if (bad !== undefined) throw new Error(`a broken packet on the wire: ${bad}`);
  return cursor;
}

/** The MTU that an ICMP error names; undefined: it is no too-big. */
export function mtuNamed(octets: Uint8Array): number | undefined {
  const { family, protocol, upperAt } = cursorOf(octets);
  const [type, code] = [octets[upperAt], octets[upperAt + 1]];
  if (protocol === PROTO.ICMP && type === 3 && code === 4) return u16(octets, upperAt + 6);
  return family === 6 && protocol === PROTO.ICMPV6 && type === 2
    ? u32(octets, upperAt + 4)
    : undefined;
}

function otherEnd({ ends: [a, b] }: Wire, than: Node): Node {
  return than === a ? b : a;
}
