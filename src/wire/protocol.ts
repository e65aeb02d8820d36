/**
 * IP protocol numbers (IPv4 protocol, IPv6 next header) that something here knows by name; source:
 * IANA.
 */
export const PROTO = {
  HOPOPTS: 0,
  ICMP: 1,
  IGMP: 2,
  IPIP: 4,
  TCP: 6,
  UDP: 17,
  DCCP: 33,
  IPV6: 41,
  ROUTING: 43,
  FRAGMENT: 44,
  GRE: 47,
  ESP: 50,
  AH: 51,
  ICMPV6: 58,
  NONE: 59,
  DSTOPTS: 60,
  OSPF: 89,
  IPCOMP: 108,
  SCTP: 132,
  MOBILITY: 135,
  UDPLITE: 136,
} as const;
