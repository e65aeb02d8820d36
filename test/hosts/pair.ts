import { Lab } from './namespaces.ts';

/** Two namespaces on one wire, and setkey files for hosts in them: ESP in transport mode. */
export const A = { v4: '10.9.0.1', v6: 'fd09::1' } as const;
export const B = { v4: '10.9.0.2', v6: 'fd09::2' } as const;

export interface Pair {
  readonly lab: Lab;
  readonly a: string;
  readonly b: string;
}

export function makePair(): Pair {
  const lab = new Lab();
  const a = lab.space('a');
  const b = lab.space('b');
  lab.wire(
    { space: a, device: 'w0', addresses: [`${A.v4}/24`, `${A.v6}/64`] },
    { space: b, device: 'w0', addresses: [`${B.v4}/24`, `${B.v6}/64`] },
  );
  // Both ways, so that no test begins with a search for the neighbour.
  lab.ping(a, B.v4);
  lab.ping(a, B.v6);
  return { lab, a, b };
}

const KEYS = {
  4097: '8f2a6c1e9b7d4035a1c8e6f20d5b3947c0ffee01',
  4098: '17e4b0d98a5c362f4fb1936de8a07c52c0ffee02',
  4099: '5c0f9e2d7a4b8136e1d2c3b4a5968778c0ffee03',
  4100: '2b7e151628aed2a6abf7158809cf4f3cc0ffee04',
} as const;

/** The SAs of both families and directions. */
export const SAS = [
  `add ${A.v4} ${B.v4} esp 0x1001 -m transport -r 64 -E aes-gcm-16 0x${KEYS[0x1001]};`,
  `add ${B.v4} ${A.v4} esp 0x1002 -m transport -r 64 -E aes-gcm-16 0x${KEYS[0x1002]};`,
  `add ${A.v6} ${B.v6} esp 0x1003 -m transport -r 64 -E aes-gcm-16 0x${KEYS[0x1003]};`,
  `add ${B.v6} ${A.v6} esp 0x1004 -m transport -r 64 -E aes-gcm-16 0x${KEYS[0x1004]};`,
].join('\n');

/** The policies of A or B towards the other. */
export function policies(host: 'a' | 'b', level = 'require'): string {
  const [mine, peer] = host === 'a' ? [A, B] : [B, A];
  return (['v4', 'v6'] as const)
    .flatMap((family) => [
      `spdadd ${mine[family]} ${peer[family]} any -P out ipsec esp/transport//${level};`,
      `spdadd ${peer[family]} ${mine[family]} any -P in ipsec esp/transport//require;`,
    ])
    .join('\n');
}

/** A whole file. */
export function config(host: 'a' | 'b'): string {
  return `flush; spdflush;\n${SAS}\n${policies(host)}\n`;
}
