import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { KeyError } from '../../src/base/error.ts';
import {
  formatPolicy,
  parsePolicy,
  policyFromBytes,
  policyToBytes,
} from '../../src/spd/set-policy.ts';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import { decode, encode } from '../../src/wire/pfkey.ts';
import type { Dialect, PolicyExtension, PolicyRequest } from '../../src/wire/pfkey-message.ts';
import { extension } from '../../src/wire/pfkey-message.ts';
import { DIRECTION } from '../../src/wire/pfkey-table.ts';

/**
 * KAME's libipsec/test-policy.c and the grammar of ipsec_set_policy(3), with the requests as they
 * must be understood.
 */
const ACCEPTED: readonly (readonly [string, string])[] = [
  ['in entrust', 'in prio def entrust'],
  ['out entrust', 'out prio def entrust'],
  ['out bypass', 'out prio def bypass'],
  ['in discard', 'in prio def discard'],
  ['fwd none', 'fwd prio def none'],
  ['in', 'in discard'],
  ['out ipsec', 'out prio def ipsec'],
  ['in ipsec ah/transport', 'in prio def ipsec\n\tah/transport//default'],
  ['out ipsec ah/transport/', 'out prio def ipsec\n\tah/transport//default'],
  [
    'in ipsec esp / transport / 10.0.0.1-10.0.0.2',
    'in prio def ipsec\n\tesp/transport/10.0.0.1-10.0.0.2/default',
  ],
  ['in ipsec esp/tunnel/::1-::2', 'in prio def ipsec\n\tesp/tunnel/::1-::2/default'],
  ['in ipsec esp/tunnel/::1-::2/', 'in prio def ipsec\n\tesp/tunnel/::1-::2/default'],
  ['in ipsec esp/tunnel/::1-::2/require', 'in prio def ipsec\n\tesp/tunnel/::1-::2/require'],
  ['out ipsec ah/transport//use', 'out prio def ipsec\n\tah/transport//use'],
  [
    'in ipsec ah/transport esp/tunnel/::1-::1',
    'in prio def ipsec\n\tah/transport//default\n\tesp/tunnel/::1-::1/default',
  ],
  [
    'in ipsec ah/transport/ esp/transport/ ah/tunnel/::1-::1/ esp/transport//use',
    'in prio def ipsec\n\tah/transport//default\n\tesp/transport//default' +
      '\n\tah/tunnel/::1-::1/default\n\tesp/transport//use',
  ],
  [
    'in\nipsec\nesp/\ntransport//use\nah/transport\n//unique',
    'in prio def ipsec\n\tesp/transport//use\n\tah/transport//unique',
  ],
  [
    `in ipsec ${'esp/transport//use '.repeat(9)}`,
    `in prio def ipsec${'\n\tesp/transport//use'.repeat(9)}`,
  ],
  [
    'out ipsec esp/transport/fec0::10-fec0::11/use',
    'out prio def ipsec\n\tesp/transport/fec0::10-fec0::11/use',
  ],
  ['out ipsec esp/tunnel/me-any/require', 'out prio def ipsec\n\tesp/tunnel//require'],
  ['in ipsec esp/tunnel/any-me/require', 'in prio def ipsec\n\tesp/tunnel//require'],
  ['out ipsec esp/transport//unique:7', 'out prio def ipsec\n\tesp/transport//unique:7'],
  ['out ipsec esp/transport//unique:16384', 'out prio def ipsec\n\tesp/transport//unique#16384'],
  [
    'out ipsec ipcomp/transport//unique:4294967295',
    'out prio def ipsec\n\tipcomp/transport//unique#4294967295',
  ],
  [
    'out ipsec esp/tunnel/192.0.2.1[4500]-192.0.2.2[any]/require',
    'out prio def ipsec\n\tesp/tunnel/192.0.2.1-192.0.2.2/require',
  ],
  ['out prio low none', 'out prio low none'],
  ['out prio high+5 none', 'out prio high + 5 none'],
  ['out prio high -5 none', 'out prio high - 5 none'],
  ['out priority 100 none', 'out prio def + 100 none'],
  ['out prio -100 none', 'out prio def - 100 none'],
  ['out prio low - 1073741823 none', 'out prio low - 1073741823 none'],
];

