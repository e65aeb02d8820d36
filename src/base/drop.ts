/**
 * Why a packet is dropped: one row per reason, and one counter per row. `side` says which path may
 * count it, `text` is what people read, `counter` the field of KAME's ipsecstat that the reason
 * adds to (kept for netstat's wording).
 */
export const DROPS = {
  // not a packet that can be read
  'truncated-header': row('both', 'inval', 'shorter than its headers say'),
  'bad-version': row('both', 'inval', 'IP version is neither 4 nor 6'),
  'bad-header-length': row('both', 'inval', 'a header length is out of range'),
  'bad-total-length': row('both', 'inval', 'IP length does not fit the packet'),
  'bad-header-checksum': row('in', 'inval', 'IPv4 header checksum is wrong'),
  'bad-option': row('both', 'inval', 'an IP option or extension header is malformed'),
  'too-many-headers': row('both', 'inval', 'more extension headers than a host must follow'),
  jumbogram: row('both', 'inval', 'IPv6 jumbograms are not supported'),
  'bad-udp-length': row('in', 'inval', 'UDP length does not fit the packet'),
  'bad-udp-checksum': row(
    'in',
    'inval',
    'UDP checksum of ESP in UDP over IPv6 is wrong or missing',
  ),
  // fragments
  'fragment-overlap': row('both', 'inval', 'fragments overlap (RFC 5722)'),
  'fragment-bad-length': row('both', 'inval', 'a fragment has an impossible offset or length'),
  'fragment-duplicate': row('both', 'success', 'a fragment arrived twice'),
  'fragment-timeout': row('both', 'inval', 'not all fragments arrived in time'),
  'fragment-queue-full': row('both', 'nomem', 'too many datagrams are waiting for fragments'),
  // ESP and AH coming in
  'esp-truncated': row('in', 'inval', 'ESP packet is shorter than its SA requires'),
  'esp-bad-alignment': row('in', 'inval', 'ESP payload is not a multiple of the block size'),
  'esp-bad-padding': row('in', 'inval', 'ESP padding is longer than the payload'),
  'esp-bad-icv': row(
    'in',
    'espauthfail',
    'ESP integrity check failed: wrong key, or altered on the way',
  ),
  'esp-replay': row('in', 'espreplay', 'ESP sequence number was seen before or is too old'),
  'esp-dummy': row(
    'in',
    'success',
    'dummy packet for traffic flow confidentiality (next header 59)',
  ),
  'ah-truncated': row('in', 'inval', 'AH is shorter than its SA requires'),
  'ah-bad-length': row('in', 'inval', 'AH payload length does not fit its SA'),
  'ah-bad-icv': row(
    'in',
    'ahauthfail',
    'AH integrity check failed: wrong key, or altered on the way',
  ),
  'ah-replay': row('in', 'ahreplay', 'AH sequence number was seen before or is too old'),
  'no-sa-for-spi': row('in', 'nosa', 'no SA for this SPI, protocol and destination'),
  'sa-not-usable': row('in', 'badspi', 'the SA of this SPI is larval or dead'),
  'sa-wrong-encapsulation': row('in', 'badspi', 'SA and packet disagree about UDP encapsulation'),
  'wrong-mode': row('in', 'inval', 'the SA is for tunnels, and this is not one'),
  'too-many-layers': row('both', 'inval', 'more nested IPsec headers than are allowed'),
  'ipcomp-unsupported': row('in', 'nosa', 'IPComp is not supported'),
  'ecn-invalid': row(
    'in',
    'inval',
    'outer ECN says congestion, inner is not ECN capable (RFC 6040)',
  ),
  'natt-keepalive': row('in', 'success', 'NAT keep-alive (RFC 3948)'),
  'natt-not-esp': row(
    'in',
    'inval',
    'a UDP datagram on the encapsulation port that is neither ESP nor for us',
  ),
  // policy
  'policy-discard': row('both', 'polvio', 'a policy says discard'),
  'policy-default-discard': row('both', 'polvio', 'no policy matches and def_policy is discard'),
  'policy-clear': row('in', 'polvio', 'came in the clear, but a policy demands protection'),
  'policy-mismatch': row('in', 'polvio', 'protected, but not as the policy demands'),
  'policy-unprotected-selector': row(
    'in',
    'polvio',
    'came through an SA whose policy does not cover it',
  ),
  'policy-empty': row('both', 'polvio', 'an IPsec policy without requests protects nothing'),
  // ICMP errors about protected packets
  'icmp-path-mtu': row(
    'in',
    'success',
    'ICMP too big about a packet of ours: the path is known to carry less now',
  ),
  'icmp-mtu-refused': row(
    'in',
    'inval',
    'ICMP too big that is not news, or cannot be true of the packet that it quotes',
  ),
  'icmp-too-many': row('in', 'inval', 'more news about paths than are believed in one second'),
  'icmp-bad-checksum': row(
    'in',
    'inval',
    'ICMP error about a packet of ours with a wrong checksum',
  ),
  'icmp-no-sa': row('in', 'nosa', 'ICMP error about a packet that no living SA of ours has sent'),
  'icmp-unauthenticated': row(
    'in',
    'polvio',
    'ICMP error about a packet of ours, which anybody can have sent (RFC 4301 §6.1)',
  ),
  'icmp-flow-protected': row(
    'in',
    'polvio',
    'ICMP error in the clear about a flow that a policy protects',
  ),
  // going out
  'held-too-long': row('out', 'nosa', 'waited for an SA, which did not come in time'),
  'socket-unknown': row(
    'out',
    'polvio',
    'from a socket that wants protection, and which one it is nobody has said',
  ),
  'no-sa': row('out', 'nosa', 'the policy demands an SA and there is none yet'),
  'sequence-exhausted': row(
    'out',
    'inval',
    'the SA has no sequence numbers left (RFC 4303 §3.3.3)',
  ),
  'sequence-store': row('out', 'inval', 'sequence numbers could not be reserved on disk'),
  'too-big': row('out', 'inval', 'larger than the path allows, and must not be fragmented'),
  'packet-too-long': row('out', 'inval', 'longer than 65,535 octets after protection'),
  'no-room': row('both', 'nomem', 'no packet buffer left'),
  'shard-full': row('both', 'nomem', 'the worker that owns the SA is behind (`--workers`)'),
} as const;

export type DropReason = keyof typeof DROPS;

export interface DropRow {
  readonly side: 'in' | 'out' | 'both';
  readonly counter: KameCounter;
  readonly text: string;
}

export type KameCounter =
  | 'success'
  | 'inval'
  | 'nomem'
  | 'nosa'
  | 'badspi'
  | 'polvio'
  | 'noroute'
  | 'espauthfail'
  | 'ahauthfail'
  | 'espreplay'
  | 'ahreplay';

function row(side: DropRow['side'], counter: KameCounter, text: string): DropRow {
  return { side, counter, text };
}
