import { beforeEach, describe, expect, test } from 'vitest';
import { reportsJson, reportsText } from '../../src/cli/netstat.ts';
import type { Daemon } from '../../src/daemon/daemon.ts';
import { PFKEY_GROUP } from '../../src/daemon/netstat-pfkey.ts';
import { PfkeyConnection } from '../../src/daemon/pfkey-connection.ts';
import { encode } from '../../src/wire/pfkey.ts';
import type { Extension, Message, MessageType, SaType } from '../../src/wire/pfkey-message.ts';
import { A, A6, B, dst, key, type Rig, rig, sa, src } from '../key/rig.ts';

const ENDS = [src(A), dst(B)] as const;

let host: Rig;
/** Octets that each program has got, and whether it reads. */
let programs: { connection: PfkeyConnection; octets: number; messages: number; waiting: number }[];

beforeEach(() => {
  host = rig({ saMax: 3 });
  programs = [program(), program()];
});

function program() {
  const one = { octets: 0, messages: 0, waiting: 0 };
  const outlet = {
    isClosed: false,
    get waiting() {
      return one.waiting;
    },
    noticeQueueLen: 1000,
    write: (octets: Uint8Array) => {
      one.octets += octets.length;
      one.messages++;
    },
    dumped: () => undefined,
  };
  const connection = new PfkeyConnection(outlet, host.engine, 'linux');
  return Object.assign(one, { connection });
}

function octetsOf(type: MessageType, satype: SaType, ...extensions: Extension[]): Uint8Array {
  const message: Message = { type, satype, errno: 0, seq: 1, pid: 1, reserved: 0, extensions };
  return encode(message, 'linux');
}

function tell(octets: Uint8Array): void {
  programs[0]!.connection.handle(octets);
}

function counted(): Record<string, unknown> {
  const lines = PFKEY_GROUP.lines({ keys: host.engine } as Daemon);
  const { pfkey } = reportsJson([{ name: 'pfkey', header: PFKEY_GROUP.header, lines }]);
  return pfkey as Record<string, unknown>;
}

describe('netstat -s -p pfkey', () => {
  test('nothing has happened: every line is there, with 0', () => {
    const lines = PFKEY_GROUP.lines({ keys: host.engine } as Daemon);
    const reports = [{ name: 'pfkey', header: PFKEY_GROUP.header, lines }];
    expect(reportsText(reports).split('\n').slice(0, 4)).toEqual([
      'pfkey:',
      '\t0 requests sent from userland',
      '\t0 bytes sent from userland',
      '\t0 messages with invalid length field',
    ]);
    expect(reportsText(reports, 2)).toBe('pfkey:\n');
  });

  test('requests and answers, by type, octets and target', () => {
    const add = octetsOf('ADD', 'esp', sa(0x1001), ...ENDS, key());
    const register = octetsOf('REGISTER', 'esp');
    const get = octetsOf('GET', 'esp', sa(0x1002), ...ENDS);
    const dump = octetsOf('DUMP', 'esp');
    const sent = [add, register, get, dump].reduce((sum, { length }) => sum + length, 0);
    for (const one of [add, register, get, dump]) tell(one);
    host.engine.expired(host.sad.get('esp', 0x1001, B)!, 'soft');
    expect(counted()).toMatchObject({
      out_total: 4,
      out_bytes: sent,
      out_msgtype: { add: 1, get: 1, register: 1, dump: 1 },
      // To the asker each, ADD to the other one, too, and EXPIRE to who has registered.
      in_total: 6,
      in_bytes: programs[0]!.octets + programs[1]!.octets,
      in_msgtype: { add: 2, get: 1, register: 1, expire: 1, dump: 1 },
      in_msgtarget_one: 2,
      in_msgtarget_all: 1,
      in_msgtarget_registered: 2,
    });
    expect(programs.map(({ messages }) => messages)).toEqual([5, 1]);
  });

  const good = () => octetsOf('ADD', 'esp', sa(0x1001), ...ENDS, key());
  const changed = (at: number, value: number) => {
    const octets = good();
    octets[at] = value;
    return octets;
  };
  const twice = () => {
    const octets = good();
    // The type of ADDRESS_SRC becomes that of SA; both are long enough.
    octets[16 + 16 + 2] = 1;
    return octets;
  };

  test.each([
    ['out_invlen', 'a length that is not that of the message', () => changed(4, 3)],
    ['out_invlen', 'an extension longer than the message', () => changed(16, 99)],
    ['out_invver', 'version 3', () => changed(0, 3)],
    ['out_invmsgtype', 'type 99', () => changed(1, 99)],
    ['out_invsatype', 'SA type 77', () => changed(3, 77)],
    ['out_invsatype', 'no SA type', () => octetsOf('GET', 'unspec', sa(0x1001), ...ENDS)],
    ['out_invsatype', 'RSVP', () => octetsOf('FLUSH', 'rsvp')],
    ['out_invsatype', 'one for a message about policies', () => octetsOf('X_SPDFLUSH', 'esp')],
    ['out_invexttype', 'extension 50', () => changed(18, 50)],
    ['out_dupext', 'an extension twice', twice],
    ['out_invaddr', 'an address family of 1', () => changed(16 + 16 + 8, 1)],
    [
      'out_invaddr',
      'IPv4 to IPv6',
      () => octetsOf('ADD', 'esp', sa(0x1001), src(A), dst(A6), key()),
    ],
  ] as const)('%s: %s', (name, _, octets) => {
    tell(octets());
    const faults = Object.entries(counted()).filter(
      ([each, number]) => /^out_(inv|too|nomem|dup)/.test(each) && number !== 0,
    );
    expect(faults).toEqual([[name, 1]]);
    expect(counted()).toMatchObject({ out_total: 1, in_total: 1, in_msgtarget_one: 1 });
  });

  test('a full table, and a program that does not read', () => {
    for (let i = 0; i < 4; i++) tell(octetsOf('ADD', 'esp', sa(0x1001 + i), ...ENDS, key()));
    expect(counted()).toMatchObject({ out_nomem: 1, in_nomem: 0 });
    programs[1]!.waiting = 2000;
    tell(octetsOf('FLUSH', 'esp'));
    expect(counted()).toMatchObject({ in_nomem: 1, in_msgtarget_all: 4 });
    // What is refused for another reason is no fault of the message.
    tell(octetsOf('GET', 'esp', sa(0x1001), ...ENDS));
    expect(counted()).toMatchObject({ out_invsatype: 0, out_invaddr: 0, out_nomem: 1 });
  });
});
