import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { endsOf, isKnownKind, placeNow, type SocketPlace } from '../../src/daemon/socket-ends.ts';
import type { KernelSocket } from '../../src/drivers/linux/sock-diag.ts';

function place(changes: Partial<SocketPlace> = {}): SocketPlace {
  const nowhere = { address: undefined, port: 0 };
  return {
    ...{ family: 4, type: 'datagram', protocol: 17, isDual: false },
    ...{ local: nowhere, remote: nowhere },
    ...changes,
  };
}
const end = (text: string, port: number) => ({ address: address(text), port });

describe('the packets of a socket', () => {
  test('before it has an address or a port there are none', () => {
    expect(endsOf(place())).toEqual([{ family: 4, protocol: 17, localPort: 0, remotePort: 0 }]);
  });

  test('bound and connected', () => {
    const there = place({ local: end('10.0.0.1', 5000), remote: end('10.0.0.2', 80) });
    expect(endsOf(there)).toEqual([
      {
        ...{ family: 4, protocol: 17, localPort: 5000, remotePort: 80 },
        ...{ local: address('10.0.0.1'), remote: address('10.0.0.2') },
      },
    ]);
  });

  test('an IPv6 socket without an address takes IPv4 too, unless it says that it does not', () => {
    const six = place({ family: 6, local: { address: undefined, port: 5000 } });
    expect(endsOf({ ...six, isDual: true }).map(({ family }) => family)).toEqual([6, 4]);
    expect(endsOf(six).map(({ family }) => family)).toEqual([6]);
  });

  test('an IPv6 socket with a mapped address takes IPv4 alone', () => {
    const four = { ...place({ family: 6, isDual: true }), remote: end('10.0.0.2', 80) };
    const local = { address: undefined, port: 5000 };
    expect(endsOf({ ...four, local })).toEqual([
      { family: 4, protocol: 17, localPort: 5000, remotePort: 80, remote: address('10.0.0.2') },
    ]);
  });

  test('raw sockets have addresses and no ports', () => {
    const raw = place({ type: 'raw', protocol: 89, local: end('10.0.0.1', 89) });
    expect(endsOf(raw)).toEqual([
      {
        ...{ family: 4, protocol: 89, localPort: 0, remotePort: 0, raw: true },
        local: address('10.0.0.1'),
      },
    ]);
  });

  test('the kernel tells mapped addresses, and zeroes for none', () => {
    const kernel: KernelSocket = {
      ...{ family: 6 as const, cookie: 1, state: 1, uid: 0 },
      ...{ local: address('::ffff:10.0.0.1'), localPort: 5000 },
      ...{ remote: address('::'), remotePort: 0 },
    };
    const now = placeNow(place({ family: 6, isDual: true }), kernel);
    expect(endsOf(now)).toEqual([
      { family: 4, protocol: 17, localPort: 5000, remotePort: 0, local: address('10.0.0.1') },
    ]);
  });

  test.each([
    [{ type: 'stream', protocol: 6 }, true],
    [{ type: 'stream', protocol: 262 }, false],
    [{ type: 'datagram', protocol: 17 }, true],
    [{ type: 'datagram', protocol: 136 }, false],
    [{ type: 'datagram', protocol: 1 }, true],
    [{ type: 'datagram', protocol: 58 }, false],
    [{ type: 'datagram', protocol: 58, family: 6 }, true],
    [{ type: 'raw', protocol: 89 }, true],
    [{ type: 'raw', protocol: 255 }, false],
    [{ type: 'other', protocol: 132 }, false],
  ] as const)('%o can have a policy: %s', (kind, known) => {
    expect(isKnownKind(place(kind))).toBe(known);
  });
});
