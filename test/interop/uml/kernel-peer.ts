import { randomFillSync } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { address, addressFrom, formatAddress } from '../../../src/base/address.ts';
import type { Env } from '../../../src/base/env.ts';
import { Host } from '../../../src/engine/host.ts';
import { defaultSettings } from '../../../src/engine/settings.ts';
import { Sad } from '../../../src/sad/sad.ts';
import { Spd } from '../../../src/spd/spd.ts';
import { u8 } from '../../../src/wire/bytes.ts';
import { Cursor, decode } from '../../../src/wire/cursor.ts';
import { type Packet, packetFrom } from '../../../src/wire/packet.ts';
import { type Case, policyOf, sasFrom, startingAfter } from '../case.ts';
import { Stack } from '../stack.ts';
import { type EthernetLink, openEthernet } from './ethernet.ts';
import { CONTROL, setupLines } from './kernel-config.ts';
import { bootUml, type Uml } from './uml.ts';

/** Our host on one end of a wire, and a Linux kernel on the other. */
export interface KernelPeer {
  readonly host: Host;
  readonly stack: Stack;
  /** The kernel's version. */
  readonly release: string;
  /** Which protocols went over the wire from or to an address of ours. */
  seen(ours: string): readonly number[];
  /**
   * Copies of the newest whole packets that went over the wire from, and to, an address of ours.
   */
  newest(ours: string): Newest;
  /** Puts a packet on the wire as it is. */
  inject(packet: Uint8Array): void;
  /** Asks the program in the guest; see guest.py. */
  ask(question: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>>;
  /** Powers the guest off; resolves to its exit status. */
  quit(): Promise<number>;
  /** Ends everything, whatever its state. */
  stop(): Promise<void>;
}

export interface Newest {
  readonly sent: Uint8Array;
  readonly received: Uint8Array;
}

/** Boots the kernel, and gives both sides the SAs and policies of the cases. */
export async function startKernelPeer(cases: readonly Case[]): Promise<KernelPeer> {
  const link = await openEthernet((octets) => octets.at(-1) === 1);
  const uml = bootUml({
    script: fileURLToPath(new URL('guest.sh', import.meta.url)),
    nic: link.nic,
    files: { 'setup.ip': setupLines(cases) },
  });
  const wire = new Wire();
  const stack = new Stack((octets) => host.output([packetFrom(octets)], 1));
  const host = ourHost(cases, link, stack, wire);
  try {
    return peerOf(host, stack, link, uml, wire, await uml.file('ready'));
  } catch (error) {
    await uml.stop();
    link.close();
    throw error;
  }
}

function peerOf(
  host: Host,
  stack: Stack,
  link: EthernetLink,
  uml: Uml,
  wire: Wire,
  release: string,
): KernelPeer {
  const ask: KernelPeer['ask'] = async (question) => {
    const [from, to] = [address(CONTROL.us), address(CONTROL.kernel)];
    return JSON.parse(await stack.ask(from, to, CONTROL.port, JSON.stringify(question)));
  };
  return {
    host,
    stack,
    release,
    ask,
    seen: (ours) => wire.seen(ours),
    newest: (ours) => wire.newest(ours),
    inject: (packet) => link.send([packetFrom(packet)], 1),
    async quit() {
      await ask({ do: 'quit' });
      return uml.ended;
    },
    async stop() {
      await uml.stop();
      link.close();
    },
  };
}

function ourHost(cases: readonly Case[], link: EthernetLink, stack: Stack, wire: Wire): Host {
  const env: Env = {
    clock: { monotonicMs: () => performance.now(), wallMs: () => Date.now() },
    random: { fill: (bytes) => randomFillSync(bytes) },
    log: () => {},
  };
  const sad = new Sad({ ...env, sequences: startingAfter(cases) });
  const spd = new Spd({ clock: env.clock });
  for (const one of cases) {
    for (const spec of sasFrom(one, 'us')) sad.add(spec, 'mature');
    for (const spec of sasFrom(one, 'peer')) {
      const sa = sad.add(spec, 'mature');
      if (one.lastSeq > 0) sa.replay.startAt(one.lastSeq);
    }
    spd.add(policyOf(one, 'out'));
    spd.add(policyOf(one, 'in'));
  }
  const host = new Host({
    env,
    sad,
    spd,
    settings: defaultSettings(),
    transmit(packets, count) {
      wire.note(packets, count, 'srcAt');
      link.send(packets, count);
    },
    deliver: stack.deliver,
  });
  link.receive((packets, count) => {
    wire.note(packets, count, 'dstAt');
    host.input(packets, count);
  });
  return host;
}

/** What each of our addresses was seen with on the wire. */
class Wire {
  readonly #seen = new Map<string, Set<number>>();
  readonly #newest = { srcAt: new Map<string, Uint8Array>(), dstAt: new Map<string, Uint8Array>() };
  readonly #cursor = new Cursor();

  note(packets: readonly Packet[], count: number, ours: 'srcAt' | 'dstAt'): void {
    const cursor = this.#cursor;
    for (let i = 0; i < count; i++) {
      const { bytes, at, end } = packets[i]!;
      if (decode(bytes, at, end, cursor) !== undefined) continue;
      const key = formatAddress(addressFrom(cursor.family, bytes, cursor[ours]));
      const protocols = this.#seen.get(key) ?? new Set();
      // Of a later fragment only its own header says what it belongs to.
      protocols.add(u8(bytes, cursor.protocolAt));
      this.#seen.set(key, protocols);
      if (!cursor.isFragment) this.#newest[ours].set(key, packets[i]!.copy());
    }
  }

  seen(ours: string): readonly number[] {
    return [...(this.#seen.get(ours) ?? [])];
  }

  newest(ours: string): Newest {
    const [sent, received] = [this.#newest.srcAt.get(ours), this.#newest.dstAt.get(ours)];
    if (sent === undefined || received === undefined) throw new Error(`nothing seen of ${ours}`);
    return { sent, received };
  }
}
