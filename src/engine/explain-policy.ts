import { addressFrom, formatAddress, formatPrefix } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import type { DropReason } from '../base/drop.ts';
import { type Mismatch, MismatchFinder } from '../spd/mismatch.ts';
import { describeRequest, describeSelector, type Policy, type Request } from '../spd/policy.ts';
import type { Lookup } from '../spd/policy-index.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import { unmet } from './check.ts';
import type { Core } from './core.ts';
import { effectiveLevel, endsOfLack, familySettings, protectedLen } from './decide.ts';
import { escapesDefault, isExempt } from './exempt.ts';
import { passedOver, saText } from './explain-sa.ts';
import type {
  PolicyChoice,
  PolicyText,
  RefusedPolicy,
  RequestStep,
  SocketText,
} from './explanation.ts';
import type { Flight, Layer } from './flight.ts';
import { describeEnds, type SocketEntry } from './socket-policies.ts';

/** How many policies that do not fit are shown, and how many are looked at for that. */
const SHOWN_MAX = 20;
const LOOKED_AT_MAX = 50_000;

/** Those whose addresses fit are nearer to what somebody expected than the others. */
const NEAR: readonly Mismatch[] = ['protocol', 'ports', 'loopback'];

export function policyText(policy: Policy): PolicyText {
  const { id, selector, type, priority, requests } = policy;
  return {
    ...{ id, selector: describeSelector(selector), type, priority },
    requests: requests.map(describeRequest),
  };
}

export interface Asked {
  /** The packet, as it was when the policy was asked. */
  readonly octets: Uint8Array;
  readonly found: Lookup;
  readonly socket?: SocketEntry;
}

/**
 * What was looked at before the policy that was found. `quoted`: the policy of the flow that the
 * packet reports about, if it is an error.
 */
export function policyChoice(
  core: Core,
  direction: 'in' | 'out',
  asked: Asked,
  quoted: Lookup | undefined,
): PolicyChoice {
  const { socket, found } = asked;
  if (socket === undefined) return choiceOfHost(core, direction, asked, quoted);
  const own = socket.policies[direction];
  const decides = found === own;
  const text = { socket: socketText(socket, direction, decides) };
  if (!decides) return { ...choiceOfHost(core, direction, asked, quoted), ...text };
  const policy = { found: policyText(own as Policy) };
  if (socket.privileged) return { direction, considered: [], notShown: 0, ...text, ...policy };
  const { byDefault: _, ...host } = choiceOfHost(
    core,
    direction,
    { ...asked, found: 'none' },
    undefined,
  );
  return { ...host, ...text, ...policy };
}

function socketText(socket: SocketEntry, direction: 'in' | 'out', decides: boolean): SocketText {
  const { privileged, rules } = socket;
  const rule = rules[direction].type;
  const order = privileged ? 'it is privileged, so its policy comes first' : PRIVILEGE;
  const why = rule === 'entrust' ? 'it leaves its packets to the policies of the host' : order;
  const match = matchText(socket.ends);
  return { ends: describeEnds(socket.ends), rule, privileged, decides, match, why };
}

function matchText({ raw, local, remote }: SocketEntry['ends']): string {
  if (raw) return 'it is raw, and has all packets of its protocol';
  if (remote) return 'it is connected with the other end of the packet';
  return `it is bound to this ${local ? 'address and port' : 'port of any address'}`;
}

const PRIVILEGE = 'it is not privileged, so its policy is for what no policy of the host speaks of';

function choiceOfHost(
  core: Core,
  direction: 'in' | 'out',
  { octets, found }: Asked,
  quoted: Lookup | undefined,
): PolicyChoice {
  const cursor = new Cursor();
  assert(decode(octets, 0, octets.length, cursor) === undefined, 'only readable packets ask');
  const refused = refusedPolicies(core, direction, octets, cursor, found);
  const near = refused.filter(({ field }) => NEAR.includes(field));
  const far = refused.filter(({ field }) => !NEAR.includes(field));
  const shown = [...near, ...far].slice(0, SHOWN_MAX).map(({ policy, field }): RefusedPolicy => {
    return { policy: policyText(policy), field, why: whyNot(policy, field, octets, cursor) };
  });
  const total = core.spd.count(direction);
  const many = total > LOOKED_AT_MAX ? { notLookedAt: total } : {};
  const notShown = refused.length - shown.length;
  const choice = { direction, considered: shown, notShown, ...many };
  if (found === 'ports-unknown') return choice;
  if (found === 'none' && typeof quoted === 'object' && quoted.type !== 'none') {
    return { ...choice, quoted: policyText(quoted) };
  }
  if (found === 'none') {
    const value = familySettings(core.settings, cursor.family).defPolicy;
    const setting = `${variables(cursor.family)}.def_policy`;
    const passes = escapesDefault(octets, cursor);
    const free = 'it is of the loopback network, or neighbour discovery';
    const exempt = value === 'discard' && passes ? { exempt: free } : {};
    return { ...choice, byDefault: { setting, value }, ...exempt };
  }
  const why = 'it is IKE, ESP in UDP or neighbour discovery, which protection itself needs';
  const exempt = isExempt(found, direction, octets, cursor, core.settings) ? { exempt: why } : {};
  return { ...choice, found: policyText(found), ...exempt };
}

