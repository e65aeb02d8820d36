import type { Difference } from './linux-answers.ts';

/** One thing that we answer otherwise than Linux, on purpose. */
export interface DifferenceRow {
  readonly name: string;
  readonly linux: string;
  readonly here: string;
  readonly why: string;
  readonly isIt: (difference: Difference) => boolean;
}

const SA_CHANGES = ['ADD', 'UPDATE', 'DELETE'];
const POLICY_CHANGES = ['X_SPDADD', 'X_SPDUPDATE', 'X_SPDDELETE'];
const CHANGES = [...SA_CHANGES, ...POLICY_CHANGES];

function errno(ours: string, ...linux: readonly string[]) {
  return (one: Difference) =>
    one.what === 'errno' && one.ours === ours && linux.includes(one.linux);
}

function on(types: readonly string[], ...whats: readonly string[]) {
  return ({ request, what }: Difference) => types.includes(request.type) && whats.includes(what);
}

/** Every difference that setkey's commands bring to light; docs/pfkey-differences.md shows them. */
export const DIFFERENCE_ROWS: readonly DifferenceRow[] = [
  {
    name: 'keys',
    linux: 'The answers to ADD, UPDATE and DELETE, which every PF_KEY socket gets, hold the keys.',
    here: 'Keys are in the answers to GET and DUMP only.',
    why: 'RFC 2367 §3.1.2 and §3.1.3: these messages have no key extensions when they come back.',
    isIt: on(SA_CHANGES, '-KEY_AUTH', '-KEY_ENCRYPT'),
  },
  {
    name: 'proxy',
    linux: 'Every message about an SA has ADDRESS_PROXY, with the address 0.0.0.0/0.',
    here: 'There is none.',
    why: 'It is the selector of an SA that has none; it says nothing.',
    isIt: ({ what }) => what === '-ADDRESS_PROXY',
  },
  {
    name: 'current lifetime of a change',
    linux: 'The answer to a change has LIFETIME_CURRENT.',
    here: 'GET and DUMP have it.',
    why: 'A change does not change it.',
    isIt: on(CHANGES, '-LIFETIME_CURRENT'),
  },
  {
    name: 'DELETE',
    linux: 'The answer describes the whole SA.',
    here: 'It names the SA: SA, X_SA2 and addresses.',
    why: 'RFC 2367 §3.1.4.',
    isIt: on(
      ['DELETE'],
      ...['-LIFETIME_HARD', '-LIFETIME_SOFT', '-X_NAT_T_TYPE', '-X_NAT_T_SPORT', '-X_NAT_T_DPORT'],
    ),
  },
  {
    name: 'state of a deleted SA',
    linux: 'The answer to DELETE shows the SA as dead.',
    here: 'It shows the state in which it was deleted.',
    why: 'So listeners learn whether it was in use.',
    isIt: on(['DELETE'], 'SA.state'),
  },
  {
    name: 'no limits of a policy',
    linux: 'LIFETIME_HARD and LIFETIME_SOFT are there when a policy has no limits, all zero.',
    here: 'LIFETIME_HARD is there when there is a limit, and in dumps; LIFETIME_SOFT never.',
    why: 'KAME. A policy has no soft limit.',
    isIt: on([...POLICY_CHANGES, 'X_SPDDUMP'], '-LIFETIME_HARD', '-LIFETIME_SOFT'),
  },
  {
    name: 'mode any',
    linux: 'An SA added with mode `any` (setkey without -m) becomes one of transport mode.',
    here: 'It stays `any`, and serves policies of both modes.',
    why: 'KAME, and what setkey(8) says.',
    isIt: ({ what, ours, linux }) => what === 'X_SA2.mode' && ours === '0' && linux === '1',
  },
  {
    name: 'replay window',
    linux: '`sadb_sa_replay` is the window, in packets; more than 32 is cut to 32.',
    here: 'It switches the window on; at least 64 packets, and what was asked for up to 255.',
    why: 'RFC 4303 §3.4.3 wants 64 as default. X_TESTUDO says other sizes exactly.',
    isIt: ({ what }) => what === 'SA.replay',
  },
  {
    name: 'padding',
    linux: 'The flags for random and zero padding are ignored and not shown.',
    here: 'They are kept, and obeyed.',
    why: 'KAME.',
    isIt: ({ what, linux }) => what === 'SA.flags' && linux === '0',
  },
  {
    name: 'one lifetime alone',
    linux: 'HARD without SOFT, or SOFT without HARD, is EINVAL.',
    here: 'Either may be missing.',
    why: 'RFC 2367 §2.3.2 has each of them optional.',
    isIt: errno('0', 'EINVAL'),
  },
  {
    name: 'ciphers that are not built in',
    linux: 'Blowfish, CAST-128, Twofish, Serpent and the like can be used.',
    here: 'EOPNOTSUPP for what this build of OpenSSL does not have.',
    why: 'OpenSSL 3 keeps them in its legacy module. REGISTER does not list them.',
    isIt: (one) =>
      errno('EOPNOTSUPP', '0')(one) && / -[EA] /.test(one.recorded.command) && !isLabel(one),
  },
  {
    name: 'IPComp',
    linux: 'SAs and policies with IPComp work.',
    here: 'EPROTONOSUPPORT.',
    why: 'It is not built.',
    isIt: errno('EPROTONOSUPPORT', '0', 'ENOSYS'),
  },
  {
    name: 'original address',
    linux: 'X_NAT_T_OA is taken and forgotten.',
    here: 'It is kept and shown, as X_NAT_T_OAI.',
    why: 'RFC 3948 §3.1.2 needs it.',
    isIt: ({ what }) => what === '+X_NAT_T_OAI',
  },
  {
    name: 'SPI 0',
    linux: 'An SA with the SPI 0 can be added.',
    here: 'EINVAL.',
    why: 'RFC 4303 §2.1: it must not be sent.',
    isIt: (one) => errno('EINVAL', '0')(one) && one.request.type === 'ADD',
  },
  {
    name: 'level default',
    linux: 'A request of level `default` is shown as `require`.',
    here: 'It is shown as it was made; the sysctls say what it means.',
    why: 'ipsec(4).',
    isIt: ({ what, ours }) => what === 'X_POLICY.requests' && ours.includes('level 0'),
  },
  {
    name: 'ports of a tunnel',
    linux: 'The ports in the ends of a tunnel request are forgotten.',
    here: 'They are shown.',
    why: 'They are what was asked for.',
    isIt: ({ what, ours }) => what === 'X_POLICY.requests' && ours.includes('[4500]'),
  },
  {
    name: 'host bits of a selector',
    linux: '10.9.8.7/24 is shown as it was given.',
    here: 'As 10.9.8.0/24.',
    why: 'It is the same network, and two policies for it are one too many.',
    isIt: on(['X_SPDADD'], 'ADDRESS_SRC.address', 'ADDRESS_DST.address'),
  },
  {
    name: 'security labels',
    linux: 'X_SEC_CTX ties a policy to a SELinux context.',
    here: 'EOPNOTSUPP.',
    why: 'Nobody here would check it.',
    isIt: (one) => errno('EOPNOTSUPP', '0')(one) && isLabel(one),
  },
  {
    name: 'a policy without requests',
    linux: 'EEXIST when there is a policy with its selector.',
    here: 'EINVAL: the message is looked at before the table is.',
    why: 'It would be refused in any case.',
    isIt: errno('EINVAL', 'EEXIST'),
  },
  {
    name: 'flush of SAs',
    linux: 'The answer comes twice.',
    here: 'Once.',
    why: 'Every request has one answer.',
    isIt: (one) => one.what === 'second answer',
  },
  {
    name: 'entries of a dump',
    linux: 'SAs and policies are listed that were refused here, or have other addresses here.',
    here: 'They are not; those that Linux refused are.',
    why: 'See the rows above.',
    isIt: (one) => one.what === 'entry',
  },
];

function isLabel({ recorded }: Difference): boolean {
  return recorded.command.includes(' -ctx ');
}

/** docs/pfkey-differences.md. */
export function differencesDocument(counts: ReadonlyMap<DifferenceRow, number>): string {
  const rows = DIFFERENCE_ROWS.map((row) => {
    const { name, linux, here, why } = row;
    return `| ${name} | ${linux} | ${here} | ${why} | ${counts.get(row) ?? 0} |`;
  });
  return [
    '# PF_KEY: differences from Linux',
    '',
    'The 258 commands of setkey whose messages and answers were recorded on Linux 6.1 are run against',
    'a host of ours, and all 1165 answers compared: type, errno, SA type, which extensions there are,',
    'and every field of them except times, process ids and numbers that a host gives out by itself.',
    'Each difference belongs to exactly one row of this table; there are no others. The last column',
    'says how many differences that row explains. (`--allow-legacy` is on; without it, broken and',
    'obsolete algorithms are EOPNOTSUPP.)',
    '',
    'This file is written by `npx vitest run test/key/linux-answers.test.ts -u`, and the test fails',
    'when it is not up to date.',
    '',
    '| what | Linux | here | why | times |',
    '|---|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}
