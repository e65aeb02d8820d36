import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { address, type Family, prefix } from '../../../src/base/address.ts';
import { DiversionTable, prefixKey } from '../../../src/drivers/linux/diversion.ts';
import {
  EEXIST,
  ESRCH,
  type Netlink,
  NetlinkError,
  type NetlinkRequest,
} from '../../../src/drivers/linux/netlink.ts';
import {
  decodeDevice,
  findDevice,
  listDevices,
  setMtuRequest,
  setNoAddressRequest,
} from '../../../src/drivers/linux/netlink-link.ts';
import {
  decodeRoute,
  deleteRoute,
  listRoutes,
  ROUTE_TYPE,
  type Route,
  replaceRoute,
} from '../../../src/drivers/linux/netlink-route.ts';
import { Network } from '../../../src/drivers/linux/network.ts';
import { flushRoutes, Routes } from '../../../src/drivers/linux/routes.ts';
import { addRule, removeRule } from '../../../src/drivers/linux/rule.ts';
import { announceSkip, whyNoHosts } from '../../hosts/namespaces.ts';
import { TestSpace } from './test-space.ts';

const skipped = announceSkip('netlink.test.ts', whyNoHosts());
const TABLE = 7557;
const BOTH: readonly Family[] = [4, 6];

describe.skipIf(skipped)('rtnetlink of a live kernel', () => {
  let space: TestSpace;
  let netlink: Netlink;
  beforeEach(() => {
    space = new TestSpace();
    space.addWire();
    netlink = space.netlink();
  });
  afterEach(() => space.close());

  const device = () =>
    (netlink.ask([findDevice('w0')], decodeDevice)[0] as { index: number }).index;
  const block = (to: string): Route => ({
    ...{ table: TABLE, destination: prefix(to) },
    ...{ type: ROUTE_TYPE.unreachable, metric: 4_000_000_000 },
  });
  const shown = (family: Family) =>
    space
      .sh(`ip -${family} route show table ${TABLE} 2>/dev/null || true`)
      .replaceAll(/ ?pref medium/g, '')
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '')
      .sort();

  test('carries out many requests in order, and tells which failed and why', () => {
    const route: Route = {
      ...{ table: TABLE, destination: prefix('10.7.0.0/16'), type: ROUTE_TYPE.unicast },
      ...{ metric: 100, device: device() },
    };
    const requests: NetlinkRequest[] = Array.from({ length: 150 }, (_, i) =>
      replaceRoute(block(`10.8.${i}.0/24`)),
    );
    requests[40] = deleteRoute(block('10.9.0.0/16'));
    requests[70] = replaceRoute({ ...route, source: address('192.0.2.77') });
    requests[149] = deleteRoute(block('10.8.0.0/24'));
    const failed = netlink.execute(requests);
    expect([...failed.keys()]).toEqual([40, 70]);
    expect(failed.get(40)?.errno).toBe(ESRCH);
    expect(failed.get(70)?.message).toMatch(
      /^add route 10\.7\.0\.0\/16 table 7557 metric 100: Invalid argument \(Invalid prefsrc/,
    );
    expect(shown(4)).toHaveLength(146);
    expect(() => netlink.run(deleteRoute(block('10.9.0.0/16')))).toThrow(NetlinkError);
    expect(netlink.execute([])).toEqual(new Map());
  });

  test('reads a table of any size, and no other table', () => {
    const many = Array.from({ length: 3000 }, (_, i) => block(`10.${i >> 8}.${i & 255}.0/24`));
    expect(netlink.execute(many.map(replaceRoute))).toEqual(new Map());
    const list = (family: Family) =>
      netlink.dump(listRoutes(family, TABLE), (message) => {
        const route = decodeRoute(message);
        return route?.table === TABLE ? route : undefined;
      });
    expect(list(4)).toEqual(many);
    flushRoutes(netlink, TABLE, BOTH);
    expect(shown(4)).toEqual([]);
  });

  test('goes on after an answer that nobody waited for', () => {
    const answers = netlink.ask(
      [findDevice('w0'), findDevice('w9'), findDevice('w1')],
      (m) => decodeDevice(m)?.name,
    );
    expect([answers[0], answers[2]]).toEqual(['w0', 'w1']);
    expect(answers[1]).toBeInstanceOf(NetlinkError);
    expect(() =>
      netlink.dump(listDevices(), () => {
        throw new Error('enough');
      }),
    ).toThrow('enough');
    expect(netlink.ask([findDevice('w0')], (m) => decodeDevice(m)?.name)).toEqual(['w0']);
  });

  test('knows its number, which notices about its changes carry', () => {
    expect(netlink.portId).not.toBe(0);
    expect(space.netlink().portId).not.toBe(netlink.portId);
  });

  test('sets the MTU and how addresses are made', () => {
    netlink.run(setMtuRequest('w1', 1400), setNoAddressRequest('w1'));
    expect(space.sh('ip -d link show w1')).toMatch(/mtu 1400 .*addrgenmode none/s);
    expect(() => netlink.run(setMtuRequest('w9', 1400))).toThrow(/set MTU 1400 of w9/);
  });

  test('a rule is added once, taken for ours, and removed; that of others is left', () => {
    const rule = { table: TABLE, pref: 100, mark: 7557 };
    for (const family of BOTH) {
      expect(addRule(netlink, family, rule)).toBe(true);
      expect(addRule(netlink, family, rule)).toBe(false);
      const line = '100:\tnot from all fwmark 0x1d85 lookup 7557';
      expect(space.sh(`ip -${family} rule`)).toContain(line);
      expect(() => addRule(netlink, family, { ...rule, mark: 5 })).toThrow(/in use by another/);
      removeRule(netlink, family, rule);
      expect(space.sh(`ip -${family} rule`)).not.toContain('7557');
    }
    space.sh('ip rule add pref 100 lookup 99');
    expect(() => addRule(netlink, 4, rule)).toThrow(/in use by another/);
    removeRule(netlink, 4, rule);
    expect(space.sh('ip rule')).toContain('lookup 99');
    expect(EEXIST).toBe(17);
  });

  describe('routes of a diversion', () => {
    let network: Network;
    let routes: Routes;
    let table: DiversionTable;
    const add = (to: string, from: string) => table.addOut(prefix(to), prefix(from));
    const remove = (to: string, from: string) => table.removeOut(prefix(to), prefix(from));
    const follow = () => routes.follow(table, table.takeChanges().out);

    beforeEach(() => {
      network = new Network();
      network.read(netlink);
      const options = { netlink, network, table: TABLE, mark: 7557, families: BOTH };
      routes = new Routes(options);
      routes.device = device();
      table = new DiversionTable();
    });

    test('follow each change, and leave nothing behind', () => {
      add('10.2.0.0/16', '0.0.0.0/0');
      add('fd02::/16', '::/0');
      expect(follow()).toEqual(new Map());
      expect(shown(4)).toEqual([
        '10.2.0.0/16 dev w0 metric 100',
        'throw 224.0.0.0/4 metric 3000000000',
        'throw 255.255.255.255 metric 3000000000',
        'unreachable 10.2.0.0/16 metric 4000000000',
      ]);
      expect(shown(6)).toContain('fd02::/16 dev w0 metric 100');
      expect(shown(6)).toContain('unreachable fd02::/16 dev lo metric 4000000000');
      add('10.2.0.0/16', '10.1.0.1');
      add('10.2.0.0/16', '10.9.0.0/16');
      add('224.0.0.0/4', '0.0.0.0/0');
      follow();
      expect(shown(4)).toContain('224.0.0.0/4 dev w0 metric 100');
      expect(shown(4)).not.toContain('throw 224.0.0.0/4 metric 3000000000');
      remove('224.0.0.0/4', '0.0.0.0/0');
      remove('10.2.0.0/16', '10.1.0.1');
      remove('10.2.0.0/16', '10.9.0.0/16');
      follow();
      expect(shown(4)).toHaveLength(4);
      remove('10.2.0.0/16', '0.0.0.0/0');
      remove('fd02::/16', '::/0');
      follow();
      expect([...shown(4), ...shown(6)]).toEqual([]);
      expect([...routes.keys]).toEqual([]);
    });

    test('have the source that policies ask for, or the usual one', () => {
      space.sh('ip addr add 10.1.0.8/24 dev w0; ip addr add 10.77.0.1/32 dev w1');
      space.sh('ip route add default via 10.1.0.254 src 10.1.0.8');
      network.read(netlink);
      const sourceOf = (...from: readonly string[]) => {
        for (const one of from) add('10.3.0.1', one);
        follow();
        const line = shown(4).find((one) => one.startsWith('10.3.0.1 dev'));
        for (const one of from) remove('10.3.0.1', one);
        return / src (\S+)/.exec(line ?? '')?.[1];
      };
      // What a program would have without us.
      expect(sourceOf('0.0.0.0/0')).toBe('10.1.0.8');
      expect(sourceOf('10.1.0.0/24')).toBe('10.1.0.8');
      // The only one that a policy is about.
      expect(sourceOf('10.77.0.0/16')).toBe('10.77.0.1');
      // Both are right, so nothing is changed for programs.
      expect(sourceOf('10.77.0.1', '10.1.0.8')).toBe('10.1.0.8');
      // Some, and not the usual one: the first, by the number of its device.
      expect(sourceOf('10.77.0.1', '10.1.0.1')).toBe('10.77.0.1');
      // A gateway's policy: no address of its own.
      expect(sourceOf('192.0.2.0/24')).toBe('10.1.0.8');
      space.sh('ip addr del 10.77.0.1/32 dev w1');
      network.read(netlink);
      expect(sourceOf('10.77.0.0/16')).toBe('10.1.0.8');
      // One that is not usable, since its device is down.
      space.sh('ip link set w1 down; ip addr add 10.77.0.1/32 dev w1');
      network.read(netlink);
      expect(sourceOf('10.77.0.0/16')).toBe('10.1.0.8');
    });

    test('take over what is left, and remove what nobody wants', () => {
      space.sh(`ip route add unreachable 10.2.0.0/16 table ${TABLE} metric 4000000000
        ip route add unreachable 10.4.0.0/16 table ${TABLE} metric 4000000000
        ip route add throw 224.0.0.0/4 table ${TABLE} metric 3000000000
        ip route add 10.5.0.0/16 dev w1 table ${TABLE}
        ip -6 route add unreachable fd04::/16 table ${TABLE} metric 4000000000`);
      add('10.2.0.0/16', '0.0.0.0/0');
      expect(follow()).toEqual(new Map());
      expect(shown(4)).toEqual([
        '10.2.0.0/16 dev w0 metric 100',
        'throw 224.0.0.0/4 metric 3000000000',
        'throw 255.255.255.255 metric 3000000000',
        'unreachable 10.2.0.0/16 metric 4000000000',
      ]);
      expect(shown(6)).toEqual([]);
    });

    test('a failure keeps nothing from the others, and is tried again when asked', () => {
      add('10.2.0.0/16', '0.0.0.0/0');
      follow();
      routes.device = 9999;
      add('10.4.0.0/16', '0.0.0.0/0');
      remove('10.2.0.0/16', '0.0.0.0/0');
      const failed = follow();
      const key = prefixKey(prefix('10.4.0.0/16'));
      expect([...failed.keys()]).toEqual([key]);
      expect(shown(4).filter((line) => line.includes('10.4'))).toEqual([
        'unreachable 10.4.0.0/16 metric 4000000000',
      ]);
      routes.device = device();
      expect(routes.follow(table, failed.keys())).toEqual(new Map());
      expect(shown(4)).toContain('10.4.0.0/16 dev w0 metric 100');
    });

    test('while the TUN is down there is the block alone', () => {
      space.sh('ip link set w0 down');
      add('10.2.0.0/16', '0.0.0.0/0');
      expect(follow()).toEqual(new Map());
      const block = 'unreachable 10.2.0.0/16 metric 4000000000';
      expect(shown(4).filter((line) => line.includes('10.2'))).toEqual([block]);
      space.sh('ip link set w0 up');
      expect(routes.follow(table, routes.keys)).toEqual(new Map());
      expect(shown(4)).toContain('10.2.0.0/16 dev w0 metric 100');
    });

    test('what others have removed is found and put back', () => {
      add('10.2.0.0/16', '0.0.0.0/0');
      add('fd02::/16', '::/0');
      follow();
      const before = [...shown(4), ...shown(6)];
      space.sh(`ip route flush table ${TABLE}; ip -6 route del fd02::/16 dev w0 table ${TABLE}`);
      routes.check();
      routes.follow(table, table.out.keys());
      expect([...shown(4), ...shown(6)]).toEqual(before);
    });
  });
});
