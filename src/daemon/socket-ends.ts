import { type Address, type Family, isUnspecified, unmapped } from '../base/address.ts';
import type { ProgramSocket, SocketEnd } from '../drivers/linux/program-socket.ts';
import type { KernelSocket } from '../drivers/linux/sock-diag.ts';
import type { SocketEnds } from '../engine/socket-policies.ts';
import { PROTO } from '../wire/protocol.ts';

/** What of a real socket says which packets are its own. */
export type SocketPlace = Pick<
  ProgramSocket,
  'family' | 'type' | 'protocol' | 'local' | 'remote' | 'isDual'
>;

/** IPPROTO_RAW: it sends whatever protocol it likes. */
const ANY_PROTOCOL = 255;

/** Whether it is of a kind whose packets can be told from others. */
export function isKnownKind({ family, type, protocol }: SocketPlace): boolean {
  if (type === 'stream') return protocol === PROTO.TCP;
  if (type === 'datagram') return protocol === PROTO.UDP || protocol === echoProtocol(family);
  return type === 'raw' && protocol !== ANY_PROTOCOL;
}

/**
 * The packets of a socket: one description, or one for each family of an IPv6 socket that takes
 * both and has chosen no address yet (RFC 3493 §3.7).
 */
export function endsOf(place: SocketPlace): readonly SocketEnds[] {
  const { family, type, protocol, local, remote, isDual } = place;
  const isRaw = type === 'raw';
  const used = local.address?.family ?? remote.address?.family ?? family;
  const families: readonly Family[] =
    family === 6 && isDual && !isRaw && !local.address && !remote.address ? [6, 4] : [used];
  return families.map((one) => ({
    family: one,
    protocol,
    ...addressOf('local', local, one),
    ...addressOf('remote', remote, one),
    localPort: isRaw ? 0 : local.port,
    remotePort: isRaw ? 0 : remote.port,
    ...(isRaw ? { raw: true } : {}),
  }));
}

/** Where the kernel says that the socket is now. */
export function placeNow(before: SocketPlace, now: KernelSocket): SocketPlace {
  return {
    ...before,
    local: endNow(now.local, now.localPort),
    remote: endNow(now.remote, now.remotePort),
  };
}

export function echoProtocol(family: Family): number {
  return family === 4 ? PROTO.ICMP : PROTO.ICMPV6;
}

function addressOf(
  which: 'local' | 'remote',
  { address }: SocketEnd,
  family: Family,
): Partial<Record<typeof which, Address>> {
  return address?.family === family ? { [which]: address } : {};
}

function endNow(address: Address, port: number): SocketEnd {
  return { address: isUnspecified(address) ? undefined : unmapped(address), port };
}
