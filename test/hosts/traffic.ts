import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import { streamSink, streamSource } from './stream.ts';

/**
 * Programs that know nothing of IPsec: they send numbered blocks, each with a text that is looked
 * for on the wire, and hash what they sent and received. Each prints one JSON object at its end,
 * and servers a line "ready" at their start.
 *
 *     node traffic.js tcp-sink PORT | tcp-source ADDRESS PORT OCTETS
 *     node traffic.js udp-sink PORT COUNT | udp-source ADDRESS PORT COUNT SIZE,SIZE,...
 *     node traffic.js udp-flood ADDRESS PORT SIZE      until it is killed
 *     node traffic.js udp-listen PORT                  a JSON object per datagram
 *     node traffic.js udp-relay ADDRESS PORT FROM-PORT TO-ADDRESS TO-PORT
 *     node traffic.js stream-sink PORT | stream-source ADDRESS PORT RATE SIZE
 */
export const MARKER = 'TESTUDO-CLEARTXT';
const BLOCK_LEN = 64;
const CHUNK_LEN = 1 << 20;
const LOST_MAX = 5;

const [role = '', ...args] = process.argv.slice(2);
const roles: Readonly<Record<string, (...args: string[]) => void>> = {
  'tcp-sink': tcpSink,
  'tcp-source': tcpSource,
  'udp-sink': udpSink,
  'udp-source': udpSource,
  'udp-flood': udpFlood,
  'udp-listen': udpListen,
  'udp-relay': udpRelay,
  'stream-source': streamSource,
  'stream-sink': streamSink,
};
roles[role]?.(...args);

function print(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Blocks of 64 octets: the marker, the number of the block, and octets that follow from it. */
export function blocks(len: number, first: number): Buffer {
  const out = Buffer.alloc(len);
  for (let at = 0, number = first; at < len; at += BLOCK_LEN, number++) {
    out.write(MARKER, at, 'latin1');
    for (let i = 16; i < BLOCK_LEN && at + i + 4 <= len; i += 4) {
      out.writeUInt32LE(Math.imul(number + i, 0x9e37_79b1) >>> 0, at + i);
    }
  }
  return out;
}

function tcpSink(port: string): void {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const hash = createHash('sha256');
    let octets = 0;
    socket.on('data', (chunk) => {
      hash.update(chunk);
      octets += chunk.length;
    });
    socket.on('end', () => {
      const result = { sha256: hash.digest('hex'), octets };
      // The peer learns it by the connection, so that both directions carry data.
      socket.end(`${JSON.stringify(result)}\n`);
      print(result);
      server.close();
    });
  });
  server.listen(Number(port), '::', () => process.stdout.write('ready\n'));
}

function tcpSource(address: string, port: string, octets: string): void {
  const total = Number(octets);
  const hash = createHash('sha256');
  const chunk = blocks(CHUNK_LEN, 0);
  const began = performance.now();
  let sent = 0;
  let answer = '';
  const socket = connect({ host: address, port: Number(port), allowHalfOpen: true }, () => fill());
  const fill = () => {
    while (sent < total) {
      // A chunk of its own number, so that none can be taken for another.
      chunk.writeUInt32LE(sent / CHUNK_LEN, 20);
      const part = Buffer.from(chunk.subarray(0, Math.min(CHUNK_LEN, total - sent)));
      hash.update(part);
      sent += part.length;
      if (!socket.write(part)) {
        socket.once('drain', fill);
        return;
      }
    }
    socket.end();
  };
  socket.on('data', (text) => {
    answer += text;
  });
  socket.on('end', () => {
    const seconds = (performance.now() - began) / 1000;
    const megabits = Math.round((8 * total) / seconds / 1e6);
    print({ sha256: hash.digest('hex'), octets: sent, megabits, answer: JSON.parse(answer) });
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    print({ error: error.code });
    process.exitCode = 1;
  });
}

function udpSink(port: string, count: string): void {
  const seen = new Set<number>();
  let wrong = 0;
  const socket = createSocket({ type: 'udp6', recvBufferSize: 1 << 22 }, (data, from) => {
    const number = data.readUInt32BE(0);
    if (!data.subarray(4).equals(blocks(data.length - 4, number))) wrong++;
    seen.add(number);
    socket.send(data.subarray(0, 4), from.port, from.address, () => {
      if (seen.size < Number(count)) return;
      print({ received: seen.size, wrong });
      socket.close();
    });
  });
  socket.bind(Number(port), '::', () => process.stdout.write('ready\n'));
}

/** One at a time, so that nothing is lost for lack of room: the next when the last was answered. */
function udpSource(address: string, port: string, count: string, sizes: string): void {
  const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4' });
  const lengths = sizes.split(',').map(Number);
  let number = 0;
  let lost = 0;
  let timer: NodeJS.Timeout | undefined;
  const send = () => {
    const size = lengths[number % lengths.length]!;
    const data = Buffer.alloc(4 + size);
    data.writeUInt32BE(number);
    blocks(size, number).copy(data, 4);
    socket.send(data, Number(port), address);
    timer = setTimeout(() => {
      lost++;
      if (lost < LOST_MAX) return send();
      print({ sent: number, lost });
      socket.close();
    }, 1000);
  };
  socket.on('message', (data) => {
    if (data.readUInt32BE(0) !== number) return;
    clearTimeout(timer);
    number++;
    if (number < Number(count)) return send();
    print({ sent: number, lost });
    socket.close();
  });
  socket.on('error', () => {});
  send();
}

/** A thousand datagrams a second, whatever the kernel says about it. */
function udpFlood(address: string, port: string, size: string): void {
  const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4' });
  const data = blocks(Number(size), 0);
  socket.on('error', () => {});
  setInterval(() => {
    socket.send(data, Number(port), address, () => {});
  }, 1);
  process.stdout.write('ready\n');
}

function udpListen(port: string): void {
  const socket = createSocket('udp6', (data, from) => {
    print({ from: from.address, octets: data.length });
  });
  socket.bind(Number(port), '::', () => process.stdout.write('ready\n'));
}

/**
 * What a NAT does to UDP, for one client: its datagrams go on from another port, and what comes
 * back there goes to where it was last heard.
 */
function udpRelay(
  address: string,
  port: string,
  fromPort: string,
  toAddress: string,
  toPort: string,
): void {
  const inside = createSocket('udp4');
  const outside = createSocket('udp4');
  let client: { address: string; port: number } | undefined;
  inside.on('message', (data, from) => {
    client = from;
    outside.send(data, Number(toPort), toAddress);
  });
  outside.on('message', (data) => {
    if (client) inside.send(data, client.port, client.address);
  });
  outside.bind(Number(fromPort), () => {
    inside.bind(Number(port), address, () => process.stdout.write('ready\n'));
  });
}
