import { createSocket } from 'node:dgram';

/**
 * A stream of numbered datagrams that waits for nobody: so many a second, whatever becomes of them,
 * until it is told to end. Then the other side says how many have come.
 *
 *     0        4        8
 *     | number | check  | octets that follow from the number …
 *
 * A number of 2^32 - 1 is the end, and has the count of all for its check; it is said again until
 * the sink, which waits for stragglers, answers.
 */

const END = 0xffff_ffff;
const TICK_MS = 1;
/** More at once would be a burst, and no stream: what is late is sent at the usual rate. */
const BURST_MAX = 16;
const AGAIN_MS = 200;
/** How long the sink waits for datagrams after the end, as long as none comes. */
const STRAGGLERS_MS = 2000;

function checkOf(number: number): number {
  return Math.imul(number ^ 0x5bd1_e995, 0x9e37_79b1) >>> 0;
}

function datagram(number: number, check: number, size: number): Buffer {
  const data = Buffer.alloc(size, number & 0xff);
  data.writeUInt32BE(number, 0);
  data.writeUInt32BE(check, 4);
  return data;
}

/** Sends until SIGTERM; prints `{ sent }` when the sink has answered. */
export function streamSource(address: string, port: string, rate: string, size: string): void {
  const socket = createSocket({
    type: address.includes(':') ? 'udp6' : 'udp4',
    sendBufferSize: 1 << 20,
  });
  let sent = 0;
  let began = performance.now();
  const send = (data: Buffer) => socket.send(data, Number(port), address, () => {});
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - began) * Number(rate)) / 1000) - sent;
    for (let i = 0; i < Math.min(due, BURST_MAX); i++, sent++) {
      send(datagram(sent, checkOf(sent), Number(size)));
    }
    if (due > BURST_MAX) began = performance.now() - (1000 * sent) / Number(rate);
  }, TICK_MS);
  process.once('SIGTERM', () => {
    clearInterval(timer);
    const end = () => send(datagram(END, sent, 8));
    end();
    setInterval(end, AGAIN_MS);
  });
  socket.on('message', () => {
    process.stdout.write(`${JSON.stringify({ sent })}\n`, () => process.exit());
  });
  socket.on('error', () => {});
  process.stdout.write('ready\n');
}

/** Prints `{ sent, received, wrong, twice }` at the end, and ends. */
export function streamSink(port: string): void {
  const seen = new Set<number>();
  let [wrong, twice, sent] = [0, 0, -1];
  let lastMs = 0;
  let answer = (): void => {};
  const socket = createSocket({ type: 'udp6', recvBufferSize: 1 << 24 }, (data, from) => {
    const number = data.readUInt32BE(0);
    const check = data.readUInt32BE(4);
    if (number === END) {
      if (sent < 0) lastMs = performance.now();
      sent = check;
      answer = () => socket.send('end', from.port, from.address);
    } else {
      const isWhole = check === checkOf(number) && data.at(-1) === (number & 0xff);
      if (!isWhole) wrong++;
      else if (seen.has(number)) twice++;
      else seen.add(number);
      lastMs = performance.now();
    }
  });
  setInterval(() => {
    if (sent < 0) return;
    if (seen.size < sent && performance.now() - lastMs < STRAGGLERS_MS) return;
    answer();
    const result = { sent, received: seen.size, wrong, twice };
    process.stdout.write(`${JSON.stringify(result)}\n`, () => setTimeout(process.exit, AGAIN_MS));
    sent = -1;
  }, AGAIN_MS);
  socket.bind(Number(port), '::', () => process.stdout.write('ready\n'));
}
