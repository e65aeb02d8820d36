import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { occurrences, type Wire } from './capture.ts';
import { DaemonHost } from './daemon-host.ts';
import { announceSkip, Lab, whyNoHosts } from './namespaces.ts';
import { MARKER, PATTERN, tcp, udp } from './programs.ts';

const skipped = announceSkip('matrix.test.ts', whyNoHosts());

/** Through every cell, by TCP. */
const OCTETS = 100 << 20;
const OUTER = { 4: ['10.9.0.1', '10.9.0.2'], 6: ['fd09::1', 'fd09::2'] } as const;
const INNER = { 4: ['10.7.0.1', '10.7.0.2'], 6: ['fd07::1', 'fd07::2'] } as const;

interface Cell {
  readonly protection: 'esp' | 'ah' | 'esp+ah' | 'esp-udp';
  readonly mode: 'transport' | 'tunnel';
  readonly family: 4 | 6;
}

const CELLS: Cell[] = (['esp', 'ah', 'esp+ah', 'esp-udp'] as const).flatMap((protection) =>
  (['transport', 'tunnel'] as const).flatMap((mode) =>
    ([4, 6] as const).map((family) => ({
      protection,
      mode,
      family,
    })),
  ),
);

const GCM = [
  '8f2a6c1e9b7d4035a1c8e6f20d5b3947c0ffee01',
  '17e4b0d98a5c362f4fb1936de8a07c52c0ffee02',
];
const SHA = [
  '3b1f4c8f52f8ae1f6c1f5d1a0b7e9c442d8e61f0a7c3b5940f1e2d3c4b5a6978',
  '9a7c5e3f1d2b4068e7f5a3c1d9b8264f0e1c3a5b7d9f8e6c4a2b0d1f3e5c7a9b',
];

/** The setkey file of host 0 or 1: SAs of both directions, then its own two policies. */
function config({ protection, mode, family }: Cell, host: 0 | 1): string {
  const outer = OUTER[family];
  const ends = mode === 'tunnel' ? INNER[family] : outer;
  const lines = ['flush; spdflush;'];
  for (const from of [0, 1] as const) {
    const [src, dst] = from === 0 ? outer : ([outer[1], outer[0]] as const);
    const port = protection === 'esp-udp' ? '[4500]' : '';
    const kind = protection === 'esp-udp' ? 'esp-udp' : 'esp';
    if (protection !== 'ah') {
      const what = `${src}${port} ${dst}${port} ${kind} 0x100${from} -m ${mode} -r 64`;
      lines.push(`add ${what} -E aes-gcm-16 0x${GCM[from]};`);
    }
    if (protection === 'ah' || protection === 'esp+ah') {
      // Around an ESP tunnel AH protects the packet of that tunnel, which is between the hosts.
      const ahMode = protection === 'ah' ? mode : 'transport';
      const what = `${src} ${dst} ah 0x200${from} -m ${ahMode} -r 64`;
      lines.push(`add ${what} -A hmac-sha2-256 0x${SHA[from]};`);
    }
    const direction = from === host ? 'out' : 'in';
    const requests = requestsOf(protection, mode, src, dst);
    lines.push(`spdadd ${ends[from]} ${ends[1 - from]} any -P ${direction} ipsec ${requests};`);
  }
  return `${lines.join('\n')}\n`;
}

function requestsOf(
  protection: Cell['protection'],
  mode: Cell['mode'],
  src: string,
  dst: string,
): string {
  const ends = mode === 'tunnel' ? `${src}-${dst}` : '';
  if (protection === 'ah') return `ah/${mode}/${ends}/require`;
  const esp = `esp/${mode}/${ends}/require`;
  return protection === 'esp+ah' ? `${esp} ah/transport//require` : esp;
}

