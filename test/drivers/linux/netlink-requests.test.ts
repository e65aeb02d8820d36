import { describe, expect, test } from 'vitest';
import { address, prefix } from '../../../src/base/address.ts';
import type { NetlinkRequest } from '../../../src/drivers/linux/netlink.ts';
import {
  addIngress,
  decodeFilter,
  decodeQdisc,
  deleteFilter,
  deleteIngress,
  replaceFilter,
} from '../../../src/drivers/linux/netlink-filter.ts';
import {
  addHostAddress,
  decodeAddress,
  decodeDevice,
  findDevice,
  setMtuRequest,
  setNoAddressRequest,
  setSegmentsRequest,
} from '../../../src/drivers/linux/netlink-link.ts';
import { MessageWriter, messagesIn } from '../../../src/drivers/linux/netlink-message.ts';
import {
  decodeRoute,
  deleteRoute,
  findRoute,
  ROUTE_TYPE,
  replaceRoute,
} from '../../../src/drivers/linux/netlink-route.ts';
import {
  addRuleRequest,
  decodeRule,
  deleteRuleRequest,
} from '../../../src/drivers/linux/netlink-rule.ts';
import { fromHex, toHex } from '../../../src/wire/bytes.ts';

/** Octets of iproute2 6.1 and Linux 6.18, as strace shows them. */
const TABLE = 7557;
const MARK = 7557;
const BLOCK = { table: TABLE, type: ROUTE_TYPE.unreachable, metric: 4_000_000_000 };

interface Plain {
  readonly type: number;
  readonly flags: number;
  readonly head: string;
  readonly attributes: readonly unknown[];
}

/** Without the order of attributes, and what only says how the request is to be answered. */
function plain(octets: Uint8Array, headLen: number, nested: readonly number[] = []): Plain {
  const [message] = messagesIn(octets);
  const { type, flags, body } = message!;
  const head = toHex(body.bytes.subarray(0, headLen));
  return { type, flags: flags & ~0x5, head, attributes: listed(body.bytes, headLen, nested) };
}

function listed(bytes: Uint8Array, from: number, nested: readonly number[]): unknown[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const all: unknown[] = [];
  for (let at = from; at < bytes.length; ) {
    const len = view.getUint16(at, true);
    const type = view.getUint16(at + 2, true) & 0x3fff;
    const value = bytes.subarray(at + 4, at + len);
    const [first, ...others] = nested;
    all.push([type, type === first ? listed(value, 0, others) : toHex(value)]);
    at += (len + 3) & ~3;
  }
  return all.sort((a, b) => Number((a as [number])[0]) - Number((b as [number])[0]));
}

function written({ type, flags, write }: NetlinkRequest): Uint8Array {
  const bytes = new Uint8Array(1024);
  const writer = new MessageWriter(bytes);
  writer.begin(type, flags, 1);
  write(writer);
  writer.end();
  return bytes.subarray(0, writer.len);
}

const redirect = [
  { code: 6, jt: 0, jf: 0, k: 0 },
  { code: 6, jt: 0, jf: 0, k: 0xffff_ffff },
];

