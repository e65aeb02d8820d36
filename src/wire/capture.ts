import { KeyError } from '../base/error.ts';
import type { CapturedPacket } from './linktype.ts';
import { isPcap, readPcap } from './pcap.ts';
import { isPcapng, readPcapng } from './pcapng.ts';

/**
 * The IP packets of a capture file of either kind. Throws EINVAL if it is neither, or malformed.
 */
export function readCapture(file: Uint8Array): Generator<CapturedPacket> {
  if (isPcapng(file)) return readPcapng(file);
  if (isPcap(file)) return readPcap(file);
  throw new KeyError('EINVAL', 'not a capture file: neither pcap nor pcapng at its start');
}
