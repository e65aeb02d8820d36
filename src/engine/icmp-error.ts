import { ADDRESS_LEN, type Address, addressFrom } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import type { Sa, SaProtocol } from '../sad/sa.ts';
import * as ah from '../wire/ah.ts';
import { equal, u32 } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import * as esp from '../wire/esp.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';
import { checkInput, meetsPolicy } from './check.ts';
import { type Core, noteDrop } from './core.ts';
import type { Flight } from './flight.ts';
import { isIcmpError, type Quote } from './quote.ts';
import { isEncapsulationPort } from './settings.ts';
import { policyOfSocket } from './socket-rule.ts';

/** What routers older than RFC 1191 may mean when they name no MTU (its §7.1). */
const PLATEAUS = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508] as const;

/** What every router quotes behind the IP header (RFC 792): of AH, no more than the SPI. */
const QUOTED_LEN_MIN = 8;

/**
 * Whether an ICMP error that came in may be handed on, as `checkInput` says it of other packets,
 * with what RFC 4301 §6 adds for errors:
 *
 *     in the clear, about a packet that we protected   only "too big" is believed, within bounds
 *     in the clear, about a flow that is protected     not handed on, whoever sent it
 *     through an SA                                    as any packet; if its own addresses do not
 *                                                      fit the policy, those that it quotes may
 */
export function judgeError(core: Core, flight: Flight): ReturnType<typeof checkInput> {
  const isClear = flight.layerCount === 0;
  const about = isClear ? noteError(core, flight.packet, flight.cursor, 'clear') : undefined;
  if (about !== undefined) return about;
  const verdict = checkInput(core, flight);
  if (verdict === undefined) {
    const about = isClear
      ? checkQuotedFlow(core, flight)
      : noteError(core, flight.packet, flight.cursor, 'protected');
    return about ?? checkQuotedSocket(core, flight);
  }
  const mayFit = verdict === 'policy-unprotected-selector' || verdict === 'policy-mismatch';
  return mayFit && !isClear && fitsByQuote(core, flight) ? undefined : verdict;
}

/**
 * Uses what an ICMP error says about a packet that this host has protected. The reason under which
 * it is counted, since nobody else has use for it; undefined if it is about something else, or came
 * through an SA and is for whoever is behind us to judge.
 */
export function noteError(
  core: Core,
  packet: Packet,
  cursor: Cursor,
  came: 'clear' | 'protected',
): DropReason | undefined {
  const { quote } = core;
  if (!quote.read(packet.bytes, cursor) || !quote.isToSender) return undefined;
  const sent = protectedPacket(core, quote);
  if (sent === undefined) return undefined;
  const { sa } = sent;
  if (sa === undefined) {
    // Others may have sent it: programs with IPsec of their own, hosts behind us.
    return came === 'clear' && isBetweenOurs(core, sent.protocol, quote) ? 'icmp-no-sa' : undefined;
  }
  if (!icmp.isTooBig(packet.bytes, cursor.upperAt, cursor.family)) {
    return came === 'clear' ? 'icmp-unauthenticated' : undefined;
  }
  if (!checksum.transportChecksumOk(packet.bytes, cursor)) return 'icmp-bad-checksum';
  return learn(core, sa, icmp.mtu(packet.bytes, cursor.upperAt, cursor.family));
}

/** One of the copies that `Host.overhear` is given. */
export function overhear(core: Core, packet: Packet): void {
  const cursor = new Cursor();
  if (decode(packet.bytes, packet.at, packet.end, cursor) !== undefined) return;
  if (cursor.isFragment || !isIcmpError(packet.bytes, cursor)) return;
  const reason = noteError(core, packet, cursor, 'clear');
  if (reason === undefined) return;
  core.stats.of(packet).inPackets++;
  noteDrop(core, 'in', reason, packet);
}

interface SentPacket {
  readonly protocol: SaProtocol;
  /** Undefined: no living SA has sent it. */
  readonly sa: Sa | undefined;
}

/** The SA that the quoted packet was sent with; undefined if it is neither ESP nor AH. */
function protectedPacket(core: Core, { bytes: q, cursor }: Quote): SentPacket | undefined {
  const { protocol, upperAt, end } = cursor;
  if (cursor.fragmentOffset !== 0) return undefined;
  if (protocol === PROTO.ESP) return find(core, q, cursor, 'esp', upperAt);
  if (protocol === PROTO.AH) return find(core, q, cursor, 'ah', upperAt);
  if (protocol !== PROTO.UDP || !cursor.portsKnown) return undefined;
  if (!isEncapsulationPort(core.settings, cursor.sport)) return undefined;
  const espAt = upperAt + udp.HEADER_LEN;
  // Four zero octets are IKE (RFC 3948 §2.2), whose errors are for the program that sent it; and
  // without the SPI nobody can tell.
  if (end - espAt < 4 || u32(q, espAt) === 0) return undefined;
  return find(core, q, cursor, 'esp', espAt);
}

function find(
  core: Core,
  q: Uint8Array,
  cursor: Cursor,
  protocol: SaProtocol,
  at: number,
): SentPacket | undefined {
  const header = protocol === 'esp' ? esp : ah;
  const quotedLen = cursor.end - at;
  if (quotedLen < QUOTED_LEN_MIN) return undefined;
  const seq = quotedLen < header.HEADER_LEN ? undefined : header.seq(q, at);
  for (const sa of core.sad.ofSpi(protocol, header.spi(q, at))) {
    if (sa.isUsable && isSender(sa, q, cursor) && hasSent(sa, seq)) return { protocol, sa };
  }
  return { protocol, sa: undefined };
}

