import { describe, expect, test } from 'vitest';
import { KeyError } from '../../src/base/error.ts';
import { formatPolicy, parsePolicy } from '../../src/spd/set-policy.ts';
import { toHex } from '../../src/wire/bytes.ts';
import { Bus } from './node.ts';

/**
 * KAME's libipsec/test-policy.c (test1; test2 is in racoon.test.ts), and libipsec's
 * test-policy-priority.c of NetBSD. Each text becomes the octets of a policy, which sockets of both
 * families must take, give back, and tell in words.
 */

const NINE = `out ipsec
	ah/transport/::1-::2 esp/tunnel/::3-::4/use ah/transport/::5-::6/require
	ah/transport/::1-::2 esp/tunnel/::3-::4/use ah/transport/::5-::6/require
	ah/transport/::1-::2 esp/tunnel/::3-::4/use ah/transport/::5-::6/require
	`;

describe('test-policy.c, test1', () => {
  test.each([
    // The first is listed there as good, but its grammar has come to want a request, as sockets do.
    ['refused', 'out ipsec'],
    ['refused', 'must_error'],
    ['refused', 'in ipsec must_error'],
    ['refused', 'out ipsec esp/must_error'],
    ['refused', 'out discard'],
    ['refused', 'out none'],
    ['accepted', 'in entrust'],
    ['accepted', 'out entrust'],
    ['refused', 'out ipsec esp'],
    ['accepted', 'in ipsec ah/transport'],
    ['refused', 'in ipsec ah/tunnel'],
    ['accepted', 'out ipsec ah/transport/'],
    ['refused', 'out ipsec ah/tunnel/'],
    ['accepted', 'in ipsec esp / transport / 10.0.0.1-10.0.0.2'],
    ['accepted', 'in ipsec esp/tunnel/::1-::2'],
    ['refused', 'in ipsec esp/tunnel/10.0.0.1-::2'],
    ['accepted', 'in ipsec esp/tunnel/::1-::2/require'],
    ['accepted', 'out ipsec ah/transport//use'],
    ['refused', 'out ipsec ah/transport esp/use'],
    ['refused', 'in ipsec ah/transport esp/tunnel'],
    ['accepted', 'in ipsec ah/transport esp/tunnel/::1-::1'],
    ['accepted', 'in ipsec\n\tah / transport\n\tesp / tunnel / ::1-::2'],
    ['accepted', NINE],
    ['accepted', 'out ipsec esp/transport/fec0::10-fec0::11/use'],
  ] as const)('%s: %j', (expected, text) => {
    const node = new Bus().add('10.0.0.1', 'fd00::1');
    for (const [name, local] of [
      ['IP_IPSEC_POLICY', '10.0.0.1'],
      ['IPV6_IPSEC_POLICY', 'fd00::1'],
    ] as const) {
      const own = node.addresses.find((one) => (one.family === 4) === (local === '10.0.0.1'))!;
      const socket = node.inet.openUdp(0, () => {}, { local: own, privileged: true });
      const direction = text.startsWith('in') ? 'in' : 'out';
      const before = socket.policyText(name, direction);
      if (expected === 'refused') {
        expect(() => socket.setsockopt(name, text)).toThrow(KeyError);
        expect(socket.policyText(name, direction)).toBe(before);
        continue;
      }
      socket.setsockopt(name, text);
      const dumped = socket.policyText(name, direction);
      expect(dumped).toBe(formatPolicy(parsePolicy(text), { ports: false }));
      // Its own octets and words mean the same to another socket.
      const octets = socket.getsockopt(name, direction);
      for (const given of [octets, dumped]) {
        socket.setsockopt(name, `${direction} bypass`);
        socket.setsockopt(name, given);
        expect(toHex(socket.getsockopt(name, direction))).toBe(toHex(octets));
      }
    }
  });
});

describe('test-policy-priority.c', () => {
  const [HIGH, DEFAULT, LOW] = [0x4000_0000, 0x8000_0000, 0xc000_0000];
  const RULE = 'ipsec esp/transport//require';

  test.each([
    [`out ${RULE}`, DEFAULT],
    [`out prio -1 ${RULE}`, DEFAULT + 1],
    [`out priority 2147483648 ${RULE}`, 0],
    [`in prio def ${RULE}`, DEFAULT],
    [`in prio low ${RULE}`, LOW],
    [`in prio high ${RULE}`, HIGH],
    [`in prio def + 1 ${RULE}`, DEFAULT - 1],
    [`in prio def - 1 ${RULE}`, DEFAULT + 1],
    [`in prio low + 1 ${RULE}`, LOW - 1],
    [`in prio low - 1 ${RULE}`, LOW + 1],
    [`in prio high + 1 ${RULE}`, HIGH - 1],
    [`in prio high - 1 ${RULE}`, HIGH + 1],
  ])('%s', (text, priority) => {
    const policy = parsePolicy(text);
    expect(policy.priority).toBe(priority);
    // What is written in full is said again in the same words, a request a line.
    const printed = formatPolicy(policy, { ports: false });
    if (text.startsWith('in')) expect(printed).toBe(text.replace('ipsec ', 'ipsec\n\t'));
  });

  test.each([`in prio low - -1 ${RULE}`, `in prio low + high ${RULE}`])('refused: %s', (text) => {
    expect(() => parsePolicy(text)).toThrow(/expected a number/);
  });
});
