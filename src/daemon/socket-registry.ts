import type { Env } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import type { Credentials } from '../drivers/linux/credentials.ts';
import type { ProgramSocket } from '../drivers/linux/program-socket.ts';
import { type KernelSocket, TCP, TCP_STATE, type Tuple, UDP } from '../drivers/linux/sock-diag.ts';
import type { SocketEntry, SocketPolicies } from '../engine/socket-policies.ts';
import { ENTRUST, type SocketDirection, type SocketRule } from '../engine/socket-rule.ts';
import type { ClearPorts } from './socket-clear-ports.ts';
import { endsOf, isKnownKind, placeNow, type SocketPlace } from './socket-ends.ts';
import type { SocketKernel } from './socket-kernel.ts';
import { isPrivileged } from './socket-privilege.ts';
import {
  PolicySocket,
  type SocketIdentity,
  type SocketRules,
  wayOf,
} from './socket-with-policy.ts';

/** How often is looked after sockets whose end the kernel does not report. */
const LOOK_MS = 1000;
/** A machine may have very many sockets: asking about all is to take a fiftieth of the time. */
const REST_FACTOR = 50;
/** What a socket has sent before its end may take so long to get here. */
const LINGER_MS = 2000;

export interface SocketRegistryOptions {
  readonly env: Env;
  readonly table: SocketPolicies;
  readonly kernel: SocketKernel;
  /** SO_MARK of sockets whose packets go past the engine. */
  readonly mark: number;
  /** Opens the device for sockets, if it is not open. Throws an Error. */
  readonly openDevice: () => { readonly name: string; readonly index: number };
  readonly clearPorts: ClearPorts;
}

/**
 * The sockets of programs that have a policy, by their cookies: keeps what the engine knows about
 * them in step with what the kernel does with them. A socket is the same in every process that has
 * a descriptor of it, and is forgotten when the last one is closed.
 */
export class SocketRegistry {
  readonly #options: SocketRegistryOptions;
  readonly #sockets = new Map<number, PolicySocket>();
  /** Those that have ended, and those whose end is not reported. */
  readonly #watched = new Set<PolicySocket>();
  /** Of TCP and UDP, those that had no port when we last heard. */
  readonly #unsettled = new Set<PolicySocket>();
  /** Reports were lost, and the kernel could not be asked. */
  #isBehind = false;
  #askAgainMs = 0;
  #looking: NodeJS.Timeout | undefined;

  constructor(options: SocketRegistryOptions) {
    this.#options = options;
  }

  all(): Iterable<PolicySocket> {
    return this.#sockets.values();
  }

  get(cookie: number): PolicySocket | undefined {
    return this.#sockets.get(cookie);
  }

  /**
   * setsockopt of a policy. Throws KeyError: EACCES for a bypass without privilege, EOPNOTSUPP for
   * a kind of socket that has none, EBUSY for one that is bound to another device, ENOBUFS, EIO.
   */
  setRule(
    fd: number,
    socket: ProgramSocket,
    direction: SocketDirection,
    rule: SocketRule,
    asker: Credentials,
  ): void {
    if (!isKnownKind(socket)) {
      throw new KeyError('EOPNOTSUPP', 'a socket of TCP, UDP, ICMP echo or raw IP has policies');
    }
    // One that has ended may have had the same port.
    this.#options.kernel.catchUp();
    const known = this.#sockets.get(socket.cookie);
    const privileged = known?.origin.privileged ?? isPrivileged(socket.uid, asker);
    if (rule.type === 'bypass' && !privileged) {
      throw new KeyError('EACCES', 'only a privileged socket may bypass the policies of the host');
    }
    const rules: SocketRules = { ...(known?.rules ?? ENTRUST), [direction]: rule };
    // First: from here on the socket sends nothing that we do not see.
    const isNewlyBound = wayOf(rules).device && this.#bind(fd, socket);
    try {
      const kept = known ?? this.#add(socket, { privileged, asker, rules });
      kept.setRule(direction, rule);
      this.#move(kept, socket);
      this.#setWay(fd, kept);
    } catch (error) {
      if (known === undefined) this.#forget(this.#sockets.get(socket.cookie));
      if (isNewlyBound) this.#options.kernel.bind(fd, '');
      throw error;
    }
  }

  /**
   * The socket may be somewhere else now, or is one that another has accepted. Throws KeyError
   * EBUSY when the program has bound it to a device, which is undone, and ENOBUFS.
   */
  moved(fd: number, socket: ProgramSocket): void {
    const { kernel, openDevice } = this.#options;
    const known = this.#sockets.get(socket.cookie);
    if (known === undefined) return this.#accepted(socket);
    known.isListening = socket.isListening;
    this.#move(known, withRemote(socket, known));
    if (!known.isOnDevice) return;
    const { name } = openDevice();
    if (socket.device === name) return;
    kernel.bind(fd, name);
    throw new KeyError('EBUSY', 'a socket whose policy asks for protection has its own device');
  }

