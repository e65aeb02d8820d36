import type { SaSize } from '../sad/sa-sizes.ts';
import type { Sad } from '../sad/sad.ts';
import type { Policy, Request } from '../spd/policy.ts';
import * as ah from '../wire/ah.ts';
import * as esp from '../wire/esp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import * as udp from '../wire/udp.ts';

/** ESP of an SA that is not there yet: UDP, IV and block of AES-CBC, ICV of HMAC-SHA2-512. */
const ESP_OVERHEAD_USUAL = udp.HEADER_LEN + esp.HEADER_LEN + 16 + 15 + esp.TRAILER_LEN + 32;
const AH_OVERHEAD_USUAL = ah.HEADER_LEN + 32 + 4;

/** What policies ask for, as far as it decides how much they add; many policies share one. */
interface Shape {
  readonly esp: number;
  readonly ah: number;
  /** Octets of all tunnel headers. */
  readonly tunnels: number;
  policies: number;
}

/**
 * The most octets that any outgoing policy adds to a packet: what a device in front of the host has
 * to leave free. Told of every policy that comes and goes, since it is asked after every request:
 * what it does then must not grow with the table.
 */
export class Overhead {
  readonly #sad: Sad;
  readonly #shapes = new Map<string, Shape>();
  #largest: Largest = { esp: undefined, ah: undefined };
  #isFresh = false;
  #most = 0;

  constructor(sad: Sad) {
    this.#sad = sad;
  }

  added(policy: Policy): void {
    if (!protectsOutput(policy)) return;
    const { key, shape } = shapeOf(policy.requests);
    const known = this.#shapes.get(key);
    if (known) known.policies++;
    else {
      this.#shapes.set(key, shape);
      this.#isFresh = false;
    }
  }

  removed(policy: Policy): void {
    if (!protectsOutput(policy)) return;
    const { key } = shapeOf(policy.requests);
    const known = this.#shapes.get(key);
    if (!known || --known.policies > 0) return;
    this.#shapes.delete(key);
    this.#isFresh = false;
  }

  get most(): number {
    const largest = largestSas(this.#sad);
    const isSame = largest.esp === this.#largest.esp && largest.ah === this.#largest.ah;
    if (isSame && this.#isFresh) return this.#most;
    this.#largest = largest;
    this.#isFresh = true;
    this.#most = 0;
    for (const shape of this.#shapes.values()) {
      this.#most = Math.max(this.#most, shapeOverhead(shape, largest));
    }
    return this.#most;
  }
}

function protectsOutput(policy: Policy): boolean {
  return policy.direction === 'out' && policy.type === 'ipsec';
}

function shapeOf(requests: readonly Request[]): { key: string; shape: Shape } {
  let esp = 0;
  let ah = 0;
  let tunnels = 0;
  for (const request of requests) {
    if (request.protocol === 'esp') esp++;
    else ah++;
    if (request.mode === 'tunnel') tunnels += tunnelHeaderLen(request);
  }
  return { key: `${esp} ${ah} ${tunnels}`, shape: { esp, ah, tunnels, policies: 1 } };
}

function shapeOverhead({ esp, ah, tunnels }: Shape, largest: Largest): number {
  const espEach = largest.esp ?? ESP_OVERHEAD_USUAL;
  const ahEach = largest.ah ?? AH_OVERHEAD_USUAL;
  return esp * espEach + ah * ahEach + tunnels;
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
