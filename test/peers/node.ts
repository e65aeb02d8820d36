import {
  type Address,
  address,
  addressFrom,
  formatAddress,
  sameAddress,
} from '../../src/base/address.ts';
import type { Env } from '../../src/base/env.ts';
import { errnoName } from '../../src/base/errno.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import { Host } from '../../src/engine/host.ts';
import { defaultSettings } from '../../src/engine/settings.ts';
import type { Takers } from '../../src/engine/socket-policies.ts';
import { Inet } from '../../src/inet/inet.ts';
import type { KeyClient } from '../../src/key/client.ts';
import { KeyEngine } from '../../src/key/engine.ts';
import { freeReqid } from '../../src/key/policy-request.ts';
import { Sad } from '../../src/sad/sad.ts';
import { memorySequences } from '../../src/sad/sequence.ts';
import { parseScript } from '../../src/setkey/parser.ts';
import { SetkeyError } from '../../src/setkey/place.ts';
import { formatPolicyEntry } from '../../src/setkey/print-policy.ts';
import { formatSa } from '../../src/setkey/print-sa.ts';
import { actionsOf } from '../../src/setkey/requests.ts';
import { Spd } from '../../src/spd/spd.ts';
import { u32 } from '../../src/wire/bytes.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import { type Packet, packetFrom } from '../../src/wire/packet.ts';
import type { Message } from '../../src/wire/pfkey-message.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import { BUFFERS, FLOWS, testEnv } from '../engine/rig.ts';

/** What went over a wire: from where to where, as what, and with which SPI. */
export interface Seen {
  readonly from: string;
  readonly to: string;
  readonly what: 'esp' | 'ah' | 'plain';
  readonly spi: number;
}

export interface NodeOptions {
  /** Whether algorithms may be used that RFC 8221 forbids. No. */
  readonly allowLegacy?: boolean;
  /** What the host takes its wire to carry. 1500. */
  readonly mtu?: number;
  /** Gets what is for others, as a kernel that forwards; else it is dropped. */
  readonly forward?: (packet: Packet) => void;
}

/** Nodes on one wire, with one clock: as the rump kernels on a bus of NetBSD's tests. */
export class Bus {
  readonly env = testEnv();
  readonly seen: Seen[] = [];
  readonly #nodes: Node[] = [];
  readonly #options: NodeOptions;

  constructor(options: NodeOptions = {}) {
    this.#options = options;
  }

