import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { runSetkey } from '../../../src/cli/setkey-main.ts';

/**
 * A program for the guest: runs setkey of ours for each recorded command, against the socket of the
 * bridge, and writes down what it printed.
 *
 *     afkey-run.js SOCKET COMMANDS RESULTS
 */
export interface Command {
  readonly argv: readonly string[];
  readonly command: string;
}

export interface Result {
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(socket: string, { argv, command }: Command): Promise<Result> {
  let stdout = '';
  let stderr = '';
  const exit = await runSetkey(argv, {
    out: (text) => {
      stdout += text;
    },
    err: (text) => {
      stderr += text;
    },
    stdin: Readable.from([command]),
    environment: { TESTUDO_SOCKET: socket },
    pid: process.pid,
  });
  return { exit, stdout, stderr };
}

const [socket, input, output] = process.argv.slice(2) as [string, string, string];
const commands = JSON.parse(readFileSync(input, 'utf8')) as readonly Command[];
const results: Result[] = [];
for (const one of commands) results.push(await run(socket, one));
// In one step, since somebody waits for the file.
writeFileSync(`${output}.part`, JSON.stringify(results));
renameSync(`${output}.part`, output);
