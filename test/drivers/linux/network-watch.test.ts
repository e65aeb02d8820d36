import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { prefix } from '../../../src/base/address.ts';
import { libc } from '../../../src/drivers/linux/libc.ts';
import type { Netlink } from '../../../src/drivers/linux/netlink.ts';
import { decodeRoute, ROUTE_TYPE, replaceRoute } from '../../../src/drivers/linux/netlink-route.ts';
import { Network } from '../../../src/drivers/linux/network.ts';
import { type NetworkWatch, watchNetwork } from '../../../src/drivers/linux/network-watch.ts';
import { announceSkip, whyNoHosts } from '../../hosts/namespaces.ts';
import { TestSpace } from './test-space.ts';

const skipped = announceSkip('network-watch.test.ts', whyNoHosts());

describe.skipIf(skipped)('notices of a live kernel', () => {
  let space: TestSpace;
  let netlink: Netlink;
  let network: Network;
  let watching: NetworkWatch;
  let notes: string[];
  let lost: number;
  let settled: number;

  beforeEach(() => {
    space = new TestSpace();
    space.addWire();
    netlink = space.netlink();
    network = new Network();
    network.read(netlink);
    [notes, lost, settled] = [[], 0, 0];
    watching = space.inside(() =>
      watchNetwork(libc('a test'), netlink.portId, {
        note(message) {
          const route = decodeRoute(message);
          const what = route ? `route of table ${route.table}` : network.note(message);
          notes.push(what ?? `type ${message.type}`);
        },
        lost: () => lost++,
        settled: () => settled++,
      }),
    );
  });
  afterEach(() => {
    watching.close();
    space.close();
  });

  const v4 = () => network.locals(4).map(({ bytes }) => bytes.join('.'));

  test('come by the event loop, or at once when asked for', async () => {
    space.sh('ip addr add 10.1.0.7/24 dev w0; ip link set w1 mtu 1400');
    watching.drain();
    expect(notes).toContain('address');
    expect(notes).toContain('device');
    expect(settled).toBe(0);
    expect(v4()).toEqual(['10.1.0.1', '10.1.0.7']);
    expect(network.device('w1')?.mtu).toBe(1400);
    space.sh('ip addr del 10.1.0.7/24 dev w0; ip addr add 10.1.0.8/32 dev w1 scope link');
    await expect.poll(v4).toEqual(['10.1.0.1', '10.1.0.8']);
    expect(settled).toBeGreaterThan(0);
    space.sh('ip link set w1 down; ip addr add 10.2.0.1/32 dev w0');
    await expect.poll(v4).toEqual(['10.1.0.1', '10.2.0.1']);
    space.sh('ip link del w1');
    await expect.poll(() => network.wires('auto')).toEqual([]);
    expect(network.addresses().map(({ bytes }) => bytes.join('.'))).toContain('127.0.0.1');
    expect([v4(), lost]).toEqual([[], 0]);
  });

  test('about what we have asked for do not come', () => {
    const route = { destination: prefix('10.9.0.0/16'), type: ROUTE_TYPE.unreachable, metric: 7 };
    netlink.run(replaceRoute({ ...route, table: 99 }));
    space.netlink().run(replaceRoute({ ...route, table: 98 }));
    space.sh('ip rule add pref 5 lookup 98; ip rule del pref 5');
    watching.drain();
    // The kernel itself has more to say about a wire that is new.
    const told = notes.filter((what) => /table 9|type/.test(what));
    expect(told).toEqual(['route of table 98', 'type 32', 'type 33']);
  });

  test('that were too many are missed, and that is told', () => {
    const lines = Array.from({ length: 4000 }, (_, i) => `route add 11.${i >> 8}.${i & 255}.0/24`);
    space.sh(`sed 's/$/ dev w0/' <<< '${lines.join('\n')}' | ip -batch -`);
    watching.drain();
    watching.drain();
    watching.drain();
    expect(lost).toBeGreaterThan(0);
    expect(notes.length).toBeLessThan(4000);
    // From then on they come again.
    notes = [];
    space.sh('ip link set w1 mtu 1400');
    watching.drain();
    expect(notes).toContain('device');
  });
});
