import type { Link } from '../link.ts';
import { TUN_DEFAULT } from './attachment.ts';
import { libc } from './libc.ts';
import { families } from './network.ts';
import type { OffloadWish } from './offload.ts';
import { openRaw } from './raw.ts';
import type { Share } from './share.ts';
import { openTun } from './tun.ts';
import { openUdpEncap } from './udp.ts';
import { mergeWire, type RefusingLink } from './wire-link.ts';

export interface ShareLinksOptions {
  readonly tunName?: string;
  readonly mark: number;
  readonly encapPort?: number;
  readonly rawIp: boolean;
  readonly offload?: OffloadWish;
  readonly share: Share;
}

/** A further queue of the TUN device, and sockets for a part of what the wire brings. */
export interface ShareLinks {
  readonly local: Link;
  readonly wire: RefusingLink;
  close(): void;
}

/**
 * What another thread needs to work beside an `attach` with `workers`. Everything that is set on
 * the machine stays that one's business. Throws an Error, with everything undone.
 */
export function openShareLinks(options: ShareLinksOptions): ShareLinks {
  const { tunName = TUN_DEFAULT, mark, encapPort, rawIp, offload = 'auto', share } = options;
  libc('TUN');
  const all = families();
  const opened: { close(): void }[] = [];
  const close = () => {
    for (const one of opened.splice(0).reverse()) one.close();
  };
  try {
    const raw = openRaw({ mark, families: all, protocols: [50, 51], share });
    opened.push(raw);
    const udp =
      encapPort === undefined
        ? undefined
        : openUdpEncap({ port: encapPort, mark, families: all, offload, share });
    if (udp) opened.push(udp);
    const local = openTun({ name: tunName, mtu: 0, offload, queue: 'further' });
    opened.push(local);
    return { local, wire: mergeWire(raw, udp, rawIp), close };
  } catch (error) {
    close();
    throw error;
  }
}
