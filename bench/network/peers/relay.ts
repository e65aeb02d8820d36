import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { packageFile } from '../../../src/drivers/linux/package-file.ts';
import { hasTool } from '../../../test/hosts/namespaces.ts';
import { INNER_MTU, type Testbed } from '../testbed.ts';
import type { Tunnel, Variant } from '../variant.ts';

const SOURCE = 'bench/network/peers/relay.c';
const DEVICE = 'relay0';
/** As many segments as make one UDP message. */
const SEGMENTS_MAX = 44;
/** How long the program may take to make its device. */
const READY_MS = 2000;

/**
 * A TUN device and a UDP socket at both ends, and a program in C that only moves octets between
 * them: what is left of the machine when nothing is protected.
 */
export function relay(): Variant {
  const source = packageFile(SOURCE);
  return {
    name: 'the system calls alone',
    id: 'relay',
    limited: false,
    absent: source === undefined || !hasTool('cc') ? 'no C compiler' : undefined,
    about: 'what a tunnel asks of the kernel, in C: nothing is cut, checked or protected',
    isBare: true,
    start: (bed) => start(bed, source!),
  };
}

async function start(bed: Testbed, source: string): Promise<Tunnel> {
  const program = join(bed.lab.dir, 'relay');
  execFileSync('cc', ['-O2', '-o', program, source]);
  bed.addInner();
  const pids: number[] = [];
  for (const site of bed.sites) {
    const peer = bed.other(site);
    pids.push(bed.spawn(site, program, [DEVICE, site.wire, peer.wire]).pid!);
    await bed.until(site, `ip link show ${DEVICE}`, READY_MS, 'the relay has no device');
    bed.lab.sh(
      site.space,
      `ip link set ${DEVICE} mtu ${INNER_MTU} gso_max_segs ${SEGMENTS_MAX} up`,
    );
    bed.lab.sh(site.space, `ip route add ${peer.inner} dev ${DEVICE} src ${site.inner}`);
  }
  return { from: bed.a.inner, to: bed.b.inner, pids };
}
