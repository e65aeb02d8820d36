import { type Address, address, prefix } from '../../src/base/address.ts';
import type { DropReason } from '../../src/base/drop.ts';
import type { Env } from '../../src/base/env.ts';
import { authenticationByName, encryptionByName } from '../../src/crypto/algorithms.ts';
import type { Events } from '../../src/engine/core.ts';
import { Host } from '../../src/engine/host.ts';
import type { Settings } from '../../src/engine/settings.ts';
import { defaultSettings } from '../../src/engine/settings.ts';
import type { Shard } from '../../src/engine/shard.ts';
import {
  SocketPolicies,
  type SocketPoliciesOptions,
  type Takers,
} from '../../src/engine/socket-policies.ts';
import { type Sa, type SaSpec, saSpec } from '../../src/sad/sa.ts';
import { Sad } from '../../src/sad/sad.ts';
import { memorySequences, type SequenceStore } from '../../src/sad/sequence.ts';
import {
  PORT_ANY,
  type Policy,
  type PolicySpec,
  PROTOCOL_ANY,
  type Request,
} from '../../src/spd/policy.ts';
import { Spd } from '../../src/spd/spd.ts';
import { type Packet, type PacketSink, packetFrom } from '../../src/wire/packet.ts';
import { providerUnderTest } from '../crypto/under-test.ts';

/**
 * A world for a test: time stands still until told, and random octets come from a generator with a
 * seed.
 */
export function testEnv(seed = 1): Env & { advance(ms: number): void; log: () => void } {
  let now = 1_000_000;
  let state = seed >>> 0 || 1;
  return {
    clock: { monotonicMs: () => now, wallMs: () => 1_700_000_000_000 + now },
    random: {
      fill(bytes) {
        for (let i = 0; i < bytes.length; i++) {
          state ^= state << 13;
          state ^= state >>> 17;
          state ^= state << 5;
          bytes[i] = state;
        }
      },
    },
    log: () => {},
    advance(ms) {
      now += ms;
    },
  };
}

export interface SaGiven {
  readonly protocol?: 'esp' | 'ah';
  readonly spi: number;
  readonly src: string;
  readonly dst: string;
  readonly enc?: string;
  readonly encKey?: Uint8Array;
  readonly auth?: string;
  readonly authKey?: Uint8Array;
}

export type SaOptions = SaGiven & Partial<Omit<SaSpec, keyof SaGiven>>;

/** A spec with keys that fit: aes-gcm-16 unless something else is asked for. */
export function sa(given: SaOptions): SaSpec {
  const { src, dst, enc, auth, protocol = 'esp', ...rest } = given;
  const cipher = protocol === 'esp' ? encryptionByName(enc ?? 'aes-gcm-16') : undefined;
  const mac = auth === undefined ? undefined : authenticationByName(auth);
  const encryptKey = given.encKey ?? someKey(cipher ? cipher.keyBits.min / 8 : 0);
  const authKey = given.authKey ?? someKey(mac ? mac.keyBits.min / 8 : 0);
  const crypto = providerUnderTest();
  const parts = { cipher, cipherKey: encryptKey, mac, macKey: authKey, allowLegacy: true };
  return saSpec({
    protocol,
    replayPackets: 64,
    keys: { auth: mac?.pfkey ?? 0, encrypt: cipher?.pfkey ?? 0, authKey, encryptKey },
    ...(protocol === 'esp' ? { esp: crypto.esp(parts) } : { ah: crypto.ah(parts) }),
    ...rest,
    src: address(src),
    dst: address(dst),
  });
}

export function someKey(len: number): Uint8Array {
  return Uint8Array.from({ length: len }, (_, i) => (i * 37 + 11) & 255);
}

export function request(
  given: Partial<Omit<Request, 'src' | 'dst'>> & { src?: string; dst?: string },
): Request {
  const { src, dst, ...rest } = given;
  return {
    protocol: 'esp',
    mode: 'transport',
    level: 'require',
    reqid: 0,
    srcPort: 0,
    dstPort: 0,
    ...rest,
    ...(src === undefined ? {} : { src: address(src) }),
    ...(dst === undefined ? {} : { dst: address(dst) }),
  };
}

export function policy(
  direction: 'in' | 'out' | 'fwd',
  src: string,
  dst: string,
  more: Partial<PolicySpec> & { protocol?: number; sport?: number; dport?: number } = {},
): PolicySpec {
  const { protocol = PROTOCOL_ANY, sport = PORT_ANY, dport = PORT_ANY, ...rest } = more;
  return {
    direction,
    selector: { src: prefix(src), dst: prefix(dst), protocol, sport, dport },
    type: 'ipsec',
    priority: 0,
    requests: [],
    lifetimeSeconds: 0,
    idleSeconds: 0,
    origin: 'client',
    ...rest,
  };
}

