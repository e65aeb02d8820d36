import type { Clock } from '../base/env.ts';
import { pcapHeader, pcapRecord } from '../wire/pcap.ts';
import type { Link } from './link.ts';
import { traceLink } from './trace.ts';

/**
 * A link that writes a capture file of all its packets, in both directions. `write` appends octets
 * to the file; it gets the file's header at once, and then one record a packet.
 */
export function pcapLink(inner: Link, write: (octets: Uint8Array) => void, clock: Clock): Link {
  write(pcapHeader());
  return traceLink(inner, (_direction, { bytes, at, end }) => {
    write(pcapRecord(bytes, at, end, clock.wallMs()));
  });
}