  /**
   * A packet of a socket that is not known to be there, or of a connection that is known as part of
   * `listener` only: the kernel knows whose it is.
   */
  learn(tuple: Tuple, listener: SocketEntry | undefined): void {
    const socket = this.#options.kernel.find(tuple);
    if (socket === undefined) return;
    const known = this.#sockets.get(socket.cookie);
    if (known) return this.#tryMove(known, placeNow(known.place, socket));
    const { SYN_RECEIVED, NEW_SYN_RECEIVED, LISTEN } = TCP_STATE;
    const isYoung = [SYN_RECEIVED, NEW_SYN_RECEIVED, LISTEN].some((one) => one === socket.state);
    const owner = listener?.owner;
    if (!(owner instanceof PolicySocket) || tuple.protocol !== TCP || isYoung) return;
    const { cookie, uid } = socket;
    const accepted = { ...placeNow(owner.place, socket), cookie, uid, inode: 0 };
    this.#inherit(owner, { ...accepted, isListening: false });
  }

  /** The same for an ICMP echo request: which socket has the identifier. */
  learnEcho(): void {
    const raws = this.#options.kernel.raws();
    for (const socket of this.#watched) {
      const port = raws.get(socket.inode);
      const { place } = socket;
      if (port === undefined || socket.isSettled || place.type !== 'datagram') continue;
      this.#tryMove(socket, { ...place, local: { ...place.local, port } });
    }
  }

  /** The kernel has no such socket any more. */
  destroyed(cookie: number): void {
    const socket = this.#sockets.get(cookie);
    if (socket === undefined || socket.endedMs !== undefined) return;
    if (!socket.isSettled || socket.isListening) return this.#forget(socket);
    socket.end(this.#options.env.clock.monotonicMs());
    this.#options.clearPorts.update(socket);
    this.#watch(socket);
  }

  /** Reports of the kernel were lost. */
  lost(): void {
    const all = this.#askAll();
    this.#isBehind = all === undefined;
    if (all === undefined) return this.#lookLater();
    const there = new Set(all.map(({ cookie }) => cookie));
    for (const socket of [...this.#sockets.values()]) {
      if (!isUnreported(socket) && !there.has(socket.cookie)) this.destroyed(socket.cookie);
    }
  }

  close(): void {
    clearTimeout(this.#looking);
    for (const socket of [...this.#sockets.values()]) this.#forget(socket);
  }

  #bind(fd: number, socket: ProgramSocket): boolean {
    const { kernel, openDevice } = this.#options;
    const { name } = deviceOrError(openDevice);
    if (socket.device === name) return false;
    if (socket.device !== undefined && socket.device !== '') {
      throw new KeyError('EBUSY', `the socket is bound to device ${socket.device}`);
    }
    const errno = kernel.bind(fd, name);
    if (errno !== 0) throw new KeyError('EIO', `binding the socket to ${name}: error ${errno}`);
    return true;
  }

  #add(socket: SocketIdentity, origin: PolicySocket['origin']): PolicySocket {
    const added = new PolicySocket(this.#options.table, socket, origin);
    this.#sockets.set(added.cookie, added);
    if (isUnreported(added)) this.#watch(added);
    return added;
  }

  #setWay(fd: number, socket: PolicySocket): void {
    const { kernel, mark } = this.#options;
    const way = wayOf(socket.rules);
    const errno = kernel.mark(fd, mark, way.mark ? 'set' : 'unset');
    if (errno !== 0) throw new KeyError('EIO', `marking the socket: error ${errno}`);
    if (socket.isOnDevice && !way.device) kernel.bind(fd, '');
    socket.isOnDevice = way.device;
    this.#options.clearPorts.update(socket);
    const { in: into, out } = socket.rules;
    if (into.type === 'entrust' && out.type === 'entrust') this.#forget(socket);
  }

  #accepted(socket: ProgramSocket): void {
    if (socket.type !== 'stream' || socket.remote.address === undefined) return;
    const listener = this.#listenerOf(socket);
    if (listener === undefined) return;
    // It was made before the listener had its policy, and goes another way.
    if (listener.isOnDevice && socket.device !== this.#options.openDevice().name) return;
    this.#inherit(listener, socket);
  }

  #listenerOf(socket: SocketPlace): PolicySocket | undefined {
    const [ends] = endsOf(socket);
    if (ends === undefined) return undefined;
    const { family, protocol, local, localPort } = ends;
    const port = { family, protocol, localPort, remotePort: 0 };
    for (const place of [local === undefined ? port : { ...port, local }, port]) {
      const owner = this.#options.table.get(place)?.owner;
      if (owner instanceof PolicySocket && owner.isListening) return owner;
    }
    return undefined;
  }

  #inherit(listener: PolicySocket, socket: SocketIdentity): void {
    try {
      const added = this.#add(socket, { ...listener.origin, rules: listener.rules });
      added.isOnDevice = listener.isOnDevice;
      this.#options.clearPorts.update(added);
    } catch (error) {
      this.#full(error);
    }
  }

  #move(socket: PolicySocket, place: SocketPlace): void {
    for (const ends of endsOf(place)) {
      const other = this.#options.table.get(ends)?.owner;
      if (other instanceof PolicySocket && other !== socket && other.endedMs !== undefined) {
        this.#forget(other);
      }
    }
    socket.move(place);
    this.#options.clearPorts.update(socket);
    if (socket.isSettled || isUnreported(socket)) this.#unsettled.delete(socket);
    else this.#unsettled.add(socket);
    this.#lookLater();
  }

