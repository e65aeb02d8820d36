import type { Credentials } from '../drivers/linux/credentials.ts';
import type { ProgramSocket } from '../drivers/linux/program-socket.ts';
import type {
  SocketEnds,
  SocketEntry,
  SocketHandle,
  SocketPolicies,
} from '../engine/socket-policies.ts';
import { ENTRUST, type SocketDirection, type SocketRule } from '../engine/socket-rule.ts';
import { endsOf, type SocketPlace } from './socket-ends.ts';

export type SocketRules = Readonly<Record<SocketDirection, SocketRule>>;

/** What a socket is given at its first policy, and those that it accepts inherit. */
export interface SocketOrigin {
  readonly privileged: boolean;
  /** Who asked for it. */
  readonly asker: Credentials;
  readonly rules: SocketRules;
}

/** Which socket it is, and where. */
export type SocketIdentity = SocketPlace &
  Pick<ProgramSocket, 'cookie' | 'inode' | 'uid' | 'isListening'>;

/** How a socket's packets come to the engine, so that its rules are kept. */
export interface Way {
  /** By the device for sockets, in and out. */
  readonly device: boolean;
  /** Past the engine, marked as its own are. */
  readonly mark: boolean;
}

/**
 * With a rule that asks for protection a socket is on the device, where nothing passes by itself. A
 * bypass going out alone needs no engine.
 */
export function wayOf({ in: into, out }: SocketRules): Way {
  return {
    device: into.type === 'ipsec' || out.type === 'ipsec',
    mark: out.type === 'bypass',
  };
}

/**
 * A real socket with a policy, and its entries in the engine's table: one, or two where it takes
 * both families. They move as it moves.
 */
export class PolicySocket {
  readonly cookie: number;
  readonly inode: number;
  readonly uid: number;
  readonly origin: SocketOrigin;
  place: SocketPlace;
  isListening: boolean;
  /** Whether it is bound to our device now. */
  isOnDevice = false;
  /** It has ended, and packets that it has sent may still be on their way to us. */
  endedMs: number | undefined;
  rules: SocketRules;
  readonly #table: SocketPolicies;
  readonly #handles: SocketHandle[] = [];

  /** Throws KeyError as `SocketPolicies.open`. */
  constructor(table: SocketPolicies, socket: SocketIdentity, origin: SocketOrigin) {
    this.#table = table;
    this.cookie = socket.cookie;
    this.inode = socket.inode;
    this.uid = socket.uid;
    this.origin = origin;
    this.rules = origin.rules;
    this.place = socket;
    this.isListening = socket.isListening;
    this.#put(endsOf(socket));
  }

  get entries(): readonly SocketEntry[] {
    return this.#handles.map(({ entry }) => entry);
  }

  /** Not while packets cannot be known as its own. */
  get isSettled(): boolean {
    return this.place.type === 'raw' || this.place.local.port !== 0;
  }

  /** Whether what comes in for it has to be written to our device. */
  get takesFromDevice(): boolean {
    // A connection in TIME_WAIT still answers.
    return this.isOnDevice && (this.endedMs === undefined || this.place.type === 'stream');
  }

  /** Throws KeyError ENOBUFS; then it is where it was, as far as there was room. */
  move(place: SocketPlace): void {
    this.place = place;
    this.#put(endsOf(place));
  }

  /** Throws KeyError EACCES. */
  setRule(direction: SocketDirection, rule: SocketRule): void {
    for (const handle of this.#handles) handle.setRule(direction, rule);
    this.rules = { ...this.rules, [direction]: rule };
  }

  /** From now on nothing that comes in is for it, and what it has sent is still known. */
  end(nowMs: number): void {
    this.endedMs = nowMs;
    this.setRule('in', ENTRUST.in);
  }

  close(): void {
    for (const handle of this.#handles) handle.close();
    this.#handles.length = 0;
  }

  #put(all: readonly SocketEnds[]): void {
    const { privileged } = this.origin;
    all.forEach((ends, i) => {
      const handle = this.#handles[i];
      if (handle) handle.move(ends);
      else {
        this.#handles.push(this.#table.open(ends, { privileged, ...this.rules, owner: this }));
      }
    });
    while (this.#handles.length > all.length) this.#handles.pop()!.close();
  }
}
