import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { Address } from '../base/address.ts';
import { formatAddress, isUnspecified, parseAddress, sameAddress } from '../base/address.ts';
import type { Packet, PacketSink } from '../wire/packet.ts';
import { PacketArena } from '../wire/packet.ts';
import type { Link } from './link.ts';
import { Refusals } from './refusals.ts';
import { type Endpoint, prependUdp, readUdp, UDP_PAYLOAD_MAX } from './udp-packet.ts';

export interface UdpUserOptions {
  /**
   * Where to listen. Addresses must be concrete: a socket does not tell to which address a datagram
   * came. Port 0 picks one.
   */
  readonly endpoints: readonly Endpoint[];
  /** Datagrams that may wait in sockets; more are refused. Default 1024. */
  readonly sendQueueMax?: number;
  /** Octets the kernel may hold for us; it may give less. Default 4 MiB. */
  readonly receiveBufferLen?: number;
}

export interface UdpUserLink extends Link {
  /** The endpoints with the ports that were really bound, in the order of the options. */
  readonly endpoints: readonly Endpoint[];
  readonly refusals: ReadonlyMap<string, number>;
}

/**
 * A link that needs no privileges: IP packets with UDP inside go through ordinary sockets. What is
 * sent must be a whole UDP packet from one of the endpoints; the kernel writes its own IP header,
 * so TTL, traffic class and DF are the kernel's. Rejects with an Error that names the endpoint when
 * it cannot be bound.
 */
export async function openUdpUser(options: UdpUserOptions): Promise<UdpUserLink> {
  const ports: Port[] = [];
  try {
    for (const endpoint of options.endpoints) ports.push(await bindPort(endpoint, options));
  } catch (error) {
    for (const port of ports) port.socket.close();
    throw error;
  }
  return new UdpUser(ports, options.sendQueueMax ?? 1024);
}

interface Port {
  readonly endpoint: Endpoint;
  readonly socket: Socket;
}

async function bindPort(endpoint: Endpoint, options: UdpUserOptions): Promise<Port> {
  const { address, port } = endpoint;
  const text = formatAddress(address);
  if (isUnspecified(address)) throw new Error(`cannot listen on ${text}: name one address`);
  const socket = createSocket({
    type: address.family === 4 ? 'udp4' : 'udp6',
    ipv6Only: address.family === 6,
    // Destinations are numeric already; Node's own lookup would cost a turn of the event loop per
    // datagram.
    lookup: (host, _options, callback) => callback(null, host, address.family),
  });
  try {
    // Listen first: with a lookup that answers at once, so does bind.
    const listening = once(socket, 'listening');
    socket.bind({ port, address: text, exclusive: true });
    await listening;
  } catch (error) {
    socket.close();
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`cannot listen on UDP ${text} port ${port}: ${reason}`, { cause: error });
  }
  socket.setRecvBufferSize(options.receiveBufferLen ?? 4 << 20);
  return { endpoint: { address, port: socket.address().port }, socket };
}

class UdpUser implements UdpUserLink {
  readonly name: string;
  readonly endpoints: readonly Endpoint[];
  readonly #ports: readonly Port[];
  readonly #sendQueueMax: number;
  readonly #refusals = new Refusals();
  readonly #packet: Packet;
  readonly #batch: readonly Packet[];
  readonly #peers = new Map<string, Address>();
  #sending = 0;
  #closed = false;

  constructor(ports: readonly Port[], sendQueueMax: number) {
    this.#ports = ports;
    this.endpoints = ports.map((port) => port.endpoint);
    this.name = `udp:${ports.map((port) => nameOf(port.endpoint)).join(',')}`;
    this.#sendQueueMax = sendQueueMax;
    this.#packet = new PacketArena(1).take()!;
    this.#batch = [this.#packet];
    // Without a listener an error of one socket would end the process; here it costs the packet
    // that caused it.
    for (const { socket } of ports) socket.on('error', (error) => this.#refuse(error));
  }

  get refused(): number {
    return this.#refusals.total;
  }

  get refusals(): ReadonlyMap<string, number> {
    return this.#refusals.byReason;
  }

  receive(handler: PacketSink): void {
    for (const { socket, endpoint } of this.#ports) {
      socket.removeAllListeners('message');
      socket.on('message', (payload, from) => this.#arrived(payload, from, endpoint, handler));
    }
  }

  send: PacketSink = (packets, count) => {
    for (let i = 0; i < count; i++) {
      const reason = this.#sendOne(packets[i]!);
      if (reason !== undefined) this.#refusals.add(reason);
    }
  };

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { socket } of this.#ports) socket.close();
  }

  /** Returns why the packet cannot be sent, or undefined. */
  #sendOne(packet: Packet): string | undefined {
    if (this.#closed) return 'closed';
    const udp = readUdp(packet);
    if (typeof udp === 'string') return udp;
    const from = this.#ports.find((port) => sameEndpoint(port.endpoint, udp.from));
    if (!from) return 'not from an endpoint of this link';
    if (this.#sending >= this.#sendQueueMax) return 'send queue full';
    // A copy, because the packet is only borrowed and the socket may keep it for later.
    const payload = packet.bytes.slice(udp.payloadAt, udp.payloadEnd);
    this.#sending++;
    from.socket.send(payload, udp.to.port, formatAddress(udp.to.address), (error) => {
      this.#sending--;
      if (error) this.#refuse(error);
    });
    return undefined;
  }

  #arrived(payload: Uint8Array, from: RemoteInfo, to: Endpoint, handler: PacketSink): void {
    const address = this.#peer(from.address);
    if (!address || payload.length > UDP_PAYLOAD_MAX[to.address.family]) return;
    this.#packet.load(payload);
    prependUdp(this.#packet, { address, port: from.port }, to);
    handler(this.#batch, 1);
  }

  /**
   * Parses each peer's address once. Anybody can send from many addresses, so the table starts over
   * when it is full.
   */
  #peer(text: string): Address | undefined {
    const known = this.#peers.get(text);
    if (known) return known;
    const scope = text.indexOf('%');
    const parsed = parseAddress(scope < 0 ? text : text.slice(0, scope));
    if (this.#peers.size >= 1024) this.#peers.clear();
    if (parsed) this.#peers.set(text, parsed);
    return parsed;
  }

  #refuse(error: Error): void {
    this.#refusals.add('code' in error ? String(error.code) : error.message);
  }
}

function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && sameAddress(a.address, b.address);
}

function nameOf({ address, port }: Endpoint): string {
  return address.family === 4
    ? `${formatAddress(address)}:${port}`
    : `[${formatAddress(address)}]:${port}`;
}
