import { ERRNO_TEXT, errnoName } from '../base/errno.ts';
import { KeyError } from '../base/error.ts';
import { systemResolver } from '../daemon/resolver.ts';
import { dumpedPair } from '../setkey/delete-all.ts';
import { parseScript } from '../setkey/parser.ts';
import { SetkeyError } from '../setkey/place.ts';
import {
  type Action,
  actionsOf,
  deleteOf,
  type RequestContext,
  request,
  type Supported,
} from '../setkey/requests.ts';
import { hostNames } from '../setkey/resolver.ts';
import type { Statement } from '../setkey/statement.ts';
import { extension, type Message } from '../wire/pfkey-message.ts';
import type { PfkeyClient } from './setkey-client.ts';

/** What a session tells, and whom it asks. */
export interface SessionIo {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** The host's words for an error of ours. */
  readonly reason: (seq: number) => Promise<string | undefined>;
  /** Shows an SA or a policy. */
  readonly show: (message: Message) => void;
}

export interface SessionOptions {
  readonly forwardToo: boolean;
  /** Undefined: parse only. */
  readonly client: PfkeyClient | undefined;
  /** Whether results are said with the place in the file, and an error ends the script. */
  readonly isFile: boolean;
}

/** Outcome of a script: `failed` when anything in it was wrong or refused. */
export interface Outcome {
  readonly failed: boolean;
  readonly exit: boolean;
}

/** What REGISTER of no SA type answers: the algorithms of this host. It registers nothing. */
export async function askSupported(client: PfkeyClient): Promise<Supported | undefined> {
  const answer = await client.request(request('REGISTER', 'unspec', []));
  const auth = extension(answer, 'SUPPORTED_AUTH');
  const encrypt = extension(answer, 'SUPPORTED_ENCRYPT');
  if (answer.errno !== 0 || !auth || !encrypt) return undefined;
  const ids = (of: typeof auth) => new Set(of.algorithms.map(({ id }) => id));
  return { auth: ids(auth), encrypt: ids(encrypt) };
}

/**
 * Carries out a script, one statement after the other. In a file the first error of grammar ends
 * it, as it ends the real tool; what stands before has been sent then, and the other errors of the
 * file are listed too.
 */
export async function runScript(
  text: string,
  file: string,
  supported: Supported | undefined,
  options: SessionOptions,
  io: SessionIo,
): Promise<Outcome> {
  const { entries } = parseScript(text, file);
  const statements = entries.filter((one): one is Statement => !(one instanceof SetkeyError));
  const resolver = await systemResolver(statements.flatMap(hostNames));
  const context: RequestContext = { resolver, supported, forwardToo: options.forwardToo };
  let failed = false;
  let stopped = false;
  for (const entry of entries) {
    const actions = entry instanceof SetkeyError ? entry : actionsOrError(entry, context);
    if (actions instanceof SetkeyError) {
      io.err(`${actions.message}\n`);
      failed = true;
      stopped ||= options.isFile;
      continue;
    }
    if (stopped) continue;
    const line = options.isFile ? `${file},${entry.place.line}: ` : '';
    for (const action of actions) {
      if (action.kind === 'exit') return { failed, exit: true };
      if (!options.client) continue;
      if (!(await carryOut(action, options.client, line, io))) failed = true;
    }
  }
  return { failed, exit: false };
}

/** Sends a DUMP or X_SPDDUMP and hands each entry to `each`; false when the answer was an error. */
export async function dumpAll(
  client: PfkeyClient,
  message: Message,
  prefix: string,
  io: SessionIo,
  each: (entry: Message) => void,
): Promise<boolean> {
  for await (const answer of client.dump(message)) {
    if (answer.errno !== 0) return await tellError(answer, prefix, io);
    each(answer);
  }
  return true;
}

/** Sends anything else, shows what it returned; false when the answer was an error. */
export async function sendOne(
  client: PfkeyClient,
  message: Message,
  prefix: string,
  io: SessionIo,
): Promise<boolean> {
  const answer = await client.request(message);
  if (answer.errno !== 0) return await tellError(answer, prefix, io);
  if (answer.type === 'GET' || answer.type === 'GETSPI') io.show(answer);
  return true;
}

function actionsOrError(statement: Statement, context: RequestContext): Action[] | SetkeyError {
  try {
    return actionsOf(statement, context);
  } catch (error) {
    if (error instanceof SetkeyError) return error;
    if (error instanceof KeyError) return new SetkeyError(statement.place, error.message);
    throw error;
  }
}

async function carryOut(
  action: Exclude<Action, { kind: 'exit' }>,
  client: PfkeyClient,
  prefix: string,
  io: SessionIo,
): Promise<boolean> {
  if (action.kind === 'delete-all') return await deleteAll(action, client, prefix, io);
  const { message } = action;
  if (message.type !== 'DUMP' && message.type !== 'X_SPDDUMP') {
    return await sendOne(client, message, prefix, io);
  }
  return await dumpAll(client, message, prefix, io, io.show);
}

async function deleteAll(
  action: Extract<Action, { kind: 'delete-all' }>,
  client: PfkeyClient,
  prefix: string,
  io: SessionIo,
): Promise<boolean> {
  const deletes: Message[] = [];
  const dump = request('DUMP', action.satype, []);
  for await (const answer of client.dump(dump)) {
    // No SA at all is not an error here: nothing is left, as was asked for.
    if (answer.errno !== 0) return true;
    const pair = dumpedPair(answer, action.pairs);
    if (pair) deletes.push(deleteOf(answer, pair));
  }
  let fine = true;
  for (const message of deletes) {
    if (!(await sendOne(client, message, prefix, io))) fine = false;
  }
  return fine;
}

/** The words that scripts know on standard output, the host's own on standard error. */
async function tellError(answer: Message, prefix: string, io: SessionIo): Promise<false> {
  io.out(`${prefix}${errorText(answer)}.\n`);
  const reason = isEmpty(answer) ? undefined : await io.reason(answer.seq);
  if (reason) io.err(`setkey: ${reason}\n`);
  return false;
}

function errorText(answer: Message): string {
  const name = errnoName(answer.errno);
  if (name === 'ENOENT') {
    if (answer.type === 'DUMP') return 'No SAD entries';
    if (answer.type === 'X_SPDDUMP') return 'No SPD entries';
    if (['DELETE', 'GET', 'X_SPDDELETE'].includes(answer.type)) return 'No entry';
  }
  return name ? ERRNO_TEXT[name] : `Unknown error ${answer.errno}`;
}

/** An empty table explains itself. */
export function isEmpty(answer: Message): boolean {
  const dump = answer.type === 'DUMP' || answer.type === 'X_SPDDUMP';
  return dump && errnoName(answer.errno) === 'ENOENT';
}
