import type { DropReason } from '../base/drop.ts';
import type { Side } from './stats.ts';

/**
 * Why a packet fares as it does: plain data, which survives JSON. Texts are for people, and may
 * change; the other fields are for programs.
 */
export interface Explanation {
  readonly side: Side;
  readonly packet: PacketText;
  /** Coming in: the layers that were taken off, or at which it failed; outermost first. */
  readonly opened: readonly OpenedLayer[];
  /** The packet that the policy was asked about, when it is not the one that came. */
  readonly inner?: PacketText;
  readonly policy?: PolicyChoice;
  /** What the policy asks for, innermost first, and what there is for it. */
  readonly requests: readonly RequestStep[];
  readonly size?: SizeStep;
  readonly outcome: Outcome;
  /** The first packet on the wire, where it was asked for. */
  readonly layout?: Layout;
}

export interface PacketText {
  /** One line as tcpdump would write it. */
  readonly text: string;
  /** Octets, IP header included. */
  readonly len: number;
}

export interface OpenedLayer {
  readonly protocol: 'esp' | 'ah';
  readonly spi: number;
  /** Undefined: there is none. */
  readonly sa?: SaText;
  /** `opened`: authentic and new, and its content is known. */
  readonly state: 'opened' | 'failed';
  /** SAs that are nearly the one that the packet names. */
  readonly near: readonly RefusedSa[];
}

export interface PolicyChoice {
  readonly direction: 'in' | 'out';
  /** The socket that the packet is of, or for, if it is in the table of sockets. */
  readonly socket?: SocketText;
  /** Policies in front of the one that was found, with what is not as they want it. */
  readonly considered: readonly RefusedPolicy[];
  /** How many more were looked at and do not fit. */
  readonly notShown: number;
  /** There are so many policies that only the answer was asked for. */
  readonly notLookedAt?: number;
  readonly found?: PolicyText;
  /** What decides when no policy does. */
  readonly byDefault?: { readonly setting: string; readonly value: 'none' | 'discard' };
  /** Of the flow that an ICMP error quotes, and goes by when no policy is about itself. */
  readonly quoted?: PolicyText;
  /** Why the policy, or the default, is not for this packet. */
  readonly exempt?: string;
}

export interface SocketText {
  /** `protocol 17 10.0.0.1[5000] any[any]`, its own end first. */
  readonly ends: string;
  readonly rule: 'bypass' | 'entrust' | 'ipsec';
  readonly privileged: boolean;
  /** Whether its own policy is the one that decides, which then is `found`. */
  readonly decides: boolean;
  /** Why the packet is its own, and why its policy decides or does not. */
  readonly match: string;
  readonly why: string;
}

export interface PolicyText {
  readonly id: number;
  readonly selector: string;
  readonly type: 'discard' | 'none' | 'ipsec';
  readonly priority: number;
  readonly requests: readonly string[];
}

export interface RefusedPolicy {
  readonly policy: PolicyText;
  readonly field: string;
  readonly why: string;
}

export interface RequestStep {
  readonly request: string;
  /** After defaults. */
  readonly level: 'use' | 'require';
  /** Where the level is from: `policy`, or the variable that says what `default` means. */
  readonly levelFrom: string;
  /** The SA that protects the packet, or did. */
  readonly sa?: SaText;
  /** Octets of the packet with this layer on. */
  readonly len?: number;
  readonly refused: readonly RefusedSa[];
  /** Coming in: what about the packet's layers is not as the request wants it. */
  readonly unmet?: string;
}

export interface SaText {
  readonly protocol: 'esp' | 'ah';
  readonly spi: number;
  readonly src: string;
  readonly dst: string;
  readonly mode: 'any' | 'transport' | 'tunnel';
  readonly state: string;
  readonly reqid: number;
  /** Names as setkey(8) has them. */
  readonly algorithms: readonly string[];
  /** The last sequence number sent, and the highest received. */
  readonly sentSeq: number;
  readonly replayTop: number;
  readonly replayPackets: number;
}

export interface RefusedSa {
  readonly sa: SaText;
  readonly why: string;
}

export interface SizeStep {
  readonly before: number;
  readonly after: number;
  readonly mtu: number;
  readonly verdict: 'fits' | 'fragments' | 'too-big' | 'too-long';
  /** Too big: the size that the sender is told. */
  readonly reported?: number;
}

export type Outcome =
  | {
      readonly kind: 'clear' | 'protected' | 'delivered';
      readonly packets: readonly PacketText[];
    }
  /** Not decided yet: `reason` is how it ends when what it waits for does not come. */
  | { readonly kind: 'waits'; readonly reason: DropReason; readonly text: string }
  | {
      readonly kind: 'dropped';
      readonly reason: DropReason;
      readonly text: string;
      /** The entry or setting that decided, or what about the packet did. */
      readonly fault: string;
      readonly advice: string;
    };

export interface Layout {
  readonly fields: readonly LayoutField[];
  /** Hexadecimal; what would be ciphertext is random. */
  readonly octets: string;
}

export interface LayoutField {
  readonly at: number;
  readonly len: number;
  readonly what: string;
}
