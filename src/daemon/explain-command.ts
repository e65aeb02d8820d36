import { KeyError } from '../base/error.ts';
import type { Explanation } from '../engine/explanation.ts';
import { Host } from '../engine/host.ts';
import { memorySequences } from '../sad/sequence.ts';
import { PACKET_LEN_MAX } from '../wire/packet.ts';
import { applyConfig, type NameResolver, readConfig } from './config.ts';
import type { ControlArgs, ControlServer } from './control-server.ts';
import { Daemon } from './daemon.ts';
import { setVariable } from './sysctl-command.ts';
import { systemEnv } from './system-env.ts';

/** What `explain` is asked. */
export interface ExplainQuestion {
  readonly side: 'in' | 'out' | 'auto';
  readonly packets: readonly Uint8Array[];
  readonly layout: boolean;
  readonly freshWindows: boolean;
}

const PACKETS_MAX = 256;

/** `explain`, with the fields that `explainArgs` makes. */
export function addExplainCommand(control: ControlServer, daemon: Daemon): void {
  control.command('explain', (args): Explanation[] => {
    if (!daemon.isAttached) throw new KeyError('EAGAIN', 'the host is starting or stopping');
    return answer(daemon.host, readQuestion(args), (one) => daemon.keys.isNegotiated(one));
  });
}

/** A question as it goes over the control socket: the zeros at the end of a packet are left out. */
export function explainArgs({ packets, ...rest }: ExplainQuestion): Record<string, unknown> {
  return {
    ...rest,
    packets: packets.map((octets) => {
      let end = octets.length;
      while (end > 0 && octets[end - 1] === 0) end--;
      return [octets.length, Buffer.from(octets.subarray(0, end)).toString('base64')];
    }),
  };
}

function answer(
  host: Host,
  question: ExplainQuestion,
  isNegotiated: (protocol: 'esp' | 'ah') => boolean,
): Explanation[] {
  const { side, packets, layout, freshWindows } = question;
  return host.explain(side, packets, { layout, freshWindows, isNegotiated });
}

function readQuestion(args: ControlArgs): ExplainQuestion {
  const { side = 'auto', packets, layout = false, freshWindows = false } = args;
  if (side !== 'in' && side !== 'out' && side !== 'auto') {
    throw new KeyError('EINVAL', '"side" must be in, out or auto');
  }
  if (!Array.isArray(packets) || packets.length > PACKETS_MAX) {
    throw new KeyError('EINVAL', `"packets" must be a list of at most ${PACKETS_MAX}`);
  }
  const flags = { layout: layout === true, freshWindows: freshWindows === true };
  return { side, packets: packets.map(readPacket), ...flags };
}

function readPacket(value: unknown): Uint8Array {
  const [len, text] = Array.isArray(value) ? (value as unknown[]) : [];
  const isLen = typeof len === 'number' && Number.isInteger(len) && len >= 0;
  if (!isLen || len > PACKET_LEN_MAX || typeof text !== 'string') {
    const sizes = `its length, at most ${PACKET_LEN_MAX}, and its octets in base64`;
    throw new KeyError('EINVAL', `each of "packets" must be ${sizes}`);
  }
  const octets = new Uint8Array(len);
  octets.set(Buffer.from(text, 'base64').subarray(0, len));
  return octets;
}

export interface OfflineOptions {
  readonly file: string;
  readonly resolve: NameResolver;
  /** Variables that differ from the usual, as `name=value`. */
  readonly variables: readonly string[];
  /** Of the wire. */
  readonly mtu: number;
}

/**
 * Answers as a host would that was just started from a file. Throws ConfigError for mistakes in it.
 */
export async function explainOffline(
  question: ExplainQuestion,
  options: OfflineOptions,
): Promise<Explanation[]> {
  const config = await readConfig(options.file, options.resolve);
  const sequences = memorySequences();
  const daemon = new Daemon({ env: systemEnv('error'), allowLegacy: true, sequences });
  try {
    for (const assignment of options.variables) setVariable(daemon, assignment);
    applyConfig(daemon.keys, config);
    const { env, sad, spd, settings } = daemon;
    const nowhere = { transmit: () => {}, deliver: () => {} };
    const host = new Host({ env, sad, spd, settings, mtu: options.mtu, ...nowhere });
    return answer(host, question, () => false);
  } finally {
    daemon.close();
  }
}
