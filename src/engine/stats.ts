import type { Family } from '../base/address.ts';
import { DROPS, type DropReason } from '../base/drop.ts';
import type { Sa } from '../sad/sa.ts';
import { u8 } from '../wire/bytes.ts';
import type { Packet } from '../wire/packet.ts';

/** Which side of the host counted: packets coming in from the wire, or going out to it. */
export type Side = 'in' | 'out';

export type Drops = Readonly<Record<Side, Readonly<Record<DropReason, number>>>>;

/** PF_KEY numbers of algorithms go up to this. */
const ALGORITHM_MAX = 255;

/** Layers opened or sealed, of one family. */
export class LayerStats {
  esp = 0;
  ah = 0;
  /** ESP whose SA authenticates. */
  espAuthentic = 0;
  /** Octets of what was within. */
  espBytes = 0;
  ahBytes = 0;
  /** By the PF_KEY number of the SA's cipher, and of its MAC. */
  readonly espCiphers = new Float64Array(ALGORITHM_MAX + 1);
  readonly ahMacs = new Float64Array(ALGORITHM_MAX + 1);

  /** `bytes`: of all of them together. */
  count({ spec }: Sa, packets: number, bytes: number): void {
    if (spec.protocol === 'esp') {
      this.esp += packets;
      this.espBytes += bytes;
      this.espCiphers[spec.keys.encrypt]! += packets;
      if (spec.esp!.authenticates) this.espAuthentic += packets;
    } else {
      this.ah += packets;
      this.ahBytes += bytes;
      this.ahMacs[spec.keys.auth]! += packets;
    }
  }
}

/**
 * What a host counts of one family: for a layer that of the header in front of it, for a packet
 * that of its outermost header at the time.
 */
export class FamilyStats {
  /** Packets that arrived from the wire, and those of them handed on after all checks. */
  inPackets = 0;
  inDelivered = 0;
  /**
   * Packets that the local side sent, and those that left: protected, and in the clear by policy.
   */
  outPackets = 0;
  outProtected = 0;
  outClear = 0;
  /** Outer fragments made, and the packets they were made of. */
  fragmentsMade = 0;
  fragmented = 0;
  /** Datagrams put together, and the fragments that they came in. */
  reassembled = 0;
  fragmentsJoined = 0;
  tooBigSent = 0;
  readonly opened = new LayerStats();
  readonly sealed = new LayerStats();
  readonly drops = { in: noDrops(), out: noDrops() };
}

/** What a host counts. Plain fields, so that counting costs an addition. */
export class Stats {
  readonly families: Readonly<Record<Family, FamilyStats>> = {
    4: new FamilyStats(),
    6: new FamilyStats(),
  };
  acquires = 0;
  /** Packets that waited for an SA, or still do. */
  held = 0;
  /** Packets from the wire that were kept until their SA had its keys. */
  early = 0;
  natMappings = 0;
  keepalivesSent = 0;

  // Of both families together.
  get inPackets(): number {
    return this.#sum((of) => of.inPackets);
  }
  get inDelivered(): number {
    return this.#sum((of) => of.inDelivered);
  }
  get outPackets(): number {
    return this.#sum((of) => of.outPackets);
  }
  get outProtected(): number {
    return this.#sum((of) => of.outProtected);
  }
  get outClear(): number {
    return this.#sum((of) => of.outClear);
  }
  get espOpened(): number {
    return this.#sum((of) => of.opened.esp);
  }
  get espSealed(): number {
    return this.#sum((of) => of.sealed.esp);
  }
  get ahOpened(): number {
    return this.#sum((of) => of.opened.ah);
  }
  get ahSealed(): number {
    return this.#sum((of) => of.sealed.ah);
  }
  get fragmentsMade(): number {
    return this.#sum((of) => of.fragmentsMade);
  }
  get reassembled(): number {
    return this.#sum((of) => of.reassembled);
  }
  get fragmentsJoined(): number {
    return this.#sum((of) => of.fragmentsJoined);
  }
  get tooBigSent(): number {
    return this.#sum((of) => of.tooBigSent);
  }

  get drops(): Drops {
    const both = (side: Side) => {
      const [four, six] = [this.families[4].drops[side], this.families[6].drops[side]];
      const names = Object.keys(DROPS) as DropReason[];
      return Object.fromEntries(names.map((name) => [name, four[name] + six[name]])) as Record<
        DropReason,
        number
      >;
    };
    return { in: both('in'), out: both('out') };
  }

  /** The counters for a packet as it now is. */
  of(packet: Packet): FamilyStats {
    return this.families[familyOf(packet)];
  }

  drop(side: Side, reason: DropReason, family: Family): void {
    this.families[family].drops[side][reason]++;
  }

  /** All reasons that have counted, with their numbers: what `status` shows. */
  dropped(side: Side): [DropReason, number][] {
    const rows = Object.entries(this.drops[side]) as [DropReason, number][];
    return rows.filter(([, count]) => count > 0);
  }

  #sum(of: (family: FamilyStats) => number): number {
    return of(this.families[4]) + of(this.families[6]);
  }
}

/** By the version in the first octet; what is no packet at all counts as IPv4. */
export function familyOf(packet: Packet): Family {
  return packet.len > 0 && u8(packet.bytes, packet.at) >>> 4 === 6 ? 6 : 4;
}

function noDrops(): Record<DropReason, number> {
  const names = Object.keys(DROPS) as DropReason[];
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<DropReason, number>;
}
