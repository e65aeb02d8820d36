import { Daemon } from '../../src/daemon/daemon.ts';
import { memoryPair } from '../../src/drivers/memory.ts';
import { defaultSettings } from '../../src/engine/settings.ts';
import { memorySequences } from '../../src/sad/sequence.ts';
import { packetFrom } from '../../src/wire/packet.ts';
import { testEnv } from '../engine/rig.ts';

/** A daemon whose wire and local side are in memory. */
export class MemoryDaemon {
  readonly env = testEnv();
  readonly logged: string[] = [];
  /** What was diverted, each time it changed. */
  readonly diversions: { readonly all: boolean; readonly out: number }[] = [];
  readonly daemon: Daemon;
  readonly sent: Uint8Array[] = [];
  readonly delivered: Uint8Array[] = [];
  readonly #wire = memoryPair();
  readonly #local = memoryPair();

  constructor(mtu = 1500) {
    this.env.log = (...line: unknown[]) => void this.logged.push(line.join(' '));
    const { inet, inet6 } = defaultSettings();
    this.daemon = new Daemon({
      env: this.env,
      settings: { inet, inet6 },
      allowLegacy: true,
      sequences: memorySequences(),
    });
    this.daemon.attach({
      description: 'in memory',
      wire: this.#wire[0],
      local: this.#local[0],
      wireMtu: mtu,
      addresses: () => [],
      divert: (table) => {
        const { out } = table.takeChanges();
        this.diversions.push({ all: table.all, out: out.size });
      },
      setOverhead: () => {},
      refresh: () => {},
      close: () => {},
    });
    this.#wire[1].receive((packets, count) => {
      for (const one of packets.slice(0, count)) this.sent.push(one.copy());
    });
    this.#local[1].receive((packets, count) => {
      for (const one of packets.slice(0, count)) this.delivered.push(one.copy());
    });
  }

  /** Sends from the local side, and returns what went to the wire. */
  output(octets: Uint8Array): Uint8Array[] {
    this.sent.length = 0;
    this.#local[1].send([packetFrom(octets)], 1);
    return [...this.sent];
  }

  /** Takes from the wire, and returns what was delivered. */
  input(octets: Uint8Array): Uint8Array[] {
    this.delivered.length = 0;
    this.#wire[1].send([packetFrom(octets)], 1);
    return [...this.delivered];
  }

  close(): void {
    this.daemon.close();
  }
}
