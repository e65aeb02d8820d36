import { KeyError } from '../../../src/base/error.ts';
import { formatPolicy, parsePolicy } from '../../../src/spd/set-policy.ts';
import { must, type Target } from '../target.ts';

const utf8 = new TextEncoder();
const text = new TextDecoder();

/** What is printed can be read again, and means the same. */
function run(input: Uint8Array): void {
  try {
    const policy = parsePolicy(text.decode(input));
    // A direction alone, which names a policy to delete, has no text of its own.
    if (policy.priority === 0) return;
    const once = formatPolicy(policy, { ports: true });
    must(formatPolicy(parsePolicy(once), { ports: true }) === once, 'printed and read again');
  } catch (error) {
    if (!(error instanceof KeyError)) throw error;
  }
}

const WORDS =
  'in out fwd prio priority low def high + - ipsec none discard bypass entrust esp ah ipcomp / // transport ' +
  'tunnel default use require unique :7 #7 1.2.3.4-5.6.7.8 ::1[500]-::2[4500] me-any any-me 4294967296';

export const policy: Target = {
  name: 'policy',
  lenMax: 300,
  words: WORDS.split(' ').map((word) => utf8.encode(word)),
  seeds: () =>
    [
      'in ipsec esp/transport//require',
      'out prio def + 1 ipsec esp/tunnel/1.2.3.4-5.6.7.8/unique:3 ah/transport//use',
      'out priority -5 discard',
      'fwd none',
      'in ipsec esp/tunnel/2001:db8::1[4500]-2001:db8::2[4500]/require ipcomp/transport//use',
    ].map((one) => utf8.encode(one)),
  create: () => run,
};