/**
 * How many buffers a host of a test has unless it says otherwise. One file makes thousands of
 * hosts, and the usual 128 buffers of 64 kB are memory that is cleared for each, and collected
 * again. Those to whom more than a few fragments are sent at a time say so.
 */
export const BUFFERS = 16;
/** Places in the flow caches, which are fewer for the same reason. */
export const FLOWS = 256;

export interface RigOptions {
  readonly env?: ReturnType<typeof testEnv>;
  readonly settings?: Partial<Settings>;
  readonly mtu?: number;
  readonly events?: Events;
  readonly sequences?: SequenceStore;
  readonly buffers?: number;
  readonly forwards?: boolean;
  readonly sockets?: SocketPoliciesOptions;
  readonly shard?: Shard | undefined;
}

/** One host whose two sides are arrays. */
export class Rig {
  readonly env: ReturnType<typeof testEnv>;
  readonly sad: Sad;
  readonly spd: Spd;
  readonly host: Host;
  readonly sent: Uint8Array[] = [];
  readonly delivered: Uint8Array[] = [];
  /** Of these, what was for sockets, and for which. */
  readonly toSockets: { readonly octets: Uint8Array; readonly takers: Takers }[] = [];
  readonly expired: [Sa, 'soft' | 'hard'][] = [];
  readonly gone: Policy[] = [];
  /** Who else is told of what goes out on either side. */
  onTransmit: PacketSink | undefined;
  onDeliver: PacketSink | undefined;

  constructor(options: RigOptions = {}) {
    this.env = options.env ?? testEnv();
    this.sad = new Sad({
      clock: this.env.clock,
      random: this.env.random,
      sequences: options.sequences ?? memorySequences(),
      expired: (one, limit) => this.expired.push([one, limit]),
    });
    this.spd = new Spd({
      clock: this.env.clock,
      expired: (one) => this.gone.push(one),
      flows: FLOWS,
    });
    this.host = new Host({
      env: this.env,
      sad: this.sad,
      spd: this.spd,
      settings: { ...defaultSettings(), ...options.settings },
      ...(options.mtu === undefined ? {} : { mtu: options.mtu }),
      ...(options.events === undefined ? {} : { events: options.events }),
      buffers: options.buffers ?? BUFFERS,
      ...(options.shard === undefined ? {} : { shard: options.shard }),
      forwards: options.forwards ?? false,
      sockets: new SocketPolicies(options.sockets),
      deliverToSockets: (packets, count, takers) => {
        for (let i = 0; i < count; i++) {
          const octets = packets[i]!.copy();
          this.delivered.push(octets);
          this.toSockets.push({ octets, takers: takers[i]! });
        }
      },
      transmit: (packets, count) => {
        this.sent.push(...packets.slice(0, count).map((p) => p.copy()));
        this.onTransmit?.(packets, count);
      },
      deliver: (packets, count) => {
        this.delivered.push(...packets.slice(0, count).map((p) => p.copy()));
        this.onDeliver?.(packets, count);
      },
    });
  }

  /** Sends packets from the local side in one batch, and returns what went to the wire. */
  output(...packets: Uint8Array[]): Uint8Array[] {
    return this.outputMarked(packets, []);
  }

  /**
   * As `output` and `input`, with marks of which packets follow the one before (`Packet.follows`).
   */
  outputMarked(packets: readonly Uint8Array[], follows: readonly boolean[]): Uint8Array[] {
    this.sent.length = 0;
    this.delivered.length = 0;
    this.host.output(marked(packets, follows), packets.length);
    return [...this.sent];
  }

  inputMarked(packets: readonly Uint8Array[], follows: readonly boolean[]): Uint8Array[] {
    this.sent.length = 0;
    this.delivered.length = 0;
    this.host.input(marked(packets, follows), packets.length);
    return [...this.delivered];
  }

  /** As `output`, of sockets of the table. */
  outputOfSockets(...packets: Uint8Array[]): Uint8Array[] {
    this.sent.length = 0;
    this.delivered.length = 0;
    this.host.outputOfSockets(packets.map(packetFrom), packets.length);
    return [...this.sent];
  }

  /** Takes packets from the wire in one batch, and returns what was delivered. */
  input(...packets: Uint8Array[]): Uint8Array[] {
    return this.inputMarked(packets, []);
  }

  /** All drops so far, by side and reason. */
  drops(): Partial<Record<`${'in' | 'out'} ${DropReason}`, number>> {
    const rows = (['in', 'out'] as const).flatMap((side) =>
      this.host.stats.dropped(side).map(([reason, count]) => [`${side} ${reason}`, count]),
    );
    return Object.fromEntries(rows);
  }
}

function marked(packets: readonly Uint8Array[], follows: readonly boolean[]): Packet[] {
  return packets.map((octets, i) =>
    Object.assign(packetFrom(octets), { follows: follows[i] ?? false }),
  );
}

export type { Address };
