import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { occurrences } from './capture.ts';
import { Charon, whyNoCharon } from './charon.ts';
import { whyNoExec } from './exec-host.ts';
import { IkedHost, type Place } from './iked.ts';
import { announceSkip, Lab, whyNoHosts } from './namespaces.ts';
import { MARKER, PATTERN, tcp, udp } from './programs.ts';

/**
 * OpenIKED on our host, and on the other end strongSwan with an ESP of its own: keys, packets and
 * NAT traversal are what two strangers understand by them.
 */

const why = whyNoHosts('iked', 'swanctl') ?? whyNoCharon() ?? whyNoExec();
const skipped = announceSkip('strongswan.test.ts', why);

/** How strongSwan lists what was agreed on. */
const CIPHERS = {
  'aes256-sha384': /ESP:AES_CBC-256\/HMAC_SHA2_384_192/,
  'aes128-sha1': /ESP:AES_CBC-128\/HMAC_SHA1_96/,
} as const;

const A: Place = { wire: '10.97.0.1', net: '10.98.1.0/24', inner: '10.98.1.1', id: 'a.example' };
const B: Place = { wire: '10.97.0.2', net: '10.98.2.0/24', inner: '10.98.2.1', id: 'b.example' };

describe.skipIf(skipped)('OpenIKED with us and strongSwan', () => {
  let lab: Lab;
  let a: string;
  let b: string;
  let charon: Charon | undefined;
  let iked: IkedHost | undefined;

  beforeEach(() => {
    lab = new Lab();
    [a, b] = [lab.space('a'), lab.space('b')];
    lab.wire(
      { space: a, device: 'w0', addresses: [`${A.wire}/24`] },
      { space: b, device: 'w0', addresses: [`${B.wire}/24`] },
    );
    lab.sh(a, `ip addr add ${A.inner}/32 dev lo`);
    lab.sh(b, `ip addr add ${B.inner}/32 dev lo`);
    lab.ping(a, B.wire);
  });
  afterEach(async () => {
    await Promise.all([iked?.stop(), charon?.stop()]);
    lab.close();
  });

  test.each([
    ['AES-CBC and HMAC-SHA2-384, we begin', 'aes256-sha384', 'active'],
    ['AES-CBC and HMAC-SHA1, it begins', 'aes128-sha1', 'passive'],
  ] as const)('understand each other: %s', async (_name, esp, mode) => {
    const ike = 'aes128gcm16-prfsha256-x25519';
    charon = await Charon.start(lab, b, B, A, { secret: 'an example of a shared key', ike, esp });
    iked = await IkedHost.start(lab, a);
    const capture = await lab.capture(a, 'w0');
    await iked.run(A, B, { mode });
    if (mode === 'passive') expect(charon.swanctl('--initiate --child net').status).toBe(0);
    await iked.hasSas(2);
    expect(lab.ping(a, B.inner, { count: 3, pattern: PATTERN })).toBe(3);
    expect(lab.ping(b, A.inner, { count: 3, pattern: PATTERN })).toBe(3);
    const { sent, received } = await tcp(lab, a, b, B.inner, 1 << 20);
    expect(received).toBe(sent);
    const back = await udp(lab, b, a, A.inner, 200, [20, 1000]);
    expect(back).toMatchObject({ sent: 200, lost: 0, received: 200, wrong: 0 });
    expect(charon.opened).toBeGreaterThan(6);
    expect(charon.swanctl('--list-sas').stdout).toMatch(CIPHERS[esp]);
    expect((await iked.host.status()).drops).toEqual([]);
    const wire = await capture.stop();
    expect(occurrences(wire, MARKER)).toBe(0);
    expect(wire.packets.every(({ kind }) => kind === 'udp')).toBe(true);
    // It deletes its SAs, and ours follow.
    expect(charon.swanctl('--terminate --ike tunnel').status).toBe(0);
    await iked.hasSas(0);
  });
});
