import { type Address, formatAddress } from '../../base/address.ts';
import { AF_INET6 } from './libc.ts';
import { type NetlinkRequest, NLM_F_CREATE, NLM_F_EXCL } from './netlink.ts';
import type { MessageWriter, NetlinkMessage } from './netlink-message.ts';
import { addressOf, familyOf, inetOf } from './netlink-route.ts';

/**
 * Devices and their addresses (<linux/rtnetlink.h>):
 *
 *     ifinfomsg   0 family  2 type       4 index   8 flags   12 change
 *     ifaddrmsg   0 family  1 prefixlen  2 flags   3 scope    4 index
 */
const IFINFOMSG_LEN = 16;
const IFADDRMSG_LEN = 8;
export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINKINFO = 18;
const IFLA_GSO_MAX_SEGS = 40;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_AF_SPEC = 26;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const ADDR_GEN_MODE_NONE = 1;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
const IFF_UP = 0x1;
const IFF_LOOPBACK = 0x8;
const IFA_F_OPTIMISTIC = 0x4;
const IFA_F_DADFAILED = 0x8;
const IFA_F_TENTATIVE = 0x40;
const ARPHRD_ETHER = 1;
const RT_SCOPE_HOST = 254;
const RT_SCOPE_LINK = 253;

export interface Device {
  /** Another number under the same name is another device. */
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly isUp: boolean;
  readonly isLoopback: boolean;
  readonly isEthernet: boolean;
  /** `tun`, `bridge`, `veth`; undefined for what drivers make, such as Ethernet cards. */
  readonly kind?: string;
  /** What kind of device it is a part of. */
  readonly upperKind?: string;
}

export interface DeviceAddress {
  readonly address: Address;
  readonly prefixLength: number;
  /** Index of the device. */
  readonly device: number;
  /** Where it has a meaning. */
  readonly scope: 'global' | 'link' | 'host';
  /** Not while duplicates are looked for, and not if one was found (RFC 4862 §5.4). */
  readonly isUsable: boolean;
}

export function listDevices(): NetlinkRequest {
  return {
    what: () => 'list devices',
    type: RTM_GETLINK,
    flags: 0,
    write: (writer) => writeHeader(writer, 0, 0),
  };
}

export function findDevice(name: string): NetlinkRequest {
  return {
    what: () => `find device ${name}`,
    type: RTM_GETLINK,
    flags: 0,
    write: (writer) => {
      writeHeader(writer, 0, 0);
      writer.attributeText(IFLA_IFNAME, name);
    },
  };
}

/** Undefined for another message, and for what bridges say about their ports. */
export function decodeDevice({ type, body }: NetlinkMessage): Device | undefined {
  if ((type !== RTM_NEWLINK && type !== RTM_DELLINK) || body.u8(0) !== 0) return undefined;
  const attributes = body.attributes(IFINFOMSG_LEN);
  const name = attributes.text(IFLA_IFNAME);
  if (name === undefined) return undefined;
  const flags = body.u32(8);
  const info = attributes.nested(IFLA_LINKINFO);
  const kind = info?.text(IFLA_INFO_KIND);
  const upperKind = info?.text(IFLA_INFO_SLAVE_KIND);
  return {
    index: body.i32(4),
    name,
    mtu: attributes.u32(IFLA_MTU) ?? 0,
    isUp: (flags & IFF_UP) !== 0,
    isLoopback: (flags & IFF_LOOPBACK) !== 0,
    isEthernet: body.u16(2) === ARPHRD_ETHER,
    ...(kind === undefined ? {} : { kind }),
    ...(upperKind === undefined ? {} : { upperKind }),
  };
}

export function setMtuRequest(name: string, mtu: number): NetlinkRequest {
  return changeDevice(`set MTU ${mtu} of ${name}`, name, 0, (writer) => {
    writer.attributeU32(IFLA_MTU, mtu);
  });
}

/** How many segments the large packets that sockets send by the device have at most. */
export function setSegmentsRequest(name: string, segments: number): NetlinkRequest {
  return changeDevice(`set segments ${segments} of ${name}`, name, 0, (writer) => {
    writer.attributeU32(IFLA_GSO_MAX_SEGS, segments);
  });
}

export function setUpRequest(name: string): NetlinkRequest {
  return changeDevice(`bring ${name} up`, name, IFF_UP, () => undefined);
}

/** No link-local address is made up for the device. EAFNOSUPPORT without IPv6. */
export function setNoAddressRequest(name: string): NetlinkRequest {
  return changeDevice(`keep ${name} without a link-local address`, name, 0, (writer) => {
    writer.nest(IFLA_AF_SPEC, () => {
      writer.nest(AF_INET6, () => {
        writer.attribute(IFLA_INET6_ADDR_GEN_MODE, () => writer.u8(ADDR_GEN_MODE_NONE));
      });
    });
  });
}

export function listAddresses(): NetlinkRequest {
  return {
    what: () => 'list addresses',
    type: RTM_GETADDR,
    flags: 0,
    write: (writer) => void writer.u8(0).u8(0).u8(0).u8(0).u32(0),
  };
}

/** An address that is never the source of a packet by itself. */
export function addHostAddress(device: number, address: Address, length: number): NetlinkRequest {
  return {
    what: () => `add address ${formatAddress(address)} to device ${device}`,
    type: RTM_NEWADDR,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    write: (writer) => {
      writer.u8(inetOf(address.family)).u8(length).u8(0).u8(RT_SCOPE_HOST).u32(device);
      writer.attributeOctets(IFA_LOCAL, address.bytes);
      writer.attributeOctets(IFA_ADDRESS, address.bytes);
    },
  };
}

/** Undefined for another message, or another family. */
export function decodeAddress({ type, body }: NetlinkMessage): DeviceAddress | undefined {
  if (type !== RTM_NEWADDR && type !== RTM_DELADDR) return undefined;
  const family = familyOf(body.u8(0));
  if (family === undefined) return undefined;
  const attributes = body.attributes(IFADDRMSG_LEN);
  // The other one is the peer's on a point-to-point link.
  const octets = attributes.octets(IFA_LOCAL) ?? attributes.octets(IFA_ADDRESS);
  const address = addressOf(family, octets);
  if (!address) return undefined;
  const flags = attributes.u32(IFA_FLAGS) ?? body.u8(2);
  const isTentative = (flags & (IFA_F_TENTATIVE | IFA_F_OPTIMISTIC)) === IFA_F_TENTATIVE;
  return {
    address,
    prefixLength: body.u8(1),
    device: body.u32(4),
    scope: scopeOf(body.u8(3)),
    isUsable: !isTentative && (flags & IFA_F_DADFAILED) === 0,
  };
}

function scopeOf(octet: number): DeviceAddress['scope'] {
  if (octet < RT_SCOPE_LINK) return 'global';
  return octet === RT_SCOPE_LINK ? 'link' : 'host';
}

function changeDevice(
  what: string,
  name: string,
  flags: number,
  write: (writer: MessageWriter) => void,
): NetlinkRequest {
  return {
    what: () => what,
    type: RTM_NEWLINK,
    flags: 0,
    write: (writer) => {
      writeHeader(writer, flags, flags);
      writer.attributeText(IFLA_IFNAME, name);
      write(writer);
    },
  };
}

function writeHeader(writer: MessageWriter, flags: number, change: number): void {
  writer.u8(0).u8(0).u16(0).u32(0).u32(flags).u32(change);
}
