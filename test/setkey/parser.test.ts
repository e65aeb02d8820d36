import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { parseScript } from '../../src/setkey/parser.ts';
import { SetkeyError } from '../../src/setkey/place.ts';
import { type Action, actionsOf } from '../../src/setkey/requests.ts';
import { hostNames, type Resolver } from '../../src/setkey/resolver.ts';
import { encode } from '../../src/wire/pfkey.ts';
import {
  type ExtensionOf,
  type ExtensionType,
  extension,
  type Message,
} from '../../src/wire/pfkey-message.ts';

const resolver: Resolver = {
  addresses: (name, family) =>
    name === 'two'
      ? [address('192.0.2.1'), address('192.0.2.2')]
      : [address('192.0.2.9'), address('2001:db8::9')].filter(
          (one) => name === 'both' && (family === undefined || one.family === family),
        ),
  service: (name, proto) => (name === 'http' && proto === 6 ? 80 : undefined),
  interfaceIndex: (name) => (name === 'eth0' ? 3 : undefined),
};

const context = { resolver, supported: undefined, forwardToo: true };

const KEY = '0x000102030405060708090a0b0c0d0e0f';
const KEY20 = '0x000102030405060708090a0b0c0d0e0f00010203';
const ADD = 'add 192.0.2.1 192.0.2.2 esp 0x1000';
const END = `-E aes-cbc ${KEY};`;
const SPD = 'spdadd 192.0.2.0/24 198.51.100.0/24';

/** Everything a text makes a client do, or the first error. */
function run(text: string, over = {}): Action[] {
  return parseScript(text, 'file').entries.flatMap((one) => {
    if (one instanceof SetkeyError) throw one;
    return actionsOf(one, { ...context, ...over });
  });
}

function messages(text: string, over = {}): Message[] {
  return run(text, over).flatMap((one) => (one.kind === 'send' ? [one.message] : []));
}

function ext<T extends ExtensionType>(text: string, type: T): ExtensionOf<T> | undefined {
  return extension(messages(text)[0]!, type);
}

