import { type Address, type Family, formatAddress, sameAddress } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import type { SocketEnds } from '../engine/socket-policies.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';
import { PolicyOptions, type PolicyService, type PolicySocket } from './policy-options.ts';
import { type Datagram, DatagramQueue } from './queue.ts';
import type { Sender } from './sender.ts';

/** RFC 6335 §6: ports that nobody is given for good. */
const EPHEMERAL_PORT_MIN = 49_152;
const PORT_MAX = 65_535;
const QUEUE_MAX = 64;

/** A datagram that arrived; `data` is borrowed until the handler returns. */
export type DatagramHandler = (data: Uint8Array, from: Address, port: number) => void;

/** An ICMP error about a datagram that the socket has sent: where to, and what was said. */
export interface UdpError {
  readonly to: Address;
  readonly port: number;
  readonly type: number;
  readonly code: number;
  /** Of a too-big error; 0 otherwise. */
  readonly mtu: number;
}

export interface UdpOptions {
  /** The address of this host that the socket is bound to; all. */
  readonly local?: Address;
  /** Whether it may bypass the policies of the host, as root's may. No. */
  readonly privileged?: boolean;
  readonly error?: (error: UdpError) => void;
  /** Datagrams that wait for `receive`, where there is no handler. 64. */
  readonly queueMax?: number;
}

export interface UdpSocket extends PolicySocket {
  readonly port: number;
  /** Datagrams that found no room in the queue. */
  readonly lost: number;
  /** EINVAL without a destination, unless the socket is connected. */
  send(data: Uint8Array, to?: Address, port?: number): void;
  /** The next datagram; undefined: none is there. Only without a handler. */
  receive(): Datagram | undefined;
  /** From now on it sends to there, and gets only what comes from there. */
  connect(to: Address, port: number): void;
  close(): void;
}

/** Where a datagram came to, and from. */
interface Ends {
  readonly to: Address;
  readonly port: number;
  readonly from: Address;
  readonly fromPort: number;
}

/** The UDP sockets of a host. */
export class UdpSockets {
  readonly #sender: Sender;
  readonly #service: () => PolicyService | undefined;
  readonly #byPort = new Map<number, Bound[]>();
  #nextPort = EPHEMERAL_PORT_MIN;

  constructor(sender: Sender, service: () => PolicyService | undefined) {
    this.#sender = sender;
    this.#service = service;
  }

  /** Port 0 picks one. EADDRINUSE has no place in PF_KEY's table: a port in use is EBUSY. */
  open(
    port: number,
    handler: DatagramHandler | undefined,
    options: UdpOptions,
    closed: () => void,
  ): UdpSocket {
    const { local } = options;
    if (port !== 0) checkPort(port);
    if (local !== undefined && !this.#sender.isOurs(local)) {
      throw new KeyError('EINVAL', `${formatAddress(local)} is not an address of this host`);
    }
    const socket = new Bound(this.#sender, this.#service, options, handler);
    socket.port = port === 0 ? this.#freePort() : port;
    const others = this.#byPort.get(socket.port) ?? [];
    if (others.some((one) => !one.local || !local || sameAddress(one.local, local))) {
      throw new KeyError('EBUSY', `UDP port ${socket.port} is in use`);
    }
    this.#byPort.set(socket.port, [...others, socket]);
    socket.closed = () => {
      this.#remove(socket);
      closed();
    };
    return socket;
  }

  /** The socket that a datagram is for: bound to its address before bound to none. */
  find(ends: Ends): Bound | undefined {
    const sockets = this.#byPort.get(ends.port)?.filter((one) => one.wants(ends));
    return sockets?.find((one) => one.local !== undefined) ?? sockets?.[0];
  }

  #remove(socket: Bound): void {
    const rest = this.#byPort.get(socket.port)!.filter((one) => one !== socket);
    if (rest.length > 0) this.#byPort.set(socket.port, rest);
    else this.#byPort.delete(socket.port);
  }

