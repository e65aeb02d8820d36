import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { describe, expect, test } from 'vitest';
import { address } from '../../../src/base/address.ts';
import { AF_INET6, libc, SOCK_DGRAM, SOCK_FLAGS } from '../../../src/drivers/linux/libc.ts';
import { withBlock } from '../../../src/drivers/linux/native-memory.ts';
import { describeSocket } from '../../../src/drivers/linux/program-socket.ts';
import { SockDiag, TCP_STATE, type Tuple } from '../../../src/drivers/linux/sock-diag.ts';

/** The kernel of this machine, and this process's own sockets. */
const isRoot = process.platform === 'linux' && process.getuid?.() === 0;
if (!isRoot) console.log('sock-diag.test.ts skipped: not root on Linux');

describe.skipIf(!isRoot)('what the kernel knows about sockets', () => {
  const here = address('127.0.0.1');

  test('a UDP socket is found by its packets, and its end is told', async () => {
    const ended: number[] = [];
    const diag = new SockDiag(libc('test'), {
      destroyed: (cookie) => void ended.push(cookie),
      lost: () => undefined,
    });
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    await once(socket, 'listening');
    const { port } = socket.address();
    const tuple: Tuple = {
      ...{ protocol: 17 as const, device: 0 },
      ...{ local: here, localPort: port, remote: here, remotePort: 9 },
    };
    const known = diag.find(tuple);
    expect(known).toMatchObject({ family: 4, local: here, localPort: port, remotePort: 0, uid: 0 });
    expect(diag.find({ ...tuple, localPort: 1 })).toBeUndefined();
    const cookies = () => diag.all().map(({ cookie }) => cookie);
    expect(cookies()).toContain(known!.cookie);
    socket.close();
    while (!ended.includes(known!.cookie)) await new Promise(setImmediate);
    expect(diag.find(tuple)).toBeUndefined();
    expect(cookies()).not.toContain(known!.cookie);
    diag.close();
  });

  test('of TCP the one that listens, the connection, and what is left of it', async () => {
    const diag = new SockDiag(libc('test'), { destroyed: () => undefined, lost: () => undefined });
    const server = createServer({ allowHalfOpen: true }, (peer) => peer.resume()).listen(0, '::1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const client = connect(port, '::1');
    const [peer] = await once(server, 'connection');
    const end = { local: address('::1'), remote: address('::1') };
    const ofClient: Tuple = {
      ...{ ...end, protocol: 6 as const, device: 0 },
      ...{ localPort: client.localPort!, remotePort: port },
    };
    const known = diag.find(ofClient);
    expect(known).toMatchObject({ family: 6, state: 1, remotePort: port });
    const listener = diag.find({ ...ofClient, localPort: port, remotePort: 9 });
    expect(listener).toMatchObject({ state: TCP_STATE.LISTEN, remotePort: 0 });
    client.end();
    await once(peer, 'end');
    peer.end();
    await once(client, 'close');
    let left = diag.find(ofClient);
    // The last segment is still under way.
    while (left?.state !== TCP_STATE.TIME_WAIT) {
      await new Promise(setImmediate);
      left = diag.find(ofClient);
    }
    expect(left.cookie).toBe(known!.cookie);
    server.close();
    diag.close();
  });

  test('a descriptor says the same', () => {
    const diag = new SockDiag(libc('test'), { destroyed: () => undefined, lost: () => undefined });
    const c = libc('test');
    const fd = c.socket(AF_INET6, SOCK_DGRAM | SOCK_FLAGS, 0);
    withBlock(c, 64, ({ view, base }) => {
      view.setUint16(0, AF_INET6, true);
      c.bind(fd, base, 28);
    });
    const said = describeSocket(c, fd)!;
    expect(said).toMatchObject({
      ...{ family: 6, type: 'datagram', protocol: 17, isDual: true, isListening: false },
      ...{ device: '', uid: 0, local: { address: undefined, port: expect.any(Number) } },
    });
    const { port } = said.local;
    const tuple = { local: here, localPort: port, remote: here, remotePort: 9, device: 0 };
    // It takes IPv4 too.
    expect(diag.find({ ...tuple, protocol: 17 })?.cookie).toBe(said.cookie);
    expect(describeSocket(libc('test'), 0)).toBeUndefined();
    c.close(fd);
    diag.close();
  });
});
