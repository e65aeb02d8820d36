import { ADDRESS_BITS } from '../base/address.ts';
import {
  type AddressExtension,
  type Extension,
  extension,
  type Message,
  type PolicyExtension,
  type SaType,
} from '../wire/pfkey-message.ts';
import { DIRECTION, LEVEL, PROTO_ANY, SA_FLAG } from '../wire/pfkey-table.ts';
import { wrong } from './cursor.ts';
import { saTypeOf } from './parser.ts';
import type { Place, SetkeyError } from './place.ts';
import { type Resolved, type Resolver, resolveHost, resolvePort } from './resolver.ts';
import { algorithmNumbers, contextExtension, saExtensions } from './sa-extensions.ts';
import type {
  DeleteAllStatement,
  Keyed,
  PolicyStatement,
  SaStatement,
  SelectorSpec,
  Statement,
} from './statement.ts';

/** What one statement makes a client do, in this order. */
export type Action =
  | { readonly kind: 'send'; readonly message: Message }
  | {
      /** DUMP these, and DELETE each SA that has one of the pairs of addresses. */
      readonly kind: 'delete-all';
      readonly satype: SaType;
      readonly pairs: readonly Pair[];
    }
  | { readonly kind: 'exit' };

export interface Pair {
  readonly src: Resolved;
  readonly dst: Resolved;
}

export interface RequestContext {
  readonly resolver: Resolver;
  /** What REGISTER said the host can do; undefined: not asked, so the host decides. */
  readonly supported: Supported | undefined;
  /**
   * -r, the default: an inbound policy holds for forwarded packets too, as RFC 4301 has it. -k: as
   * Linux, not.
   */
  readonly forwardToo: boolean;
}

/** SADB_AALG_* and SADB_EALG_* numbers. */
export interface Supported {
  readonly auth: ReadonlySet<number>;
  readonly encrypt: ReadonlySet<number>;
}

/**
 * The PF_KEY messages of a statement, with pid and seq 0. Throws SetkeyError for what only a lookup
 * can tell.
 */
export function actionsOf(statement: Statement, context: RequestContext): Action[] {
  switch (statement.command) {
    case 'add':
    case 'update':
    case 'get':
    case 'delete':
    case 'getspi':
      return saActions(statement, context);
    case 'deleteall':
      return [deleteAll(statement, context)];
    case 'spdadd':
    case 'spdupdate':
    case 'spddelete':
      return policyActions(statement, context);
    case 'flush':
      return [send('FLUSH', statement.satype, [])];
    case 'dump':
      return [send('DUMP', statement.satype, [])];
    case 'spdflush':
      return [send('X_SPDFLUSH', 'unspec', [])];
    case 'spddump':
      return [send('X_SPDDUMP', 'unspec', [])];
    case 'exit':
      return [{ kind: 'exit' }];
  }
}

/** A request; a client fills in pid and seq. */
export function request(
  type: Message['type'],
  satype: SaType,
  extensions: readonly Extension[],
): Message {
  return { type, errno: 0, satype, seq: 0, pid: 0, reserved: 0, extensions };
}

/** The DELETE of an SA that a dump showed, which has this pair of addresses. */
export function deleteOf(dumped: Message, pair: Pair): Message {
  const spi = extension(dumped, 'SA')?.spi ?? 0;
  const flags = SA_FLAG.cyclicSequence;
  return request('DELETE', dumped.satype, [
    { type: 'SA', spi, replay: 0, state: 0, auth: 0, encrypt: 0, flags },
    { type: 'X_SA2', mode: 0, sequence: 0, reqid: 0 },
    addressOf('ADDRESS_SRC', pair.src, 0),
    addressOf('ADDRESS_DST', pair.dst, 0),
  ]);
}

function send(type: Message['type'], satype: SaType, extensions: readonly Extension[]): Action {
  return { kind: 'send', message: request(type, satype, extensions) };
}

const SA_MESSAGES = {
  add: 'ADD',
  update: 'UPDATE',
  get: 'GET',
  delete: 'DELETE',
  getspi: 'GETSPI',
} as const;

function saActions(statement: SaStatement, context: RequestContext): Action[] {
  const { command, src, dst, lookup } = statement;
  const { resolver } = context;
  checkSupported(statement, context);
  const pairs = sameFamily(
    resolveHost(src, lookup, resolver),
    resolveHost(dst, lookup, resolver),
    dst.place,
  );
  if (command === 'delete') onlyOne(pairs, statement.place);
  const ports = { src: resolvePort(src, 17, resolver), dst: resolvePort(dst, 17, resolver) };
  const original = statement.originalAddress
    ? resolveHost(statement.originalAddress, lookup, resolver)[0]
    : undefined;
  return pairs.map((pair) => {
    const addresses = [
      addressOf('ADDRESS_SRC', pair.src, ports.src),
      addressOf('ADDRESS_DST', pair.dst, ports.dst),
    ];
    const extensions = saExtensions(statement, addresses, original?.address, ports);
    return send(SA_MESSAGES[command], saTypeOf(statement.protocol), extensions);
  });
}

