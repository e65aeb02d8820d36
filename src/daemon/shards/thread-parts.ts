import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import type { LogLevel } from '../../base/env.ts';
import { slotsAt } from '../../drivers/linux/batch.ts';
import { libc } from '../../drivers/linux/libc.ts';
import { packetMemory } from '../../drivers/linux/packet-memory.ts';
import type { ShareLinksOptions } from '../../drivers/linux/share-links.ts';
import type { TierName } from '../../drivers/native/tier.ts';
import { BATCH_MAX } from '../../engine/flight.ts';
import { PACKET_LEN_MAX, PACKET_LEN_SMALL, slotLen } from '../../wire/packet.ts';
import type { ExchangeSlots } from './exchange.ts';
import type { ShardMemory } from './memory.ts';
import type { Port } from './messages.ts';

/** What the thread of a shard is started with. */
export interface ThreadStart {
  readonly self: number;
  readonly memory: ShardMemory;
  /** Descriptors that wake the event loop of each shard. */
  readonly wakes: readonly number[];
  readonly port: MessagePort;
  readonly links: Omit<ShareLinksOptions, 'share'>;
  readonly crypto: TierName;
  readonly logLevel: LogLevel;
  /** What the monotonic clock of the main thread is behind that of the machine, in milliseconds. */
  readonly clockBehindMs: number;
}

const LARGE_SLOTS = 8;

/** In the packet memory of this thread, where senders can take them from. */
export function exchangeSlots(): ExchangeSlots {
  const memory = packetMemory(libc('packet memory'));
  const take = (count: number, room: number) => {
    return slotsAt(memory, memory.take(count * slotLen(room)).at, count, room);
  };
  return {
    small: take(BATCH_MAX, PACKET_LEN_SMALL),
    large: take(LARGE_SLOTS, PACKET_LEN_MAX),
  };
}

/** What is posted at one end can be taken at the other at once, without a turn of its loop. */
export function portOf<In, Out>(port: MessagePort): Port<In, Out> {
  return {
    post: (message) => port.postMessage(message),
    take: () => receiveMessageOnPort(port)?.message as In | undefined,
  };
}

/** `performance.now()` counts from the start of its thread. */
export function clockBehindMs(): number {
  return Number(process.hrtime.bigint()) / 1e6 - performance.now();
}
