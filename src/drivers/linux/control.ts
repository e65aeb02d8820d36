import { PROTO } from '../../wire/protocol.ts';
import type { MessageVector } from './messages.ts';
import { IPPROTO_IP, IPPROTO_IPV6 } from './socket.ts';

/**
 * Socket options that make the kernel tell about the IP header, and the control data that they make
 * (Linux's numbers).
 */
export const IP_PKTINFO = 8;
export const IP_RECVTTL = 12;
export const IP_RECVTOS = 13;
export const IPV6_FLOWINFO = 11;
export const IPV6_V6ONLY = 26;
export const IPV6_RECVPKTINFO = 49;
export const IPV6_RECVHOPLIMIT = 51;
export const IPV6_RECVHOPOPTS = 53;
export const IPV6_RECVRTHDR = 56;
export const IPV6_RECVDSTOPTS = 58;
export const IPV6_RECVTCLASS = 66;
export const IP_TOS = 1;
export const IP_TTL = 2;
export const IPV6_PKTINFO = 50;
export const IPV6_HOPLIMIT = 52;
export const IPV6_TCLASS = 67;
export const SOL_UDP = 17;
/** Going out: octets of each datagram in the message. */
export const UDP_SEGMENT = 103;
/** Coming in: the same, from a socket with this option on. */
export const UDP_GRO = 104;

/** Which extension header each kind of control data holds, whole, with its next header. */
const EXTENSION = new Map<number, number>([
  [54, PROTO.HOPOPTS],
  [57, PROTO.ROUTING],
  [59, PROTO.DSTOPTS],
]);

/**
 * Octets of control data for one message: two extension headers of the longest kind would be 4,096.
 */
export const CONTROL_LEN = 4608;

/**
 * What the control data of one message says about the IP header that the kernel took off. Used
 * again for each message.
 */
export class Control {
  /** Where the destination address is in the vector's bytes, or -1. */
  dstAt = -1;
  trafficClass = 0;
  hopLimit = 64;
  flowLabel = 0;
  /** Octets of each datagram, when the message is several in a row; else 0. */
  segment = 0;
  /**
   * Extension headers in the order in which they stood in the packet: begin and end in the vector's
   * bytes.
   */
  readonly extensions: { at: number; end: number }[] = [];
  /** The protocol of the first extension header, or -1. */
  firstExtension = -1;
  #vector: MessageVector | undefined;

  read(vector: MessageVector, i: number): void {
    this.dstAt = -1;
    this.trafficClass = 0;
    this.hopLimit = 64;
    this.flowLabel = 0;
    this.segment = 0;
    this.extensions.length = 0;
    this.firstExtension = -1;
    this.#vector = vector;
    vector.eachControl(i, this.#visit);
  }

  readonly #visit = (level: number, type: number, at: number, end: number): void => {
    if (level === IPPROTO_IP) this.#visit4(type, at, end);
    else if (level === IPPROTO_IPV6) this.#visit6(type, at, end);
    else if (level === SOL_UDP && type === UDP_GRO && end - at >= 2) this.#visitUdp(at);
  };

  #visit4(type: number, at: number, end: number): void {
    const { bytes, view } = this.#vector!;
    if (type === IP_PKTINFO && end - at >= 12) this.dstAt = at + 8;
    else if (type === IP_TOS && end > at) this.trafficClass = bytes[at]!;
    else if (type === IP_TTL && end - at >= 4) this.hopLimit = view.getInt32(at, true) & 255;
  }

  #visit6(type: number, at: number, end: number): void {
    const { view } = this.#vector!;
    if (type === IPV6_PKTINFO && end - at >= 16) this.dstAt = at;
    else if (type === IPV6_HOPLIMIT) this.hopLimit = view.getInt32(at, true) & 255;
    else if (type === IPV6_TCLASS) this.trafficClass = view.getInt32(at, true) & 255;
    else if (type === IPV6_FLOWINFO) this.flowLabel = view.getUint32(at, false) & 0xf_ffff;
    else this.#visitExtension(type, at, end);
  }

  #visitUdp(at: number): void {
    this.segment = this.#vector!.view.getUint16(at, true);
  }

  #visitExtension(type: number, at: number, end: number): void {
    const protocol = EXTENSION.get(type);
    if (protocol === undefined) return;
    if (this.extensions.length === 0) this.firstExtension = protocol;
    this.extensions.push({ at, end });
  }
}
