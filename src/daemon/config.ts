import { readFile } from 'node:fs/promises';
import type { Family } from '../base/address.ts';
import { applyMessages } from '../key/apply.ts';
import type { KeyEngine } from '../key/engine.ts';
import { parseScript } from '../setkey/parser.ts';
import { type Place, SetkeyError } from '../setkey/place.ts';
import { actionsOf, type RequestContext } from '../setkey/requests.ts';
import { hostNames, type Resolver } from '../setkey/resolver.ts';
import type { Statement } from '../setkey/statement.ts';
import type { Message } from '../wire/pfkey-message.ts';

/**
 * A setkey file, read, understood and with all its names looked up: nothing about it is left to
 * ask.
 */
export interface Config {
  readonly file: string;
  readonly messages: readonly { readonly place: Place; readonly message: Message }[];
}

/** What is wrong with a file, all of it, one line each: `file:line:column: sentence`. */
export class ConfigError extends Error {
  readonly lines: readonly string[];

  constructor(lines: readonly string[]) {
    super(lines.join('\n'));
    this.name = 'ConfigError';
    this.lines = lines;
  }
}

/**
 * Looks names up beforehand: once packets are diverted, the name server may be behind the very
 * policy being set up.
 */
export type NameResolver = (
  names: readonly { readonly name: string; readonly family: Family | undefined }[],
) => Promise<Resolver>;

/**
 * Reads a setkey file for a host to apply. Throws ConfigError for mistakes, Error when it cannot be
 * read.
 */
export async function readConfig(file: string, resolve: NameResolver): Promise<Config> {
  return parseConfig(await readFile(file, 'utf8'), file, resolve);
}

/** As `readConfig`, for text at hand; `file` is what errors call it. */
export async function parseConfig(
  text: string,
  file: string,
  resolve: NameResolver,
): Promise<Config> {
  const { entries } = parseScript(text, file);
  const errors = entries.filter((entry) => entry instanceof SetkeyError);
  const statements = entries.filter((entry): entry is Statement => !(entry instanceof SetkeyError));
  const lines = errors.map((error) => error.message);
  const resolver = await resolve(statements.flatMap((statement) => hostNames(statement)));
  const context: RequestContext = { resolver, supported: undefined, forwardToo: false };
  const messages: { place: Place; message: Message }[] = [];
  for (const statement of statements) {
    if (statement.command === 'exit') break;
    try {
      messages.push(...messagesOf(statement, context));
    } catch (error) {
      if (!(error instanceof SetkeyError)) throw error;
      lines.push(error.message);
    }
  }
  if (lines.length > 0) throw new ConfigError(lines);
  return { file, messages };
}

/**
 * Applies a file to an engine, entry by entry. Throws ConfigError with every entry that was
 * refused; the others are in.
 */
export function applyConfig(engine: KeyEngine, config: Config): void {
  const refusals = applyMessages(
    engine,
    config.messages.map(({ message }) => message),
  );
  if (refusals.length === 0) return;
  throw new ConfigError(
    refusals.map(({ index, error }) => {
      const { file, line, column } = config.messages[index]!.place;
      return `${file}:${line}:${column}: ${error.message}`;
    }),
  );
}

function messagesOf(
  statement: Statement,
  context: RequestContext,
): { place: Place; message: Message }[] {
  const { place } = statement;
  const found: { place: Place; message: Message }[] = [];
  for (const action of actionsOf(statement, context)) {
    if (action.kind === 'send') {
      found.push({ place, message: action.message });
    } else if (action.kind === 'delete-all') {
      throw new SetkeyError(place, 'deleteall has no place in the file of a host; use flush');
    }
  }
  return found;
}
