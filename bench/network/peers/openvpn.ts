import { execFileSync, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { hasTool } from '../../../test/hosts/namespaces.ts';
import { INNER_MTU, type Testbed } from '../testbed.ts';
import type { Tunnel, Variant } from '../variant.ts';

/** Two OpenVPNs that know each other's certificate. */
export function openvpn(): Variant {
  const absent = ['openvpn', 'openssl'].find((tool) => !hasTool(tool));
  const version = absent === undefined ? versionOf() : '';
  return {
    name: 'OpenVPN',
    id: 'openvpn',
    limited: false,
    absent: absent && `no ${absent}: apt-get install ${absent}`,
    about: `AES-128-GCM, in UDP, user space (no DCO), OpenVPN ${version}`,
    start,
  };
}

function versionOf(): string {
  const { stdout } = spawnSync('openvpn', ['--version'], { encoding: 'utf8' });
  return /OpenVPN (\S+)/.exec(stdout)?.[1] ?? '';
}

async function start(bed: Testbed): Promise<Tunnel> {
  const pems = bed.sites.map((_, i) => makeCertificate(bed.lab.dir, 'ab'[i]!));
  const pids = bed.sites.map((site, i) => {
    const peer = bed.other(site);
    const [mine, theirs] = [pems[i]!, pems[1 - i]!];
    const options = {
      dev: 'tun0',
      'dev-type': 'tun',
      proto: 'udp',
      local: site.wire,
      remote: peer.wire,
      ifconfig: `${site.inner} ${peer.inner}`,
      'tun-mtu': String(INNER_MTU),
      'disable-dco': '',
      'data-ciphers': 'AES-128-GCM',
      [i === 0 ? 'tls-server' : 'tls-client']: '',
      dh: i === 0 ? 'none' : undefined,
      cert: mine.cert,
      key: mine.key,
      'peer-fingerprint': theirs.fingerprint,
      verb: '0',
    };
    const args = Object.entries(options).flatMap(([name, value]) => {
      return value === undefined ? [] : [`--${name}`, ...value.split(' ').filter(Boolean)];
    });
    return bed.spawn(site, 'openvpn', args).pid!;
  });
  return { from: bed.a.inner, to: bed.b.inner, pids };
}

function makeCertificate(dir: string, name: string) {
  const [cert, key] = [join(dir, `${name}.crt`), join(dir, `${name}.key`)];
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const files = ['-keyout', key, '-out', cert, '-subj', `/CN=${name}`];
  execFileSync('openssl', ['req', '-x509', ...ec, ...files, '-days', '2'], { stdio: 'ignore' });
  const print = ['x509', '-in', cert, '-noout', '-fingerprint', '-sha256'];
  const fingerprint = execFileSync('openssl', print, { encoding: 'utf8' }).trim().split('=')[1]!;
  return { cert, key, fingerprint };
}
