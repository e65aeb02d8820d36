import { type Address, type Family, formatAddress, sameAddress } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import type { SocketEnds, SocketEntry } from '../engine/socket-policies.ts';
import { PROTO } from '../wire/protocol.ts';
import { PolicyOptions, type PolicyService, type PolicySocket } from './policy-options.ts';
import type { Sender } from './sender.ts';

/** Their ports say whose packets are whose, so that nobody else gets copies, as in BSD. */
const WITH_PORTS: readonly number[] = [PROTO.TCP, PROTO.UDP];

/** What came, behind its IP header; `data` is borrowed. */
export type RawHandler = (data: Uint8Array, from: Address, hopLimit: number) => void;

export interface RawOptions {
  /** The address of this host that the socket is bound to; all. */
  readonly local?: Address;
  /** Only what comes from there. */
  readonly remote?: Address;
  /** Whether it may bypass the policies of the host, as root's may. No. */
  readonly privileged?: boolean;
}

export interface RawSocket extends PolicySocket {
  readonly protocol: number;
  /**
   * `data`: all behind the IP header. A checksum where the protocol is known to have one is filled
   * in.
   */
  send(data: Uint8Array, to: Address): void;
  close(): void;
}

interface Open {
  readonly socket: RawSocket;
  readonly options: RawOptions;
  readonly handler: RawHandler;
  readonly policies: PolicyOptions;
}

/** The raw sockets of a host: each gets a copy of all packets of its protocol. */
export class RawSockets {
  readonly #sender: Sender;
  readonly #service: () => PolicyService | undefined;
  readonly #open = new Set<Open>();

  constructor(sender: Sender, service: () => PolicyService | undefined) {
    this.#sender = sender;
    this.#service = service;
  }

  open(protocol: number, handler: RawHandler, options: RawOptions, closed: () => void): RawSocket {
    const isNumber = Number.isInteger(protocol) && protocol > 0 && protocol < 255;
    if (!isNumber || WITH_PORTS.includes(protocol)) {
      throw new KeyError('EPROTONOSUPPORT', `protocol ${protocol} has no raw sockets`);
    }
    const { local, remote, privileged = false } = options;
    if (local && !this.#sender.isOurs(local)) {
      throw new KeyError('EINVAL', `${formatAddress(local)} is not an address of this host`);
    }
    const ends = (family: Family): SocketEnds | undefined => {
      const isOther = [local, remote].some((one) => one !== undefined && one.family !== family);
      if (isOther) return undefined;
      const fixed = { ...(local ? { local } : {}), ...(remote ? { remote } : {}) };
      return { family, protocol, localPort: 0, remotePort: 0, raw: true, ...fixed };
    };
    const policies = new PolicyOptions(this.#service, ends, privileged);
    policies.register();
    const socket: RawSocket = {
      protocol,
      send: (data, to) => {
        const from = this.#sender.sourceFor(to, local);
        const fill = (p: Uint8Array, at: number) => p.set(data, at);
        const entry = policies.entry(to.family);
        this.#sender.send({ from, to, protocol, len: data.length, fill, socket: entry });
      },
      setsockopt: (name, value) => policies.set(name, value),
      getsockopt: (name, asked) => policies.get(name, asked),
      policyText: (name, direction) => policies.text(name, direction),
      protection: (family) => policies.protection(family),
      close: () => {
        if (!this.#open.delete(one)) return;
        policies.close();
        closed();
      },
    };
    const one: Open = { socket, options, handler, policies };
    this.#open.add(one);
    return socket;
  }

  /** The host has a table now. */
  joined(): void {
    for (const { policies } of this.#open) policies.register();
  }

  get size(): number {
    return this.#open.size;
  }

  /**
   * Hands out copies: to sockets that leave their packets to the host if it lets this one in, and
   * to those whose own policy does. How many got one.
   */
  take(
    data: Uint8Array,
    packet: RawPacket,
    accepted: readonly SocketEntry[],
    isLetIn: boolean,
  ): number {
    let taken = 0;
    for (const { socket, options, handler, policies } of [...this.#open]) {
      const { local, remote } = options;
      if (socket.protocol !== packet.protocol) continue;
      if (local && !sameAddress(local, packet.to)) continue;
      if (remote && !sameAddress(remote, packet.from)) continue;
      const entry = policies.entry(packet.to.family);
      if (entry === undefined ? !isLetIn : !accepted.includes(entry)) continue;
      handler(data, packet.from, packet.hopLimit);
      taken++;
    }
    return taken;
  }
}

export interface RawPacket {
  readonly protocol: number;
  readonly from: Address;
  readonly to: Address;
  readonly hopLimit: number;
}
