import type { Address, Family } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import * as icmp from '../wire/icmp.ts';
import { PolicyOptions, type PolicyService, type PolicySocket } from './policy-options.ts';
import type { Outgoing, Sender } from './sender.ts';

const ID_MAX = 0xffff;

/** An echo reply that arrived; `data` is borrowed. */
export type EchoHandler = (seq: number, data: Uint8Array, from: Address, hopLimit: number) => void;

export interface EchoOptions {
  /** Whether it may bypass the policies of the host, as root's may. No. */
  readonly privileged?: boolean;
}

export interface EchoSocket extends PolicySocket {
  /** The identifier of its requests, by which replies come back. */
  readonly id: number;
  send(seq: number, data: Uint8Array, to: Address): void;
  close(): void;
}

/** The ICMP sockets of a host: each with an identifier of its own. */
export class EchoSockets {
  readonly #sender: Sender;
  readonly #service: () => PolicyService | undefined;
  readonly #handlers = new Map<number, EchoHandler>();
  #nextId = 1;

  constructor(sender: Sender, service: () => PolicyService | undefined) {
    this.#sender = sender;
    this.#service = service;
  }

  open(handler: EchoHandler, options: EchoOptions, closed: () => void): EchoSocket {
    const id = this.#freeId();
    this.#handlers.set(id, handler);
    const ends = (family: Family) => {
      return { family, protocol: icmp.protocolOf(family), localPort: id, remotePort: 0 };
    };
    const policies = new PolicyOptions(this.#service, ends, options.privileged ?? false);
    return {
      id,
      send: (seq, data, to) => {
        const type = to.family === 4 ? icmp.TYPE4.ECHO : icmp.TYPE6.ECHO;
        const from = this.#sender.sourceFor(to);
        const echo = echoMessage(type, id, seq, data, from, to);
        this.#sender.send({ ...echo, socket: policies.entry(to.family) });
      },
      setsockopt: (name, value) => policies.set(name, value),
      getsockopt: (name, asked) => policies.get(name, asked),
      policyText: (name, direction) => policies.text(name, direction),
      protection: (family) => policies.protection(family),
      close: () => {
        if (!this.#handlers.delete(id)) return;
        policies.close();
        closed();
      },
    };
  }

  find(id: number): EchoHandler | undefined {
    return this.#handlers.get(id);
  }

  #freeId(): number {
    for (let tries = 0; tries < ID_MAX; tries++) {
      const id = this.#nextId;
      this.#nextId = (id % ID_MAX) + 1;
      if (!this.#handlers.has(id)) return id;
    }
    throw new KeyError('ENOBUFS', 'all identifiers of ICMP echo are in use');
  }
}

/** An echo request or reply, to be sent. */
export function echoMessage(
  type: number,
  id: number,
  seq: number,
  data: Uint8Array,
  from: Address,
  to: Address,
): Outgoing {
  const fill = (p: Uint8Array, at: number) => {
    icmp.write(p, at, type, 0, ((id << 16) | seq) >>> 0);
    p.set(data, at + icmp.HEADER_LEN);
  };
  const protocol = icmp.protocolOf(to.family);
  return { from, to, protocol, len: icmp.HEADER_LEN + data.length, fill };
}
