import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Testbed } from '../testbed.ts';
import type { Tunnel } from '../variant.ts';
import type { Sent } from './datagram-program.ts';

const PROGRAM = fileURLToPath(new URL('./datagram-program.js', import.meta.url));
const PORT = 5300;
const HEADERS_LEN = 20 + 8;

/** Datagrams a second that are offered, one rate after the other. */
export const RATES = [10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700].map((k) => 1000 * k);
/** At which of them the loss is reported. */
export const COMMON_RATE = 100_000;
/** A rate is sustained if no more than this share is lost. */
const LOSS_MAX = 0.01;

/** Lengths of IP packets, in turn. */
export const MIXES = {
  '64': [64],
  '512': [512],
  '1400': [1400],
  /** The usual mix of seven small, four middling and one large packet. */
  IMIX: [64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 576, 64],
} as const;
export type Mix = keyof typeof MIXES;

export interface Step extends Sent {
  readonly received: number;
}

export interface Datagrams {
  /** The most datagrams a second that arrived while no more than 1 % was lost; 0: never. */
  readonly sustained: number;
  /** The most that arrived, whatever was lost. */
  readonly most: number;
  /** Share that was lost at the common rate, or NaN if the sender did not reach it. */
  readonly lossAtCommon: number;
  readonly steps: readonly Step[];
}

/** Datagrams from A to B at rising rates; all of it takes about so many seconds. */
export async function datagrams(
  bed: Testbed,
  { from, to }: Tunnel,
  mix: Mix,
  seconds: number,
): Promise<Datagrams> {
  const node = process.execPath;
  const receiver = bed.lab.spawn(bed.b.space, node, [PROGRAM, 'receive', to, String(PORT)]);
  let said = '';
  receiver.stdout!.on('data', (text) => {
    said += text;
  });
  const closed = once(receiver, 'close');
  await Promise.race([once(receiver.stdout!, 'data'), closed]);
  const payloads = MIXES[mix].map((octets) => octets - HEADERS_LEN).join(',');
  const milliseconds = String(Math.round((1000 * seconds) / RATES.length));
  const args = ['send', from, to, String(PORT), payloads, RATES.join(','), milliseconds];
  const { stdout, stderr } = await bed.lab.run(bed.a.space, node, [PROGRAM, ...args]);
  await closed;
  const counts = /\[.*\]/.exec(said)?.[0];
  if (stdout === '' || counts === undefined) throw new Error(`datagrams: ${stderr}`);
  const received = JSON.parse(counts) as number[];
  const sent = JSON.parse(stdout) as Sent[];
  return judge(sent.map((step, i) => ({ ...step, received: received[i] ?? 0 })));
}

/** What the steps say. */
export function judge(steps: readonly Step[]): Datagrams {
  const rate = ({ received, milliseconds }: Step) => (1000 * received) / milliseconds;
  const loss = ({ received, sent }: Step) => (sent === 0 ? 0 : 1 - received / sent);
  const common = steps.find((step) => step.rate === COMMON_RATE);
  // A sender that was too slow by a tenth has offered something else.
  const reached =
    common !== undefined && common.sent / common.milliseconds > 0.9 * (COMMON_RATE / 1000);
  return {
    sustained: Math.max(0, ...steps.filter((step) => loss(step) <= LOSS_MAX).map(rate)),
    most: Math.max(0, ...steps.map(rate)),
    lossAtCommon: reached ? loss(common) : Number.NaN,
    steps,
  };
}
