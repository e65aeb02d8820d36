import { addressFrom } from '../base/address.ts';
import type { Clock } from '../base/env.ts';
import type { Link } from '../drivers/link.ts';
import { TCP, type Tuple, UDP } from '../drivers/linux/sock-diag.ts';
import type { SocketEntry, SocketPolicies, Takers } from '../engine/socket-policies.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import type { Packet, PacketSink } from '../wire/packet.ts';
import { echoProtocol } from './socket-ends.ts';
import type { SocketRegistry } from './socket-registry.ts';
import { PolicySocket } from './socket-with-policy.ts';

/**
 * Questions to the kernel in a second, for all that sockets send that are not known: anybody may
 * bind a socket to the device and send without end. Beyond it, such packets are dropped unasked.
 */
const QUESTIONS_MAX = 2000;

export interface SocketSourceOptions {
  readonly table: SocketPolicies;
  readonly registry: SocketRegistry;
  readonly clock: Clock;
  /** Index of the device for sockets. */
  readonly device: number;
  /** The engine: drops what no socket of the table has sent. */
  readonly output: PacketSink;
}

/** Takes what sockets have sent by their device to the engine, and asks first whose it is. */
export class SocketSource {
  readonly #options: SocketSourceOptions;
  readonly #cursor = new Cursor();
  #secondMs = 0;
  #questions = 0;

  constructor(options: SocketSourceOptions) {
    this.#options = options;
  }

  readonly take: PacketSink = (packets, count) => {
    for (let i = 0; i < count; i++) this.#look(packets[i]!);
    this.#options.output(packets, count);
  };

  #look({ bytes: p, at, end }: Packet): void {
    const { table } = this.#options;
    const cursor = this.#cursor;
    // What has no ports is known by its first fragment, or not at all.
    if (decode(p, at, end, cursor) !== undefined || !cursor.portsKnown) return;
    const entry = table.sender(p, cursor);
    if (entry === undefined || mayBeAnother(entry)) this.#ask(p, cursor, entry);
  }

  #ask(p: Uint8Array, cursor: Cursor, entry: SocketEntry | undefined): void {
    const { family, protocol } = cursor;
    const { registry, device } = this.#options;
    const isEcho = protocol === echoProtocol(family);
    if ((protocol !== TCP && protocol !== UDP && !isEcho) || !this.#mayAsk()) return;
    if (isEcho) return registry.learnEcho();
    const tuple: Tuple = {
      ...{ protocol: protocol === TCP ? TCP : (UDP as typeof UDP), device },
      ...{ local: addressFrom(family, p, cursor.srcAt), localPort: cursor.sport },
      ...{ remote: addressFrom(family, p, cursor.dstAt), remotePort: cursor.dport },
    };
    registry.learn(tuple, entry);
  }

  #mayAsk(): boolean {
    const now = this.#options.clock.monotonicMs();
    if (now - this.#secondMs >= 1000) {
      this.#secondMs = now;
      this.#questions = 0;
    }
    return this.#questions++ < QUESTIONS_MAX;
  }
}

/**
 * Of TCP all packets have another end: one of a socket that listens is a connection's, which is a
 * socket of its own and may outlive the other, or the end is not known yet.
 */
function mayBeAnother({ owner }: SocketEntry): boolean {
  if (!(owner instanceof PolicySocket)) return false;
  return owner.place.type === 'stream' && owner.place.remote.address === undefined;
}

/**
 * Hands packets for sockets of the table on: by the device to those that are bound to it, whom the
 * kernel gives nothing else, and by the usual link to others.
 */
export function deliverToSockets(
  packets: readonly Packet[],
  count: number,
  takers: readonly Takers[],
  local: Link,
  device: Link | undefined,
): void {
  for (let from = 0; from < count; ) {
    const link = linkFor(takers[from]!, local, device);
    let to = from + 1;
    while (to < count && linkFor(takers[to]!, local, device) === link) to++;
    link.send(packets.slice(from, to), to - from);
    from = to;
  }
}

/** Raw sockets that are bound to no device get what comes by this one, too. */
function linkFor({ sockets }: Takers, local: Link, device: Link | undefined): Link {
  if (device === undefined) return local;
  const isTaken = sockets.some(
    ({ owner }) => owner instanceof PolicySocket && owner.takesFromDevice,
  );
  return isTaken ? device : local;
}
