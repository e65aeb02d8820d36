import type {
  Explanation,
  Layout,
  OpenedLayer,
  Outcome,
  PolicyChoice,
  PolicyText,
  RefusedSa,
  RequestStep,
  SaText,
  SizeStep,
  SocketText,
} from './explanation.ts';

/** An explanation for people, in the order in which things happen. Ends with a newline. */
export function explanationText(explanation: Explanation): string {
  const { side, packet, opened, inner, policy, requests, size, outcome, layout } = explanation;
  const lines = [
    ...row(side === 'out' ? 'going out' : 'coming in', `${packet.text} (${packet.len} octets)`),
    ...opened.flatMap(openedLines),
    ...(inner ? row(opened.length > 0 ? 'inside' : 'whole', inner.text) : []),
    ...(policy ? policyLines(policy) : []),
    ...requests.flatMap(requestLines),
    ...(size ? row('size', sizeText(size)) : []),
    ...outcomeLines(outcome),
    ...(layout ? layoutLines(layout) : []),
  ];
  return `${lines.join('\n')}\n`;
}

/** The whole in one line, for traces. */
export function explanationLine({ side, packet, inner, policy, outcome }: Explanation): string {
  const within = inner ? `, in it ${inner.text}` : '';
  const by = policy?.socket?.decides
    ? ` by the policy of socket ${policy.socket.ends}`
    : policy?.found
      ? ` by policy ${policy.found.id}`
      : '';
  return `${side} ${packet.text}${within}: ${verdictText(outcome)}${by}`;
}

function openedLines(layer: OpenedLayer): string[] {
  const { protocol, spi, sa, state, near } = layer;
  const name = `${protocol} SPI ${hex32(spi)}`;
  if (sa === undefined) return [...row('layer', `${name}: there is no such SA`), ...refused(near)];
  return row('layer', `${saText(sa)}: ${state === 'opened' ? 'opened' : 'NOT opened'}`);
}

function policyLines(choice: PolicyChoice): string[] {
  const { considered, notShown, notLookedAt, found, quoted, byDefault, exempt, socket } = choice;
  const lines = considered.map(({ policy, why }, i) => {
    return `${head(i === 0 ? 'policies' : '')}  no  ${policyText(policy)}\n${head('')}      ${why}`;
  });
  if (notLookedAt !== undefined) {
    lines.push(`${head('policies')}  there are ${notLookedAt}: too many to say why not each`);
  }
  if (notShown > 0) lines.push(`${head('')}  no  … and ${notShown} more`);
  if (socket) lines.push(...socketLines(socket, lines.length === 0 ? 'socket' : ''));
  const first = lines.length === 0 ? 'policy' : '';
  if (found) lines.push(`${head(first)}  yes ${policyText(found)}`);
  if (quoted) {
    lines.push(`${head(first)}  none fits the error; that of the flow that it quotes:`);
    lines.push(`${head('')}  yes ${policyText(quoted)}`);
  }
  if (byDefault) {
    const { setting, value } = byDefault;
    lines.push(`${head(first)}  none fits: ${setting} says ${value}`);
  }
  if (exempt !== undefined) lines.push(`${head('')}      not for this packet: ${exempt}`);
  return lines;
}

function socketLines({ ends, rule, match, why }: SocketText, title: string): string[] {
  return [`${head(title)}  ${ends} says ${rule}`, `${head('')}      ${match}; ${why}`];
}

function requestLines(step: RequestStep, index: number): string[] {
  const { request, level, levelFrom, sa, unmet } = step;
  const from = levelFrom === 'policy' ? '' : `, as ${levelFrom} says`;
  const lines = row(`request ${index + 1}`, `${request}  (level ${level}${from})`);
  if (sa) lines.push(`${head('')}  yes ${saText(sa)}`);
  else if (unmet === undefined && step.refused.length === 0)
    lines.push(`${head('')}  no SA is there`);
  if (unmet !== undefined) lines.push(`${head('')}  not met: ${unmet}`);
  return [...lines, ...refused(step.refused)];
}

function refused(sas: readonly RefusedSa[]): string[] {
  return sas.map(({ sa, why }) => `${head('')}  no  ${saText(sa)}\n${head('')}      ${why}`);
}

function sizeText({ before, after, mtu, verdict, reported }: SizeStep): string {
  const grown = after === before ? `${before}` : `${before} -> ${after}`;
  switch (verdict) {
    case 'fits':
      return `${grown} octets, the wire carries ${mtu}`;
    case 'fragments':
      return `${grown} octets, the wire carries ${mtu}: it is cut into fragments`;
    case 'too-big': {
      const told = reported === undefined ? '' : `; the sender is told that ${reported} fit`;
      return `${grown} octets, the wire carries ${mtu}, and it must stay whole${told}`;
    }
    case 'too-long':
      return `${grown} octets, and no packet is longer than 65535`;
  }
}

function outcomeLines(outcome: Outcome): string[] {
  const lines = row('result', verdictText(outcome));
  if (outcome.kind === 'dropped') {
    const { fault, advice } = outcome;
    return [...lines, ...row('at fault', fault), ...row('to do', advice)];
  }
  if (outcome.kind === 'waits') return lines;
  return [
    ...lines,
    ...outcome.packets.map(({ text, len }) => `${head('')}  ${text} (${len} octets)`),
  ];
}

function verdictText(outcome: Outcome): string {
  switch (outcome.kind) {
    case 'dropped':
      return `DROPPED, ${outcome.reason}: ${outcome.text}`;
    case 'waits':
      return `WAITS: ${outcome.text} (${outcome.reason} if nothing comes)`;
    case 'delivered':
      return 'DELIVERED';
    case 'clear':
      return 'SENT IN THE CLEAR';
    case 'protected':
      return 'SENT PROTECTED';
  }
}

function layoutLines({ fields, octets }: Layout): string[] {
  const lines = fields.map(({ at, len, what }, i) => {
    const place = `${String(at).padStart(5)} ${String(len).padStart(5)}`;
    return `${head(i === 0 ? 'layout' : '')}${place}  ${what}`;
  });
  const dump = octets.match(/.{1,64}/g) ?? [];
  const note = 'ciphertext and ICV are random: nothing was sealed';
  return [...lines, ...row('octets', note), ...dump.map((line) => `${head('')}  ${line}`)];
}

function policyText({ id, selector, type, requests }: PolicyText): string {
  return [`${id}`, selector, type, ...requests].join('  ');
}

function saText(sa: SaText): string {
  const { protocol, spi, src, dst, mode, state, reqid, algorithms } = sa;
  const name = `${protocol} SPI ${hex32(spi)} ${src} > ${dst}`;
  return `${name}, ${algorithms.join(' ')}, mode ${mode}, reqid ${reqid}, ${state}`;
}

function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

function row(title: string, text: string): string[] {
  return [`${head(title)}  ${text}`];
}

function head(title: string): string {
  return title.padEnd(10);
}