describe('asks for the same as iproute2', () => {
  test.each<[string, NetlinkRequest, number, string, (readonly number[])?]>([
    [
      'ip route replace 10.5.0.0/16 dev w0 src 10.1.0.1 table 7557 metric 100 scope global',
      replaceRoute({
        ...{ table: TABLE, destination: prefix('10.5.0.0/16'), type: ROUTE_TYPE.unicast },
        ...{ metric: 100, device: 3, source: address('10.1.0.1') },
      }),
      12,
      '44000000180005055456056b00000000021000000003000100000000080001000a05000008000700' +
        '0a01000108000f00851d000008000600640000000800040003000000',
    ],
    [
      'ip route del unreachable 10.5.0.0/16 table 7557 metric 4000000000',
      deleteRoute({ ...BLOCK, destination: prefix('10.5.0.0/16') }),
      12,
      '34000000190005005556056b00000000021000000000ff0700000000080001000a05000008000f00' +
        '851d00000800060000286bee',
    ],
    [
      'ip rule add pref 100 not fwmark 7557 lookup 7557',
      addRuleRequest(4, { pref: 100, mark: MARK, table: TABLE }),
      12,
      '34000000200005065556056b00000000020000000000000102000000080006006400000008000a00' +
        '851d000008000f00851d0000',
    ],
    [
      'ip address add 192.0.0.8/32 dev w0 scope host',
      addHostAddress(3, address('192.0.0.8'), 32),
      8,
      '28000000140005065556056b00000000022000fe0300000008000200c000000808000100c0000008',
    ],
    [
      'tc qdisc add dev w0 ingress',
      addIngress(3),
      20,
      '30000000240005065756056b0000000000000000030000000000fffff1ffffff000000000c000100' +
        '696e677265737300',
    ],
    [
      'tc filter replace dev w0 ingress protocol all pref 100 handle 1 bpf … action mirred …',
      replaceFilter({ index: 3, name: 'w0' }, 100, redirect, 2),
      20,
      '840000002c0005045756056b00000000000000000300000001000000f2ffffff0003640008000100' +
        '627066005800020038000100340001000b0001006d69727265640000240002802000020000000000' +
        '00000000040000000000000000000000010000000200000006000400020000001400050006000000' +
        '0000000006000000ffffffff',
      [2, 1, 1, 2],
    ],
    [
      'tc filter del dev w0 ingress pref 100',
      deleteFilter(3, 100),
      20,
      '240000002d0005005756056b00000000000000000300000000000000f2ffffff00006400',
    ],
  ])('%s', (_command, request, headLen, recorded, nested = []) => {
    expect(plain(written(request), headLen, nested)).toEqual(
      plain(fromHex(recorded), headLen, nested),
    );
  });

  test('but for what says the same in another way', () => {
    // iproute2 asks for a new route and not for one in place of another.
    const route = replaceRoute({ ...BLOCK, destination: prefix('2001:db8:5::/48') });
    const recorded = fromHex(
      '40000000180005065456056b000000000a30000000030007000000001400010020010db800050000' +
        '000000000000000008000f00851d00000800060000286bee',
    );
    expect(plain(written(route), 12)).toEqual({ ...plain(recorded, 12), flags: 0x500 });
    // It asks for the deletion of a rule of any action.
    const rule = deleteRuleRequest(4, { pref: 100, mark: MARK, table: TABLE });
    expect(plain(written(rule), 12)).toMatchObject({ type: 33, head: '020000000000000102000000' });
    // It has no handle for the discipline, which has only one.
    expect(plain(written(deleteIngress(3)), 20)).toMatchObject({ type: 37 });
    // It knows the device by its number.
    expect(plain(written(setMtuRequest('w1', 1400)), 16)).toMatchObject({
      type: 16,
      attributes: [
        [3, '773100'],
        [4, '78050000'],
      ],
    });
    expect(plain(written(setSegmentsRequest('w1', 44)), 16)).toMatchObject({
      type: 16,
      attributes: [
        [3, '773100'],
        [40, '2c000000'],
      ],
    });
    expect(plain(written(setNoAddressRequest('w1')), 16, [26, 10])).toMatchObject({
      attributes: [
        [3, '773100'],
        [26, [[10, [[8, '01']]]]],
      ],
    });
    expect(plain(written(findRoute(address('10.1.0.9'), MARK)), 12)).toMatchObject({
      type: 26,
      head: '022000000000000000000000',
      attributes: [
        [1, '0a010009'],
        [16, '851d0000'],
      ],
    });
    expect(plain(written(findDevice('w0')), 16)).toMatchObject({ attributes: [[3, '773000']] });
  });
});

