import { existsSync, readFileSync } from 'node:fs';
import { fromHex } from '../../src/wire/bytes.ts';
import { projectFile } from '../files.ts';
import type { Target } from './target.ts';
import { captures } from './targets/captures.ts';
import { host } from './targets/host.ts';
import { keyEngine } from './targets/key-engine.ts';
import { pfkey } from './targets/pfkey.ts';
import { pfkeySocket } from './targets/pfkey-socket.ts';
import { policy } from './targets/policy.ts';
import { reassembly } from './targets/reassembly.ts';
import { search } from './targets/search.ts';
import { segments } from './targets/segments.ts';
import { setkey } from './targets/setkey.ts';
import { tun } from './targets/tun.ts';
import { wire } from './targets/wire.ts';

/**
 * Everything that takes octets from outside, with the inputs that were kept since each once found
 * something.
 */
export const TARGETS: readonly Target[] = [
  host,
  wire,
  captures,
  reassembly,
  pfkey,
  keyEngine,
  pfkeySocket,
  setkey,
  policy,
  search,
  segments,
  tun,
].map(withKept);

function withKept(target: Target): Target {
  return { ...target, seeds: () => [...target.seeds(), ...keptInputs(target.name)] };
}

export function keptInputs(name: string): Uint8Array[] {
  const file = projectFile(`test/fuzz/seeds/${name}.hex`);
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8').split('\n').filter(Boolean).map(fromHex);
}
