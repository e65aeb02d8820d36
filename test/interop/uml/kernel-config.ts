import { formatAddress } from '../../../src/base/address.ts';
import {
  type Algorithm,
  authenticationById,
  encryptionById,
} from '../../../src/crypto/algorithms.ts';
import type { SaSpec } from '../../../src/sad/sa.ts';
import { toHex } from '../../../src/wire/bytes.ts';
import { type Case, innerAddress, outerAddress, type Side, sasFrom } from '../case.ts';

export const CONTROL = { us: '10.80.0.1', kernel: '10.80.0.2', port: 8100 } as const;
export const STREAM_PORT = 8101;
const OUR_LINK_LOCAL = 'fe80::1';

/** Our names of algorithms, and the kernel's. */
const KERNEL_NAME: Readonly<Record<string, string>> = {
  'aes-cbc': 'cbc(aes)',
  'aes-ctr': 'rfc3686(ctr(aes))',
  '3des-cbc': 'cbc(des3_ede)',
  'camellia-cbc': 'cbc(camellia)',
  null: 'ecb(cipher_null)',
  'aes-gcm-8': 'rfc4106(gcm(aes))',
  'aes-gcm-12': 'rfc4106(gcm(aes))',
  'aes-gcm-16': 'rfc4106(gcm(aes))',
  'aes-ccm-8': 'rfc4309(ccm(aes))',
  'aes-ccm-12': 'rfc4309(ccm(aes))',
  'aes-ccm-16': 'rfc4309(ccm(aes))',
  'aes-gmac': 'rfc4543(gcm(aes))',
  'chacha20-poly1305': 'rfc7539esp(chacha20,poly1305)',
  'hmac-md5': 'hmac(md5)',
  'hmac-sha1': 'hmac(sha1)',
  'hmac-sha256': 'hmac(sha256)',
  'hmac-sha256-96': 'hmac(sha256)',
  'hmac-sha384': 'hmac(sha384)',
  'hmac-sha512': 'hmac(sha512)',
  'aes-xcbc-mac': 'xcbc(aes)',
  'aes-cmac': 'cmac(aes)',
};

/** The guest's whole network, as lines for `ip -batch`. */
export function setupLines(cases: readonly Case[]): string {
  const lines = [
    // The address that IPv6 would make by itself is not needed, and looking for a duplicate of it
    // takes a second.
    'link set vec0 addrgenmode none',
    'link set vec0 up',
    `addr add ${CONTROL.kernel}/24 dev vec0`,
    'addr add fe80::2/64 dev vec0 nodad',
    'route add 10.81.0.0/16 dev vec0',
    'route add 10.82.0.0/16 dev vec0',
    // Behind a router that is us, too: Linux would demand protection of a neighbour's
    // advertisements as well, if the policies were about the neighbour.
    `route add fd00::/8 via ${OUR_LINK_LOCAL} dev vec0`,
    // ESP in UDP is judged a second time at its socket, as the UDP datagram that it is.
    ...['0.0.0.0/0', '::/0'].map(
      (all) => `xfrm policy add src ${all} dst ${all} proto udp dport 4500 dir in priority 1`,
    ),
  ];
  return `${[...lines, ...cases.flatMap(caseLines)].join('\n')}\n`;
}

function caseLines(of: Case): string[] {
  const addresses = new Set([innerAddress(of, 'peer'), outerAddress(of, 'peer')]);
  return [
    ...[...addresses].map((address) =>
      address.includes(':')
        ? `addr add ${address}/128 dev vec0 nodad`
        : `addr add ${address}/32 dev vec0`,
    ),
    ...sasFrom(of, 'us').map((spec) => stateLine(of, spec, 'us')),
    ...sasFrom(of, 'peer').map((spec) => stateLine(of, spec, 'peer')),
    policyLine(of, 'us'),
    policyLine(of, 'peer'),
  ];
}

function stateLine(of: Case, spec: SaSpec, from: Side): string {
  const flags = [
    spec.esn ? 'esn' : '',
    // Linux pads AH to 64 bits on IPv4, too, and refuses the 32 of RFC 4302 §3.3.3.2.1, unless
    // told.
    spec.protocol === 'ah' && of.outer === 4 && spec.ahAlignLen === 4 ? 'align4' : '',
    of.inner === of.outer ? '' : 'af-unspec',
  ].filter((flag) => flag !== '');
  return [
    `xfrm state add src ${formatAddress(spec.src)} dst ${formatAddress(spec.dst)}`,
    `proto ${spec.protocol} spi ${spec.spi} reqid ${spec.reqid} mode ${spec.mode}`,
    'replay-window 64',
    spec.esn ? sequenceWords(of.lastSeq, from) : '',
    flags.length === 0 ? '' : `flag ${flags.join(' ')}`,
    algorithmWords(spec),
    spec.encapsulation ? `encap espinudp 4500 4500 ${of.outer === 4 ? '0.0.0.0' : '::'}` : '',
  ].join(' ');
}

/** What was sent last for the kernel's own SA, what came last for ours. */
function sequenceWords(last: number, from: Side): string {
  const which = from === 'peer' ? 'oseq' : 'seq';
  return `replay-${which}-hi ${Math.floor(last / 2 ** 32)} replay-${which} ${last % 2 ** 32}`;
}

function algorithmWords(spec: SaSpec): string {
  const { encrypt, encryptKey, auth, authKey } = spec.keys;
  const cipher = encryptionById(encrypt);
  const mac = authenticationById(auth);
  if (cipher?.kind === 'aead') {
    return `aead ${kernelName(cipher)} 0x${toHex(encryptKey)} ${8 * cipher.icvLen}`;
  }
  const key = encryptKey.length === 0 ? '""' : `0x${toHex(encryptKey)}`;
  return [
    cipher === undefined ? '' : `enc ${kernelName(cipher)} ${key}`,
    mac === undefined ? '' : `auth-trunc ${kernelName(mac)} 0x${toHex(authKey)} ${8 * mac.icvLen}`,
  ].join(' ');
}

function policyLine(of: Case, from: Side): string {
  const to = from === 'us' ? 'peer' : 'us';
  const ends = `src ${outerAddress(of, from)} dst ${outerAddress(of, to)}`;
  return [
    `xfrm policy add src ${innerAddress(of, from)} dst ${innerAddress(of, to)}`,
    `dir ${from === 'us' ? 'in' : 'out'} priority 100`,
    // Also for transport mode behind a tunnel: it is by these addresses that Linux knows the
    // family.
    ...sasFrom(of, from).map(
      ({ protocol, reqid, mode }) =>
        `tmpl ${of.mode === 'tunnel' ? ends : ''} proto ${protocol} reqid ${reqid} mode ${mode}`,
    ),
  ].join(' ');
}

function kernelName(of: Algorithm): string {
  const name = KERNEL_NAME[of.name];
  if (name === undefined) throw new Error(`no name of the kernel's for ${of.name}`);
  return name;
}
