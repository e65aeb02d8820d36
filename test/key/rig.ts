import { type Address, address } from '../../src/base/address.ts';
import type { Env } from '../../src/base/env.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import type { KeyClient } from '../../src/key/client.ts';
import { KeyEngine, type KeySession } from '../../src/key/engine.ts';
import { defaultKeySettings, type KeySettings } from '../../src/key/settings.ts';
import { Sad } from '../../src/sad/sad.ts';
import { memorySequences } from '../../src/sad/sequence.ts';
import { Spd } from '../../src/spd/spd.ts';
import type {
  AddressExtension,
  Dialect,
  Extension,
  Message,
  MessageType,
  PolicyRequest,
  SaExtension,
  SaType,
} from '../../src/wire/pfkey-message.ts';
import { FLOWS } from '../engine/rig.ts';

/**
 * A key engine with its tables, a clock that stands still until told, and everything that it
 * logged.
 */
export interface Rig {
  readonly env: Env;
  readonly sad: Sad;
  readonly spd: Spd;
  readonly engine: KeyEngine;
  readonly settings: KeySettings;
  readonly logged: string[];
  advance(ms: number): void;
  connect(options?: Partial<Pick<KeyClient, 'origin' | 'dialect'>>): TestClient;
}

export function rig(options: { saMax?: number; policyMax?: number } = {}): Rig {
  let now = 1_000_000;
  let state = 1;
  const logged: string[] = [];
  const env: Env = {
    clock: { monotonicMs: () => now, wallMs: () => 1_700_000_000_000 + now },
    random: {
      fill(bytes) {
        for (let i = 0; i < bytes.length; i++) {
          state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
          bytes[i] = state >>> 16;
        }
      },
    },
    log: (_level, message) => logged.push(message),
  };
  const { saMax, policyMax } = options;
  const sad = new Sad({
    clock: env.clock,
    random: env.random,
    sequences: memorySequences(),
    expired: (sa, limit) => engine.expired(sa, limit),
    ...(saMax === undefined ? {} : { saMax }),
  });
  const spd = new Spd({
    clock: env.clock,
    expired: (policy) => engine.policyExpired(policy),
    flows: FLOWS,
    ...(policyMax === undefined ? {} : { policyMax }),
  });
  const settings = defaultKeySettings();
  const engine: KeyEngine = new KeyEngine({
    env,
    sad,
    spd,
    crypto: nodeCrypto,
    allowLegacy: false,
    settings,
  });
  return {
    env,
    sad,
    spd,
    engine,
    settings,
    logged,
    advance: (ms) => {
      now += ms;
      sad.poll(now);
      spd.poll(now);
    },
    connect: (given = {}) => new TestClient(engine, given),
  };
}

let pids = 100;

/** A program that reads everything at once. */
export class TestClient implements KeyClient {
  readonly origin: 'file' | 'client';
  readonly dialect: Dialect;
  readonly pid = ++pids;
  readonly replies: Message[] = [];
  readonly notices: Message[] = [];
  readonly session: KeySession;
  seq = 0;

  constructor(engine: KeyEngine, given: Partial<Pick<KeyClient, 'origin' | 'dialect'>>) {
    this.origin = given.origin ?? 'client';
    this.dialect = given.dialect ?? 'linux';
    this.session = engine.connect(this);
  }

  deliver(message: Message, kind: 'reply' | 'notice'): void {
    (kind === 'reply' ? this.replies : this.notices).push(message);
  }

  deliverDump(entries: Iterator<Message>): void {
    for (let next = entries.next(); !next.done; next = entries.next()) {
      this.replies.push(next.value);
    }
  }

  /** Sends a message and returns everything that came as its answer. */
  ask(type: MessageType, satype: SaType, ...extensions: Extension[]): Message[] {
    return this.send({ type, satype, extensions });
  }

  send(given: Pick<Message, 'type' | 'satype' | 'extensions'> & Partial<Message>): Message[] {
    this.replies.length = 0;
    this.session.request({ errno: 0, seq: ++this.seq, pid: this.pid, reserved: 0, ...given });
    return [...this.replies];
  }

  /** As `ask`, where there must be exactly one answer. */
  one(type: MessageType, satype: SaType, ...extensions: Extension[]): Message {
    const replies = this.ask(type, satype, ...extensions);
    if (replies.length !== 1) throw new Error(`${replies.length} replies to ${type}`);
    return replies[0]!;
  }

  /** The errno of the only answer. */
  errno(type: MessageType, satype: SaType, ...extensions: Extension[]): number {
    return this.one(type, satype, ...extensions).errno;
  }

  /** The notices since the last call. */
  heard(): Message[] {
    return this.notices.splice(0);
  }
}

export const A: Address = address('10.0.0.1');
export const B: Address = address('10.0.0.2');
export const A6: Address = address('2001:db8::1');
export const B6: Address = address('2001:db8::2');

/** Octets that show up nowhere by chance. */
export function secret(length: number, first = 0xa1): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (first + 7 * i) & 0xff);
}

export function src(of: Address, given: Partial<AddressExtension> = {}): AddressExtension {
  return end('ADDRESS_SRC', of, given);
}

export function dst(of: Address, given: Partial<AddressExtension> = {}): AddressExtension {
  return end('ADDRESS_DST', of, given);
}

function end(
  type: 'ADDRESS_SRC' | 'ADDRESS_DST',
  of: Address,
  given: Partial<AddressExtension>,
): AddressExtension {
  const prefixLen = 8 * of.bytes.length;
  return { proto: 0, prefixLen, address: of, port: 0, scopeId: 0, ...given, type };
}

/** AES-GCM with a 16-octet ICV unless said otherwise. */
export function sa(spi: number, given: Partial<SaExtension> = {}): SaExtension {
  return { type: 'SA', spi, replay: 0, state: 0, auth: 0, encrypt: 20, flags: 0, ...given };
}

export function key(octets = secret(20), type: 'KEY_AUTH' | 'KEY_ENCRYPT' = 'KEY_ENCRYPT') {
  return { type, bits: 8 * octets.length, key: octets } as const;
}

export function sa2(mode: number, reqid = 0): Extension {
  return { type: 'X_SA2', mode, sequence: 0, reqid };
}

export function lifetime(
  type: 'LIFETIME_HARD' | 'LIFETIME_SOFT',
  given: { allocations?: number; bytes?: number; addTime?: number; useTime?: number },
): Extension {
  return { type, allocations: 0, bytes: 0, addTime: 0, useTime: 0, ...given };
}

export function policy(
  direction: number,
  given: Partial<Extract<Extension, { type: 'X_POLICY' }>> = {},
): Extract<Extension, { type: 'X_POLICY' }> {
  const requests = [request()];
  return {
    type: 'X_POLICY',
    policyType: 2,
    direction,
    reserved: 0,
    id: 0,
    priority: 0,
    requests,
    ...given,
  };
}

export function request(given: Partial<PolicyRequest> = {}): PolicyRequest {
  return { proto: 50, mode: 1, level: 2, reqid: 0, ...given };
}

export function tunnel(from: Address, to: Address): Pick<PolicyRequest, 'mode' | 'src' | 'dst'> {
  return { mode: 2, src: { address: from, port: 0 }, dst: { address: to, port: 0 } };
}

/** The types of a message's extensions, in its order. */
export function types(message: Message | undefined): string[] {
  return message?.extensions.map((one) => one.type) ?? [];
}
