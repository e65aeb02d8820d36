import { KeyError } from '../base/error.ts';
import type { Sa, SaProtocol } from '../sad/sa.ts';
import { describe } from '../sad/sa-checks.ts';
import { viewOf } from '../sad/sa-view.ts';
import { extension, type Message, type SaType } from '../wire/pfkey-message.ts';
import type { Answer, Dump, Handler, KeyContext } from './context.ts';
import { dumpFilterOf } from './dump-filter.ts';
import { protocolOf, required, saAddressPair } from './fields.ts';
import { addressParts, identityParts, publicParts, wholeParts } from './sa-reply.ts';
import { larvalSpecOf, saSpecOf, updatedSpecOf } from './sa-request.ts';

/** The messages about SAs (RFC 2367 §3.1.1 to §3.1.5, §3.1.9, §3.1.10). */

/** Reserves an SPI: a larval SA that UPDATE gives its keys. */
export const getSpi: Handler = (context, message, session) => {
  const { spi: _, ...spec } = larvalSpecOf(context, message, session);
  const range = extension(message, 'SPIRANGE');
  const { spiMin, spiMax, spiTry } = context.settings;
  const sa = context.sad.reserve(spec, range?.min ?? spiMin, range?.max ?? spiMax, spiTry);
  // Somebody negotiates now: the ACQUIRE of that number is not repeated meanwhile.
  context.acquires.restart(message.seq);
  return { kind: 'reply', to: 'one', extensions: identityParts(viewOf(sa)) };
};

export const add: Handler = (context, message, session) => {
  const { spi } = required(message, 'SA');
  const protocol = protocolOf(message.satype);
  const dst = saAddressPair(message).dst.address;
  // Looked for before keys are made, which somebody would have to zero again.
  const existing = context.sad.get(protocol, spi, dst);
  if (existing) {
    throw new KeyError('EEXIST', `${describe(existing.spec)} is in use (${existing.state})`);
  }
  const spec = saSpecOf(context, message, session);
  try {
    return changed(context.sad.add(spec, 'mature'));
  } catch (error) {
    spec.esp?.wipe();
    spec.ah?.wipe();
    spec.keys.authKey.fill(0);
    spec.keys.encryptKey.fill(0);
    throw error;
  }
};

/**
 * Keys for a larval SA; new limits and NAT-T ports for a living one. When it fails, the SA stays as
 * it was.
 */
export const update: Handler = (context, message, session) => {
  const sa = saOf(context, message);
  const spec =
    sa.state === 'larval'
      ? saSpecOf(context, message, session)
      : updatedSpecOf(context, sa.spec, message);
  return changed(context.sad.update(sa, spec));
};

/** One SA; or, without an SPI, every SA with keys between two addresses. */
export const deleteSa: Handler = (context, message) => {
  if (!extension(message, 'SA')) {
    const { src, dst } = saAddressPair(message);
    const all = context.sad.between(protocolOf(message.satype), src.address, dst.address);
    for (const sa of all.filter((one) => one.state !== 'larval')) context.sad.remove(sa);
    const ends = addressParts({ src: src.address, dst: dst.address });
    return { kind: 'reply', to: 'all', extensions: ends };
  }
  const sa = saOf(context, message);
  const extensions = identityParts(viewOf(sa));
  context.sad.retire(sa);
  return { kind: 'reply', to: 'all', extensions };
};

export const get: Handler = (context, message) => ({
  kind: 'reply',
  to: 'one',
  extensions: wholeParts(viewOf(saOf(context, message))),
});

/**
 * A file that flushes first means to replace what it made itself, not what key exchange has
 * negotiated.
 */
export const flush: Handler = ({ sad }, message, session) => {
  const protocol = protocolToList(message.satype);
  if (protocol === 'none') return { kind: 'reply', to: 'all', extensions: [] };
  if (session.client.origin === 'client') {
    sad.flush(protocol);
  } else {
    for (const sa of [...sad.all()]) {
      const isOurs = sa.spec.origin === 'file';
      if (isOurs && (protocol === undefined || sa.spec.protocol === protocol)) sad.remove(sa);
    }
  }
  return { kind: 'reply', to: 'all', extensions: [] };
};

/** Each SA as it was when the dump was asked for, however long the asker takes to read it. */
export const dump: Handler = ({ sad }, message) => {
  const protocol = protocolToList(message.satype);
  const filter = dumpFilterOf(message);
  const sas = protocol === 'none' ? undefined : sad.snapshot(protocol, filter);
  if (!sas || sas.length === 0) throw new KeyError('ENOENT', 'there are no SAs of that kind');
  const entries: Dump = {
    length: sas.length,
    next: () => {
      const { value } = sas.next();
      if (!value) return { done: true, value: undefined };
      const entry = { satype: value.spec.protocol, reserved: 0, extensions: wholeParts(value) };
      return { done: false, value: entry };
    },
    return: () => void sas.return(),
  };
  return { kind: 'dump', entries };
};

function changed(sa: Sa): Answer {
  return { kind: 'reply', to: 'all', extensions: publicParts(viewOf(sa)) };
}

/** ESRCH as Linux and FreeBSD have it; KAME's ENOENT makes OpenIKED give up. */
function saOf({ sad }: KeyContext, message: Message): Sa {
  const protocol = protocolOf(message.satype);
  const { spi } = required(message, 'SA');
  const dst = saAddressPair(message).dst.address;
  const sa = sad.get(protocol, spi, dst);
  if (sa) return sa;
  throw new KeyError('ESRCH', `there is no ${describe({ protocol, spi, dst })}`);
}

/**
 * `undefined`: both. Types that cannot have SAs here are empty, not wrong: clients flush IPComp as
 * a matter of course.
 */
function protocolToList(satype: SaType): SaProtocol | 'none' | undefined {
  switch (satype) {
    case 'unspec':
      return undefined;
    case 'ipcomp':
    case 'tcpsignature':
      return 'none';
    default:
      return protocolOf(satype);
  }
}
