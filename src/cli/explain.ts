import { readFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { request } from '../daemon/control-client.ts';
import { type ExplainQuestion, explainArgs, explainOffline } from '../daemon/explain-command.ts';
import { controlPath } from '../daemon/paths.ts';
import { systemResolver } from '../daemon/resolver.ts';
import { explanationText } from '../engine/explain-text.ts';
import type { Explanation } from '../engine/explanation.ts';
import { readCapture } from '../wire/capture.ts';
import { PACKET_LEN_MAX } from '../wire/packet.ts';
import { collectText, integer, socketOption } from './options.ts';
import { buildPacket, readHex } from './packet-spec.ts';

export interface ExplainCliOptions {
  readonly socket: string;
  readonly in?: boolean;
  readonly out?: boolean;
  readonly size?: number;
  readonly df?: boolean;
  readonly hex?: string;
  readonly pcap?: string;
  readonly number?: number;
  readonly file?: string;
  readonly sysctl: readonly string[];
  readonly mtu?: number;
  readonly layout?: boolean;
  readonly freshWindows?: boolean;
  readonly json?: boolean;
}

/** Packets of a capture that are looked at, and what of them one line to the host may hold. */
const PACKETS_MAX = 10_000;
const LINE_OCTETS_MAX = 40_000;
const LINE_PACKETS_MAX = 64;
/** Of the host, less what stands around the question. */
const LINE_LEN_MAX = 65_000;
const MTU_USUAL = 1500;

export function explainCommand(): Command {
  return new Command('explain')
    .description('which policy and which SA a packet gets and why, or why it is dropped')
    .argument('[protocol]', 'tcp, udp, icmp, a number ...')
    .argument('[source]', 'address, or address:port')
    .argument('[destination]', 'address, or address:port')
    .addOption(socketOption())
    .addOption(new Option('--out', 'the packet comes from the local side').conflicts('in'))
    .option('--in', 'the packet comes from the wire; if neither is said, IPsec does')
    .option('--size <octets>', 'of the whole packet', integer(20, 65_575))
    .option('--df', "with IPv4's DF bit")
    .option('--hex <file>', 'the packet is in a file, in hexadecimal; - is standard input')
    .option('--pcap <file>', 'packets of a capture file, one after the other')
    .option('--number <number>', 'only this packet of the capture', integer(1, 2 ** 31))
    .option('-f, --file <setkey file>', 'as a host would that has just read it; none need run')
    .option('--sysctl <name=value>', 'with --file: a variable', collectText, [])
    .option('--mtu <octets>', 'with --file: of the wire; 1500 if not said', integer(68, 65_535))
    .option('--layout', 'also the packet on the wire; what would be ciphertext is random')
    .option('--fresh-windows', 'as if no packet had come in yet, for one that has')
    .option('--json', 'as JSON; of a capture as a list')
    .action(async (protocol, source, destination, options: ExplainCliOptions) => {
      const words = [protocol, source, destination].filter((word) => word !== undefined);
      process.stdout.write(await explain(words, options));
    });
}

interface Numbered {
  readonly octets: Uint8Array;
  /** In the capture. */
  readonly number: number | undefined;
}

/** The answer as text. Rejects with Error for what cannot be asked or answered. */
export async function explain(
  words: readonly string[],
  options: ExplainCliOptions,
): Promise<string> {
  const packets = packetsOf(words, options);
  const explanations: Explanation[] = [];
  for (const some of options.file === undefined ? batches(packets) : [packets]) {
    explanations.push(...(await ask(some, words.length > 0, options)));
  }
  const isList = options.pcap !== undefined;
  const found = explanations.map((one, i) => ({ number: packets[i]!.number, ...one }));
  if (options.json) return `${JSON.stringify(isList ? found : found[0], null, 2)}\n`;
  return found
    .map(({ number, ...one }) => {
      return (number === undefined ? '' : `packet ${number}\n`) + explanationText(one);
    })
    .join('\n');
}

function packetsOf(words: readonly string[], options: ExplainCliOptions): readonly Numbered[] {
  const { hex, pcap, size, df = false } = options;
  const given = [words.length > 0, hex !== undefined, pcap !== undefined].filter(Boolean);
  if (given.length !== 1) {
    throw new Error('give a packet: PROTOCOL SOURCE DESTINATION, or --hex FILE, or --pcap FILE');
  }
  if (pcap !== undefined) return fromCapture(pcap, options.number);
  if (hex !== undefined) {
    return [{ octets: readHex(readFileSync(hex === '-' ? 0 : hex, 'utf8')), number: undefined }];
  }
  const [protocol, src, dst] = words;
  if (dst === undefined) throw new Error('give PROTOCOL SOURCE DESTINATION, all three');
  return [
    { octets: buildPacket({ protocol: protocol!, src: src!, dst, size, df }), number: undefined },
  ];
}

function fromCapture(file: string, wanted: number | undefined): readonly Numbered[] {
  const found: Numbered[] = [];
  for (const { number, bytes, at, end } of readCapture(readFileSync(file))) {
    if (wanted !== undefined && number !== wanted) continue;
    // What is behind the longest packet is padding of the link.
    found.push({ octets: bytes.subarray(at, Math.min(end, at + PACKET_LEN_MAX)), number });
    if (found.length > PACKETS_MAX) throw new Error(`${file}: more than ${PACKETS_MAX} packets`);
  }
  if (found.length > 0) return found;
  throw new Error(
    wanted === undefined ? `${file}: no IP packets` : `${file}: no IP packet ${wanted}`,
  );
}

/** As many packets together as a line to the host holds: they are explained as one sequence. */
function* batches(packets: readonly Numbered[]): Generator<readonly Numbered[]> {
  let batch: Numbered[] = [];
  let octets = 0;
  for (const packet of packets) {
    const isFull = octets + packet.octets.length > LINE_OCTETS_MAX;
    if (batch.length > 0 && (isFull || batch.length === LINE_PACKETS_MAX)) {
      yield batch;
      batch = [];
      octets = 0;
    }
    batch.push(packet);
    octets += packet.octets.length;
  }
  yield batch;
}

async function ask(
  packets: readonly Numbered[],
  isSpec: boolean,
  options: ExplainCliOptions,
): Promise<Explanation[]> {
  const usual = isSpec ? 'out' : 'auto';
  const question: ExplainQuestion = {
    side: options.in ? 'in' : options.out ? 'out' : usual,
    packets: packets.map(({ octets }) => octets),
    layout: options.layout ?? false,
    freshWindows: options.freshWindows ?? false,
  };
  const { file, sysctl, mtu, socket } = options;
  if (file !== undefined) {
    const mtuOrUsual = mtu ?? MTU_USUAL;
    return explainOffline(question, {
      file,
      resolve: systemResolver,
      variables: sysctl,
      mtu: mtuOrUsual,
    });
  }
  if (sysctl.length > 0 || mtu !== undefined) {
    throw new Error('--sysctl and --mtu are for --file; a running host has its own');
  }
  const args = explainArgs(question);
  if (JSON.stringify(args).length > LINE_LEN_MAX) {
    throw new Error('the packet is too long for a question to a host; --file has no such bound');
  }
  return (await request(controlPath(socket), 'explain', args)) as Explanation[];
}