function isSender(sa: Sa, q: Uint8Array, cursor: Cursor): boolean {
  const { src, dst, encapsulation } = sa.spec;
  if (!isAt(src, cursor, q, cursor.srcAt)) return false;
  // A tunnel follows its peer to another address; in transport mode the packet says where it goes.
  const isMoved = sa.peer !== undefined && isAt(sa.peer.address, cursor, q, cursor.dstAt);
  if (!isMoved && !isAt(dst, cursor, q, cursor.dstAt)) return false;
  if (cursor.protocol !== PROTO.UDP) return encapsulation === undefined;
  if (encapsulation === undefined || encapsulation.srcPort !== cursor.sport) return false;
  return (sa.peer?.port ?? encapsulation.dstPort) === cursor.dport;
}

/**
 * Who is not on the path has to guess the SPI and, with this, cannot use an SA that is silent. Of
 * 64-bit sequence numbers only half is in the packet, which then says too little.
 */
function hasSent(sa: Sa, seq: number | undefined): boolean {
  if (seq === undefined || sa.sentSeq > 0xffff_ffff) return sa.sentSeq > 0;
  return seq >= 1 && seq <= sa.sentSeq;
}

/** Whether SAs of ours go where the quoted packet went, so that nobody else can have sent it. */
function isBetweenOurs(core: Core, protocol: SaProtocol, quote: Quote): boolean {
  const { bytes: q, cursor } = quote;
  const { family, srcAt, dstAt } = cursor;
  const len = ADDRESS_LEN[family];
  const src = { family, bytes: q.subarray(srcAt, srcAt + len) };
  const dst = { family, bytes: q.subarray(dstAt, dstAt + len) };
  return core.sad.between(protocol, src, dst).length > 0;
}

function learn(core: Core, sa: Sa, reported: number): DropReason {
  const { quote, settings, paths } = core;
  const { bytes: q, cursor, totalLen } = quote;
  const { mode, tunnel } = sa.spec;
  if (cursor.family === 4) {
    // A router that may fragment does so. What we never send with DF cannot have been too big.
    const isNeverWhole = mode === 'tunnel' && (tunnel.df ?? settings.dfbit) === 'clear';
    if (isNeverWhole || !ipv4.dontFragment(q, 0)) return 'icmp-mtu-refused';
  }
  const mtu =
    reported === 0 && cursor.family === 4
      ? (PLATEAUS.find((plateau) => plateau < totalLen) ?? PLATEAUS.at(-1)!)
      : reported;
  // It said that a packet of this length was too long.
  if (mtu >= totalLen) return 'icmp-mtu-refused';
  const destination = addressFrom(cursor.family, q, cursor.dstAt);
  const outcome = paths.lower(destination, mtu, core.env.clock.monotonicMs());
  if (outcome === 'lowered') return 'icmp-path-mtu';
  return outcome === 'not-lower' ? 'icmp-mtu-refused' : 'icmp-too-many';
}

/**
 * No policy says anything about the error itself. If the flow that it quotes is protected, an error
 * in the clear is not: else anybody could end connections or make their segments small, from any
 * address.
 */
function checkQuotedFlow(core: Core, flight: Flight): DropReason | undefined {
  const { quote } = core;
  if (flight.policy !== undefined) return undefined;
  if (!quote.read(flight.packet.bytes, flight.cursor)) return undefined;
  const policy = quote.policyOfAnswer(core.spd, 'in');
  if (policy === 'none') return undefined;
  if (policy === 'ports-unknown') return 'icmp-flow-protected';
  if (policy.type !== 'ipsec') return undefined;
  return meetsPolicy(core, flight, policy) === undefined ? undefined : 'icmp-flow-protected';
}

/**
 * An error about what a socket of the table has sent is for that socket. In the clear it is not
 * handed on if the socket wants protection, by the same reason.
 */
function checkQuotedSocket(core: Core, flight: Flight): DropReason | undefined {
  const { quote, sockets } = core;
  if (sockets.size === 0 || !quote.read(flight.packet.bytes, flight.cursor)) return undefined;
  quote.turn();
  const { bytes, cursor } = quote;
  const socket = sockets.find('in', bytes, cursor);
  if (socket === undefined) return undefined;
  const own = socket.policies.in;
  const isOwn =
    own?.type === 'ipsec' && policyOfSocket(core.spd, socket, 'in', bytes, cursor) === own;
  if (isOwn && flight.layerCount === 0 && meetsPolicy(core, flight, own) !== undefined) {
    core.askedSocket?.(socket, flight.packet.bytes, flight.cursor, own);
    sockets.noteRefusal(socket);
    flight.policy = own;
    return 'icmp-flow-protected';
  }
  const { sockets: others = [] } = flight.takers ?? {};
  flight.takers = { sockets: [socket, ...others], others: flight.takers?.others ?? false };
  return undefined;
}

/** RFC 4301 §6.2: the answer to the quoted packet would be right in the SAs that the error used. */
function fitsByQuote(core: Core, flight: Flight): boolean {
  const { quote } = core;
  if (!quote.read(flight.packet.bytes, flight.cursor) || !quote.isToSender) return false;
  const policy = quote.policyOfAnswer(core.spd, 'in');
  if (typeof policy !== 'object' || policy.type !== 'ipsec') return false;
  if (meetsPolicy(core, flight, policy) !== undefined) return false;
  flight.policy = policy;
  return true;
}

function isAt(address: Address, cursor: Cursor, p: Uint8Array, at: number): boolean {
  return address.family === cursor.family && equal(address.bytes, 0, p, at, address.bytes.length);
}
