import { KeyError } from '../base/error.ts';
import type { Credentials } from '../drivers/linux/credentials.ts';
import { libc } from '../drivers/linux/libc.ts';
import { describeSocket, type ProgramSocket } from '../drivers/linux/program-socket.ts';
import type { Host } from '../engine/host.ts';
import { askedDirection, readSocketOption, writeSocketOption } from '../engine/socket-option.ts';
import type { SocketEnds } from '../engine/socket-policies.ts';
import { ENTRUST } from '../engine/socket-rule.ts';
import type { KeyContext } from '../key/context.ts';
import { freeReqid } from '../key/policy-request.ts';
import { endsOf } from './socket-ends.ts';
import { isPrivileged } from './socket-privilege.ts';
import type { SocketRegistry } from './socket-registry.ts';
import { encodeStatus, type SocketLine, socketLines } from './socket-status.ts';

export interface SocketOptionsContext {
  readonly host: () => Host;
  readonly keys: () => KeyContext;
  /**
   * The sockets that have policies. Undefined where the packets of the machine do not come to the
   * engine: in user space. Throws an Error.
   */
  readonly registry: () => SocketRegistry | undefined;
  /** The same, if there was one yet. */
  readonly known: () => SocketRegistry | undefined;
}

/**
 * The socket options of IPsec on sockets of programs, each by a descriptor that was passed to us.
 * All throw KeyError.
 */
export class SocketOptions {
  readonly #context: SocketOptionsContext;

  constructor(context: SocketOptionsContext) {
    this.#context = context;
  }

  /**
   * setsockopt of IP_IPSEC_POLICY or IPV6_IPSEC_POLICY: octets as ipsec_set_policy(3) makes them on
   * Linux. Errors as `readSocketOption` and `SocketRegistry.setRule`.
   */
  set(fd: number, octets: Uint8Array, asker: Credentials): void {
    const { keys } = this.#context;
    const socket = socketOf(fd);
    const { direction, rule } = readSocketOption(octets, {
      dialect: 'linux',
      reqid: (own) => freeReqid(keys(), own),
    });
    const registry = this.#registry();
    if (registry) return registry.setRule(fd, socket, direction, rule, asker);
    if (rule.type === 'bypass' && !isPrivileged(socket.uid, asker)) {
      throw new KeyError('EACCES', 'only a privileged socket may bypass the policies of the host');
    }
    // What programs send does not come to a host in user space anyway.
    if (rule.type !== 'ipsec') return;
    throw new KeyError('EOPNOTSUPP', 'a host in user space does not see sockets of programs');
  }

  /** getsockopt of the same: the policy of the direction that the caller's octets name. */
  get(fd: number, octets: Uint8Array): Uint8Array {
    const { cookie } = socketOf(fd);
    const direction = askedDirection(octets);
    const rules = this.#context.known()?.get(cookie)?.rules ?? ENTRUST;
    return writeSocketOption(rules[direction], 'linux');
  }

  /** The socket was bound, connected, or accepted. */
  moved(fd: number): void {
    this.#context.known()?.moved(fd, socketOf(fd));
  }

  /** `struct testudo_ipsec_status`. */
  status(fd: number): Uint8Array {
    const socket = socketOf(fd);
    const registry = this.#registry();
    if (!registry) {
      throw new KeyError('EOPNOTSUPP', 'a host in user space does not see sockets of programs');
    }
    const known = registry.get(socket.cookie);
    const of = known?.entries[0] ?? firstEnds(socket);
    return encodeStatus(this.#context.host().protectionOf(of), known?.rules ?? ENTRUST);
  }

  /** All sockets that have policies. */
  list(): SocketLine[] {
    const lines: SocketLine[] = [];
    for (const socket of this.#context.known()?.all() ?? []) {
      if (socket.endedMs !== undefined) continue;
      lines.push(...socketLines(socket, (entry) => this.#context.host().protectionOf(entry)));
    }
    return lines;
  }

  #registry(): SocketRegistry | undefined {
    try {
      return this.#context.registry();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new KeyError('EOPNOTSUPP', `sockets of programs have no policies here: ${why}`);
    }
  }
}

function socketOf(fd: number): ProgramSocket {
  const socket = describeSocket(libc('testudo exec'), fd);
  if (socket === undefined) throw new KeyError('EINVAL', 'it is no socket of IP');
  return socket;
}

function firstEnds(socket: ProgramSocket): SocketEnds {
  return endsOf(socket)[0]!;
}
