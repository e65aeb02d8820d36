import type { SaSize } from '../sad/sa-sizes.ts';
import type { Sad } from '../sad/sad.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Spd } from '../spd/spd.ts';
import * as ah from '../wire/ah.ts';
import * as esp from '../wire/esp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import * as udp from '../wire/udp.ts';

/** ESP of an SA that is not there yet: UDP, IV and block of AES-CBC, ICV of HMAC-SHA2-512. */
const ESP_OVERHEAD_USUAL = udp.HEADER_LEN + esp.HEADER_LEN + 16 + 15 + esp.TRAILER_LEN + 32;
const AH_OVERHEAD_USUAL = ah.HEADER_LEN + 32 + 4;

/**
 * The most octets that any outgoing policy adds to a packet: what a device in front of the host has
 * to leave free. Kept until something changes that matters, since it is asked for after every
 * request of key exchange.
 */
export class Overhead {
  readonly #spd: Spd;
  readonly #sad: Sad;
  #policiesSeen = 0;
  #largest: Largest = { esp: undefined, ah: undefined };
  #most = 0;

  constructor(spd: Spd, sad: Sad) {
    this.#spd = spd;
    this.#sad = sad;
  }

  get most(): number {
    const largest = largestSas(this.#sad);
    const isSame = largest.esp === this.#largest.esp && largest.ah === this.#largest.ah;
    if (isSame && this.#policiesSeen === this.#spd.generation) return this.#most;
    this.#largest = largest;
    this.#policiesSeen = this.#spd.generation;
    this.#most = 0;
    for (const policy of this.#spd.list('out')) {
      if (policy.type !== 'ipsec') continue;
      this.#most = Math.max(this.#most, policyOverhead(policy, largest));
    }
    return this.#most;
  }
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
  for (const size of sad.sizes()) {
    const octets = sizeMax(size);
    if (size.protocol === 'esp') espMax = Math.max(espMax ?? 0, octets);
    else ahMax = Math.max(ahMax ?? 0, octets);
  }
  return { esp: espMax, ah: ahMax };
}

/** The most that an SA of this size adds, IP headers not included. */
function sizeMax(size: SaSize): number {
  if (size.protocol === 'ah') {
    return Math.ceil((ah.HEADER_LEN + size.icvLen) / size.alignLen) * size.alignLen;
  }
  const { isInUdp, ivLen, alignLen, icvLen } = size;
  const udpLen = isInUdp ? udp.HEADER_LEN : 0;
  return udpLen + esp.HEADER_LEN + ivLen + alignLen - 1 + esp.TRAILER_LEN + icvLen;
}
