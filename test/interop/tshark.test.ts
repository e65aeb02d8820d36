import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { wiresharkTable } from '../../src/daemon/wireshark.ts';
import type { Sa } from '../../src/sad/sa.ts';
import { toHex } from '../../src/wire/bytes.ts';
import { pcapHeader, pcapRecord } from '../../src/wire/pcap.ts';
import { type Case, saFrom } from './case.ts';
import { makeMatrix, plainData, rigOf, seal } from './matrix.ts';
import { describeWithPeer, missingProgram } from './peer.ts';

/**
 * tshark decrypts what we seal, with the keys of the table that we export: packets, capture file
 * and key table are all judged by a program that somebody else wrote.
 */

/** What tshark 4.0 says of one ESP packet. */
interface Verdict {
  readonly icvGood: boolean;
  readonly icvBad: boolean;
  /** The data of the UDP datagram inside, in hexadecimal. */
  readonly data: string;
}

/** Wireshark only knows how long the ICVs of these are. */
const UNCHECKED_MACS = ['aes-xcbc-mac', 'aes-cmac'];
const FIELDS = ['esp.spi', 'esp.icv_good', 'esp.icv_bad', 'udp.payload'];

const missing = missingProgram('tshark', ['--version'], 'tshark');

describeWithPeer('tshark agrees', missing, () => {
  const folder = mkdtempSync(join(tmpdir(), 'testudo-tshark-'));
  const sealed = sealAll(makeMatrix().filter((one) => one.protocol === 'esp'));
  const table = wiresharkTable(sealed.map(({ sa }) => sa));
  let verdicts: ReadonlyMap<number, Verdict>;

  beforeAll(() => {
    verdicts = askTshark(folder, sealed, table);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const known = sealed.filter(({ sa }) => table.includes(`"${spiText(sa)}"`));

  test('only algorithms that Wireshark lacks are left out', () => {
    const left = sealed.filter((one) => !known.includes(one)).map(({ of }) => of.enc);
    const lacking = ['camellia-cbc', 'aes-ccm-8', 'aes-ccm-12', 'aes-ccm-16', 'aes-gmac'];
    expect([...new Set(left)].sort()).toEqual([...lacking, 'chacha20-poly1305'].sort());
    expect(table.split('\n').filter((line) => line.startsWith('#'))).toHaveLength(left.length);
  });

  test.each(groups(known))('%s', (_, group) => {
    for (const { of, sa } of group) {
      const verdict = verdicts.get(sa.spec.spi);
      expect(verdict?.data, of.name).toBe(toHex(plainData(of)));
      const isChecked = !of.esn && !UNCHECKED_MACS.includes(of.auth ?? '');
      expect(verdict?.icvGood, of.name).toBe(isChecked);
      if (isChecked) expect(verdict?.icvBad, of.name).toBe(false);
    }
  });

  test('an altered packet does not pass', () => {
    const altered = known
      .filter(({ of }) => !of.esn && of.auth === 'hmac-sha256')
      .map((one) => {
        const packet = one.packet.slice();
        packet[packet.length - 1]! ^= 1;
        return { ...one, packet };
      });
    expect(altered.length).toBeGreaterThan(10);
    for (const verdict of askTshark(folder, altered, table).values()) {
      expect([verdict.icvGood, verdict.icvBad]).toEqual([false, true]);
    }
  });
});

interface Sealed {
  readonly of: Case;
  readonly sa: Sa;
  readonly packet: Uint8Array;
}

function sealAll(cases: readonly Case[]): Sealed[] {
  return cases.map((of) => {
    const rig = rigOf(of);
    const { protocol, spi, dst } = saFrom(of, 'us');
    return { of, packet: seal(of, rig), sa: rig.sad.get(protocol, spi, dst)! };
  });
}

function spiText(sa: Sa): string {
  return `0x${sa.spec.spi.toString(16).padStart(8, '0')}`;
}

function groups(all: readonly Sealed[]): [string, Sealed[]][] {
  const byName = new Map<string, Sealed[]>();
  for (const one of all) {
    const { mode, enc, auth = '', udp, esn } = one.of;
    const name = [enc, auth, mode, udp ? 'udp' : '', esn ? 'esn' : '']
      .filter((word) => word !== '')
      .join(' ');
    byName.set(name, [...(byName.get(name) ?? []), one]);
  }
  return [...byName];
}

/** By SPI. */
function askTshark(
  folder: string,
  sealed: readonly Sealed[],
  table: string,
): ReadonlyMap<number, Verdict> {
  const capture = join(folder, 'sealed.pcap');
  const records = sealed.map(({ packet }, i) => pcapRecord(packet, 0, packet.length, 1000 * i));
  writeFileSync(capture, Buffer.concat([pcapHeader(), ...records]));
  mkdirSync(join(folder, 'wireshark'), { recursive: true });
  writeFileSync(join(folder, 'wireshark', 'esp_sa'), table);
  const run = spawnSync(
    'tshark',
    [
      ...['-r', capture, '-Y', 'esp', '-T', 'fields', ...FIELDS.flatMap((field) => ['-e', field])],
      ...['-o', 'esp.enable_encryption_decode:TRUE', '-o', 'esp.enable_authentication_check:TRUE'],
    ],
    {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
      env: { ...process.env, XDG_CONFIG_HOME: folder, HOME: folder },
    },
  );
  if (run.status !== 0) throw new Error(`tshark: ${run.stderr}`);
  return new Map(run.stdout.trimEnd().split('\n').map(readVerdict));
}

function readVerdict(line: string): [number, Verdict] {
  const [spi = '', good = '', bad = '', data = ''] = line.split('\t');
  const isTrue = (field: string) => field === '1' || field === 'True';
  // ESP in UDP is a UDP datagram itself: the last one is the inner one.
  const inner = data.split(',').at(-1)!.replaceAll(':', '');
  return [Number.parseInt(spi, 16), { icvGood: isTrue(good), icvBad: isTrue(bad), data: inner }];
}