/** The host said what it can do; to ask it anyway would only get a bare EINVAL. */
function checkSupported(statement: SaStatement, { supported }: RequestContext): void {
  if (!supported || (statement.command !== 'add' && statement.command !== 'update')) return;
  const { auth, encrypt } = algorithmNumbers(statement);
  const { authentication, encryption } = statement;
  if (authentication && !supported.auth.has(auth)) throw unsupported(authentication);
  if (encryption && !supported.encrypt.has(encrypt)) throw unsupported(encryption);
}

function unsupported({ algorithm, place }: Keyed): SetkeyError {
  const hint = algorithm.legacy ? '; some hosts do when started with --allow-legacy' : '';
  return wrong(place, `this host does not support ${algorithm.name}${hint}`);
}

function deleteAll(statement: DeleteAllStatement, { resolver }: RequestContext): Action {
  const { src, dst, lookup, satype } = statement;
  const pairs = sameFamily(
    resolveHost(src, lookup, resolver),
    resolveHost(dst, lookup, resolver),
    dst.place,
  );
  return { kind: 'delete-all', satype, pairs };
}

const SPD_MESSAGES = {
  spdadd: 'X_SPDADD',
  spdupdate: 'X_SPDUPDATE',
  spddelete: 'X_SPDDELETE',
} as const;

function policyActions(statement: PolicyStatement, context: RequestContext): Action[] {
  const { command, selector } = statement;
  const { policy } = statement;
  const rest = [
    ...(selector ? selectorExtensions(statement, selector, context.resolver) : []),
    ...contextExtension(statement.context),
  ];
  const policies = [policy];
  if (policy.direction === DIRECTION.in && context.forwardToo) policies.push(forwardOf(policy));
  return policies.map((one) => send(SPD_MESSAGES[command], 'unspec', [one, ...rest]));
}

/**
 * The forward twin of an inbound policy: an SA that is unique to one of two policies could not
 * serve both.
 */
function forwardOf(policy: PolicyExtension): PolicyExtension {
  const requests = policy.requests.map((one) =>
    one.level === LEVEL.unique ? { ...one, level: LEVEL.require, reqid: 0 } : one,
  );
  return { ...policy, direction: DIRECTION.fwd, requests };
}

function selectorExtensions(
  { lookup, place }: PolicyStatement,
  selector: SelectorSpec,
  resolver: Resolver,
): Extension[] {
  const pairs = sameFamily(
    resolveHost(selector.src, lookup, resolver),
    resolveHost(selector.dst, lookup, resolver),
    selector.dst.place,
  );
  const { src, dst } = onlyOne(pairs, place);
  const ports = selector.misc ?? {
    src: resolvePort(selector.src, selector.proto, resolver),
    dst: resolvePort(selector.dst, selector.proto, resolver),
  };
  const bits = ADDRESS_BITS[src.address.family];
  for (const [host, length] of [
    [selector.src, selector.srcPrefixLen],
    [selector.dst, selector.dstPrefixLen],
  ] as const) {
    if (length === undefined || length <= bits) continue;
    throw wrong(host.place, `prefix length ${length}, but the address has ${bits} bits`);
  }
  const { proto } = selector;
  return [
    {
      ...addressOf('ADDRESS_SRC', src, ports.src),
      proto,
      prefixLen: selector.srcPrefixLen ?? bits,
    },
    {
      ...addressOf('ADDRESS_DST', dst, ports.dst),
      proto,
      prefixLen: selector.dstPrefixLen ?? bits,
    },
  ];
}

/** Every source with every destination of its family; at least one pair. */
function sameFamily(srcs: readonly Resolved[], dsts: readonly Resolved[], place: Place): Pair[] {
  const pairs = srcs.flatMap((src) =>
    dsts
      .filter((dst) => dst.address.family === src.address.family)
      .map((dst): Pair => ({ src, dst })),
  );
  if (pairs.length > 0) return pairs;
  throw wrong(place, 'source and destination are of different address families');
}

function onlyOne(pairs: readonly Pair[], place: Place): Pair {
  if (pairs.length === 1) return pairs[0]!;
  throw wrong(place, 'a name has more than one address here: write the address you mean');
}

/** Address of an SA: every protocol, the whole address. */
function addressOf(type: AddressExtension['type'], of: Resolved, port: number): AddressExtension {
  const prefixLen = ADDRESS_BITS[of.address.family];
  return { type, proto: PROTO_ANY, prefixLen, ...of, port };
}