  #freePort(): number {
    const count = PORT_MAX - EPHEMERAL_PORT_MIN + 1;
    for (let tries = 0; tries < count; tries++) {
      const port = this.#nextPort;
      this.#nextPort = port === PORT_MAX ? EPHEMERAL_PORT_MIN : port + 1;
      if (!this.#byPort.has(port)) return port;
    }
    throw new KeyError('ENOBUFS', `all ports from ${EPHEMERAL_PORT_MIN} on are in use`);
  }
}

class Bound implements UdpSocket {
  port = 0;
  readonly local: Address | undefined;
  closed: () => void = () => {};
  readonly #sender: Sender;
  readonly #handler: DatagramHandler | undefined;
  readonly #error: UdpOptions['error'];
  readonly #queue: DatagramQueue;
  readonly #policies: PolicyOptions;
  #remote: { readonly address: Address; readonly port: number } | undefined;
  #isOpen = true;

  constructor(
    sender: Sender,
    service: () => PolicyService | undefined,
    options: UdpOptions,
    handler: DatagramHandler | undefined,
  ) {
    this.local = options.local;
    this.#sender = sender;
    this.#handler = handler;
    this.#error = options.error;
    this.#queue = new DatagramQueue(options.queueMax ?? QUEUE_MAX);
    const privileged = options.privileged ?? false;
    this.#policies = new PolicyOptions(service, (family) => this.#ends(family), privileged);
  }

  get lost(): number {
    return this.#queue.lost;
  }

  send(data: Uint8Array, to = this.#remote?.address, toPort = this.#remote?.port): void {
    if (to === undefined || toPort === undefined) {
      throw new KeyError('EINVAL', 'a socket that is not connected needs a destination');
    }
    checkPort(toPort);
    if (!this.#isOpen) throw new KeyError('EINVAL', 'the socket is closed');
    const len = udp.HEADER_LEN + data.length;
    const from = this.#sender.sourceFor(to, this.local);
    const socket = this.#policies.entry(to.family);
    const fill = (p: Uint8Array, at: number) => {
      udp.write(p, at, this.port, toPort, len);
      p.set(data, at + udp.HEADER_LEN);
    };
    this.#sender.send({ from, to, protocol: PROTO.UDP, len, fill, socket });
  }

  receive(): Datagram | undefined {
    return this.#queue.shift();
  }

  connect(to: Address, port: number): void {
    checkPort(port);
    this.#sender.sourceFor(to, this.local);
    this.#remote = { address: to, port };
    this.#policies.moved();
  }

  setsockopt(...given: Parameters<PolicySocket['setsockopt']>): void {
    this.#policies.set(...given);
  }

  getsockopt(...given: Parameters<PolicySocket['getsockopt']>): Uint8Array {
    return this.#policies.get(...given);
  }

  policyText(...given: Parameters<PolicySocket['policyText']>): string {
    return this.#policies.text(...given);
  }

  protection(family: Family): ReturnType<PolicySocket['protection']> {
    return this.#policies.protection(family);
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#policies.close();
    this.closed();
  }

  /** Whether a datagram to its port is for it. */
  wants({ to, from, fromPort }: Ends): boolean {
    if (this.local !== undefined && !sameAddress(this.local, to)) return false;
    const remote = this.#remote;
    return !remote || (sameAddress(remote.address, from) && remote.port === fromPort);
  }

  take(data: Uint8Array, from: Address, port: number): void {
    if (this.#handler) this.#handler(data, from, port);
    else this.#queue.push({ data, from, port });
  }

  report(error: UdpError): void {
    this.#error?.(error);
  }

  #ends(family: Family): SocketEnds | undefined {
    const remote = this.#remote;
    const other = (one: Address | undefined) => one !== undefined && one.family !== family;
    if (other(this.local) || other(remote?.address)) return undefined;
    const local = remote ? this.#sender.sourceFor(remote.address, this.local) : this.local;
    return {
      ...{ family, protocol: PROTO.UDP, localPort: this.port, remotePort: remote?.port ?? 0 },
      ...(local ? { local } : {}),
      ...(remote ? { remote: remote.address } : {}),
    };
  }
}

function checkPort(port: number): void {
  if (Number.isInteger(port) && port > 0 && port <= PORT_MAX) return;
  throw new KeyError('EINVAL', `${port} is not a port: 1 to ${PORT_MAX} are`);
}
