import { spawnSync } from 'node:child_process';
import { Charon, whyNoCharon } from '../../../test/hosts/charon.ts';
import { hasTool } from '../../../test/hosts/namespaces.ts';
import type { Site, Testbed } from '../testbed.ts';
import type { Tunnel, Variant } from '../variant.ts';

const OPTIONS = {
  secret: 'an example of a shared key',
  ike: 'aes128gcm16-prfsha256-x25519',
  esp: 'aes128gcm16',
} as const;

/** strongSwan with its ESP in user space, which is tunnel mode in UDP. */
export function strongswan(): Variant {
  const absent = hasTool('swanctl') ? whyNoCharon() : 'no swanctl';
  const version = absent === undefined ? versionOf() : '';
  return {
    name: 'strongSwan kernel-libipsec',
    id: 'strongswan',
    limited: false,
    absent,
    about: `AES-128-GCM, ESP in UDP, user space, strongSwan ${version}`,
    start,
  };
}

function versionOf(): string {
  const { stdout, stderr } = spawnSync('swanctl', ['--help'], { encoding: 'utf8' });
  return /(\d+\.\d+\.\d+)/.exec(stdout + stderr)?.[1] ?? '';
}

async function start(bed: Testbed): Promise<Tunnel> {
  bed.addInner();
  const [a, b] = bed.sites.map((site, i) => placeOf(site, `${'ab'[i]}.example`));
  const first = await Charon.start(bed.lab, bed.a.space, a!, b!, OPTIONS);
  const second = await Charon.start(bed.lab, bed.b.space, b!, a!, OPTIONS);
  const { status, stdout, stderr } = first.swanctl('--initiate --child net');
  if (status !== 0) throw new Error(`strongSwan: ${stdout}${stderr}`);
  return { from: bed.a.inner, to: bed.b.inner, pids: [first.pid, second.pid] };
}

function placeOf({ wire, inner, net }: Site, id: string) {
  return { wire, net, inner, id };
}
