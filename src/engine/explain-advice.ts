import type { DropReason } from '../base/drop.ts';

/** Which kind of entry decides a drop, and what somebody can do about it. */
export interface Advice {
  readonly fault: 'packet' | 'sa' | 'policy' | 'default' | 'mtu' | 'host';
  readonly text: string;
}

/** What to do about each reason: shown by `explain`, and in docs/drops.md. */
export const ADVICE: Readonly<Record<DropReason, Advice>> = {
  'truncated-header': packet('look at the sender, or at a capture that cut packets off'),
  'bad-version': packet('look at what else uses this link: it is not IP'),
  'bad-header-length': packet('look at the sender: the packet was made wrongly or altered'),
  'bad-total-length': packet('look for truncation on the way, or in the capture'),
  'bad-header-checksum': packet(
    'look for damage on the way; in a capture of the sender itself the checksum may not be filled in yet',
  ),
  'bad-option': packet('look at the sender: options or extension headers are made wrongly'),
  'too-many-headers': packet('look at the sender: no program has use for so many headers'),
  jumbogram: packet('send packets of at most 65,535 octets'),
  'bad-udp-length': packet('look at the sender, or for damage on the way'),
  'bad-udp-checksum': packet(
    'let the peer compute UDP checksums: over IPv6 they are required, also for ESP in UDP',
  ),
  'fragment-overlap': packet('look at the sender: honest ones do not make such fragments'),
  'fragment-bad-length': packet('look at the sender: all fragments but the last have 8 n octets'),
  'fragment-duplicate': packet('nothing: the first copy counts'),
  'fragment-timeout': packet(
    'look for what loses fragments on the way, often a firewall; smaller packets avoid them',
  ),
  'fragment-queue-full': host('find who sends so many first fragments; smaller packets avoid them'),
  'esp-truncated': sa('compare the algorithms of both ends: the ICV or IV has another length'),
  'esp-bad-alignment': sa('compare the algorithms of both ends: the block size is another one'),
  'esp-bad-padding': sa('compare the encryption keys and algorithms of both ends'),
  'esp-bad-icv': sa(
    'compare keys, algorithms and ICV lengths of both ends, and whether both use ESN',
  ),
  'esp-replay': sa(
    'nothing, if the network duplicates packets; a larger window (-r) if it reorders them; a new SA if the peer began to count anew',
  ),
  'esp-dummy': packet('nothing: the peer hides how much it sends'),
  'ah-truncated': packet('look for truncation on the way, or in the capture'),
  'ah-bad-length': sa('compare the algorithms of both ends: the ICV has another length'),
  'ah-bad-icv': sa(
    'compare keys and algorithms of both ends, and look for a NAT: AH covers the addresses',
  ),
  'ah-replay': sa(
    'nothing, if the network duplicates packets; a larger window (-r) if it reorders them; a new SA if the peer began to count anew',
  ),
  'no-sa-for-spi': sa(
    'add the SA with this SPI and destination, or let the key exchange make new SAs: the peer still has an old one',
  ),
  'sa-not-usable': sa('wait for the key exchange to finish; if it does not, look at its log'),
  'sa-wrong-encapsulation': sa(
    'use ESP in UDP at both ends or at none (setkey: add ... esp-udp), and agree about the ports',
  ),
  'wrong-mode': sa('make the SA transport or any (-m), or let the peer send in tunnel mode'),
  'too-many-layers': policy('ask for at most 8 layers; most need one'),
  'ipcomp-unsupported': packet('turn IPComp off at the peer'),
  'ecn-invalid': packet(
    'look for a router that marks packets which are not ECN capable; net.inet.ipsec.ecn=-1 accepts them',
  ),
  'natt-keepalive': packet('nothing: the peer keeps the mapping of its NAT alive'),
  'natt-not-esp': packet('look for another program of the peer that uses this port'),
  'policy-discard': policy('delete the policy, or put one for this traffic in front of it'),
  'policy-default-discard': {
    fault: 'default',
    text: 'add a policy for this traffic, or set def_policy to none (1)',
  },
  'policy-clear': policy(
    'let the peer protect what it sends: look at its policies and SAs; or add a policy of type none here',
  ),
  'policy-mismatch': policy(
    'let the policies of both ends agree on protocol, mode, endpoints and reqid; check_policy_history=0 accepts any protection',
  ),
  'policy-unprotected-selector': {
    fault: 'default',
    text: 'add an in policy for what the tunnel carries, or let the peer send only what was agreed',
  },
  'policy-empty': policy('give the policy a request, such as esp/transport//require'),
  'icmp-path-mtu': {
    fault: 'mtu',
    text: 'nothing: from now on packets on this path are smaller; a link with a larger MTU would carry more',
  },
  'icmp-mtu-refused': packet(
    'nothing, if it is rare: the router repeats itself; otherwise look for who forges errors',
  ),
  'icmp-too-many': packet('look for who forges errors: no network changes as often'),
  'icmp-bad-checksum': packet('look for damage on the way, or for who forges errors'),
  'icmp-no-sa': packet(
    'nothing, if an SA has just gone: its packets were still on their way; otherwise look for who forges errors',
  ),
  'icmp-unauthenticated': packet(
    'look at the way to the peer: a router or the peer itself refuses protected packets',
  ),
  'icmp-flow-protected': policy(
    'nothing, if the flow works; to let such errors in, add an in policy of type none for icmp from that router',
  ),
  'held-too-long': policy('look at the log of the key exchange: it did not make an SA in time'),
  'no-sa': policy(
    'add an SA that fits the request, or start a key exchange daemon: none is registered',
  ),
  'socket-unknown': packet(
    'nothing, if the socket was closed just before; otherwise set its policy again, or start the program anew',
  ),
  'sequence-exhausted': sa('make a new SA with a new key; ESN has room for more packets'),
  'sequence-store': sa('make room on the disk that holds the state folder'),
  'too-big': {
    fault: 'mtu',
    text: 'let the sender have the error message that was sent back (firewalls drop it), or send less at a time, or clear DF',
  },
  'packet-too-long': packet('send less at a time: protection has no room left'),
  'shard-full': host('nothing, if it is rare; otherwise more SAs, so that workers share the load'),
  'no-room': host('nothing, if it is rare; otherwise avoid fragments by a smaller MTU'),
};

function packet(text: string): Advice {
  return { fault: 'packet', text };
}

function sa(text: string): Advice {
  return { fault: 'sa', text };
}

function policy(text: string): Advice {
  return { fault: 'policy', text };
}

function host(text: string): Advice {
  return { fault: 'host', text };
}