/** One row per rule of the grammar: a text that it takes, and what comes of it. */
const ACCEPTED: readonly (readonly [string, ExtensionType, object | undefined])[] = [
  [`${ADD} -m tunnel ${END}`, 'X_SA2', { mode: 2 }],
  [`${ADD} -m transport ${END}`, 'X_SA2', { mode: 1 }],
  [`${ADD} -m any ${END}`, 'X_SA2', { mode: 0 }],
  [`${ADD} -u 4294967295 ${END}`, 'X_SA2', { reqid: 0xffffffff }],
  [`${ADD} -r 255 ${END}`, 'SA', { replay: 255 }],
  [`${ADD} -w 64 ${END}`, 'SA', { replay: 64 }],
  [`${ADD} -w 64 ${END}`, 'X_TESTUDO', undefined],
  [`${ADD} -w 4096 ${END}`, 'SA', { replay: 255 }],
  [`${ADD} -w 4096 ${END}`, 'X_TESTUDO', { replayPackets: 4096, df: 'default' }],
  [`${ADD} -df copy -ecn allowed ${END}`, 'X_TESTUDO', { df: 'copy', ecn: 'allowed' }],
  [`add 192.0.2.1 192.0.2.2 ah 300 -align 8 -A hmac-sha1 ${KEY20};`, 'X_TESTUDO', { ahAlign: 8 }],
  [`${ADD} -f zero-pad -f nocyclic-seq ${END}`, 'SA', { flags: 0x200 }],
  [`${ADD} -f zero-pad -f random-pad ${END}`, 'SA', { flags: 0x140 }],
  [`${ADD} -f esn ${END}`, 'SA', { flags: 0x440 }],
  [`${ADD} -lh 60 -bh 1000 ${END}`, 'LIFETIME_HARD', { addTime: 60, bytes: 1000 }],
  [`${ADD} -ls 50 ${END}`, 'LIFETIME_SOFT', { addTime: 50, bytes: 0 }],
  [`${ADD} -ls 50 ${END}`, 'LIFETIME_HARD', undefined],
  [`${ADD} -bs 9007199254740991 ${END}`, 'LIFETIME_SOFT', { bytes: Number.MAX_SAFE_INTEGER }],
  [`${ADD} -ctx 1 2 "a:b" ${END}`, 'X_SEC_CTX', { doi: 1, algorithm: 2 }],
  [`${ADD} -E null;`, 'KEY_ENCRYPT', { bits: 0 }],
  [`${ADD} -E null "" -A null "";`, 'KEY_ENCRYPT', { bits: 0 }],
  [`${ADD} -E null -A hmac-sha2-256 "0123456789abcdef0123456789abcdef";`, 'SA', { auth: 5 }],
  [`${ADD} -E aes-gcm-16 ${KEY20};`, 'SA', { encrypt: 20, auth: 0 }],
  [`${ADD} -E chacha20-poly1305 "0123456789abcdef0123456789abcdef0123";`, 'SA', { encrypt: 31 }],
  [`${ADD} -E des-deriv 0x0001020304050607;`, 'SA', { encrypt: 2, flags: 0x60 }],
  ['add 192.0.2.1 192.0.2.2 esp-old 5 -E des-32iv "8 octets";', 'SA', { flags: 0x51 }],
  [`add 192.0.2.1 192.0.2.2 ah-old 300 -A hmac-sha1 ${KEY20};`, 'SA', { flags: 0x41, auth: 3 }],
  ['add 192.0.2.1 192.0.2.2 tcp 0x1000 -A tcp-md5 "secret";', 'KEY_AUTH', { bits: 48 }],
  ['add 192.0.2.1 192.0.2.2 ipcomp 0x20 -C deflate -R;', 'SA', { encrypt: 2, flags: 0xc0 }],
  [`add 192.0.2.1[500] 192.0.2.2 esp-udp 1 ${END}`, 'X_NAT_T_SPORT', { port: 500 }],
  [`add 192.0.2.1[500] 192.0.2.2 esp-udp 1 ${END}`, 'X_NAT_T_DPORT', { port: 4500 }],
  [`add 192.0.2.1 192.0.2.2 esp-udp 10.0.0.1 1 ${END}`, 'X_NAT_T_OAI', { prefixLen: 32 }],
  [`add fe80::1%eth0 fe80::2%9 esp 1 ${END}`, 'ADDRESS_SRC', { scopeId: 3, prefixLen: 128 }],
  [`add fe80::1%eth0 fe80::2%9 esp 1 ${END}`, 'ADDRESS_DST', { scopeId: 9, proto: 255 }],
  [`add -6 both both esp 1 ${END}`, 'ADDRESS_SRC', { address: address('2001:db8::9') }],
  [`add -n4 192.0.2.1 192.0.2.2 esp 1 ${END}`, 'ADDRESS_SRC', { port: 0 }],
  [`update 192.0.2.1 192.0.2.2 esp 1 ${END}`, 'KEY_ENCRYPT', { bits: 128 }],
  ['get 192.0.2.1 192.0.2.2 esp 0x10;', 'SA', { spi: 16, flags: 0x40 }],
  ['delete 192.0.2.1 192.0.2.2 ah 16;', 'SA', { spi: 16 }],
  ['getspi 192.0.2.1 192.0.2.2 esp 0x100 -m tunnel -u 9;', 'SPIRANGE', { min: 256, max: 256 }],
  ['getspi 192.0.2.1 192.0.2.2 esp 0;', 'SPIRANGE', undefined],
  [`${SPD} any -P out none;`, 'ADDRESS_SRC', { prefixLen: 24, proto: 255, port: 0 }],
  ['spdadd 192.0.2.1[http] 192.0.2.2[any] tcp -P out none;', 'ADDRESS_SRC', { port: 80 }],
  [`${SPD} icmp 8,0 -P out none;`, 'ADDRESS_SRC', { port: 8, proto: 1 }],
  [`${SPD} icmp 3,4 -P out none;`, 'ADDRESS_DST', { port: 4 }],
  [`${SPD} mh 5 -P out none;`, 'ADDRESS_SRC', { port: 5, proto: 135 }],
  [`${SPD} gre 0x00050007 -P out none;`, 'ADDRESS_SRC', { port: 5, proto: 47 }],
  [`${SPD} gre 0.5.0.7 -P out none;`, 'ADDRESS_DST', { port: 7 }],
  [`${SPD} 89 -P out none;`, 'ADDRESS_SRC', { proto: 89 }],
  [`${SPD} any -ctx 1 1 "x" -P out none;`, 'X_SEC_CTX', { doi: 1 }],
  [
    `${SPD} any -P out ipsec # inner\n esp/transport//unique:7 # outer; too\n ah/transport//use;`,
    'X_POLICY',
    { direction: 2 },
  ],
  [`${SPD} any -P out ipsec esp/transport//unique#20000;`, 'X_POLICY', { policyType: 2 }],
  ['spdadd tagged "web" -P out none;', 'ADDRESS_SRC', undefined],
  ['spdupdate 192.0.2.1 192.0.2.2 any -P fwd discard;', 'X_POLICY', { direction: 3 }],
  ['spddelete 192.0.2.1 192.0.2.2 any -P out;', 'X_POLICY', { priority: 0, policyType: 0 }],
];

