/**
 * Two IPsec hosts in one process, joined by a wire in memory, each from setkey text; a ping between
 * them; and what the wire saw. No socket, no privilege, no clock but this process's own.
 */
import {
  address,
  applyConfig,
  Daemon,
  dissect,
  type HostAttachment,
  Inet,
  type Link,
  memoryPair,
  memorySequences,
  parseConfig,
  systemEnv,
  systemResolver,
  traceLink,
} from '../src/testudo.ts';

const SAS = `
  add 192.0.2.1 192.0.2.2 esp 0x1001 -m transport -r 64 -E aes-gcm-16 0x8f2a6c1e9b7d4035a1c8e6f20d5b3947c0ffee01;
  add 192.0.2.2 192.0.2.1 esp 0x1002 -m transport -r 64 -E aes-gcm-16 0x17e4b0d98a5c362f4fb1936de8a07c52c0ffee02;
`;
const POLICIES = (us: string, them: string) => `
  spdadd ${us} ${them} any -P out ipsec esp/transport//require;
  spdadd ${them} ${us} any -P in  ipsec esp/transport//require;
`;

/** A host whose local side is `Inet` and whose wire is one end of a pair. */
async function host(us: string, them: string, wire: Link): Promise<{ daemon: Daemon; inet: Inet }> {
  const daemon = new Daemon({
    env: systemEnv('warn'),
    allowLegacy: false,
    sequences: memorySequences(),
  });
  applyConfig(daemon.keys, await parseConfig(SAS + POLICIES(us, them), us, systemResolver));
  const inet = new Inet({
    addresses: [address(us)],
    send: (packets, count) => daemon.host.output(packets, count),
  });
  const attachment: HostAttachment = {
    description: 'in memory',
    wire,
    local: {
      name: 'inet',
      refused: 0,
      receive: () => {},
      send: (packets, count) => inet.receive(packets, count),
      close: () => {},
    },
    wireMtu: 1500,
    addresses: () => [address(us)],
    divert: () => {},
    setOverhead: () => {},
    refresh: () => {},
    close: () => wire.close(),
  };
  daemon.attach(attachment);
  return { daemon, inet };
}

/** Returns what was seen: lines about the packets on the wire, and the answer. */
export async function pingInMemory(): Promise<string[]> {
  const seen: string[] = [];
  const [left, right] = memoryPair({ delivery: 'queued' });
  const tapped = traceLink(left, (direction, { bytes, at, end }) => {
    seen.push(`${direction} ${dissect(bytes, at, end)}`);
  });
  const alice = await host('192.0.2.1', '192.0.2.2', tapped);
  const bob = await host('192.0.2.2', '192.0.2.1', right);
  const echo = alice.inet.openEcho((seq, data) => {
    seen.push(`reply ${seq}: ${new TextDecoder().decode(data)}`);
  });
  echo.send(1, new TextEncoder().encode('hello, bob'), address('192.0.2.2'));
  while (right.flush() + left.flush() > 0) {
    // Until nothing waits at either end.
  }
  echo.close();
  alice.daemon.close();
  bob.daemon.close();
  return seen;
}

if (process.argv[1]?.endsWith('in-memory.js')) {
  for (const line of await pingInMemory()) process.stdout.write(`${line}\n`);
}