  add(...addresses: string[]): Node {
    const carry = (packet: Packet) => this.#carry(node, packet);
    const node = new Node(this.env, addresses.map(address), carry, this.#options);
    this.#nodes.push(node);
    return node;
  }

  /** Time passes, a tenth of a second at a time. */
  advance(seconds: number): void {
    for (let i = 0; i < 10 * seconds; i++) {
      this.env.advance(100);
      for (const { host } of this.#nodes) host.poll(this.env.clock.monotonicMs());
    }
  }

  /** What has gone over the wire since the last call. */
  take(): Seen[] {
    return this.seen.splice(0);
  }

  #carry(from: Node, packet: Packet): void {
    this.seen.push(describePacket(packet));
    const copy = packet.copy();
    for (const node of this.#nodes) if (node !== from) node.arrived(copy);
  }
}

/** One host: databases, key engine, packet engine and the end of pings. */
export class Node {
  readonly sad: Sad;
  readonly spd: Spd;
  readonly engine: KeyEngine;
  readonly host: Host;
  readonly inet: Inet;
  readonly addresses: readonly Address[];
  /** All that came to this node itself, opened. */
  readonly received: Uint8Array[] = [];
  readonly #forward: NodeOptions['forward'];
  #seq = 0;

  constructor(
    env: Env,
    addresses: readonly Address[],
    transmit: (packet: Packet) => void,
    { allowLegacy = false, mtu = 1500, forward }: NodeOptions = {},
  ) {
    this.addresses = addresses;
    this.#forward = forward;
    const { clock, random } = env;
    this.sad = new Sad({
      clock,
      random,
      sequences: memorySequences(),
      expired: (sa, limit) => this.engine.expired(sa, limit),
    });
    this.spd = new Spd({
      clock,
      expired: (policy) => this.engine.policyExpired(policy),
      flows: FLOWS,
    });
    this.engine = new KeyEngine({
      env,
      sad: this.sad,
      spd: this.spd,
      crypto: nodeCrypto,
      allowLegacy,
    });
    this.host = new Host({
      env,
      sad: this.sad,
      spd: this.spd,
      settings: defaultSettings(),
      events: {
        acquire: (policy, request, src, dst, trigger) =>
          this.engine.acquire(policy, request, src, dst, trigger),
        natMapping: (sa, from, to) => this.engine.natMapping(sa, from, to),
      },
      mtu,
      buffers: BUFFERS,
      forwards: forward !== undefined,
      transmit: (packets, count) => packets.slice(0, count).forEach(transmit),
      deliver: (packets, count) => this.#deliver(packets, count),
      deliverToSockets: (packets, count, takers) => this.#deliver(packets, count, takers),
    });
    this.inet = new Inet({ addresses, send: (packets, count) => this.host.output(packets, count) });
    const reqid = (own: readonly { readonly reqid: number }[]) =>
      freeReqid(this.engine.context, own);
    this.inet.join({ host: this.host, reqid, dialect: 'linux' });
  }

  arrived(octets: Uint8Array): void {
    const cursor = new Cursor();
    if (decode(octets, 0, octets.length, cursor) !== undefined) return;
    const packet = packetFrom(octets);
    if (this.#isOurs(octets, cursor)) this.host.input([packet], 1);
    // Whatever is IPsec and comes to a host, it takes for its own; routers have no such host.
    else if (isIpsec(cursor) || this.spd.size === 0) this.#forward?.(packet);
    else if (this.#forward) this.host.input([packet], 1);
  }

  has(one: Address): boolean {
    return this.addresses.some((own) => sameAddress(own, one));
  }

  /** Sends a packet that somebody else has made. */
  send(octets: Uint8Array): void {
    this.host.output([packetFrom(octets)], 1);
  }

  /**
   * Whether an echo request comes back. `policies`: of its socket, as `ping -E` and `-P` of NetBSD.
   */
  ping(to: string, policies: readonly string[] = [], size = 56): boolean {
    let came = false;
    const took = () => {
      came = true;
    };
    const socket = this.inet.openEcho(took, { privileged: true });
    const option = to.includes(':') ? 'IPV6_IPSEC_POLICY' : 'IP_IPSEC_POLICY';
    for (const policy of policies) socket.setsockopt(option, policy);
    socket.send(1, new Uint8Array(size), address(to));
    socket.close();
    return came;
  }

  /** Runs a setkey script; returns the errno of every answer that was not a success. */
  setkey(script: string): string[] {
    const errors: string[] = [];
    for (const message of messagesOf(script)) {
      for (const reply of this.ask(message)) {
        if (reply.errno !== 0) errors.push(errnoName(reply.errno) ?? `${reply.errno}`);
      }
    }
    return errors;
  }

  /** As `setkey`, for what it must take. */
  configure(script: string): void {
    const errors = this.setkey(script);
    if (errors.length > 0) throw new Error(`${script}: ${errors.join()}`);
  }

  /** As `setkey -D`: text of every SA. */
  dumpSas(): string[] {
    return this.#dump('DUMP').map((one) => formatSa(one, CONTEXT));
  }

  /** As `setkey -DP`. */
  dumpPolicies(): string[] {
    return this.#dump('X_SPDDUMP').map((one) => formatPolicyEntry(one, CONTEXT));
  }

  ask(message: Message): Message[] {
    const replies: Message[] = [];
    const client: KeyClient = {
      origin: 'client',
      dialect: 'linux',
      deliver: (one, kind) => void (kind === 'reply' && replies.push(one)),
      deliverDump: (entries) => {
        for (let next = entries.next(); !next.done; next = entries.next()) replies.push(next.value);
      },
    };
    const session = this.engine.connect(client);
    session.request({ ...message, seq: ++this.#seq, pid: 7 });
    session.close();
    return replies;
  }

  #deliver(packets: readonly Packet[], count: number, takers?: readonly Takers[]): void {
    for (let i = 0; i < count; i++) {
      const packet = packets[i]!;
      const octets = packet.copy();
      const cursor = new Cursor();
      if (decode(octets, 0, octets.length, cursor) !== undefined) throw new Error('not a packet');
      if (this.#forward && !this.#isOurs(octets, cursor)) {
        this.#forward(packet);
        continue;
      }
      this.received.push(octets);
      this.inet.receive([packet], 1, takers && [takers[i]!]);
    }
  }

  #isOurs(octets: Uint8Array, cursor: Cursor): boolean {
    return this.has(addressFrom(cursor.family, octets, cursor.dstAt));
  }

  #dump(type: 'DUMP' | 'X_SPDDUMP'): Message[] {
    const head = {
      errno: 0,
      satype: 'unspec',
      seq: 0,
      pid: 0,
      reserved: 0,
      extensions: [],
    } as const;
    return this.ask({ type, ...head }).filter((one) => one.errno === 0);
  }
}

const CONTEXT = { now: 0, time: (seconds: number) => `${seconds}`, ports: false };

/** What setkey sends for a script. Throws SetkeyError for what it cannot read. */
export function messagesOf(script: string): Message[] {
  const { entries } = parseScript(script, 'script');
  return entries.flatMap((entry) => {
    if (entry instanceof SetkeyError) throw entry;
    const resolver = {
      addresses: () => [],
      service: () => undefined,
      interfaceIndex: () => undefined,
    };
    const actions = actionsOf(entry, { resolver, supported: undefined, forwardToo: false });
    return actions.flatMap((action) => (action.kind === 'send' ? [action.message] : []));
  });
}

function isIpsec({ protocol, portsKnown, dport }: Cursor): boolean {
  if (protocol === PROTO.UDP) return portsKnown && dport === 4500;
  return protocol === PROTO.ESP || protocol === PROTO.AH;
}

function describePacket(packet: Packet): Seen {
  const p = packet.copy();
  const cursor = new Cursor();
  if (decode(p, 0, p.length, cursor) !== undefined) throw new Error('a broken packet on the wire');
  const { protocol, upperAt } = cursor;
  const [what, spi] =
    protocol === PROTO.ESP
      ? (['esp', u32(p, upperAt)] as const)
      : protocol === PROTO.AH
        ? (['ah', u32(p, upperAt + 4)] as const)
        : (['plain', 0] as const);
  const end = (at: number) => formatAddress(addressFrom(cursor.family, p, at));
  return { from: end(cursor.srcAt), to: end(cursor.dstAt), what, spi };
}
