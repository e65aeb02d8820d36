import { addressFrom, prefixHas } from '../base/address.ts';
import { DROPS, type DropReason } from '../base/drop.ts';
import { KeyError } from '../base/error.ts';
import { explanationLine } from '../engine/explain-text.ts';
import type { Side } from '../engine/stats.ts';
import { SamplingTracer, type TraceFilter, type TraceLine, type Tracer } from '../engine/tracer.ts';
import { protocolNumber } from '../setkey/upper.ts';
import type { Packet } from '../wire/packet.ts';
import type { ControlArgs, ControlServer, ControlStream } from './control-server.ts';
import type { Daemon } from './daemon.ts';
import { type End, familyOfEnds, parseEnd } from './end-text.ts';

const PER_SECOND_USUAL = 10;
const PER_SECOND_MAX = 1000;
const TRACES_MAX = 16;

/** `trace` with `selector` and `perSecond`: goes on, with a `TraceLine` for each packet shown. */
export function addTraceCommand(control: ControlServer, daemon: Daemon): void {
  control.command('trace', (args, stream) => trace(daemon, args, stream));
}

async function trace(daemon: Daemon, args: ControlArgs, stream: ControlStream): Promise<void> {
  if (!daemon.isAttached) throw new KeyError('EAGAIN', 'the host is starting or stopping');
  const { selector, perSecond = PER_SECOND_USUAL } = args;
  if (typeof selector !== 'string') throw new KeyError('EINVAL', '"selector" must be a text');
  const isRate = typeof perSecond === 'number' && Number.isInteger(perSecond);
  if (!isRate || perSecond < 1 || perSecond > PER_SECOND_MAX) {
    const range = `a whole number from 1 to ${PER_SECOND_MAX}`;
    throw new KeyError('EINVAL', `"perSecond" must be ${range}`);
  }
  const stop = startTrace(daemon, selector, perSecond, (line) => void stream.send(line));
  await new Promise<void>((resolve) => {
    if (stream.signal.aborted) resolve();
    stream.signal.addEventListener('abort', () => resolve());
  });
  stop();
}

/**
 * Shows packets that a selector names until the function returned is called. Throws EINVAL for a
 * selector that is none, EBUSY when too many traces are on, EOPNOTSUPP where this thread does not
 * see all packets.
 */
export function startTrace(
  daemon: Daemon,
  selector: string,
  perSecond: number,
  emit: (line: TraceLine) => void,
): () => void {
  const { host, keys, env } = daemon;
  if (daemon.shards) throw new KeyError('EOPNOTSUPP', 'a trace needs a host with --workers 1');
  const tracer = new SamplingTracer({
    ...{ clock: env.clock, filter: parseFilter(selector), perSecond, emit },
    explain: (side, octets) => {
      const isNegotiated = (protocol: 'esp' | 'ah') => keys.isNegotiated(protocol);
      return host.explain(side, [octets], { isNegotiated })[0]!;
    },
  });
  const all = host.tracer instanceof Tracers ? host.tracer : new Tracers();
  if (all.list.size === TRACES_MAX) throw new KeyError('EBUSY', `${TRACES_MAX} traces are on`);
  all.list.add(tracer);
  host.tracer = all;
  return () => {
    all.list.delete(tracer);
    if (all.list.size === 0 && host.tracer === all) host.tracer = undefined;
  };
}

/** Several at once, each with its own filter. */
class Tracers implements Tracer {
  readonly list = new Set<Tracer>();

  seen(side: Side, packets: readonly Packet[], count: number): void {
    for (const one of this.list) one.seen(side, packets, count);
  }

  dropped(side: Side, reason: DropReason, packet: Packet | undefined): void {
    for (const one of this.list) one.dropped(side, reason, packet);
  }
}

/**
 * Reads `[in|out] [protocol|any [source [destination]]]`, such as `out tcp 10.0.0.0/8 any[80]`, or
 * the name of a reason for drops. What comes in is judged by its outermost header: opening every
 * packet to look for some would cost too much. Throws EINVAL.
 */
export function parseFilter(text: string): TraceFilter {
  const words = text.trim().split(/\s+/);
  if (words.length === 1 && words[0]! in DROPS) return { reason: words[0] as DropReason };
  const side = words[0] === 'in' || words[0] === 'out' ? (words.shift() as Side) : undefined;
  const [upper = 'any', source = 'any', destination = 'any', ...rest] = words;
  if (rest.length > 0) {
    throw new KeyError('EINVAL', `"${text.slice(0, 80)}": expected the end behind the destination`);
  }
  const protocol = upper === 'any' || upper === '' ? undefined : protocolNumber(upper);
  if (protocol === undefined && upper !== 'any' && upper !== '') {
    const expected = 'a protocol, any, or a reason for drops';
    throw new KeyError('EINVAL', `"${upper.slice(0, 40)}": expected ${expected}`);
  }
  const [src, dst] = [parseEnd(source), parseEnd(destination)];
  const family = familyOfEnds(src, dst);
  const fits = (end: End, p: Uint8Array, at: number, ofPacket: 4 | 6) =>
    end.prefix === undefined || prefixHas(end.prefix, addressFrom(ofPacket, p, at));
  return {
    matches: (seenOn, p, cursor) =>
      (side === undefined || side === seenOn) &&
      (family === undefined || family === cursor.family) &&
      (protocol === undefined || protocol === cursor.protocol) &&
      (src.port === undefined || (cursor.portsKnown && src.port === cursor.sport)) &&
      (dst.port === undefined || (cursor.portsKnown && dst.port === cursor.dport)) &&
      fits(src, p, cursor.srcAt, cursor.family) &&
      fits(dst, p, cursor.dstAt, cursor.family),
  };
}

/** One line for people. */
export function traceText(line: TraceLine): string {
  const time = new Date(line.wallMs).toTimeString().slice(0, 8);
  switch (line.kind) {
    case 'packet':
      return `${time} ${explanationLine(line.explanation)}`;
    case 'drop': {
      const { side, reason, text, packet, advice } = line;
      return `${time} ${side} ${packet?.text ?? 'a fragment'}: DROPPED, ${reason}: ${text}; to do: ${advice}`;
    }
    case 'missed':
      return `${time} … ${line.count} more`;
  }
}