interface Refused {
  readonly policy: Policy;
  readonly field: Mismatch;
}

function refusedPolicies(
  core: Core,
  direction: 'in' | 'out',
  octets: Uint8Array,
  cursor: Cursor,
  found: Lookup,
): Refused[] {
  // A list of very many costs too much to make for one question.
  if (core.spd.count(direction) > LOOKED_AT_MAX) return [];
  const finder = new MismatchFinder(octets, cursor);
  const refused: Refused[] = [];
  for (const policy of core.spd.list(direction)) {
    if (policy === found) break;
    if (policy.selector.src.address.family !== finder.family) continue;
    const field = finder.of(policy);
    // The policy of a fragment whose datagram is not complete yet.
    if (field === undefined) break;
    refused.push({ policy, field });
  }
  return refused;
}

function whyNot({ selector }: Policy, field: Mismatch, p: Uint8Array, cursor: Cursor): string {
  const { family, srcAt, dstAt, protocol, sport, dport } = cursor;
  const text = (at: number) => formatAddress(addressFrom(family, p, at));
  switch (field) {
    case 'source':
      return `source ${text(srcAt)} is not in ${formatPrefix(selector.src)}`;
    case 'destination':
      return `destination ${text(dstAt)} is not in ${formatPrefix(selector.dst)}`;
    case 'protocol':
      return `protocol ${protocol} is not ${selector.protocol}`;
    case 'ports':
      return cursor.portsKnown
        ? `ports ${sport} and ${dport} are not those of the policy`
        : 'the packet has no ports';
    case 'loopback':
      return 'packets of the loopback network need a policy that names it';
  }
}

/** Going out: what each request of the policy gets. The flight was decided on. */
export function requestSteps(
  core: Core,
  flight: Flight,
  original: (copy: Layer['sa']) => Layer['sa'],
): RequestStep[] {
  const { policy, cursor, packet } = flight;
  const headersLen = cursor.insertAt - cursor.at;
  const steps: RequestStep[] = [];
  let used = 0;
  for (const request of policy?.requests ?? []) {
    const lack = flight.lacks.find((one) => one.request === request);
    if (lack !== undefined) {
      const refused = passedOver(core, request, endsOfLack(flight, lack), undefined);
      steps.push({ ...levelStep(core, request, cursor.family), refused });
    } else if (used < flight.layerCount) {
      const sa = original(flight.layers[used++]!.sa);
      steps.push({
        ...levelStep(core, request, cursor.family),
        sa: saText(sa),
        len: protectedLen(flight, packet.len, headersLen, used),
        refused: passedOver(core, request, sa.spec, sa),
      });
    } else {
      // The packet was given up before this request was looked at.
      steps.push({ ...levelStep(core, request, cursor.family), refused: [] });
    }
  }
  return steps;
}

const UNMET = {
  protocol: 'the layer is of the other protocol',
  mode: 'the layer is of the other mode',
  reqid: 'the SA has another reqid',
  ends: 'the tunnel is between other addresses',
} as const;

/** Coming in: which of the layers meets each request; in the order of the policy. */
export function metRequests(
  core: Core,
  flight: Flight,
  verdict: DropReason | undefined,
  original: (copy: Layer['sa']) => Layer['sa'],
): RequestStep[] {
  const { policy, cursor, layers, layerCount } = flight;
  const steps: RequestStep[] = [];
  const isLoose = core.settings.policyCheck === 'loose';
  let used = 0;
  // From the outside in, as the check itself goes.
  for (const request of [...(policy?.requests ?? [])].reverse()) {
    const step = { ...levelStep(core, request, cursor.family), refused: [] };
    const layer = isLoose
      ? layers.slice(0, layerCount).find((one) => one!.sa.spec.protocol === request.protocol)
      : layers[used];
    const isThere = layer !== undefined && (isLoose || used < layerCount);
    const field = isThere && !isLoose ? unmet(layer, request) : undefined;
    if (isThere && field === undefined) {
      used++;
      // The SA's own source matters to the strict check only.
      const isForeign = !isLoose && layer.foreign && verdict !== undefined;
      const foreign = isForeign ? { unmet: FOREIGN } : {};
      steps.push({ ...step, sa: saText(original(layer.sa)), ...foreign });
    } else {
      const none = isLoose ? 'no layer is of its protocol' : 'no layer is left for it';
      steps.push({ ...step, unmet: field === undefined ? none : UNMET[field] });
    }
  }
  return steps.reverse();
}

const FOREIGN = 'the packet is from another source than its SA';

function levelStep(
  core: Core,
  request: Request,
  family: 4 | 6,
): Pick<RequestStep, 'request' | 'level' | 'levelFrom'> {
  const { protocol, mode } = request;
  const variable = `${protocol}_${mode === 'tunnel' ? 'net' : 'trans'}_deflev`;
  return {
    request: describeRequest(request),
    level: effectiveLevel(core.settings, request, family),
    levelFrom: request.level === 'default' ? `${variables(family)}.${variable}` : 'policy',
  };
}

/** Where sysctl(8) has what is set for a family. */
export function variables(family: 4 | 6): string {
  return family === 4 ? 'net.inet.ipsec' : 'net.inet6.ipsec6';
}