describe.skipIf(skipped)('every protection, mode and family between two hosts', () => {
  let lab: Lab;
  let a: string;
  let b: string;
  beforeAll(() => {
    lab = new Lab();
    a = lab.space('a');
    b = lab.space('b');
    for (const [i, space] of [a, b].entries()) {
      lab.sh(space, `ip addr add ${INNER[4][i]}/32 dev lo; ip addr add ${INNER[6][i]}/128 dev lo`);
    }
    lab.wire(
      { space: a, device: 'w0', addresses: ['10.9.0.1/24', 'fd09::1/64'] },
      { space: b, device: 'w0', addresses: ['10.9.0.2/24', 'fd09::2/64'] },
    );
    for (const [i, space] of [a, b].entries()) {
      // So that there is a way in the clear, once nothing is protected.
      lab.sh(space, `ip route add ${INNER[4][1 - i]} via ${OUTER[4][1 - i]} src ${INNER[4][i]}`);
      lab.sh(space, `ip route add ${INNER[6][1 - i]} via ${OUTER[6][1 - i]} src ${INNER[6][i]}`);
    }
  });
  afterAll(() => lab.close());

  test.each(
    CELLS.map((cell) => [`${cell.protection} ${cell.mode} IPv${cell.family}`, cell] as const),
  )('%s', async (_name, cell) => {
    const { protection, mode, family } = cell;
    const args = protection === 'esp-udp' ? ['--no-raw', '--encap-port', '4500'] : [];
    const hosts = await Promise.all([
      DaemonHost.start(lab, a, config(cell, 0), args),
      DaemonHost.start(lab, b, config(cell, 1), args),
    ]);
    try {
      const to = (mode === 'tunnel' ? INNER : OUTER)[family][1];
      const capture = await lab.capture(a, 'w0');
      for (const size of [56, 3000]) {
        const answered = lab.ping(a, to, { size, pattern: PATTERN });
        expect([size, answered]).toEqual([size, 2]);
      }
      const datagrams = await udp(lab, a, b, to, 60, [64, 1472, 8000]);
      expect(datagrams).toEqual({ sent: 60, lost: 0, received: 60, wrong: 0 });
      const moved = await tcp(lab, a, b, to, OCTETS);
      expect(moved).toMatchObject({ octets: OCTETS, received: moved.sent });
      console.log(`${protection} ${mode} IPv${family}: ${moved.megabits} Mbit/s of TCP`);
      await checkWire(await capture.stop(), cell, hosts);

      // The same eyes see clear packets once there is nothing to protect them.
      const clear = await lab.capture(a, 'w0');
      for (const host of hosts) host.setkey('spdflush;');
      expect(lab.ping(a, to, { pattern: PATTERN })).toBe(2);
      const seen = await clear.stop();
      expect(seen.clear).toHaveLength(4);
      expect(occurrences(seen, MARKER)).toBeGreaterThanOrEqual(4);
    } finally {
      await Promise.all(hosts.map((host) => host.stop()));
    }
  });
});

/** Nothing in the clear, and what the hosts say they have sent is what the wire has seen. */
async function checkWire(wire: Wire, cell: Cell, hosts: readonly DaemonHost[]): Promise<void> {
  const { protection, family } = cell;
  expect(wire.clear).toEqual([]);
  // AH hides nothing, which also shows that the marker would be found.
  if (protection === 'ah') expect(occurrences(wire, MARKER)).toBeGreaterThan(1000);
  else expect(occurrences(wire, MARKER)).toBe(0);
  const kind = { esp: 'esp', ah: 'ah', 'esp+ah': 'ah', 'esp-udp': 'udp' }[protection];
  for (const [i, host] of hosts.entries()) {
    const status = await host.status();
    const src = OUTER[family][i]!;
    const sent = wire.packets.filter((packet) => packet.src === src);
    expect(sent.every((packet) => packet.kind === kind)).toBe(true);
    const counter = protection.includes('ah') ? 'AH sealed' : 'ESP sealed';
    expect(sent).toHaveLength(status.packets[counter]!);
    if (protection === 'esp+ah') expect(status.packets['ESP sealed']).toBe(sent.length);
    expect(wire.fragments.get(src) ?? 0).toBe(status.packets['outer fragments made']);
    expect(status.packets['sent in the clear']).toBe(0);
    expect(status.packets.delivered).toBeGreaterThan(0);
    expect(status.refused).toEqual({ wire: 0, local: 0, inspect: 0 });
    expect(status.drops).toEqual([]);
    // Each number once: nothing is sent twice under one key and nonce.
    expect(new Set(sent.map(({ spi, seq }) => `${spi} ${seq}`)).size).toBe(sent.length);
  }
}
