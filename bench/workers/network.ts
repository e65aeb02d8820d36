import { once } from 'node:events';
import { DaemonHost } from '../../test/hosts/daemon-host.ts';
import { Lab } from '../../test/hosts/namespaces.ts';

const FLOWS = 4;
const PORT = 5201;
const [A, B] = ['10.9.0.1', '10.9.0.2'];

/** Gb/s of four TCP connections together, each with SAs of its own. */
export async function networkRates(workers: number, seconds: number): Promise<number> {
  const lab = new Lab('testudo-workers');
  try {
    const [a, b] = [lab.space('a'), lab.space('b')];
    lab.wire(
      { space: a, device: 'w', addresses: [`${A}/24`] },
      { space: b, device: 'w', addresses: [`${B}/24`] },
    );
    // A veth does not cut: what is sent as one message arrives as one.
    for (const space of [a, b]) lab.sh(space, 'ip link set w gso_max_segs 64');
    const args = ['--no-raw', '--encap-port', '4500', '--workers', String(workers)];
    await Promise.all([
      DaemonHost.start(lab, a, config('out', 'in'), args),
      DaemonHost.start(lab, b, config('in', 'out'), args),
    ]);
    const servers = flows().map((i) =>
      lab.spawn(b, 'iperf3', ['-s', '-1', '--forceflush', '-p', `${PORT + i}`]),
    );
    await Promise.all(servers.map((one) => once(one.stdout!, 'data')));
    const clients = flows().map((i) => {
      const args = ['-c', B, '-p', `${PORT + i}`, '-t', String(seconds), '-J'];
      return lab.run(a, 'iperf3', args);
    });
    const results = await Promise.all(clients);
    const bits = results.map(({ stdout }) => {
      const { end, error } = JSON.parse(stdout);
      if (error !== undefined) throw new Error(`iperf3: ${error}`);
      return end.sum_received.bits_per_second as number;
    });
    return bits.reduce((sum, one) => sum + one, 0) / 1e9;
  } finally {
    lab.close();
  }
}

function flows(): number[] {
  return Array.from({ length: FLOWS }, (_, i) => i);
}

function config(there: 'out' | 'in', back: 'out' | 'in'): string {
  const add = (src: string, dst: string, spi: number, reqid: number) => {
    const key = Buffer.alloc(20, `key ${spi}`).toString('hex');
    return `add ${src}[4500] ${dst}[4500] esp-udp ${spi} -m transport -u ${reqid} -r 255
      -E aes-gcm-16 0x${key};`;
  };
  return flows()
    .flatMap((i) => {
      const level = `ipsec esp/transport//unique:${i + 1}`;
      return [
        add(A, B, 0x1000 + i, i + 1),
        add(B, A, 0x2000 + i, i + 1),
        `spdadd ${A} ${B}[${PORT + i}] tcp -P ${there} ${level};`,
        `spdadd ${B}[${PORT + i}] ${A} tcp -P ${back} ${level};`,
      ];
    })
    .join('\n');
}
