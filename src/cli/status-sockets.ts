import type { SocketLine } from '../daemon/socket-status.ts';
import type { DirectionProtection, ProtectionLayer } from '../engine/socket-status.ts';

/** Three lines for each socket: where it is, and for both directions the policy and what it got. */
export function socketsText(sockets: readonly SocketLine[]): string {
  if (sockets.length === 0) return 'no socket has a policy of its own\n';
  return sockets.map(socketText).join('');
}

function socketText(socket: SocketLine): string {
  const { protocol, local, remote, isListening, pid, uid, privileged, refused } = socket;
  const ends = isListening ? `${local} (listens)` : `${local} > ${remote}`;
  const who = `pid ${pid}, uid ${uid}${privileged ? ', privileged' : ''}`;
  const refusals = refused > 0 ? `, ${refused} packets refused` : '';
  const lines = [`${protocol}  ${ends}  ${who}${refusals}`];
  for (const direction of ['in', 'out'] as const) {
    lines.push(`    ${socket[direction]}: ${protectionText(socket.protection[direction])}`);
  }
  return `${lines.join('\n')}\n`;
}

function protectionText({ state, layers, packets, policy }: DirectionProtection): string {
  const by = layers.map(layerText).join(', then ');
  const whose = policy?.of === 'host' ? `, by policy ${policy.id} of the host` : '';
  switch (state) {
    case 'protected':
      return `protected by ${by}${whose} (${packets} packets)`;
    case 'clear':
      return `in the clear${whose} (${packets} packets)`;
    case 'ready':
      return `will be protected by ${by}${whose}`;
    case 'lacking':
      return `no packet yet, and protection is asked for${whose}`;
    case 'open':
      return `no packet yet, and no protection is asked for${whose}`;
    case 'blocked':
      return `nothing may pass${whose}`;
  }
}

function layerText({ protocol, spi, mode, src, dst, algorithms }: ProtectionLayer): string {
  const ends = mode === 'tunnel' ? ` ${src} > ${dst}` : '';
  return `${protocol} 0x${spi.toString(16)} ${mode}${ends} ${algorithms.join(' ')}`;
}
