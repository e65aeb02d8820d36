import type { Sa } from '../sad/sa.ts';
import type { Sad } from '../sad/sad.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Spd } from '../spd/spd.ts';
import * as ah from '../wire/ah.ts';
import * as esp from '../wire/esp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import * as udp from '../wire/udp.ts';
import { headerLen } from './ah.ts';

/** ESP of an SA that is not there yet: UDP, IV and block of AES-CBC, ICV of HMAC-SHA2-512. */
const ESP_OVERHEAD_USUAL = udp.HEADER_LEN + esp.HEADER_LEN + 16 + 15 + esp.TRAILER_LEN + 32;
const AH_OVERHEAD_USUAL = ah.HEADER_LEN + 32 + 4;

/** The most octets that any outgoing policy adds to a packet: what a device in front of the host has to leave free. */
export function overheadMax(spd: Spd, sad: Sad): number {
  const largest = largestSas(sad);
  let most = 0;
  for (const policy of spd.list('out')) {
    if (policy.type === 'ipsec') most = Math.max(most, policyOverhead(policy, largest));
  }
  return most;
}

function policyOverhead(policy: Policy, largest: Largest): number {
  let octets = 0;
  for (const request of policy.requests) {
    octets +=
      largest[request.protocol] ??
      (request.protocol === 'esp' ? ESP_OVERHEAD_USUAL : AH_OVERHEAD_USUAL);
    if (request.mode === 'tunnel') octets += tunnelHeaderLen(request);
  }
  return octets;
}

function tunnelHeaderLen(request: Request): number {
  return request.src?.family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
}

interface Largest {
  readonly esp: number | undefined;
  readonly ah: number | undefined;
}

function largestSas(sad: Sad): Largest {
  let espMax: number | undefined;
  let ahMax: number | undefined;
  for (const sa of sad.all()) {
    if (!sa.isUsable) continue;
    if (sa.spec.esp !== undefined) espMax = Math.max(espMax ?? 0, espOverhead(sa));
    if (sa.spec.ah !== undefined) ahMax = Math.max(ahMax ?? 0, headerLen(sa, sa.spec.src.family));
  }
  return { esp: espMax, ah: ahMax };
}

function espOverhead(sa: Sa): number {
  const { alignLen, ivLen, icvLen } = sa.spec.esp!;
  const udpLen = sa.spec.encapsulation === undefined ? 0 : udp.HEADER_LEN;
  return udpLen + esp.HEADER_LEN + ivLen + alignLen - 1 + esp.TRAILER_LEN + icvLen;
}
