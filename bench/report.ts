import type { AllocationRow } from './allocations.ts';
import { allocationTable } from './allocations.ts';
import { type EngineFindings, sizesTable, stageTable } from './engine.ts';
import { type MemoryRow, memoryTable } from './memory.ts';
import type { Found, Missing } from './network/rounds.ts';
import { datagramPanel, datagramTable, pingTable, tcpPanel, tcpTable } from './network/tables.ts';
import { type Panel, picture } from './picture.ts';

/** All that a run has found; what was not asked for is missing. */
export interface Findings {
  /** What it ran on, in a sentence. */
  readonly machine: string;
  readonly rounds: number;
  readonly seconds: number;
  /** TCP's congestion control. */
  readonly congestion: string;
  readonly found: readonly Found[];
  readonly missing: readonly Missing[];
  readonly engine?: EngineFindings;
  readonly memory?: readonly MemoryRow[];
  readonly allocations?: readonly AllocationRow[];
}

const WIRES = [
  [false, 'The wire as it is'],
  [true, 'A wire that carries nothing above 1500 octets'],
] as const;

/** The report, as Markdown. `pictureFile`: what `reportPicture` was written to. */
export function report(findings: Findings, pictureFile: string): string {
  const { found, missing, engine, memory, allocations } = findings;
  const parts = ['# Performance', opening(findings)];
  if (found.some(({ variant }) => variant.limited)) parts.push(LIMITED_TEXT);
  if (found.length > 0) parts.push(`![One TCP stream, and small datagrams](${pictureFile})`);
  if (has(found, 'tcpMbps')) {
    const control = `Congestion control is ${findings.congestion}.`;
    parts.push('## TCP', `${TCP_TEXT} ${control}`, ...perWire(found, tcpTable));
  }
  if (has(found, 'udp'))
    parts.push('## Datagrams', DATAGRAM_TEXT, ...perWire(found, datagramTable));
  if (has(found, 'pingIdle')) parts.push('## Latency', PING_TEXT, ...perWire(found, pingTable));
  if (engine !== undefined) {
    parts.push('## The engine alone', ENGINE_TEXT, stageTable(engine.sizes));
    parts.push('### Cost against the size of tables', TABLES_TEXT, sizesTable(engine.tables));
  }
  if (memory !== undefined) parts.push('## Memory', MEMORY_TEXT, memoryTable(memory));
  if (allocations !== undefined) {
    parts.push('## Allocations', ALLOCATION_TEXT, allocationTable(allocations));
  }
  if (found.length > 0) parts.push('## What was compared', variantList(found));
  if (missing.length > 0) parts.push('## What is missing', missingList(missing));
  return `${parts.join('\n\n')}\n`;
}

/** The picture of the report, as SVG. */
export function reportPicture({ found }: Findings): string {
  const panels: Panel[] = [
    tcpPanel(found, false, 'One TCP stream, inner MTU 1400'),
    tcpPanel(found, true, 'One TCP stream on a wire of 1500 octets'),
    datagramPanel(found, false, 'Datagrams of 64 octets, at most 1 % lost'),
  ];
  return picture(panels.filter(({ bars }) => bars.length > 0));
}

function opening({ machine, rounds, seconds, found }: Findings): string {
  const by = 'Made by `npm run bench`; see [bench/README.md](../bench/README.md).';
  if (found.length === 0) return `${by} ${machine}`;
  const setting =
    'Two network namespaces are joined by a pair of devices, and programs at both ends share the ' +
    'processors with those that make the load.';
  const order =
    'In each round every variant is set up, shown to encrypt, measured for ' +
    `${seconds} s a measurement, and taken down; there ${rounds === 1 ? 'was 1' : `were ${rounds}`}.`;
  const numbers =
    'Numbers are medians over the rounds with the least and the most. Ratios are medians of the ' +
    'ratios within one round: compare those, since the machine is not always equally fast.';
  return [by, machine, setting, order, numbers].join(' ');
}

const LIMITED_TEXT =
  'A pair of virtual devices hands whole trains of datagrams over in one piece, as between two ' +
  'guests of one hypervisor. For *a wire that carries nothing above 1500 octets*, segmentation of ' +
  'TCP and UDP is off at the devices, so that each packet crosses alone, and the receiver merges ' +
  'what arrives, as the driver of a network card does.';

const TCP_TEXT =
  'iperf3, from A to B, after two seconds that do not count; the inner MTU is 1400 for all but ' +
  'bare veth. Processor time is that of the one stream: of the programs that make the tunnel, ' +
  'both ends and all threads, and of the whole machine with iperf3 and the kernel in it.';

const DATAGRAM_TEXT =
  'Thousands of datagrams a second that arrive while at most 1 % are lost: rates rise in steps ' +
  'from 10,000 to 700,000, a fraction of a second each. Lengths are those of the inner IP ' +
  'packets; IMIX is seven of 64 octets, four of 576 and one of 1400. Sender and receiver are ' +
  'programs of the benchmark that hand 60 datagrams to each system call, without segmentation ' +
  'offload: each datagram is a packet of its own to the tunnel. The sender and the kernel below ' +
  'it share the processors with the tunnel, and bound what bare veth reaches.';

const PING_TEXT =
  'A hundred pings a second, alone and beside four TCP streams that take all they can get. Under ' +
  'load most of it is the time in queues that TCP fills by itself.';

const ENGINE_TEXT =
  'Two hosts in memory and no I/O at all: AES-128-GCM, tunnel mode in UDP, batches of 64 packets ' +
  'of one flow. The total is all that a packet costs between the host being called and its ' +
  'sink: headers, policy, SA, replay window, cryptography, lifetimes, counters. It is the median ' +
  'batch of each round; the mean includes what else the machine did, and the collector. Stages ' +
  'are the shares that a sampling profiler finds in a run of its own, in which V8 does not put ' +
  'functions into one another as deeply. *none* does no cryptography.';

const TABLES_TEXT =
  'As above, 1400 octets, but every packet goes through another SA than the one before, each ' +
  'with a policy of its own, in turn through all of them: nothing is answered from what was just ' +
  'looked up, and large tables are not in any cache of the processor.';

const MEMORY_TEXT =
  'Heap and external memory after a full collection. Idle SAs: see ' +
  '[bench/README.md](../bench/README.md).';

const ALLOCATION_TEXT =
  'Octets of heap per packet, sealed and opened, and which functions ask for most of them.';

function perWire(
  found: readonly Found[],
  make: (found: readonly Found[], limited: boolean) => string,
): string[] {
  return WIRES.flatMap(([limited, title]) => {
    if (!found.some(({ variant }) => variant.limited === limited)) return [];
    return [`### ${title}`, make(found, limited)];
  });
}

function has(found: readonly Found[], what: 'tcpMbps' | 'udp' | 'pingIdle'): boolean {
  return found.some(({ results }) => results.some((result) => result?.[what] !== undefined));
}

function variantList(found: readonly Found[]): string {
  const lines = new Set(found.map(({ variant }) => `- ${variant.name}: ${variant.about}`));
  return [...lines].join('\n');
}

function missingList(missing: readonly Missing[]): string {
  const lines = new Set(missing.map(({ variant, why }) => `- ${variant.name}: ${why}`));
  return [...lines].join('\n');
}
