import type { SocketPort } from '../drivers/linux/redirect-filter.ts';
import { effectiveLevel } from '../engine/decide.ts';
import type { Settings } from '../engine/settings.ts';
import { PROTO } from '../wire/protocol.ts';
import type { PolicySocket } from './socket-with-policy.ts';

/**
 * Where sockets on the device take clear packets too, because their policy does not require more of
 * what comes in, or has nothing to say about it. The kernel hands them what comes by the device
 * only, so such packets have to be led to the engine, which judges them and writes them there. What
 * a socket requires to be protected needs none of this: the kernel does not deliver it.
 */
export class ClearPorts {
  readonly #settings: Settings;
  readonly #changed: (ports: readonly SocketPort[]) => void;
  readonly #of = new Map<PolicySocket, SocketPort>();
  /** How many sockets there are at each. */
  readonly #counts = new Map<string, { readonly port: SocketPort; count: number }>();

  /** `changed` gets all of them whenever there are others. */
  constructor(settings: Settings, changed: (ports: readonly SocketPort[]) => void) {
    this.#settings = settings;
    this.#changed = changed;
  }

  /** The socket has another policy or port, or has ended. */
  update(socket: PolicySocket): void {
    const port = this.#takesClear(socket) ? portOf(socket) : undefined;
    const before = this.#of.get(socket);
    if (before?.protocol === port?.protocol && before?.port === port?.port) return;
    const gone = before !== undefined && this.#remove(socket, before);
    const came = port !== undefined && this.#add(socket, port);
    if (gone || came) this.#changed([...this.#counts.values()].map((one) => one.port));
  }

  delete(socket: PolicySocket): void {
    const before = this.#of.get(socket);
    if (before === undefined || !this.#remove(socket, before)) return;
    this.#changed([...this.#counts.values()].map((one) => one.port));
  }

  /** The level "default" is that of now. */
  #takesClear({ isOnDevice, endedMs, rules, place }: PolicySocket): boolean {
    if (!isOnDevice || endedMs !== undefined) return false;
    const { family } = place;
    return rules.in.requests.every(
      (request) => effectiveLevel(this.#settings, request, family) === 'use',
    );
  }

  #add(socket: PolicySocket, port: SocketPort): boolean {
    this.#of.set(socket, port);
    const key = keyOf(port);
    const known = this.#counts.get(key);
    if (known) known.count++;
    else this.#counts.set(key, { port, count: 1 });
    return known === undefined;
  }

  #remove(socket: PolicySocket, port: SocketPort): boolean {
    this.#of.delete(socket);
    const known = this.#counts.get(keyOf(port));
    if (known === undefined || --known.count > 0) return false;
    return this.#counts.delete(keyOf(port));
  }
}

function portOf({ place }: PolicySocket): SocketPort | undefined {
  const { type, protocol, local } = place;
  if (type === 'raw' || local.port === 0) return undefined;
  if (protocol !== PROTO.TCP && protocol !== PROTO.UDP) return undefined;
  return { protocol, port: local.port };
}

function keyOf({ protocol, port }: SocketPort): string {
  return `${protocol}/${port}`;
}
