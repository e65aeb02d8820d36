/**
 * Upper protocols by name, as /etc/protocols of Debian spells them: a file that the core may not
 * read, and that minimal systems do not have. The first name of a number is the one that dumps
 * show.
 */
const PROTOCOLS: readonly (readonly [string, number])[] = [
  ['icmp', 1],
  ['igmp', 2],
  ['ipencap', 4],
  ['ip4', 4],
  ['tcp', 6],
  ['egp', 8],
  ['igp', 9],
  ['udp', 17],
  ['rdp', 27],
  ['dccp', 33],
  ['xtp', 36],
  ['idpr-cmtp', 38],
  ['ipv6', 41],
  ['ipv6-route', 43],
  ['ipv6-frag', 44],
  ['idrp', 45],
  ['rsvp', 46],
  ['gre', 47],
  ['esp', 50],
  ['ah', 51],
  ['skip', 57],
  ['ipv6-icmp', 58],
  ['icmp6', 58],
  ['icmpv6', 58],
  ['ipv6-nonxt', 59],
  ['ipv6-opts', 60],
  ['rspf', 73],
  ['vmtp', 81],
  ['eigrp', 88],
  ['ospf', 89],
  ['ospfigp', 89],
  ['ipip', 94],
  ['etherip', 97],
  ['encap', 98],
  ['pim', 103],
  ['ipcomp', 108],
  ['vrrp', 112],
  ['l2tp', 115],
  ['isis', 124],
  ['sctp', 132],
  ['fc', 133],
  ['mobility-header', 135],
  ['mh', 135],
  ['udplite', 136],
  ['mpls-in-ip', 137],
  ['hip', 139],
  ['shim6', 140],
  ['wesp', 141],
  ['rohc', 142],
  ['any', 255],
];

export const PROTO = { icmp: 1, tcp: 6, udp: 17, gre: 47, icmp6: 58, mh: 135 } as const;

const numbers = new Map(PROTOCOLS);
const names = new Map([...PROTOCOLS].reverse().map(([name, number]) => [number, name]));

/** The number of a name, or of a number as text. */
export function protocolNumber(text: string): number | undefined {
  if (/^[0-9]{1,3}$/.test(text)) return Number(text) <= 255 ? Number(text) : undefined;
  return numbers.get(text.toLowerCase());
}

/** The name of a number, or the number as text. */
export function protocolName(number: number): string {
  return names.get(number) ?? `${number}`;
}

/** Whether the ports of a selector of this protocol mean something else than ports, or nothing. */
export function hasNoPorts(proto: number): boolean {
  return isIcmp(proto) || proto === PROTO.gre;
}

/** Whether `type,code` may follow: ICMP, and the mobility header, which has types too. */
export function isIcmp(proto: number): boolean {
  return proto === PROTO.icmp || proto === PROTO.icmp6 || proto === PROTO.mh;
}
