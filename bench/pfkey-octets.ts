/**
 * PF_KEY as a client makes it that shares nothing with the host: ESP SAs with AES-GCM, each from a
 * peer of its own to one gateway.
 */

export const [GETSPI, ADD, DELETE, GET, FLUSH, DUMP] = [1, 3, 4, 5, 9, 10] as const;
const ESP = 3;
const SPI_FIRST = 0x1_0000;

export function message(type: number, seq: number, ...parts: Buffer[]): Buffer {
  const head = Buffer.alloc(16);
  const all = Buffer.concat([head, ...parts]);
  all.set([2, type, 0, type === FLUSH || type === DUMP ? 0 : ESP]);
  all.writeUInt16LE(all.length / 8, 4);
  all.writeUInt32LE(seq, 8);
  all.writeUInt32LE(process.pid, 12);
  return all;
}

/** ADD, GET or DELETE of the SA with that number, or GETSPI between its ends. */
export function request(type: number, i: number): Buffer {
  if (type === GETSPI) return message(type, i, ...ends(i));
  const rest = type === ADD ? [key(i)] : [];
  return message(type, i, sa(SPI_FIRST + i), ...ends(i), ...rest);
}

function extension(type: number, len: number): Buffer {
  const p = Buffer.alloc(len);
  p.writeUInt16LE(len / 8, 0);
  p.writeUInt16LE(type, 2);
  return p;
}

/** `sadb_sa` with a replay window of 64, AES-GCM with an ICV of 16 octets. */
function sa(spi: number): Buffer {
  const p = extension(1, 16);
  p.writeUInt32BE(spi, 4);
  p.set([64, 1, 0, 20], 8);
  return p;
}

/** `sadb_address` with a `sockaddr_in`, in a network that no test uses. */
function address(type: number, number: number): Buffer {
  const p = extension(type, 24);
  p[5] = 32;
  p.writeUInt16LE(2, 8);
  p.writeUInt32BE(0x0b00_0000 + number, 12);
  return p;
}

function ends(i: number): Buffer[] {
  return [address(5, i + 2), address(6, 1)];
}

function key(i: number): Buffer {
  const p = extension(9, 32);
  p.writeUInt16LE(160, 4);
  for (let at = 8; at < 28; at++) p[at] = (at * 37 + i) & 255;
  return p;
}
