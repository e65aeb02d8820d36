import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { policyJson, policyLine, saJson, saLine } from '../../src/setkey/print-entry.ts';
import { formatMessage, hexDump } from '../../src/setkey/print-message.ts';
import {
  keyText,
  type PrintContext,
  selectorText,
  upperText,
} from '../../src/setkey/print-parts.ts';
import { formatPolicyEntry } from '../../src/setkey/print-policy.ts';
import { formatSa, formatSaShort } from '../../src/setkey/print-sa.ts';
import type { AddressExtension, Extension, Message } from '../../src/wire/pfkey-message.ts';

const context: PrintContext = {
  now: 5000,
  time: (s) => `Jan  1 01:${s % 60}:09 1970`,
  ports: false,
};

function at(type: AddressExtension['type'], host: string, over = {}): AddressExtension {
  const one = address(host);
  return {
    type,
    proto: 255,
    prefixLen: 8 * one.bytes.length,
    address: one,
    port: 0,
    scopeId: 0,
    ...over,
  };
}

const sa: Message = {
  type: 'DUMP',
  errno: 0,
  satype: 'esp',
  seq: 3,
  pid: 4,
  reserved: 5,
  extensions: [
    { type: 'SA', spi: 0x1001, replay: 255, state: 2, auth: 200, encrypt: 12, flags: 0x401 },
    { type: 'X_SA2', mode: 2, sequence: 7, reqid: 9 },
    { type: 'LIFETIME_CURRENT', allocations: 2, bytes: 300, addTime: 1000, useTime: 0 },
    { type: 'LIFETIME_HARD', allocations: 0, bytes: 0, addTime: 800, useTime: 0 },
    at('ADDRESS_SRC', 'fe80::1', { scopeId: 3, port: 500 }),
    at('ADDRESS_DST', 'fe80::2'),
    { type: 'KEY_ENCRYPT', bits: 128, key: new Uint8Array(16).fill(0xab) },
    { type: 'KEY_AUTH', bits: 8, key: Uint8Array.of(1) },
    { type: 'X_TESTUDO', replayPackets: 4096, ahAlign: 0, df: 'copy', ecn: 'default' },
  ],
};

function withExtensions(...extensions: Extension[]): Message {
  return { ...sa, extensions };
}

describe('an SA', () => {
  test('old form, unknown algorithm, scope, and what only we have', () => {
    expect(formatSa(sa, context)).toBe(
      'fe80::1%3 fe80::2 \n' +
        '\tesp-old mode=tunnel spi=4097(0x00001001) reqid=9(0x00000009)\n' +
        '\tE: aes-cbc  abababab abababab abababab abababab\n' +
        '\tA: 200  01\n' +
        '\tseq=0x00000007 replay=255 flags=0x00000401 state=dying \n' +
        '\tcreated: Jan  1 01:40:09 1970\tcurrent: Jan  1 01:20:09 1970\n' +
        '\tdiff: 4000(s)\thard: 800(s)\tsoft: 0(s)\n' +
        '\tlast:                     \thard: 0(s)\tsoft: 0(s)\n' +
        '\tcurrent: 300(bytes)\thard: 0(bytes)\tsoft: 0(bytes)\n' +
        '\tallocated: 2\thard: 0\tsoft: 0\n' +
        '\twindow=4096(packets) df=copy\n' +
        '\tsadb_seq=3 pid=4 refcnt=5\n',
    );
  });

  test('the original address of a peer behind a NAT', () => {
    const { type: _, scopeId: __, ...original } = at('ADDRESS_SRC', '10.0.0.1');
    const nat = withExtensions(
      ...sa.extensions,
      { type: 'X_NAT_T_TYPE', encapsulation: 2 },
      { type: 'X_NAT_T_SPORT', port: 4500 },
      { type: 'X_NAT_T_OAI', ...original },
    );
    const text = formatSa(nat, { ...context, ports: true });
    expect(text).toContain('fe80::1%3[500][4500] fe80::2[0][0] \n\tesp-udp mode=');
    expect(text).toContain('\n\tNAT OA=10.0.0.1\n');
    expect(saJson(nat)).toMatchObject({ sourcePort: 4500, originalAddress: '10.0.0.1' });
  });

  test('short, as -l has it', () => {
    expect(formatSaShort(sa, context)).toBe(
      '2009 esp-old D 00001001 big/800 fe80::1%3 -> fe80::2\n',
    );
  });

  test('on one line there are no keys', () => {
    expect(saLine(sa)).toBe(
      'esp-old fe80::1%3 -> fe80::2 spi=0x00001001 mode=tunnel reqid=9 aes-cbc 200 ' +
        'state=dying bytes=300 packets=2\n',
    );
  });

  test('json', () => {
    expect(saJson(sa)).toMatchObject({
      protocol: 'esp-old',
      encryptionKey: 'ab'.repeat(16),
      replay: 4096,
      df: 'copy',
      current: { packets: 2, bytes: 300, addTime: 1000, useTime: 0 },
    });
  });

  test('a message without an SA says so', () => {
    expect(formatSa(withExtensions(), context)).toBe('(no SA in this DUMP)\n');
    expect(saLine(withExtensions())).toContain('? -> ?');
  });

  test('long keys wrap after 32 octets', () => {
    expect(
      keyText(new Uint8Array(35))
        .split('\n')
        .map((line) => line.length),
    ).toEqual([72, 7]);
  });
});