describe('understands what the kernel says', () => {
  test('about routes', () => {
    const dump = fromHex(
      '44000000180022005556056b1572000002100000fc0300010000000008000f00851d000008000100' +
        '0a0500000800060064000000080007000a010001080004000300000034000000180022005556056b' +
        '1572000002100000fc0300070000000008000f00851d0000080001000a0500000800060000286bee' +
        '34000000180022005556056b1572000002040000fc0300090000000008000f00851d000008000100' +
        'e000000008000600005ed0b2',
    );
    const destination = prefix('10.5.0.0/16');
    const source = address('10.1.0.1');
    expect([...messagesIn(dump)].map(decodeRoute)).toEqual([
      { table: TABLE, destination, type: ROUTE_TYPE.unicast, metric: 100, device: 3, source },
      { ...BLOCK, destination },
      { ...BLOCK, destination: prefix('224.0.0.0/4'), type: ROUTE_TYPE.throw, metric: 3e9 },
    ]);
  });

  test('about the way to an address', () => {
    const answer = fromHex(
      '70000000180000005756056bcd74000002200000fe0000010002000008000f00fe00000008000100' +
        '0a0100090800040003000000080007000a01000108001000851d0000080019000000000024000c00' +
        `0200000000${'00'.repeat(27)}`,
    );
    const [route] = [...messagesIn(answer)].map(decodeRoute);
    expect(route).toMatchObject({ table: 254, device: 3, source: address('10.1.0.1') });
  });

  test('about rules', () => {
    const dump = fromHex(
      '4c000000200002005556056b9d72000002000000fc0000010200000008000f00851d000008000e00' +
        'ffffffff0500150000000000080006006400000008000a00851d000008001000ffffffff' +
        '3c000000200002005556056b9d72000002000000fe0000010000000008000f00fe00000008000e00' +
        'ffffffff050015000200000008000600fe7f0000',
    );
    expect([...messagesIn(dump)].map(decodeRule)).toEqual([
      { pref: 100, table: TABLE, isInverted: true, mark: MARK, mask: 0xffff_ffff },
      { pref: 32_766, table: 254, isInverted: false },
    ]);
  });

  test('about addresses', () => {
    const dump = fromHex(
      '4c000000140022005756056b25730000022080fe0300000008000100c000000808000200c0000008' +
        '0700030077300000080008008000000014000600ffffffffffffffff94ed120094ed1200' +
        '4c000000140022005756056b257300000218800003000000080001000a010001080002000a010001' +
        '0700030077300000080008008000000014000600ffffffffffffffff6ce412006ce41200',
    );
    const usable = { device: 3, isUsable: true };
    expect([...messagesIn(dump)].map(decodeAddress)).toEqual([
      { ...usable, address: address('192.0.0.8'), prefixLength: 32, scope: 'host' },
      { ...usable, address: address('10.1.0.1'), prefixLength: 24, scope: 'global' },
    ]);
    // The same while duplicates are looked for: IFA_F_TENTATIVE.
    const tentative = dump.slice(76);
    tentative[16 + 8 + 8 + 8 + 8 + 4] = 0xc0;
    expect([...messagesIn(tentative)].map(decodeAddress)).toMatchObject([{ isUsable: false }]);
  });

  test('about devices, and leaves out what bridges say about their ports', () => {
    const notice = fromHex(
      '40000000100000005556056bd16e48e0000001000300000043100100000000000700030077300000' +
        '08000400dc05000010001200090001007665746800000000',
    );
    expect([...messagesIn(notice)].map(decodeDevice)).toEqual([
      {
        ...{ index: 3, name: 'w0', mtu: 1500, isUp: true, isLoopback: false, isEthernet: true },
        kind: 'veth',
      },
    ]);
    notice[16] = 7;
    expect([...messagesIn(notice)].map(decodeDevice)).toEqual([undefined]);
  });

  test('about disciplines and filters', () => {
    const filters = fromHex(
      '340000002c0002006656056b4e760000000000000300000000000000f2ffffff0003640008000100' +
        '6270660008000b0000000000' +
        '5c0000002c0002006656056b4e760000000000000300000001000000f2ffffff0003640008000100' +
        '6270660008000b0000000000280002000600040002000000140005000600000000000000' +
        '06000000ffffffff08000a0000000000',
    );
    expect([...messagesIn(filters)].map(decodeFilter)).toEqual([
      { device: 3, pref: 100, kind: 'bpf', isClassicBpf: false },
      { device: 3, pref: 100, kind: 'bpf', isClassicBpf: true },
    ]);
    const qdisc = fromHex(
      '30000000240002005656056b09740000000000000300000000' +
        '00fffff1ffffff010000000c000100696e677265737300',
    );
    expect([...messagesIn(qdisc)].map(decodeQdisc)).toEqual([{ device: 3, kind: 'ingress' }]);
  });

  test('and nothing of a message that is about something else', () => {
    const [other] = messagesIn(fromHex('14000000030002005556056b1572000000000000'));
    const decoders = [decodeRoute, decodeRule, decodeAddress, decodeDevice, decodeQdisc];
    expect(decoders.map((decode) => decode(other!))).toEqual(decoders.map(() => undefined));
    expect(decodeFilter(other!)).toBeUndefined();
  });
});
