import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { address, prefix } from '../../src/base/address.ts';
import { encryptionByName } from '../../src/crypto/algorithms.ts';
import { LazyCrypto } from '../../src/crypto/lazy.ts';
import type { CryptoProvider } from '../../src/crypto/provider.ts';
import type { Bells } from '../../src/daemon/shards/bell.ts';
import { ShardControl } from '../../src/daemon/shards/control.ts';
import type { ExchangeSlots } from '../../src/daemon/shards/exchange.ts';
import { ringEnds, type ShardMemory } from '../../src/daemon/shards/memory.ts';
import type { Port } from '../../src/daemon/shards/messages.ts';
import { Shards } from '../../src/daemon/shards/shards.ts';
import { systemEnv } from '../../src/daemon/system-env.ts';
import { Host } from '../../src/engine/host.ts';
import { saSpec } from '../../src/sad/sa.ts';
import { Sad } from '../../src/sad/sad.ts';
import { memorySequences } from '../../src/sad/sequence.ts';
import { PORT_ANY, PROTOCOL_ANY } from '../../src/spd/policy.ts';
import { Spd } from '../../src/spd/spd.ts';
import { setU32 } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { PACKET_LEN_SMALL, type Packet, PacketArena } from '../../src/wire/packet.ts';
import * as udp from '../../src/wire/udp.ts';

/** Packets that are handed to a host at once. */
export const BATCH = 64;
/** SAs, one for each inner destination; those of even numbers are the main shard's, of two. */
const SAS = 8;
const SPI = 0x1000;

/** The main shard of a host without links: what it seals goes nowhere. */
export class Main {
  readonly host: Host;
  readonly shards: Shards;
  sealed = 0;
  /** More is waiting for another shard than there should be. */
  isBehind = false;
  readonly #arena = new PacketArena(BATCH + 1, { room: PACKET_LEN_SMALL });
  readonly #packets = Array.from({ length: BATCH }, () => this.#arena.take()!);
  readonly #octets: number;

  constructor(
    memory: ShardMemory,
    bells: Bells,
    ports: readonly Port<never, never>[],
    provider: CryptoProvider,
    octets: number,
    waiting?: () => void,
  ) {
    this.#octets = octets;
    const env = systemEnv('error');
    const { clock, random } = env;
    const sequences = memorySequences();
    const sad = new Sad({ clock, random, sequences, changed: (sa) => this.shards.saChanged(sa) });
    const spd = new Spd({ clock });
    const crypto = LazyCrypto.around(provider);
    this.shards = new Shards({
      ...{ env, sad, spd, sequences, bells, ...ringEnds(memory, 0) },
      keys: { natMapping: () => {} },
      controls: memory.controls.map(
        (one, i) => new ShardControl(one, ports[i]!, () => bells.ring(i + 1)),
      ),
      slots: slots(),
      isLocal: () => false,
      pause: (isPaused) => {
        this.isBehind = isPaused;
      },
      ...(waiting ? { waiting } : {}),
    });
    this.host = new Host({
      ...{ env, sad, spd, deliver: () => {}, shard: this.shards.shard },
      transmit: (_, count) => {
        this.sealed += count;
      },
    });
    for (let i = 0; i < SAS; i++) addTunnel(sad, spd, crypto, i);
    this.shards.join(this.host);
  }

  /** Packets for which there was no room. */
  get refused(): number {
    return this.shards.status(this.host.stats)[0]!.refused;
  }

  /** A batch for one SA. */
  output(sa: number): void {
    for (const packet of this.#packets) writePacket(packet, this.#octets, sa);
    this.host.output(this.#packets, BATCH);
    this.shards.endBatch();
  }
}

function addTunnel(sad: Sad, spd: Spd, crypto: LazyCrypto, i: number): void {
  const cipher = encryptionByName('aes-gcm-16')!;
  const encryptKey = Uint8Array.from({ length: 20 }, (_, at) => at * 7 + i);
  const authKey = new Uint8Array(0);
  const [src, dst] = [address('192.0.2.1'), address('192.0.2.2')];
  const keys = { auth: 0, encrypt: cipher.pfkey, authKey, encryptKey };
  const esp = crypto.esp(
    { cipher, cipherKey: encryptKey, macKey: authKey, allowLegacy: false },
    keys,
  );
  const spec = { protocol: 'esp', spi: SPI + i, src, dst, mode: 'tunnel', reqid: i + 1 } as const;
  sad.add(saSpec({ ...spec, keys, esp }), 'mature');
  spd.add({
    direction: 'out',
    selector: {
      src: prefix('10.0.0.1/32'),
      dst: prefix(`11.0.0.${i + 1}/32`),
      protocol: PROTOCOL_ANY,
      sport: PORT_ANY,
      dport: PORT_ANY,
    },
    type: 'ipsec',
    priority: 0,
    requests: [
      {
        ...{ protocol: 'esp', mode: 'tunnel', level: 'unique', reqid: i + 1, src, dst },
        ...{ srcPort: 0, dstPort: 0 },
      },
    ],
    ...{ lifetimeSeconds: 0, idleSeconds: 0, origin: 'client' },
  });
}

function writePacket(packet: Packet, octets: number, sa: number): void {
  packet.reset();
  const { bytes, at } = packet;
  packet.end = at + octets;
  ipv4.write(bytes, at, 0, octets, 1, 0, 64, 17);
  setU32(bytes, at + ipv4.SRC_AT, 0x0a00_0001);
  setU32(bytes, at + ipv4.DST_AT, 0x0b00_0001 + sa);
  ipv4.updateChecksum(bytes, at);
  udp.write(bytes, at + ipv4.HEADER_LEN, 5201, 5201, octets - ipv4.HEADER_LEN);
}

export function slots(): ExchangeSlots {
  const take = (count: number, room?: number) => {
    const arena = new PacketArena(count, room === undefined ? {} : { room });
    return Array.from({ length: count }, () => arena.take()!);
  };
  return { small: take(BATCH, PACKET_LEN_SMALL), large: take(2) };
}

/** Two ends of one channel, whose messages are there at once. */
export function channel() {
  const { port1, port2 } = new MessageChannel();
  for (const one of [port1, port2]) one.unref();
  return { port1, port2 };
}

export function portOf<In, Out>(port: ReturnType<typeof channel>['port1']): Port<In, Out> {
  return {
    post: (message) => port.postMessage(message),
    take: () => receiveMessageOnPort(port)?.message as In | undefined,
  };
}
