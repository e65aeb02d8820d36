import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { afterEach, describe, expect, test } from 'vitest';
import { type Libc, libc, SOCK_DGRAM } from '../../../src/drivers/linux/libc.ts';
import { nativeBlock } from '../../../src/drivers/linux/native-memory.ts';
import { shareOfPort, shareOfRaw } from '../../../src/drivers/linux/share.ts';
import {
  openSocket,
  SO_REUSEPORT,
  SOL_SOCKET,
  steerPort,
} from '../../../src/drivers/linux/socket.ts';
import { concat, hex } from '../../wire/octets.ts';

/** The kernel itself says which socket gets what. */
const isRoot = process.platform === 'linux' && process.getuid?.() === 0;
const COUNT = 3;
const AF_INET = 2;

describe.skipIf(!isRoot)('a share of what arrives', () => {
  const fds: number[] = [];
  let c: Libc;
  let from: Socket | undefined;
  afterEach(() => {
    for (const fd of fds.splice(0)) c.close(fd);
    from?.close();
    from = undefined;
  });

  function bound(port: number, filter?: ReturnType<typeof shareOfRaw>): number {
    c = libc('test');
    const fd = openSocket(c, 'share', {
      family: 4,
      type: SOCK_DGRAM,
      protocol: 0,
      mark: 7557,
      bufferLen: 1 << 16,
      on: [[SOL_SOCKET, SO_REUSEPORT]],
      filter,
    });
    fds.push(fd);
    const name = nativeBlock(c, 16);
    name.view.setUint16(0, AF_INET, true);
    name.view.setUint16(2, port, false);
    name.bytes.set([127, 0, 0, 1], 4);
    expect(c.bind(fd, name.base, 16)).toBe(0);
    return fd;
  }

  function read(fd: number): string[] {
    const block = nativeBlock(c, 64);
    const found: string[] = [];
    for (let len = c.read(fd, block.base, 64); len >= 0; len = c.read(fd, block.base, 64)) {
      found.push(Buffer.from(block.bytes.slice(0, len)).toString('hex'));
    }
    return found;
  }

  async function send(port: number, texts: readonly Uint8Array[]): Promise<void> {
    from = createSocket('udp4');
    from.bind(0, '127.0.0.1');
    await once(from, 'listening');
    for (const text of texts) {
      await new Promise<void>((resolve, reject) => {
        from!.send(text, port, '127.0.0.1', (error) => (error ? reject(error) : resolve()));
      });
    }
  }

  const spi = (number: number) =>
    concat(hex(number.toString(16).padStart(8, '0')), hex('00000001'));

  test('of a port: by the SPI; IKE, keep-alives and what is short to the first', async () => {
    const port = 45_071;
    const all = Array.from({ length: COUNT }, () => bound(port));
    steerPort(c, all[0]!, shareOfPort(COUNT), 'steer');
    const numbers = [0x100, 0x101, 0x102, 0xffff_ffff, 0x8000_0001];
    await send(port, [...numbers.map(spi), spi(0), hex('ff'), new Uint8Array(0)]);
    const got = all.map(read);
    for (const number of numbers) {
      expect(got[number % COUNT]).toContain(Buffer.from(spi(number)).toString('hex'));
    }
    expect(got[0]).toEqual(expect.arrayContaining([Buffer.from(spi(0)).toString('hex'), 'ff', '']));
    expect(got.flat()).toHaveLength(numbers.length + 3);
  });

  // test/hosts/workers.test.ts has the kernel run these.
  test('of a raw socket: behind an IPv4 header of any length, and where AH has its SPI', () => {
    const esp = shareOfRaw(4, 50, { self: 1, count: COUNT });
    const ah = shareOfRaw(4, 51, { self: 1, count: COUNT });
    expect(esp.map(({ k }) => k)).toEqual([0, 0, COUNT, 1, 0xffff_ffff, 0]);
    expect(ah.map(({ k }) => k)).toEqual([0, 4, COUNT, 1, 0xffff_ffff, 0]);
    const six = shareOfRaw(6, 51, { self: 1, count: COUNT });
    expect(six.map(({ k }) => k)).toEqual([4, COUNT, 1, 0xffff_ffff, 0]);
  });
});