const REFUSED: readonly (readonly [string, RegExp])[] = [
  ['', /column 1: expected in, out or fwd, got the end/],
  ['must_error', /column 1: expected in, out or fwd, got "must_error"/],
  ['none', /column 1: expected in, out or fwd, got "none"/],
  ['sideways none', /column 1: expected in, out or fwd, got "sideways"/],
  ['in ipsec must_error', /column 10: expected esp, ah or ipcomp, got "must_error"/],
  ['in none esp/transport', /column 9: expected the end of the policy, got "esp"/],
  ['in sometimes', /column 4: expected discard, none, bypass, entrust or ipsec/],
  ['out ipsec esp/must_error', /column 15: expected transport or tunnel, got "must_error"/],
  ['out ipsec esp', /column 14: expected "\/" and a mode, got the end/],
  ['out ipsec esp/', /column 15: expected transport or tunnel, got the end/],
  ['out ipsec tcp/transport//require', /column 11: expected esp, ah or ipcomp, got "tcp"/],
  ['out ipsec esp/any//require', /column 15: expected transport or tunnel, got "any"/],
  ['in ipsec ah/tunnel', /column 13: expected the two addresses/],
  ['out ipsec ah/tunnel/', /column 14: expected the two addresses/],
  ['out ipsec esp/tunnel//require', /column 15: expected the two addresses/],
  ['in ipsec esp/tunnel/10.0.0.1-::2', /column 21: one end is IPv4 and the other IPv6/],
  ['out ipsec ah/transport esp/use', /column 28: expected transport or tunnel, got "use"/],
  ['in ipsec ah/transport esp/tunnel', /column 27: expected the two addresses/],
  ['out ipsec esp/transport//', /column 26: expected default, use, require or unique, got the end/],
  ['out ipsec esp/transport//sometimes', /column 26: expected default, use, require or unique/],
  ['out ipsec esp/transport//unique:', /column 33: expected a reqid/],
  ['out ipsec esp/transport//unique:4294967296', /column 33: expected a reqid/],
  ['out ipsec esp/tunnel/10.0.0.1/require', /column 30: expected "-" and the other address/],
  ['out ipsec esp/tunnel/10.0.0.1-host/require', /column 31: expected an IPv4 or IPv6 address/],
  ['out ipsec esp/tunnel/1.1.1.1[70000]-1.1.1.2/use', /column 30: expected a port number/],
  ['out ipsec esp/tunnel/1.1.1.1[5-1.1.1.2/use', /column 31: expected "]", got "-"/],
  ['in ipsec esp/tunnel/me-any/require', /column 21: me-any is for out policies/],
  ['out ipsec esp/tunnel/any-me/require', /column 22: me-any is for out policies/],
  ['out ipsec encap/10.0.0.1-10.0.0.2', /column 11: expected esp, ah or ipcomp/],
  ['out prio', /column 9: expected low, def, high or a number/],
  ['out prio 2147483649 none', /column 10: expected low, def, high or a number/],
  ['out prio -2147483648 none', /column 11: expected low, def, high or a number/],
  ['out prio low + 1073741824 none', /column 16: expected a number \(at most 1073741823\)/],
  ['out prio constructor none', /column 10: expected low, def, high/],
  [`in ipsec ${'esp/transport '.repeat(65)}`, /expected no more requests/],
];

describe('accepted', () => {
  for (const [text, printed] of ACCEPTED) {
    test(JSON.stringify(text), () => {
      expect(formatPolicy(parsePolicy(text), { ports: false })).toBe(printed);
    });
  }

  test('ports of endpoints', () => {
    const policy = parsePolicy('out ipsec esp/tunnel/192.0.2.1[4500]-192.0.2.2[any]/require');
    expect(formatPolicy(policy, { ports: true })).toContain('/192.0.2.1[4500]-192.0.2.2[any]/');
  });

  test('a direction alone has no priority', () => {
    expect(parsePolicy('out')).toEqual({
      type: 'X_POLICY',
      policyType: 0,
      direction: 2,
      reserved: 0,
      id: 0,
      priority: 0,
      requests: [],
    });
  });
});

describe('refused', () => {
  for (const [text, message] of REFUSED) {
    test(JSON.stringify(text.slice(0, 60)), () => {
      expect(() => parsePolicy(text)).toThrow(KeyError);
      expect(() => parsePolicy(text)).toThrow(message);
    });
  }
});

