import * as ipv4 from '../../src/wire/ipv4.ts';
import type { Case } from './drop-cases.ts';
import { Pair } from './pair.ts';
import type { Rig } from './rig.ts';

/** Packets of a host whose SAs another shard owns, which has no room for any. */
export function casesOfOtherShard(four: Uint8Array): (() => Case)[] {
  return [
    () => ({ side: 'out', rig: ofOtherShard(four).rig, packets: [four] }),
    () => ({ side: 'in', ...ofOtherShard(four) }),
  ];
}

/** Such a host, and what its peer answers to a packet. */
function ofOtherShard(four: Uint8Array): { rig: Rig; packets: readonly Uint8Array[] } {
  const no = () => false;
  const shard = {
    ...{ self: 0, mainDelivers: false, passOutput: no, passInput: no },
    ...{ referOutput: no, referInput: no, flush: () => {}, noteUsed: () => {} },
    peerMoved: () => {},
  };
  const pair = new Pair([{}], { shard, peer: { shard: undefined } });
  for (const one of pair.a.sad.all()) one.owner = 1;
  const turned = four.slice();
  turned.set(four.subarray(ipv4.DST_AT, ipv4.DST_AT + 4), ipv4.SRC_AT);
  turned.set(four.subarray(ipv4.SRC_AT, ipv4.SRC_AT + 4), ipv4.DST_AT);
  return { rig: pair.a, packets: pair.b.output(turned) };
}
