import type { Link } from '../link.ts';
import { TUN_DEFAULT } from './attachment.ts';
import { libc } from './libc.ts';
import { families } from './network.ts';
import type { OffloadWish } from './offload.ts';
import type { Share } from './share.ts';
import { openTun } from './tun.ts';
import { openWire, type WireLink } from './wire-link.ts';

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
  readonly wire: WireLink;
  close(): void;
}

/**
 * What another thread needs to work beside an `attach` with `workers`. Everything that is set on
 * the machine stays that one's business. Throws an Error, with everything undone.
 */
export function openShareLinks(options: ShareLinksOptions): ShareLinks {
  const { tunName = TUN_DEFAULT, mark, encapPort, rawIp, offload = 'auto', share } = options;
  libc('TUN');
  const wire = openWire({ mark, families: families(), rawIp, encapPort, offload, share });
  try {
    const local = openTun({ name: tunName, mtu: 0, offload, queue: 'further' });
    wire.backlog.pauses(local);
    const close = () => {
      local.close();
      wire.close();
    };
    return { local, wire, close };
  } catch (error) {
    wire.close();
    throw error;
  }
}
