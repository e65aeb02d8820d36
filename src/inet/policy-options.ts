import type { Family } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import {
  askedDirection,
  readSocketOption,
  socketOptionText,
  writeSocketOption,
} from '../engine/socket-option.ts';
import type {
  SocketEnds,
  SocketEntry,
  SocketHandle,
  SocketPolicies,
} from '../engine/socket-policies.ts';
import { ENTRUST, type SocketDirection, type SocketRule } from '../engine/socket-rule.ts';
import type { Protection } from '../engine/socket-status.ts';
import type { Packet } from '../wire/packet.ts';
import type { Dialect } from '../wire/pfkey-message.ts';

/** Of a level of its own in C: IPPROTO_IP and IPPROTO_IPV6. */
export type PolicyOptionName = 'IP_IPSEC_POLICY' | 'IPV6_IPSEC_POLICY';

/** What sockets need of the host for policies of their own; `Host` is one. */
export interface PolicyHost {
  readonly sockets: SocketPolicies;
  outputOf(socket: SocketEntry, packets: readonly Packet[], count: number): void;
  protectionOf(of: SocketEnds | SocketEntry): Protection;
}

/** A host, and how its requests of level "unique" get their numbers. */
export interface PolicyService {
  readonly host: PolicyHost;
  readonly reqid: (own: readonly { readonly reqid: number }[]) => number;
  /** Of the bytes of options. */
  readonly dialect: Dialect;
}

/** What every socket can do with its policies, as setsockopt(2) and getsockopt(2) do. */
export interface PolicySocket {
  /**
   * `value`: bytes as ipsec_set_policy(3) makes them, or its text. Throws KeyError, EACCES for a
   * bypass without privilege, EINVAL and EPROTONOSUPPORT for what is no policy of a socket,
   * EOPNOTSUPP for the option of the family that the socket does not have, and ENOBUFS.
   */
  setsockopt(name: PolicyOptionName, value: Uint8Array | string): void;
  /** The bytes; `asked`: the direction, or a buffer that begins with a policy that has it. */
  getsockopt(name: PolicyOptionName, asked: SocketDirection | Uint8Array): Uint8Array;
  /** The same as text, in the wording of ipsec_dump_policy(3). */
  policyText(name: PolicyOptionName, direction: SocketDirection): string;
  /**
   * Whether what the socket sends and gets is protected, and how. The first question makes the host
   * remember the packets from then on.
   */
  protection(family: Family): Protection;
}

/** The ends of a socket in one family; undefined: it has none. */
export type EndsOf = (family: Family) => SocketEnds | undefined;

/**
 * The policies of one socket, which is in the table of the host while it has some: once for each
 * family, since IPv4 and IPv6 have options of their own.
 */
export class PolicyOptions {
  readonly #service: () => PolicyService | undefined;
  readonly #endsOf: EndsOf;
  readonly #privileged: boolean;
  readonly #handles: Partial<Record<Family, SocketHandle>> = {};

  /** `privileged`: as the socket was when it was opened. */
  constructor(service: () => PolicyService | undefined, endsOf: EndsOf, privileged: boolean) {
    this.#service = service;
    this.#endsOf = endsOf;
    this.#privileged = privileged;
  }

  set(name: PolicyOptionName, value: Uint8Array | string): void {
    const { family, service } = this.#check(name);
    const { direction, rule } = readSocketOption(value, service);
    const handle = this.#handles[family];
    if (handle) handle.setRule(direction, rule);
    else this.#open(family, service, { [direction]: rule });
  }

  get(name: PolicyOptionName, asked: SocketDirection | Uint8Array): Uint8Array {
    const { family, service } = this.#check(name);
    const direction = typeof asked === 'string' ? asked : askedDirection(asked);
    return writeSocketOption(this.#rule(family, direction), service.dialect);
  }

  text(name: PolicyOptionName, direction: SocketDirection): string {
    return socketOptionText(this.#rule(this.#check(name).family, direction));
  }

  protection(family: Family): Protection {
    const { service } = this.#check(family === 4 ? 'IP_IPSEC_POLICY' : 'IPV6_IPSEC_POLICY');
    const handle = this.#handles[family] ?? this.#open(family, service, {});
    return service.host.protectionOf(handle.entry);
  }

  /** Puts the socket into the table, also without policies: it is one of many that get copies. */
  register(): void {
    const service = this.#service();
    if (!service) return;
    this.#allOrNone((family) => {
      if (this.#endsOf(family)) this.#handles[family] ??= this.#open(family, service, {});
    });
  }

  /** By which the socket's packets of a family go; undefined: it leaves them to the host. */
  entry(family: Family): SocketEntry | undefined {
    return this.#handles[family]?.entry;
  }

  /** The socket's ends have changed. */
  moved(): void {
    for (const family of [4, 6] as const) {
      const handle = this.#handles[family];
      // Where it has no ends any more it has no packets either, but keeps its policies.
      handle?.move(this.#endsOf(family) ?? { ...handle.entry.ends, localPort: 0 });
    }
  }

  /** The options of a socket that this one has accepted: the same policies and privilege. */
  inherit(endsOf: EndsOf): PolicyOptions {
    const accepted = new PolicyOptions(this.#service, endsOf, this.#privileged);
    accepted.#allOrNone((family) => {
      const ends = endsOf(family);
      const handle = ends && this.#handles[family]?.inherit(ends, accepted);
      if (handle) accepted.#handles[family] = handle;
    });
    return accepted;
  }

  close(): void {
    for (const family of [4, 6] as const) {
      this.#handles[family]?.close();
      delete this.#handles[family];
    }
  }

  #allOrNone(open: (family: Family) => void): void {
    try {
      for (const family of [4, 6] as const) open(family);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #open(
    family: Family,
    { host }: PolicyService,
    rules: Partial<Record<SocketDirection, SocketRule>>,
  ): SocketHandle {
    const options = { privileged: this.#privileged, owner: this, ...rules };
    const handle = host.sockets.open(this.#endsOf(family)!, options);
    this.#handles[family] = handle;
    return handle;
  }

  #rule(family: Family, direction: SocketDirection): SocketRule {
    return this.#handles[family]?.entry.rules[direction] ?? ENTRUST[direction];
  }

  #check(name: PolicyOptionName): { readonly family: Family; readonly service: PolicyService } {
    const service = this.#service();
    if (!service) throw new KeyError('EOPNOTSUPP', 'this host has no policies for sockets');
    const family = name === 'IP_IPSEC_POLICY' ? 4 : 6;
    if (this.#endsOf(family) || this.#handles[family]) return { family, service };
    throw new KeyError('EOPNOTSUPP', `${name}: the socket has no IPv${family} packets`);
  }
}