  #tryMove(socket: PolicySocket, place: SocketPlace): void {
    try {
      this.#move(socket, place);
    } catch (error) {
      this.#full(error);
    }
  }

  /** No room in the table: what the socket sends is dropped there, and counted. */
  #full(error: unknown): void {
    if (!(error instanceof KeyError)) throw error;
    this.#options.env.log('warn', `exec: the policy of a socket: ${error.message}`);
  }

  #forget(socket: PolicySocket | undefined): void {
    if (socket === undefined || !this.#sockets.delete(socket.cookie)) return;
    this.#watched.delete(socket);
    this.#unsettled.delete(socket);
    socket.close();
    this.#options.clearPorts.delete(socket);
  }

  #watch(socket: PolicySocket): void {
    this.#watched.add(socket);
    this.#lookLater();
  }

  #lookLater(): void {
    if (this.#watched.size + this.#unsettled.size === 0 && !this.#isBehind) return;
    this.#looking ??= setTimeout(() => this.#look(), LOOK_MS).unref();
  }

  #look(): void {
    this.#looking = undefined;
    const nowMs = this.#options.env.clock.monotonicMs();
    const unreported = [...this.#watched].filter(isUnreported);
    const raws = unreported.length > 0 ? this.#options.kernel.raws() : new Map<number, number>();
    for (const socket of this.#watched) {
      const { endedMs, isSettled, origin } = socket;
      if (endedMs !== undefined) {
        if (nowMs - endedMs >= LINGER_MS && !this.#isInTimeWait(socket)) this.#forget(socket);
      } else if (!raws.has(socket.inode)) {
        // Without a number the kernel does not list it.
        const mayBeThere = !isSettled && this.#options.kernel.isRunning(origin.asker.pid);
        if (!mayBeThere) this.#forget(socket);
      }
    }
    if (this.#isBehind) this.lost();
    if (this.#unsettled.size > 0 && nowMs >= this.#askAgainMs) this.#findPorts();
    this.#lookLater();
  }

  /** A process that has a descriptor and not our library may have bound the socket. */
  #findPorts(): void {
    const { clock } = this.#options.env;
    const startMs = clock.monotonicMs();
    for (const found of this.#askAll() ?? []) {
      const known = this.#sockets.get(found.cookie);
      if (known === undefined || !this.#unsettled.has(known)) continue;
      known.isListening = found.state === TCP_STATE.LISTEN && known.place.type === 'stream';
      this.#tryMove(known, placeNow(known.place, found));
    }
    const nowMs = clock.monotonicMs();
    this.#askAgainMs = nowMs + REST_FACTOR * (nowMs - startMs);
  }

  #askAll(): readonly KernelSocket[] | undefined {
    try {
      return this.#options.kernel.all();
    } catch (error) {
      this.#options.env.log('warn', `exec: the sockets of this machine: ${String(error)}`);
      return undefined;
    }
  }

  #isInTimeWait({ cookie, place }: PolicySocket): boolean {
    if (place.type !== 'stream' || !place.local.address || !place.remote.address) return false;
    const { name: _, index: device } = this.#options.openDevice();
    const found = this.#options.kernel.find({
      ...{ protocol: TCP, device },
      ...{ local: place.local.address, localPort: place.local.port },
      ...{ remote: place.remote.address, remotePort: place.remote.port },
    });
    return found?.cookie === cookie && found.state === TCP_STATE.TIME_WAIT;
  }
}

/** While a connection is being made, only the kernel's own table has its other end. */
function withRemote(socket: ProgramSocket, { place }: PolicySocket): SocketPlace {
  const isWaiting = socket.type === 'stream' && !socket.isListening && !socket.remote.address;
  const isSame = isWaiting && socket.local.port === place.local.port;
  return isSame ? { ...socket, remote: place.remote } : socket;
}

/** Of these kinds the kernel does not say that they have ended. */
function isUnreported({ place: { type, protocol } }: PolicySocket): boolean {
  return type === 'raw' || (type === 'datagram' && protocol !== UDP);
}

function deviceOrError(open: SocketRegistryOptions['openDevice']) {
  try {
    return open();
  } catch (error) {
    throw new KeyError('EOPNOTSUPP', `there is no device for sockets: ${String(error)}`);
  }
}
