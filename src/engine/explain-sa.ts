import { type Address, formatAddress, sameAddress } from '../base/address.ts';
import { authenticationById, encryptionById } from '../crypto/algorithms.ts';
import type { Sa, SaProtocol } from '../sad/sa.ts';
import { misfit } from '../sad/sad.ts';
import type { Request } from '../spd/policy.ts';
import type { Core } from './core.ts';
import type { RefusedSa, SaText } from './explanation.ts';

/** How many SAs are looked through for some that nearly fit, and how many are shown. */
const LOOKED_AT_MAX = 10_000;
const SHOWN_MAX = 8;

export function saText(sa: Sa): SaText {
  const { protocol, spi, src, dst, mode, reqid, keys, replayPackets } = sa.spec;
  const names = [encryptionById(keys.encrypt)?.name, authenticationById(keys.auth)?.name];
  return {
    ...{ protocol, spi, src: formatAddress(src), dst: formatAddress(dst), mode, reqid },
    ...{ state: sa.state, algorithms: names.filter((name) => name !== undefined) },
    ...{ sentSeq: sa.sentSeq, replayTop: sa.replay.top, replayPackets },
  };
}

/** The other SAs between the same addresses, with why the request gets none of them. */
export function passedOver(
  core: Core,
  request: Request,
  ends: { readonly src: Address; readonly dst: Address },
  chosen: Sa | undefined,
): RefusedSa[] {
  const others = core.sad
    .between(request.protocol, ends.src, ends.dst)
    .filter((sa) => sa !== chosen)
    .slice(-SHOWN_MAX)
    .map((sa) => ({ sa: saText(sa), why: whyNot(core, request, sa, chosen) }));
  return chosen === undefined ? [...others, ...nearRequest(core, request, ends)] : others;
}

function whyNot(core: Core, request: Request, sa: Sa, chosen: Sa | undefined): string {
  switch (misfit(sa, request.mode, request.reqid)) {
    case 'state':
      return `it is ${sa.state}`;
    case 'mode':
      return `it is for ${sa.spec.mode} mode, and the request wants ${request.mode} mode`;
    case 'reqid':
      return `its reqid is ${sa.spec.reqid}, and the request wants ${request.reqid}`;
    case undefined:
      if (sa.state !== chosen?.state) return `it is ${sa.state}`;
      return `${core.settings.preferOldSa ? 'an older' : 'a newer'} one is preferred`;
  }
}

/** SAs that one of its ends or its reqid keeps away from a request. */
function nearRequest(
  core: Core,
  { protocol, reqid }: Request,
  { src, dst }: { readonly src: Address; readonly dst: Address },
): RefusedSa[] {
  return search(core, protocol, ({ spec }) => {
    const isTo = sameAddress(spec.dst, dst);
    const isFrom = sameAddress(spec.src, src);
    if (isTo && isFrom) return undefined;
    if (isTo) return `it is from ${formatAddress(spec.src)}, not from ${formatAddress(src)}`;
    if (isFrom || (reqid !== 0 && spec.reqid === reqid)) {
      return `it is to ${formatAddress(spec.dst)}, not to ${formatAddress(dst)}`;
    }
    return undefined;
  });
}

/** SAs that nearly are the one that an incoming packet names. */
export function nearSpi(core: Core, protocol: SaProtocol, spi: number, dst: Address): RefusedSa[] {
  return search(core, undefined, ({ spec }) => {
    const isTo = sameAddress(spec.dst, dst);
    if (spec.spi === spi) {
      return isTo
        ? `it is for ${spec.protocol}, not for ${protocol}`
        : `it is to ${formatAddress(spec.dst)}, not to ${formatAddress(dst)}`;
    }
    return isTo && spec.protocol === protocol ? 'it has another SPI' : undefined;
  });
}

function search(
  core: Core,
  protocol: SaProtocol | undefined,
  why: (sa: Sa) => string | undefined,
): RefusedSa[] {
  const found: RefusedSa[] = [];
  let count = 0;
  for (const sa of core.sad.all()) {
    if (++count > LOOKED_AT_MAX || found.length === SHOWN_MAX) break;
    if (protocol !== undefined && sa.spec.protocol !== protocol) continue;
    const text = why(sa);
    if (text !== undefined) found.push({ sa: saText(sa), why: text });
  }
  return found;
}
