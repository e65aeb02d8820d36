import { readFileSync } from 'node:fs';

/**
 * The sockets of this network namespace that sock_diag(7) does not always know, by the files of
 * /proc/net: raw ones and those for ICMP echo.
 *
 *     sl  local_address rem_address  st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode …
 *     1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000   0       0 25 …
 */
const FILES = ['raw', 'raw6', 'icmp', 'icmp6'] as const;
const LOCAL_FIELD = 1;
const INODE_FIELD = 9;

/** By their inodes, which are not used again soon: the local port, of echo the identifier. */
export function rawSockets(): Map<number, number> {
  const found = new Map<number, number>();
  for (const file of FILES) {
    for (const [inode, port] of parseSockets(textOf(`/proc/net/${file}`))) found.set(inode, port);
  }
  return found;
}

/** Lines that are not as above are passed over. */
export function parseSockets(text: string): Map<number, number> {
  const found = new Map<number, number>();
  for (const line of text.split('\n').slice(1)) {
    const fields = line.trim().split(/\s+/);
    const port = /:([0-9A-F]{4})$/.exec(fields[LOCAL_FIELD] ?? '')?.[1];
    const inode = Number(fields[INODE_FIELD]);
    if (port === undefined || !Number.isSafeInteger(inode)) continue;
    found.set(inode, Number.parseInt(port, 16));
  }
  return found;
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // A kernel without IPv6.
    return '';
  }
}
