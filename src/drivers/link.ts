import type { PacketSink } from '../wire/packet.ts';

/**
 * A place where whole IP packets come in and go out, in batches. The handler set by `receive`
 * borrows its packets until it returns; so does `send`. A link that cannot take a packet counts it
 * (`refused`) and drops it: nothing queues without bound.
 */
export interface Link {
  readonly name: string;
  /** Sets who gets what arrives. Before it is set, nothing is read. */
  receive(handler: PacketSink): void;
  send: PacketSink;
  /** Packets that the link could not send, or had no room for. */
  readonly refused: number;
  close(): void;
}
