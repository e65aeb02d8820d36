import {
  ADDRESS_BITS,
  ADDRESS_LEN,
  type Address,
  addressFrom,
  type Family,
  formatPrefix,
  type Prefix,
} from '../../base/address.ts';
import { AF_INET, AF_INET6 } from './libc.ts';
import { type NetlinkRequest, NLM_F_CREATE, NLM_F_REPLACE } from './netlink.ts';
import type { MessageWriter, NetlinkMessage } from './netlink-message.ts';

/**
 * Routes (<linux/rtnetlink.h>):
 *
 *     rtmsg   0 family  1 dst_len  2 src_len  3 tos
 *             4 table   5 protocol 6 scope    7 type   8 flags
 */
const RTMSG_LEN = 12;
export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_TABLE = 15;
const RTA_MARK = 16;
/** In the octet for the table, if the number does not fit: then an attribute has it. */
const RT_TABLE_UNSPEC = 0;
/** What iproute2 writes: made by a person or a program, not by a routing protocol. */
const RTPROT_BOOT = 3;
/**
 * "Global", not the usual scope of a route without a gateway, "link": when somebody adds a route by
 * a gateway that is diverted, and names no device, the kernel looks the gateway up among routes of
 * that scope, would find ours, and send what we have protected back to us.
 */
const RT_SCOPE_UNIVERSE = 0;
/** In a request to delete: whatever the scope is. */
const RT_SCOPE_NOWHERE = 255;

export const ROUTE_TYPE = { unicast: 1, local: 2, unreachable: 7, throw: 9 } as const;

export interface Route {
  readonly table: number;
  readonly destination: Prefix;
  /** One of `ROUTE_TYPE`, or another of RTN_*. */
  readonly type: number;
  readonly metric: number;
  /** Index of the device that it leads to. */
  readonly device?: number;
  /** The address that local programs get. */
  readonly source?: Address;
}

/** Puts the route in place of one with the same destination, table and metric, if there is one. */
export function replaceRoute(route: Route): NetlinkRequest {
  return {
    what: () => `add route ${describe(route)}`,
    type: RTM_NEWROUTE,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    write: (writer) => {
      writeRoute(writer, route, RT_SCOPE_UNIVERSE, RTPROT_BOOT);
      if (route.source) writer.attributeOctets(RTA_PREFSRC, route.source.bytes);
    },
  };
}

/** Deletes the route of that destination, table, type and metric. */
export function deleteRoute(route: Route): NetlinkRequest {
  return {
    what: () => `delete route ${describe(route)}`,
    type: RTM_DELROUTE,
    flags: 0,
    write: (writer) => writeRoute(writer, route, RT_SCOPE_NOWHERE, 0),
  };
}

/** All routes of a table; a kernel that cannot select gives all tables, so check. */
export function listRoutes(family: Family, table: number): NetlinkRequest {
  return {
    what: () => `list routes of table ${table} (IPv${family})`,
    type: RTM_GETROUTE,
    flags: 0,
    write: (writer) => {
      writeHeader(writer, family, 0, 0, 0, 0);
      writer.attributeU32(RTA_TABLE, table);
    },
  };
}

/** By which route a packet with this mark would go to an address. */
export function findRoute(to: Address, mark: number): NetlinkRequest {
  return {
    what: () => `find route to ${formatPrefix({ address: to, length: ADDRESS_BITS[to.family] })}`,
    type: RTM_GETROUTE,
    flags: 0,
    write: (writer) => {
      writeHeader(writer, to.family, ADDRESS_BITS[to.family], 0, 0, 0);
      writer.attributeOctets(RTA_DST, to.bytes);
      writer.attributeU32(RTA_MARK, mark);
    },
  };
}

/** Undefined for what is no route of IP. Throws an Error for a malformed message. */
export function decodeRoute({ type, body }: NetlinkMessage): Route | undefined {
  if (type !== RTM_NEWROUTE && type !== RTM_DELROUTE) return undefined;
  const family = familyOf(body.u8(0));
  if (family === undefined) return undefined;
  const attributes = body.attributes(RTMSG_LEN);
  const device = attributes.u32(RTA_OIF);
  const source = addressOf(family, attributes.octets(RTA_PREFSRC));
  const address = addressOf(family, attributes.octets(RTA_DST)) ?? zero(family);
  return {
    table: attributes.u32(RTA_TABLE) ?? body.u8(4),
    destination: { address, length: Math.min(body.u8(1), ADDRESS_BITS[family]) },
    type: body.u8(7),
    metric: attributes.u32(RTA_PRIORITY) ?? 0,
    ...(device === undefined ? {} : { device }),
    ...(source === undefined ? {} : { source }),
  };
}

function writeRoute(writer: MessageWriter, route: Route, scope: number, protocol: number): void {
  const { destination, table, type, metric, device } = route;
  const { address, length } = destination;
  writeHeader(writer, address.family, length, protocol, scope, type);
  writer.attributeOctets(RTA_DST, address.bytes);
  writer.attributeU32(RTA_TABLE, table);
  writer.attributeU32(RTA_PRIORITY, metric);
  // IPv6 says of other types that they lead to the loopback device.
  if (device !== undefined && type === ROUTE_TYPE.unicast) writer.attributeU32(RTA_OIF, device);
}

function writeHeader(
  writer: MessageWriter,
  family: Family,
  length: number,
  protocol: number,
  scope: number,
  type: number,
): void {
  writer.u8(inetOf(family)).u8(length).u8(0).u8(0);
  writer.u8(RT_TABLE_UNSPEC).u8(protocol).u8(scope).u8(type).u32(0);
}

export function inetOf(family: Family): number {
  return family === 4 ? AF_INET : AF_INET6;
}

export function familyOf(inet: number): Family | undefined {
  if (inet === AF_INET) return 4;
  return inet === AF_INET6 ? 6 : undefined;
}

/** Undefined without octets, or for a number of octets that no address of the family has. */
export function addressOf(family: Family, octets: Uint8Array | undefined): Address | undefined {
  if (octets?.length !== ADDRESS_LEN[family]) return undefined;
  return addressFrom(family, octets, 0);
}

function zero(family: Family): Address {
  return { family, bytes: new Uint8Array(ADDRESS_LEN[family]) };
}

function describe({ destination, table, type, metric }: Route): string {
  const kind = type === ROUTE_TYPE.unreachable ? 'unreachable ' : '';
  return `${kind}${formatPrefix(destination)} table ${table} metric ${metric}`;
}
