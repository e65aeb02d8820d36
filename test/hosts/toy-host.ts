/**
 * A host with a toy instead of IPsec, to try the attachment by itself: packets are carried as
 * protocol 50 in transport mode, with their payload XORed and the real protocol behind it. Commands
 * come as lines of JSON on standard input, answers go out the same way. Run inside a network
 * namespace of its own.
 */
import { createInterface } from 'node:readline';
import { prefix } from '../../src/base/address.ts';
import { type Attachment, attach, cleanUp } from '../../src/drivers/linux/attachment.ts';
import { DiversionTable } from '../../src/drivers/linux/diversion.ts';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { type Packet, type PacketSink, packetFrom } from '../../src/wire/packet.ts';

const ESP = 50;
const KEY = 0x5a;
const WIRE_MTU = 1500;

interface Command {
  readonly do: 'divert' | 'refresh' | 'inspected' | 'received' | 'send' | 'refused' | 'close';
  /** Hexadecimal, for `send`: a whole IP packet. */
  readonly octets?: string;
  readonly out?: readonly { readonly destination: string; readonly source?: string }[];
  readonly in?: readonly { readonly source: string; readonly destination: string }[];
  readonly all?: boolean;
}

const inspected: string[] = [];
/** Packets from the wire, whole, since the last question. */
const received: string[] = [];
const options = JSON.parse(process.argv[2]!);
if (options.cleanUp === true) {
  cleanUp(options);
  process.exit(0);
}
const host = attach(options);
host.local.receive(each((packet) => sealToWire(host, packet)));
host.wire.receive(
  each((packet) => {
    if (options.record === true) received.push(toHex(packet.copy()));
    if (protocolOf(packet) === ESP) openToLocal(host, packet);
  }),
);
host.inspect.receive(each((packet) => inspected.push(describe(packet))));
host.follow({
  changed: () => undefined,
  failed: (error) => {
    throw error;
  },
});
const table = new DiversionTable();
let diverted: Command = { do: 'divert' };
say({ ready: true });

createInterface({ input: process.stdin }).on('line', (line) => {
  try {
    say({ done: obey(JSON.parse(line)) });
  } catch (error) {
    say({ error: String(error) });
  }
});

function obey(command: Command): unknown {
  switch (command.do) {
    case 'divert':
      return divert(command);
    case 'refresh':
      return host.refresh();
    case 'inspected':
      return inspected.splice(0);
    case 'received':
      return received.splice(0);
    case 'send':
      return host.wire.send([packetFrom(fromHex(command.octets ?? ''))], 1);
    case 'refused':
      return Object.fromEntries(host.wire.refusals);
    case 'close':
      host.close();
      setImmediate(() => process.exit(0));
      return undefined;
  }
}

/** The new ones first, so that what both divert never is not. */
function divert(command: Command): void {
  for (const { destination, source } of command.out ?? []) {
    table.addOut(prefix(destination), prefix(source ?? everything(destination)));
  }
  for (const pair of command.in ?? []) table.addIn(prefix(pair.source), prefix(pair.destination));
  for (const { destination, source } of diverted.out ?? []) {
    table.removeOut(prefix(destination), prefix(source ?? everything(destination)));
  }
  for (const pair of diverted.in ?? []) {
    table.removeIn(prefix(pair.source), prefix(pair.destination));
  }
  table.all = command.all === true;
  diverted = command;
  host.divert(table);
}

function everything(like: string): string {
  return like.includes(':') ? '::/0' : '0.0.0.0/0';
}

function each(take: (packet: Packet) => void): PacketSink {
  return (packets, count) => {
    for (let i = 0; i < count; i++) take(packets[i]!);
  };
}

function sealToWire(to: Attachment, packet: Packet): void {
  if (packet.len < 20) return;
  const p = packet.bytes;
  const at = packet.at;
  const v6 = p[at]! >> 4 === 6;
  const headerLen = v6 ? ipv6.HEADER_LEN : ipv4.headerLen(p, at);
  // One trailing octet keeps the real protocol, as ESP does.
  const inner = protocolOf(packet);
  for (let i = at + headerLen; i < packet.end; i++) p[i] = p[i]! ^ KEY;
  p[packet.end++] = inner;
  setLength(packet, ESP);
  if (packet.len <= WIRE_MTU) to.wire.send([packet], 1);
  else for (const part of fragments(packet, headerLen)) to.wire.send([part], 1);
}

function openToLocal(to: Attachment, packet: Packet): void {
  const p = packet.bytes;
  const v6 = p[packet.at]! >> 4 === 6;
  const headerLen = v6 ? ipv6.HEADER_LEN : ipv4.headerLen(p, packet.at);
  const inner = p[--packet.end]!;
  for (let i = packet.at + headerLen; i < packet.end; i++) p[i] = p[i]! ^ KEY;
  setLength(packet, inner);
  to.local.send([packet], 1);
}

function setLength(packet: Packet, protocol: number): void {
  const { bytes: p, at } = packet;
  if (p[at]! >> 4 === 6) {
    ipv6.setPayloadLen(p, at, packet.len - ipv6.HEADER_LEN);
    ipv6.setNextHeader(p, at, protocol);
  } else {
    ipv4.setTotalLen(p, at, packet.len);
    ipv4.setProtocol(p, at, protocol);
    ipv4.updateChecksum(p, at);
  }
}

let nextId = 1;

function fragments(packet: Packet, headerLen: number): Packet[] {
  const whole = packet.copy();
  const v6 = whole[0]! >> 4 === 6;
  const id = nextId++;
  const parts: Packet[] = [];
  for (let from = headerLen; from < whole.length; from += 1400) {
    const until = Math.min(whole.length, from + 1400);
    const more = until < whole.length;
    const extra = v6 ? ipv6.FRAGMENT_HEADER_LEN : 0;
    const octets = new Uint8Array(headerLen + extra + until - from);
    octets.set(whole.subarray(0, headerLen));
    octets.set(whole.subarray(from, until), headerLen + extra);
    const part = packetFrom(octets);
    if (v6) {
      const at = part.at + headerLen;
      ipv6.writeFragmentHeader(part.bytes, at, ESP, from - headerLen, more ? 1 : 0, id);
      setLength(part, 44);
    } else {
      ipv4.setId(part.bytes, part.at, id);
      ipv4.setFragment(part.bytes, part.at, more ? ipv4.FLAG_MF : 0, from - headerLen);
      setLength(part, ESP);
    }
    parts.push(part);
  }
  return parts;
}

function protocolOf({ bytes: p, at }: Packet): number {
  return p[at]! >> 4 === 6 ? ipv6.nextHeader(p, at) : ipv4.protocol(p, at);
}

function describe(packet: Packet): string {
  const family = packet.bytes[packet.at]! >> 4;
  return `IPv${family} protocol ${protocolOf(packet)} length ${packet.len}`;
}

function say(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