/** The same rules, with texts that they must refuse: message and place. */
const REFUSED: readonly (readonly [string, RegExp])[] = [
  ['bogus;', /^file:1:1: expected add, update, .*, got "bogus"$/],
  ['"flush";', /^file:1:1: expected add, .* got a key or string/],
  ['flush', /^file:1:6: expected ";" after flush, got the end of the file/],
  ['flush esp ah;', /^file:1:11: expected ";" after flush, got "ah"/],
  ['flush all;', /^file:1:7: expected a protocol \(esp, ah, ipcomp, tcp, .*\), got "all"/],
  ['spdflush now;', /^file:1:10: expected ";" after spdflush, got "now"/],
  ['add 192.0.2.1 192.0.2.2 epp 1;', /^file:1:25: expected a protocol \(esp, ah, .*, got "epp"/],
  ['add 192.0.2.1;', /^file:1:14: expected a destination address, got ";"/],
  ['add 192.0.2.1 192.0.2.2 esp;', /^file:1:28: expected an SPI/],
  [`add 192.0.2.1 192.0.2.2 esp 0x100000000 ${END}`, /:29: expected an SPI, a number from 0 to/],
  [`add 192.0.2.1 192.0.2.2 esp 1x ${END}`, /:29: expected an SPI/],
  [`add 192.0.2.1[65536] 192.0.2.2 esp 1 ${END}`, /:15: expected a port from 0 to 65535/],
  [`add 192.0.2.1[500 192.0.2.2 esp 1 ${END}`, /:19: expected "\]", got "192.0.2.2"/],
  [`add 192.0.2.1 2001:db8::1 esp 1 ${END}`, /:15: source and destination are of different/],
  [`add 192.0.2.1 nowhere esp 1 ${END}`, /:15: no address is known for "nowhere"/],
  [`add -n 192.0.2.1 both esp 1 ${END}`, /:18: "both" is not a numeric address, as -n/],
  [`add -6 192.0.2.1 192.0.2.2 esp 1 ${END}`, /:8: "192.0.2.1" is no IPv6 address/],
  [`add fe80::1%eth9 fe80::2 esp 1 ${END}`, /:5: "fe80::1%eth9": there is no interface/],
  [`add 192.0.2.1%eth0 192.0.2.2 esp 1 ${END}`, /:5: .* there is no interface/],
  [`${ADD} -m both ${END}`, /:39: expected a mode \(transport, tunnel, any\), got "both"/],
  [`${ADD} -u 4294967296 ${END}`, /:39: expected a reqid, a number from 0 to 4294967295/],
  [`${ADD} -r 256 ${END}`, /:39: expected a replay window, a number from 0 to 255/],
  [`${ADD} -w -1 ${END}`, /:39: expected a replay window in packets/],
  [`add 192.0.2.1 192.0.2.2 esp-old 1 -r 4 -E des-cbc "8 octets";`, /:35: esp-old has no seq/],
  [`add 192.0.2.1 192.0.2.2 ah-old 1 -r 4 -A null;`, /:34: ah-old has no sequence numbers/],
  [`${ADD} -f half-pad ${END}`, /:39: expected a flag \(zero-pad, random-pad, /],
  [`${ADD} -lh soon ${END}`, /:40: expected a hard lifetime in seconds/],
  [`${ADD} -ls 1h ${END}`, /:40: expected a soft lifetime in seconds/],
  [`${ADD} -bh 18446744073709551615 ${END}`, /:40: expected a hard lifetime in bytes/],
  [`${ADD} -bs -5 ${END}`, /:40: expected a soft lifetime in bytes/],
  [`${ADD} -ctx 1 1 bare ${END}`, /:45: expected a security context in quotes/],
  [`${ADD} -ctx 256 1 "x" ${END}`, /:41: expected the domain of interpretation/],
  [`${ADD} -df maybe ${END}`, /:40: expected a DF choice/],
  [`${ADD} -ecn maybe ${END}`, /:41: expected an ECN choice/],
  [`${ADD} -align 5 ${END}`, /:43: expected an AH alignment \(4, 8\), got "5"/],
  [`${ADD} -q ${END}`, /:36: expected an option of esp \(-E, -A, .*got "-q"/],
  [`${ADD} -C deflate;`, /:36: expected an option of esp/],
  [`${ADD};`, /:1: esp needs an encryption algorithm/],
  [`${ADD} -A hmac-sha1 ${KEY20};`, /:1: esp needs an encryption algorithm/],
  [`${ADD} -E nosuch ${KEY};`, /:39: expected an encryption algorithm \(des-cbc, .*got "nosuch"/],
  [`${ADD} -E constructor ${KEY};`, /:39: expected an encryption algorithm/],
  [`${ADD} -E aes-cbc;`, /:46: expected a key for aes-cbc, "text" or 0x/],
  [`${ADD} -E aes-cbc 0xgg;`, /:47: expected a key for aes-cbc/],
  [`${ADD} -E aes-cbc 0x0011;`, /:47: aes-cbc takes a key of 128, 192 or 256 bits; .* 16/],
  [`${ADD} -E aes-gcm-16 ${KEY};`, /aes-gcm-16 takes a key of 160, 224 or 288 bits \(with/],
  [`${ADD} -E null "secret";`, /:44: expected ";" after add, got a key or string/],
  [`${ADD} -E null -A hmac-sha1 ${KEY};`, /hmac-sha1 takes a key of 160 bits; this one has 128/],
  [`${ADD} -E des-32iv "8 octets";`, /:39: des-32iv is for esp-old only/],
  ['add 192.0.2.1 192.0.2.2 ah 1;', /:1: ah needs an authentication algorithm/],
  [`add 192.0.2.1 192.0.2.2 ah 1 -E aes-cbc ${KEY};`, /:30: expected an option of ah \(-A, /],
  ['add 192.0.2.1 192.0.2.2 tcp 1;', /:1: tcp needs an authentication algorithm/],
  ['add 192.0.2.1 192.0.2.2 ipcomp 1;', /:1: ipcomp needs a compression algorithm/],
  ['add 192.0.2.1 192.0.2.2 ipcomp 1 -C zstd;', /expected a compression algorithm \(oui, def/],
  ['add 192.0.2.1 192.0.2.2 ipcomp 1 -A null;', /expected an option of ipcomp/],
  [`${ADD} -E aes-cbc "never closed;`, /:47: this string has no closing quote/],
  ['get 192.0.2.1 192.0.2.2 esp 1 -E null;', /:31: expected an option \(-m, .*got "-E"/],
  ['delete two 192.0.2.2 esp 1;', /:1: a name has more than one address/],
  ['deleteall 192.0.2.1 192.0.2.2 all;', /:31: expected a protocol/],
  ['spdadd two 192.0.2.2 any -P out none;', /:1: a name has more than one address/],
  ['spdadd 192.0.2.0/33 192.0.2.2 any -P out none;', /:8: prefix length 33, but the address/],
  ['spdadd 192.0.2.0/x 192.0.2.2 any -P out none;', /:8: expected a source, address/],
  [`${SPD} nosuch -P out none;`, /:37: expected an upper protocol \(any, tcp,/],
  [`${SPD} 256 -P out none;`, /:37: expected an upper protocol/],
  [`${SPD} icmp 8,256 -P out none;`, /:42: expected type,code/],
  [`${SPD} gre 0.5 -P out none;`, /:41: expected a GRE key/],
  [`${SPD} tcp 5 -P out none;`, /:41: expected -ctx or -P, got "5"/],
  [`${SPD} any;`, /:40: expected -P and a policy, got ";"/],
  [`${SPD} any -Q out none;`, /:41: expected -P and a policy, got "-Q"/],
  [`${SPD} any -P sideways none;`, /:44: expected in, out or fwd, got "sideways"/],
  [`${SPD} any -P out ipsec\n\tesp/transport//sometimes;`, /:2:17: expected default, use, require/],
  [`${SPD} any -P out;`, /:1: spdadd needs an action/],
  ['spdadd 192.0.2.1[ftp] 192.0.2.2 tcp -P out none;', /:8: "ftp" is not a port number/],
  ['spdadd tagged web -P out none;', /:15: expected a tag in quotes, got "web"/],
];

describe('accepted', () => {
  for (const [text, type, fields] of ACCEPTED) {
    test(`${text.slice(0, 90)} -> ${type}`, () => {
      const found = ext(text, type);
      if (fields === undefined) expect(found).toBeUndefined();
      else expect(found).toMatchObject(fields);
      for (const message of messages(text)) expect(encode(message, 'linux').length % 8).toBe(0);
    });
  }

  test('flush and dump by type', () => {
    const types = messages('flush; flush esp-old; dump ah; dump ipcomp; dump tcp;');
    expect(types.map(({ satype }) => satype)).toEqual([
      'unspec',
      'esp',
      'ah',
      'ipcomp',
      'tcpsignature',
    ]);
  });

  test('both requests of a policy with comments in it', () => {
    const text = `${SPD} any -P out ipsec # inner\n esp/transport//unique:7 # a; b\n ah/transport//use;`;
    const { requests } = ext(text, 'X_POLICY')!;
    expect(requests.map(({ proto, reqid }) => [proto, reqid])).toEqual([
      [50, 7],
      [51, 0],
    ]);
  });

  test('exit ends, and empty statements are none', () => {
    expect(run(';;exit;flush;').map(({ kind }) => kind)).toEqual(['exit', 'send']);
    expect(run('quit; bye;').map(({ kind }) => kind)).toEqual(['exit', 'exit']);
  });

  test('every source with every destination of its family', () => {
    const pairs = messages(`add both both esp 1 ${END}`);
    expect(pairs.map((one) => extension(one, 'ADDRESS_DST')?.address.family)).toEqual([4, 6]);
    expect(messages(`add two two esp 1 ${END}`).length).toBe(4);
  });

  test('an inbound policy holds for forwarding too, unless -k', () => {
    const text = `${SPD} any -P in ipsec esp/transport//unique:7;`;
    const both = messages(text).map((one) => extension(one, 'X_POLICY')!);
    expect(both.map(({ direction }) => direction)).toEqual([1, 3]);
    expect(both[1]!.requests[0]).toMatchObject({ level: 2, reqid: 0 });
    expect(messages(text, { forwardToo: false }).length).toBe(1);
  });

  test('algorithms that the host does not have are refused before they are sent', () => {
    const supported = { auth: new Set([3]), encrypt: new Set([11]) };
    expect(() => run(`${ADD} ${END}`, { supported })).toThrow(
      /:39: this host does not support aes/,
    );
    expect(run(`${ADD} -E null;`, { supported }).length).toBe(1);
  });

  test('deleteall', () => {
    const [action] = run('deleteall 192.0.2.1 192.0.2.2 esp;');
    expect(action).toMatchObject({ kind: 'delete-all', satype: 'esp' });
  });
});

describe('refused', () => {
  for (const [text, message] of REFUSED) {
    test(text.slice(0, 90), () => {
      expect(() => run(text)).toThrow(SetkeyError);
      expect(() => run(text)).toThrow(message);
    });
  }

  test('no error shows a key', () => {
    const wrong = `${ADD} -E aes-cbc ${KEY} ${KEY20};`;
    expect(() => run(wrong)).toThrow(/got a key or string/);
  });

  test('several errors in one pass, and what is right in between', () => {
    const { entries } = parseScript('flush;\nbogus 1 2;\nspdflush;\nadd x y z;\ndump;', 'file');
    expect(
      entries.map((one) => (one instanceof SetkeyError ? one.place.line : one.command)),
    ).toEqual(['flush', 2, 'spdflush', 4, 'dump']);
  });

  test('a file that goes on being wrong ends the list', () => {
    expect(parseScript('x;'.repeat(10_000), 'file').entries.length).toBe(100);
  });
});

describe('names to look up first', () => {
  test('those that are not numeric', () => {
    const { entries } = parseScript(`add -4 gw 192.0.2.1 esp 1 ${END} deleteall a b; flush;`, 'f');
    const names = entries.flatMap((one) => (one instanceof SetkeyError ? [] : hostNames(one)));
    expect(names).toEqual([
      { name: 'gw', family: 4 },
      { name: 'a', family: undefined },
      { name: 'b', family: undefined },
    ]);
  });
});

test('no text throws anything but SetkeyError', () => {
  const pieces =
    `add spdadd update deleteall flush 192.0.2.1 2001:db8::/32 [ ] any ; " # -P -E -A -m esp
    ah ipcomp 0x10 out in ipsec none aes-cbc tcp icmp6 8,0 tagged -ctx -4 -n`.split(/\s+/);
  const text = fc.oneof(
    fc.string(),
    fc.array(fc.constantFrom(...pieces, '\n')).map((all) => all.join(' ')),
  );
  fc.assert(
    fc.property(text, (one) => {
      try {
        for (const message of messages(one)) encode(message, 'linux');
      } catch (error) {
        expect(error).toBeInstanceOf(SetkeyError);
      }
    }),
    { numRuns: 1000 },
  );
});
