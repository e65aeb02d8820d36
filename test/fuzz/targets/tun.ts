import { type Libc, libc } from '../../../src/drivers/linux/libc.ts';
import { PacketMemory } from '../../../src/drivers/linux/packet-memory.ts';
import type { Segments } from '../../../src/drivers/linux/segments.ts';
import { TunReader } from '../../../src/drivers/linux/tun-reader.ts';
import { TunWriter } from '../../../src/drivers/linux/tun-writer.ts';
import {
  VNET_FLAG,
  VNET_GSO,
  VNET_LEN,
  vnetGso,
  vnetSegment,
  writeVnet,
} from '../../../src/drivers/linux/vnet-header.ts';
import { Refusals } from '../../../src/drivers/refusals.ts';
import { setU16, u16 } from '../../../src/wire/bytes.ts';
import * as ipv4 from '../../../src/wire/ipv4.ts';
import type { Packet } from '../../../src/wire/packet.ts';
import { FLAG } from '../../../src/wire/tcp.ts';
import { LOOPS } from '../../drivers/linux/segment-rig.ts';
import { cut, type Fields, join, packetOf } from '../../drivers/linux/segment-twin.ts';
import { concat, counting } from '../../wire/octets.ts';
import { must, type Target } from '../target.ts';

const ENDLESS = 4096;

/**
 * A kernel that gives what it is told to: packets behind the header of the device, each behind two
 * octets of length. What is read from it is written to it again, and must be the same packets.
 */
class HostileDevice {
  readonly #c = libc('a test');
  readonly #reader: TunReader;
  readonly #writer: TunWriter;
  #records: Uint8Array[] = [];
  #read: Uint8Array[] = [];
  #written: Uint8Array[] = [];

  constructor() {
    const memory = new PacketMemory(this.#c, 2 << 20);
    const open = LOOPS.compiled!(memory);
    const loops = typeof open === 'string' ? LOOPS.WebAssembly!(memory) : open;
    const refusals = new Refusals();
    const kernel: Libc = {
      ...this.#c,
      readv: (_, buffers, count) => this.#give(buffers, count),
      writev: (_, buffers, count) => this.#take(buffers, count),
    };
    this.#reader = new TunReader(kernel, 0, memory, loops as Segments, refusals);
    this.#writer = new TunWriter(kernel, 0, memory, loops as Segments, refusals, true);
    this.#reader.sink = (packets, count) => this.#arrived(packets, count);
  }

  run(input: Uint8Array): void {
    this.#records = [];
    for (let at = 0; at + 2 <= input.length; ) {
      const len = Math.min(u16(input, at), input.length - at - 2);
      this.#records.push(input.subarray(at + 2, at + 2 + len));
      at += 2 + len;
    }
    this.#read = [];
    this.#written = [];
    for (let turn = 0; this.#records.length > 0; turn++) {
      must(turn < ENDLESS, 'reading comes to an end');
      this.#reader.read();
    }
    must(this.#read.length === this.#written.length, 'as many packets are written as were read');
    for (const [i, packet] of this.#read.entries()) {
      must(Buffer.compare(packet, this.#written[i]!) === 0, 'what is written is what was read');
    }
  }

  #arrived(packets: readonly Packet[], count: number): void {
    for (let i = 0; i < count; i++) {
      const packet = packets[i]!;
      must(packet.at >= packet.slotAt && packet.end <= packet.slotEnd, 'a packet is in its slot');
      must(packet.len > 0 && packet.len <= packet.room, 'a packet leaves its room');
      must(!packet.follows || (i > 0 && packets[i - 1]!.len === packet.len), 'followers are alike');
      this.#read.push(withoutId(packet.copy()));
    }
    this.#writer.write(packets, count);
  }

  #give(buffers: number, count: number): number {
    const record = this.#records.shift();
    if (record === undefined) return -1;
    let given = 0;
    for (const buffer of this.#buffers(buffers, count)) {
      const part = record.subarray(given, given + buffer.length);
      buffer.set(part);
      given += part.length;
    }
    return given;
  }

  #take(buffers: number, count: number): number {
    const [header, ...parts] = this.#buffers(buffers, count);
    const all = concat(header!, ...parts);
    const packet = all.slice(VNET_LEN);
    if (vnetGso(all, 0) === VNET_GSO.none) {
      this.#written.push(withoutId(packet));
    } else {
      this.#written.push(...cut(packet, vnetSegment(all, 0)).map(withoutId));
    }
    return all.length;
  }

  #buffers(vector: number, count: number): Uint8Array[] {
    const view = new DataView(this.#c.koffi.view(BigInt(vector), 16 * count));
    return Array.from({ length: count }, (_, i) => {
      const len = Number(view.getBigUint64(16 * i + 8, true));
      if (len === 0) return new Uint8Array(0);
      return new Uint8Array(this.#c.koffi.view(view.getBigUint64(16 * i, true), len));
    });
  }
}

/** With DF, an identification that stays the same may count up behind us: it says nothing. */
function withoutId(packet: Uint8Array): Uint8Array {
  if (packet[0]! >> 4 !== 4 || packet.length < 20 || !ipv4.dontFragment(packet, 0)) return packet;
  setU16(packet, 4, 0);
  setU16(packet, 10, 0);
  return packet;
}

function record(gso: number, segment: number, packet: Uint8Array, start = 20, offset = 16) {
  const header = new Uint8Array(2 + VNET_LEN);
  setU16(header, 0, VNET_LEN + packet.length);
  writeVnet(header, 2, VNET_FLAG.needsChecksum, gso, 0, segment, start, offset);
  return concat(header, packet);
}

function stream(fields: Pick<Fields, 'family' | 'protocol'>, count: number): Uint8Array {
  return join(
    Array.from({ length: count }, (_, i) =>
      packetOf({ ...fields, payload: counting(90), flags: FLAG.ACK, seq: i * 90, id: i }),
    ),
  );
}

const tcp4 = stream({ family: 4, protocol: 'tcp' }, 3);
const tcp6 = stream({ family: 6, protocol: 'tcp' }, 3);
const udp4 = stream({ family: 4, protocol: 'udp' }, 3);
const single = packetOf({ family: 4, protocol: 'tcp', payload: counting(40) });

export const tun: Target = {
  name: 'tun',
  lenMax: 4000,
  seeds: () => [
    record(VNET_GSO.tcp4, 90, tcp4),
    record(VNET_GSO.tcp6, 90, tcp6, 40),
    record(VNET_GSO.udp, 90, udp4, 20, 6),
    record(VNET_GSO.none, 0, join([single])),
    concat(record(VNET_GSO.tcp4, 1, tcp4), record(VNET_GSO.none, 0, single, 0, 0)),
    record(VNET_GSO.none, 0, counting(3000), 2000, 100),
    concat(Uint8Array.of(0, 0), record(VNET_GSO.tcp4, 2000, tcp4)),
  ],
  create: () => {
    if (process.platform !== 'linux') return () => {};
    const device = new HostileDevice();
    return (input) => device.run(input);
  },
};