describe('a policy', () => {
  const policy: Extension = {
    type: 'X_POLICY',
    policyType: 2,
    direction: 2,
    reserved: 0,
    id: 8,
    priority: 0,
    requests: [{ proto: 51, mode: 1, level: 3, reqid: 16385 }],
  };

  test('of a socket', () => {
    const text = formatPolicyEntry({ ...withExtensions(policy), type: 'X_SPDDUMP' }, context);
    expect(text).toBe(
      '(no selector, probably per-socket policy)\n\tout ipsec\n\tah/transport//unique#16385\n' +
        '\tspid=8 seq=3 pid=4\n\trefcnt=5\n',
    );
    expect(policyLine(withExtensions(policy))).toContain('(socket) out ipsec ah/transport//unique');
    expect(policyJson(withExtensions(policy))).toMatchObject({ socket: true, action: 'ipsec' });
  });

  test('selectors whose ports are no ports', () => {
    const src = at('ADDRESS_SRC', '10.0.0.0', { proto: 47, prefixLen: 8, port: 5 });
    const dst = at('ADDRESS_DST', '10.0.0.1', { proto: 47, port: 7 });
    expect(`${selectorText(src)} ${selectorText(dst)} ${upperText(src, dst)}`).toBe(
      '10.0.0.0/8 10.0.0.1 gre 327687',
    );
    expect(upperText({ ...src, proto: 1, port: 8 }, { ...dst, proto: 1, port: 0 })).toBe(
      'icmp 8,0',
    );
    expect(upperText({ ...src, proto: 200 }, dst)).toBe('200');
  });

  test('lifetimes', () => {
    const limited = withExtensions(
      policy,
      { type: 'LIFETIME_CURRENT', allocations: 0, bytes: 0, addTime: 61, useTime: 0 },
      { type: 'LIFETIME_HARD', allocations: 0, bytes: 0, addTime: 60, useTime: 10 },
    );
    expect(formatPolicyEntry(limited, context)).toContain(
      '\tcreated: Jan  1 01:1:09 1970  lastused:                     \n' +
        '\tlifetime: 60(s) validtime: 10(s)\n',
    );
  });
});

describe('a message', () => {
  test('every extension, keys by their length', () => {
    const text = formatMessage({ ...sa, errno: 17 });
    expect(text).toContain('DUMP esp seq=3 pid=4 errno=17 (File exists)\n');
    expect(text).toContain('\tKEY_ENCRYPT bits=128\n');
    expect(text).toContain('address=fe80::1');
    expect(text).not.toContain('abab');
  });

  test('octets', () => {
    expect(hexDump(new Uint8Array(17))).toBe(`00000000: ${'00 '.repeat(16)}\n00000010: 00 \n`);
  });
});
