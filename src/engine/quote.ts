import { ADDRESS_LEN } from '../base/address.ts';
import type { Policy } from '../spd/policy.ts';
import { copy, equal, setU16 } from '../wire/bytes.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import { PROTO } from '../wire/protocol.ts';
import type { PolicyTable } from './core.ts';
import type { Side } from './stats.ts';

/** An ICMPv6 error is no longer than this (RFC 4443 §2.4(c)), one for IPv4 need not be. */
const QUOTE_LEN_MAX = 1280;

/** Whether a decoded packet is an ICMP error, which reports about another packet. */
export function isIcmpError(p: Uint8Array, cursor: Cursor): boolean {
  return (
    cursor.protocol === icmp.protocolOf(cursor.family) &&
    cursor.portsKnown &&
    icmp.isError(p, cursor.upperAt, cursor.family)
  );
}

/**
 * The packet that an ICMP error quotes: its headers, and as much of it as is there. One object for
 * all, read anew for each error.
 */
export class Quote {
  /** A copy whose length fields say how much is quoted. */
  readonly bytes = new Uint8Array(QUOTE_LEN_MAX);
  readonly cursor = new Cursor();
  /** How long the packet was, by its own header. */
  totalLen = 0;
  /** Whether the error went to whom the packet came from, as an honest one does. */
  isToSender = false;

  /** False if what is quoted cannot be read. `error` is an ICMP error. */
  read(p: Uint8Array, error: Cursor): boolean {
    const { family } = error;
    const at = error.upperAt + icmp.HEADER_LEN;
    const headerLen = family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
    const len = Math.min(error.end - at, QUOTE_LEN_MAX);
    if (len < headerLen) return false;
    const q = this.bytes;
    copy(p, at, q, 0, len);
    if (family === 4) {
      this.totalLen = ipv4.totalLen(q, 0);
      ipv4.setTotalLen(q, 0, Math.min(len, this.totalLen));
    } else {
      this.totalLen = ipv6.HEADER_LEN + ipv6.payloadLen(q, 0);
      ipv6.setPayloadLen(q, 0, Math.min(len, this.totalLen) - ipv6.HEADER_LEN);
    }
    const bad = decode(q, 0, len, this.cursor);
    if (bad !== undefined || this.cursor.family !== family) return false;
    this.isToSender = equal(q, this.cursor.srcAt, p, error.dstAt, ADDRESS_LEN[family]);
    return true;
  }

  /**
   * The policy for what would answer the quoted packet: RFC 4301 §6.2 finds the SA for an error by
   * it. To be called once after `read`, since it turns the copy round.
   */
  policyOfAnswer(spd: PolicyTable, side: Side): Policy | 'none' | 'ports-unknown' {
    this.turn();
    return spd.lookup(side, this.bytes, this.cursor);
  }

  /** Makes of the copy what would answer the quoted packet. Once after `read`. */
  turn(): void {
    const { bytes: q, cursor } = this;
    const len = ADDRESS_LEN[cursor.family];
    const src = q.slice(cursor.srcAt, cursor.srcAt + len);
    copy(q, cursor.dstAt, q, cursor.srcAt, len);
    q.set(src, cursor.dstAt);
    this.#turnPorts();
  }

  #turnPorts(): void {
    const { bytes: q, cursor } = this;
    if (!cursor.portsKnown) return;
    if (cursor.protocol === PROTO.ICMP || cursor.protocol === PROTO.ICMPV6) {
      // An echo request is answered by a reply; nothing else of ICMP has ends to be exchanged.
      if (!icmp.isEcho(q, cursor.upperAt, cursor.family)) return;
      cursor.sport = cursor.family === 4 ? icmp.TYPE4.ECHO_REPLY : icmp.TYPE6.ECHO_REPLY;
      return;
    }
    const { sport, dport, upperAt } = cursor;
    if (sport === 0 && dport === 0) return;
    cursor.sport = dport;
    cursor.dport = sport;
    setU16(q, upperAt, dport);
    setU16(q, upperAt + 2, sport);
  }
}
