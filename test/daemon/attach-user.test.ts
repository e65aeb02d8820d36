import { afterEach, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { attachUser } from '../../src/daemon/attach-user.ts';
import { applyConfig, parseConfig } from '../../src/daemon/config.ts';
import { Daemon } from '../../src/daemon/daemon.ts';
import { systemResolver } from '../../src/daemon/resolver.ts';
import { systemEnv } from '../../src/daemon/system-env.ts';
import type { UdpSocket } from '../../src/inet/udp.ts';
import { memorySequences } from '../../src/sad/sequence.ts';

const daemons: Daemon[] = [];

afterEach(() => {
  for (const daemon of daemons.splice(0)) daemon.close();
});

/** A host in user space, whose ESP travels between the two loopback addresses in UDP. */
async function host(us: string, endpoint: string) {
  const daemon = new Daemon({
    env: systemEnv('error'),
    allowLegacy: false,
    sequences: memorySequences(),
  });
  daemons.push(daemon);
  const local = { address: address(endpoint), port: 0 };
  const attachment = await attachUser([address(us)], [local]);
  daemon.attach(attachment);
  const { port } = attachment.endpoints[0]!;
  daemon.settings.encapsulationPorts = [port];
  return { daemon, inet: attachment.inet, port };
}

/** Resolves with the next datagram of a socket. */
function next(open: (handler: (data: Uint8Array) => void) => UdpSocket) {
  let arrived: (data: Uint8Array) => void = () => {};
  const socket = open((data) => arrived(data.slice()));
  const datagram = () =>
    new Promise<Uint8Array>((resolve) => {
      arrived = resolve;
    });
  return { socket, datagram };
}

test('sockets of a host in user space have policies of their own', async () => {
  const [a, b] = [await host('10.9.0.1', '127.0.0.1'), await host('10.9.0.2', '127.0.0.2')];
  const key = '0x000102030405060708090a0b0c0d0e0f10111213';
  const sas =
    `add 127.0.0.1[${a.port}] 127.0.0.2[${b.port}] esp-udp 0x1001 -m tunnel -E aes-gcm-16 ${key};` +
    `add 127.0.0.2[${b.port}] 127.0.0.1[${a.port}] esp-udp 0x1002 -m tunnel -E aes-gcm-16 ${key};`;
  const config = await parseConfig(sas, 'test', systemResolver);
  for (const { daemon } of [a, b]) applyConfig(daemon.keys, config);
  const [there, back] = [
    'ipsec esp/tunnel/127.0.0.1-127.0.0.2/require',
    'ipsec esp/tunnel/127.0.0.2-127.0.0.1/require',
  ];
  const server = next((handler) => b.inet.openUdp(7, handler));
  server.socket.setsockopt('IP_IPSEC_POLICY', `in ${there}`);
  server.socket.setsockopt('IP_IPSEC_POLICY', `out ${back}`);
  const client = next((handler) => a.inet.openUdp(0, handler));
  client.socket.setsockopt('IP_IPSEC_POLICY', `out ${there}`);
  client.socket.setsockopt('IP_IPSEC_POLICY', `in ${back}`);

  const request = server.datagram();
  client.socket.send(Uint8Array.of(1, 2, 3), address('10.9.0.2'), 7);
  expect(await request).toEqual(Uint8Array.of(1, 2, 3));
  const reply = client.datagram();
  server.socket.send(Uint8Array.of(4), address('10.9.0.1'), client.socket.port);
  expect(await reply).toEqual(Uint8Array.of(4));

  expect(client.socket.protection(4)).toMatchObject({
    out: { state: 'protected', layers: [{ spi: 0x1001, mode: 'tunnel' }] },
    in: { state: 'protected', layers: [{ spi: 0x1002, src: '127.0.0.2' }] },
  });
  expect(a.daemon.sockets.size).toBe(1);
  client.socket.close();
  expect(a.daemon.sockets.size).toBe(0);
});