describe('what the real tool sent', () => {
  const file = new URL('../vectors/data/setkey.json', import.meta.url);
  const { vectors } = JSON.parse(readFileSync(file, 'utf8')) as {
    vectors: readonly { command: string; messages: readonly string[] }[];
  };
  const rows = vectors.flatMap(({ command, messages }) => {
    const text = /^spd[^;]* -P([^;]*);$/s.exec(command)?.[1];
    return text !== undefined && messages[0] !== undefined ? [{ text, hex: messages[0] }] : [];
  });

  test('there is something to compare', () => expect(rows.length).toBe(85));
  for (const { text, hex } of rows) {
    test(JSON.stringify(text), () => {
      // One recorded request has a prefix length of 33 on purpose; the policy before it is as good
      // as any.
      const sent = decode(fromHex(hex.replace('03000600ff21', '03000600ff20')), 'linux');
      const recorded = extension(sent, 'X_POLICY');
      const octets = (one: PolicyExtension | undefined) =>
        toHex(encode({ ...sent, extensions: one ? [one] : [] }, 'linux'), 16);
      expect(octets(parsePolicy(text))).toBe(octets(recorded));
    });
  }
});

describe('properties', () => {
  const u32 = fc.integer({ min: 0, max: 0xffffffff });
  const end = (octets: 4 | 16) =>
    fc.uint8Array({ minLength: octets, maxLength: octets }).map((bytes) => ({
      address: { family: octets === 4 ? (4 as const) : (6 as const), bytes },
      port: 0,
    }));
  const head = {
    proto: fc.constantFrom(50, 51, 108),
    level: fc.constantFrom(0, 1, 2, 3),
    reqid: u32,
  };
  const request: fc.Arbitrary<PolicyRequest> = fc.oneof(
    fc.record({ ...head, mode: fc.constant(1) }),
    fc.record({ ...head, mode: fc.constantFrom(1, 2), src: end(4), dst: end(4) }),
    fc.record({ ...head, mode: fc.constantFrom(1, 2), src: end(16), dst: end(16) }),
  );
  const policy: fc.Arbitrary<PolicyExtension> = fc.record({
    type: fc.constant('X_POLICY' as const),
    policyType: fc.constant(2),
    direction: fc.constantFrom(DIRECTION.in, DIRECTION.out, DIRECTION.fwd),
    reserved: fc.constant(0),
    id: fc.constant(0),
    priority: fc.integer({ min: 1, max: 0xffffffff }),
    requests: fc.array(request, { maxLength: 6 }),
  });

  test('what is printed can be read again', () => {
    fc.assert(
      fc.property(policy, (one) => {
        expect(parsePolicy(formatPolicy(one, { ports: false }))).toEqual(one);
      }),
      { numRuns: 300 },
    );
  });

  test('bytes hold all of it, in either dialect', () => {
    fc.assert(
      fc.property(policy, fc.constantFrom<Dialect>('linux', 'bsd'), (one, dialect) => {
        const isLarge = one.requests.some(({ reqid }) => reqid > 0xffff);
        const text = formatPolicy(one, { ports: false });
        if (isLarge && dialect === 'bsd') {
          expect(() => policyToBytes(text, dialect)).toThrow(/does not fit 16 bits/);
          return;
        }
        const bytes = policyToBytes(text, dialect);
        expect(policyFromBytes(bytes, dialect)).toEqual(one);
        for (const cut of [1, 8, bytes.length - 1]) {
          expect(() => policyFromBytes(bytes.slice(0, -cut), dialect)).toThrow(KeyError);
        }
      }),
      { numRuns: 100 },
    );
  });

  test('no text throws anything but KeyError', () => {
    const piece = fc.constantFrom(
      ...' / - [ ] : + # in out ipsec esp transport tunnel prio'.split(' '),
    );
    const text = fc.oneof(
      fc.string(),
      fc.array(piece).map((pieces) => pieces.join(' ')),
    );
    fc.assert(
      fc.property(text, (one) => {
        try {
          parsePolicy(one);
        } catch (error) {
          expect(error).toBeInstanceOf(KeyError);
        }
      }),
      { numRuns: 500 },
    );
  });

  test('every direction and type has a text, known or not', () => {
    const text = formatPolicy(
      {
        type: 'X_POLICY',
        policyType: 9,
        direction: 7,
        reserved: 0,
        id: 0,
        priority: 0,
        requests: [
          {
            proto: 4,
            mode: 9,
            level: 9,
            reqid: 1,
            src: { address: address('::1'), port: 0 },
            dst: { address: address('::2'), port: 1 },
          },
        ],
      },
      { ports: false },
    );
    expect(text).toBe('direction 7 type 9\n\t4/9/::1-::2/9:1');
  });
});
