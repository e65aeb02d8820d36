import type { Profiler } from 'node:inspector';
import { Session } from 'node:inspector';

/** The parts of a packet's way that are told apart. */
export const STAGES = ['decide', 'prepare', 'crypto', 'complete'] as const;
export type Stage = (typeof STAGES)[number] | 'rest';

/** Shares of the time, which add up to 1. */
export type Shares = Readonly<Record<Stage, number>>;

/** Functions that do the cryptography, wherever they are called from. */
const CRYPTO = /^((seal|open)(Row)?(Later)?|#sealRow|run|ok|countOk|settle)$/;
const CRYPTO_FILE = /\/(crypto\/|native\/|engine\/crypto-round)[^/]*\.[jt]s$/;
/** As built, and as tests load them. */
const HOST_FILE = /\/engine\/host\.[jt]s$/;

/** Which function of the engine begins which stage, on the way out and in. */
const BEGINS: Readonly<Record<'seal' | 'open', Readonly<Record<string, Stage>>>> = {
  seal: {
    '#decide': 'decide',
    '#joins': 'decide',
    '#gather': 'decide',
    '#prepare': 'prepare',
    seal: 'crypto',
    '#complete': 'complete',
  },
  open: {
    '#read': 'prepare',
    '#lead': 'prepare',
    '#prepareAll': 'prepare',
    '#openAll': 'crypto',
    '#complete': 'complete',
    '#completeRow': 'complete',
    '#judge': 'decide',
    '#deliverRow': 'decide',
  },
};

/**
 * What the processor does while `work` runs, by a profiler that looks every 100 µs: so the engine
 * needs no clocks inside.
 */
export function profile(work: () => void): Profiler.Profile {
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.setSamplingInterval', { interval: 100 });
  session.post('Profiler.start');
  work();
  let found: Profiler.Profile | undefined;
  session.post('Profiler.stop', (error, result) => {
    if (error) throw error;
    found = result.profile;
  });
  session.disconnect();
  return found!;
}

/**
 * The share of each stage in what `Host.output` (`seal`) or `Host.input` (`open`) does. The garbage
 * collector is in none of them: nobody knows whose garbage it collects.
 */
export function sharesOf(of: Profiler.Profile, side: 'seal' | 'open'): Shares {
  const entry = side === 'seal' ? 'output' : 'input';
  const counts: Record<Stage, number> = {
    decide: 0,
    prepare: 0,
    crypto: 0,
    complete: 0,
    rest: 0,
  };
  const nodes = new Map(of.nodes.map((node) => [node.id, node]));
  const parents = new Map<number, number>();
  for (const { id, children = [] } of of.nodes) {
    for (const child of children) parents.set(child, id);
  }
  let total = 0;
  for (const node of of.nodes) {
    const path = [];
    for (let at: number | undefined = node.id; at !== undefined; at = parents.get(at)) {
      path.unshift(nodes.get(at)!.callFrame);
    }
    const stage = stageOf(path, entry, BEGINS[side]);
    if (stage === undefined) continue;
    counts[stage] += node.hitCount ?? 0;
    total += node.hitCount ?? 0;
  }
  const shares = Object.entries(counts).map(([stage, count]) => [stage, count / total]);
  return Object.fromEntries(shares) as Shares;
}

type Frame = { readonly functionName: string; readonly url: string };

/** Of a call path from the outermost function to the innermost; undefined: not of this side. */
function stageOf(
  path: readonly Frame[],
  entry: string,
  begins: Readonly<Record<string, Stage>>,
): Stage | undefined {
  const from = path.findIndex(({ functionName, url }) => {
    return functionName === entry && HOST_FILE.test(url);
  });
  if (from < 0) return undefined;
  const inside = path.slice(from + 1);
  const isCrypto = ({ functionName, url }: Frame) => {
    return CRYPTO.test(functionName) && CRYPTO_FILE.test(url);
  };
  if (inside.some(isCrypto)) return 'crypto';
  for (const { functionName } of inside) {
    const stage = begins[functionName];
    if (stage !== undefined) return stage;
  }
  return 'rest';
}
