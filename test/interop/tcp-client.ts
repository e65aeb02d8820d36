import * as bytes from '../../src/wire/bytes.ts';
import * as tcp from '../../src/wire/tcp.ts';

/**
 * Octets of data per segment: with every header that these tests put around it, still below 1500.
 */
const SEGMENT_LEN = 1280;
/** What we let the peer send at once; without window scaling (RFC 7323) no more than 65,535. */
const WINDOW = 60_000;
const RETRANSMIT_MS = 300;
const RETRANSMITS_MAX = 30;
const SEQ_MOD = 2 ** 32;
/** The sequence number of the stream's first octet. */
const BASE = 1;

/**
 * One TCP connection that sends a stream, ends it, and collects what comes back: a test tool, with
 * what RFC 9293 needs for that and no more. Segments out of order are thrown away, and after
 * silence everything unacknowledged is sent again.
 */
export class TcpClient {
  readonly #ports: readonly [number, number];
  readonly #data: Uint8Array;
  readonly #send: (segment: Uint8Array) => void;
  readonly #received: Uint8Array[] = [];
  readonly #done: Promise<Uint8Array>;
  #resolve: (all: Uint8Array) => void = () => {};
  #reject: (why: Error) => void = () => {};
  #state: 'closed' | 'opening' | 'open' | 'over' = 'closed';
  /**
   * Octets of the stream that were sent, and acknowledged; the end of the stream counts as one
   * more.
   */
  #sent = 0;
  #acked = 0;
  #peerWindow = 0;
  #peerSegmentLen = 536;
  /** The next sequence number that we expect. */
  #expected = 0;
  #timer: NodeJS.Timeout | undefined;
  #silences = 0;

  constructor(
    ownPort: number,
    peerPort: number,
    data: Uint8Array,
    send: (segment: Uint8Array) => void,
  ) {
    this.#ports = [ownPort, peerPort];
    this.#data = data;
    this.#send = send;
    this.#done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Resolves to what the peer has sent when both streams have ended. */
  async run(): Promise<Uint8Array> {
    this.#state = 'opening';
    this.#synchronize();
    this.#restart();
    try {
      return await this.#done;
    } finally {
      clearTimeout(this.#timer);
      this.#state = 'over';
    }
  }

  /** A segment of this connection, octets `at` to `end`. */
  arrived(p: Uint8Array, at: number, end: number): void {
    if (tcp.check(p, at, end) !== undefined || this.#state === 'over') return;
    const flags = tcp.flags(p, at);
    if (flags & tcp.FLAG.RST) return this.#reject(new Error('connection reset by the peer'));
    if (this.#state === 'opening') {
      if ((flags & (tcp.FLAG.SYN | tcp.FLAG.ACK)) === (tcp.FLAG.SYN | tcp.FLAG.ACK)) {
        this.#opened(p, at);
      }
      return;
    }
    this.#acknowledged(p, at);
    this.#take(p, at, end, flags);
  }

  #opened(p: Uint8Array, at: number): void {
    this.#state = 'open';
    this.#expected = (tcp.seq(p, at) + 1) % SEQ_MOD;
    this.#peerWindow = tcp.window(p, at);
    const mssAt = tcp.mssAt(p, at);
    if (mssAt !== 0) this.#peerSegmentLen = bytes.u16(p, mssAt);
    this.#silences = 0;
    this.#restart();
    this.#acknowledge();
    this.#pump();
  }

  #acknowledged(p: Uint8Array, at: number): void {
    const progress = (tcp.ack(p, at) - BASE - this.#acked + 2 * SEQ_MOD) % SEQ_MOD;
    this.#peerWindow = tcp.window(p, at);
    if (progress > 0 && progress <= this.#sent - this.#acked) {
      this.#acked += progress;
      this.#silences = 0;
      this.#restart();
    }
    this.#pump();
  }

  #take(p: Uint8Array, at: number, end: number, flags: number): void {
    const dataAt = at + tcp.headerLen(p, at);
    const hasEnd = (flags & tcp.FLAG.FIN) !== 0;
    if (end === dataAt && !hasEnd) return;
    if (tcp.seq(p, at) !== this.#expected) return this.#acknowledge();
    this.#received.push(p.slice(dataAt, end));
    this.#expected = (this.#expected + end - dataAt + (hasEnd ? 1 : 0)) % SEQ_MOD;
    this.#silences = 0;
    this.#restart();
    this.#acknowledge();
    if (hasEnd) this.#resolve(joined(this.#received));
  }

  /** Sends what the peer's window allows. */
  #pump(): void {
    const total = this.#data.length;
    const limit = Math.min(total, this.#acked + this.#peerWindow);
    const most = Math.min(SEGMENT_LEN, this.#peerSegmentLen);
    while (this.#sent < limit) {
      const len = Math.min(most, limit - this.#sent);
      // A short segment in the middle of the stream is worth waiting for more window (RFC 9293
      // §3.8.6.2.1).
      if (len < most && this.#sent + len < total && this.#sent > this.#acked) return;
      this.#segment(this.#sent, this.#data.subarray(this.#sent, this.#sent + len), 0);
      this.#sent += len;
    }
    if (this.#sent === total) {
      this.#segment(total, new Uint8Array(0), tcp.FLAG.FIN);
      this.#sent = total + 1;
    }
  }

  #acknowledge(): void {
    this.#segment(this.#sent, new Uint8Array(0), 0);
  }

  #restart(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#silence(), RETRANSMIT_MS);
  }

  #silence(): void {
    this.#silences++;
    if (this.#silences > RETRANSMITS_MAX) {
      return this.#reject(
        new Error(`the peer is silent: ${this.#acked} of ${this.#data.length} octets acknowledged`),
      );
    }
    this.#restart();
    if (this.#state === 'opening') return this.#synchronize();
    this.#sent = this.#acked;
    if (this.#acked > this.#data.length) this.#acknowledge();
    else this.#pump();
  }

  #synchronize(): void {
    const segment = new Uint8Array(tcp.HEADER_LEN + 4);
    this.#write(segment, BASE - 1, 0, tcp.FLAG.SYN);
    bytes.setU32(segment, tcp.HEADER_LEN, (tcp.OPTION.MSS << 24) | (4 << 16) | SEGMENT_LEN);
    this.#send(segment);
  }

  #segment(streamAt: number, data: Uint8Array, flags: number): void {
    const segment = new Uint8Array(tcp.HEADER_LEN + data.length);
    this.#write(segment, BASE + streamAt, this.#expected, flags | tcp.FLAG.ACK);
    segment.set(data, tcp.HEADER_LEN);
    this.#send(segment);
  }

  #write(segment: Uint8Array, seq: number, ack: number, flags: number): void {
    const options = flags & tcp.FLAG.SYN ? 4 : 0;
    bytes.setU16(segment, 0, this.#ports[0]);
    bytes.setU16(segment, 2, this.#ports[1]);
    bytes.setU32(segment, 4, seq);
    bytes.setU32(segment, 8, ack);
    bytes.setU8(segment, 12, ((tcp.HEADER_LEN + options) / 4) << 4);
    tcp.setFlags(segment, 0, flags);
    bytes.setU16(segment, 14, WINDOW);
  }
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}
