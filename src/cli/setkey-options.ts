import { parseArgs } from 'node:util';

/** What a command line asks setkey to do. */
export interface SetkeyOptions {
  readonly mode: 'script' | 'dump' | 'flush' | 'monitor' | 'version' | 'help' | 'usage';
  /** -c: a script from standard input. */
  readonly stdin: boolean;
  /** -f and bare arguments. */
  readonly files: readonly string[];
  /** -P: policies instead of SAs. */
  readonly policies: boolean;
  /** -a: dead SAs too. */
  readonly all: boolean;
  /** -l: again every second, one line per SA. */
  readonly loop: boolean;
  /** -H, and -h with -x: octets too. */
  readonly hex: boolean;
  readonly verbose: boolean;
  /** -xx: seconds since 1970 instead of the time of day. */
  readonly rawTime: boolean;
  /** -n: parse, do not send. */
  readonly dryRun: boolean;
  readonly ports: boolean;
  /** -N: leave out the policies of sockets. */
  readonly hideSocketPolicies: boolean;
  /** -r, the default, or -k. */
  readonly forwardToo: boolean;
  readonly format: 'text' | 'json' | 'line';
  readonly socket: string | undefined;
}

const FLAG = { type: 'boolean', multiple: true } as const;

const FLAGS = {
  commands: { ...FLAG, short: 'c' },
  file: { type: 'string', multiple: true, short: 'f' },
  dump: { ...FLAG, short: 'D' },
  flush: { ...FLAG, short: 'F' },
  policies: { ...FLAG, short: 'P' },
  all: { ...FLAG, short: 'a' },
  loop: { ...FLAG, short: 'l' },
  monitor: { ...FLAG, short: 'x' },
  hex: { ...FLAG, short: 'H' },
  help: { ...FLAG, short: 'h' },
  usage: { ...FLAG, short: '?' },
  verbose: { ...FLAG, short: 'v' },
  'dry-run': { ...FLAG, short: 'n' },
  ports: { ...FLAG, short: 'p' },
  'no-socket-policies': { ...FLAG, short: 'N' },
  'kernel-semantics': { ...FLAG, short: 'k' },
  'rfc-semantics': { ...FLAG, short: 'r' },
  version: { ...FLAG, short: 'V' },
  json: FLAG,
  oneline: FLAG,
  socket: { type: 'string' },
} as const;

export const USAGE = `usage: setkey [-v] [-n] [-k | -r] -c            statements from standard input
       setkey [-v] [-n] [-k | -r] [-f] FILE ... statements from files
       setkey [-alpv] -D                        show the SAD
       setkey [-pNv] -DP                        show the SPD
       setkey [-v] -F | -FP                     flush the SAD, or the SPD
       setkey [-H] -x                           show PF_KEY messages as they pass
       setkey -V | -h

  -a  dead SAs too                    -l  every second, a line per SA
  -p  show ports                      -N  hide policies of sockets
  -v  show messages sent and received -H  show octets
  -n  parse only                      -xx as -x, with raw times
  -k  inbound policies do not hold for forwarded packets; -r, the default: they do
  --json, --oneline                   dumps for programs, or for grep
  --socket PATH                       PF_KEY socket of the host (or TESTUDO_SOCKET)
`;

/**
 * Reads a command line, options combined as getopt allows. Throws Error with a sentence for one
 * that is unknown.
 */
export function parseOptions(argv: readonly string[]): SetkeyOptions {
  const { values, positionals } = parseArgs({
    args: [...argv],
    options: FLAGS,
    allowPositionals: true,
  });
  const files = [...(values.file ?? []), ...positionals];
  const stdin = values.commands !== undefined;
  return {
    mode: modeOf(values, stdin || files.length > 0),
    stdin,
    files,
    policies: values.policies !== undefined,
    all: values.all !== undefined,
    loop: values.loop !== undefined,
    hex: values.hex !== undefined || (values.help !== undefined && values.monitor !== undefined),
    verbose: values.verbose !== undefined,
    rawTime: (values.monitor?.length ?? 0) > 1,
    dryRun: values['dry-run'] !== undefined,
    ports: values.ports !== undefined,
    hideSocketPolicies: values['no-socket-policies'] !== undefined,
    forwardToo: values['kernel-semantics'] === undefined,
    format: values.json ? 'json' : values.oneline ? 'line' : 'text',
    socket: values.socket,
  };
}

type Given = Partial<Record<keyof typeof FLAGS, unknown>>;

function modeOf(values: Given, script: boolean): SetkeyOptions['mode'] {
  if (values.version !== undefined) return 'version';
  if (values.monitor !== undefined) return 'monitor';
  if (values.help !== undefined || values.usage !== undefined) return 'help';
  if (values.dump !== undefined) return 'dump';
  if (values.flush !== undefined) return 'flush';
  return script ? 'script' : 'usage';
}
