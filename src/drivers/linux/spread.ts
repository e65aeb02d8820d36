import { HEADROOM, PACKET_LEN_SMALL, type Packet } from '../../wire/packet.ts';

/**
 * How large packets are cut: as the last one was, is the guess, so that the next one is read right
 * into the slots of its segments, and is not copied there. Each slot begins with room for the
 * headers; what lies in front of the first payload is read into the first.
 */
export class Spread {
  /** Octets of the longest packet, and the most slots that it may take. */
  readonly #lenMax: number;
  readonly #slotsMax: number;
  /** Octets of room in front of each payload, and of each payload but the last; 0: no guess. */
  headersLen = 0;
  segment = 0;
  /** How many slots the longest packet takes. */
  slots = 0;

  constructor(lenMax: number, slotsMax: number) {
    this.#lenMax = lenMax;
    this.#slotsMax = slotsMax;
  }

  get isOn(): boolean {
    return this.segment > 0;
  }

  matches(headersLen: number, segment: number): boolean {
    return segment === this.segment && headersLen === this.headersLen;
  }

  /** A packet that was cut so has come. True if that changes the guess. */
  learn(headersLen: number, segment: number): boolean {
    const slots = Math.ceil(this.#lenMax / segment);
    if (!(slots <= this.#slotsMax) || headersLen + segment > PACKET_LEN_SMALL) {
      return this.forget();
    }
    const isNew = !this.matches(headersLen, segment);
    this.headersLen = headersLen;
    this.segment = segment;
    this.slots = slots;
    return isNew;
  }

  /** The next packet is likely to be a usual one. True if that changes the guess. */
  forget(): boolean {
    const isNew = this.isOn;
    this.headersLen = 0;
    this.segment = 0;
    this.slots = 0;
    return isNew;
  }

  /**
   * The guess was wrong: puts together what was read into slots from number `first` on, `firstLen`
   * octets into the first and a payload into each of the others.
   */
  gather(slots: readonly Packet[], first: number, firstAt: number, firstLen: number, to: Packet) {
    const { bytes } = to;
    const { headersLen, segment } = this;
    bytes.copyWithin(to.at, firstAt, firstAt + Math.min(firstLen, to.len));
    for (let at = to.at + firstLen, i = first + 1; at < to.end; at += segment, i++) {
      const from = slots[i]!.slotAt + HEADROOM + headersLen;
      bytes.copyWithin(at, from, from + Math.min(segment, to.end - at));
    }
  }
}
