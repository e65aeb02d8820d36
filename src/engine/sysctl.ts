import { KeyError } from '../base/error.ts';
import type { FamilySettings, Settings } from './settings.ts';

/** A number, or the fields of a struct. */
export type SysctlValue = number | Readonly<Record<string, unknown>>;

/** One variable of sysctl(3). */
export interface Variable {
  readonly name: string;
  /** What other systems call it. */
  readonly aliases: readonly string[];
  readonly type: 'int' | 'struct';
  readonly description: string;
  /** The smallest and largest value, and what values mean, where they are names for something. */
  readonly min?: number;
  readonly max?: number;
  readonly meanings?: Readonly<Record<number, string>>;
  get(): SysctlValue;
  /** Absent: read-only. */
  set?(value: number): void;
}

/** Variables by name: what sysctl(3) and sysctl(8) do. Changes work from the next packet on. */
export class Sysctl {
  readonly variables: readonly Variable[];
  readonly #byName = new Map<string, Variable>();

  constructor(variables: readonly Variable[]) {
    this.variables = variables;
    for (const variable of variables) {
      for (const name of [variable.name, ...variable.aliases]) this.#byName.set(name, variable);
    }
  }

  /** Throws ENOENT when there is none of that name. */
  find(name: string): Variable {
    const variable = this.#byName.get(name);
    if (variable) return variable;
    throw new KeyError('ENOENT', `there is no variable "${name.slice(0, 80)}"`);
  }

  /**
   * The value, and if a new one is given, the value that was: sysctlbyname(3). Throws ENOENT for an
   * unknown name, EPERM for what can only be read, EINVAL for a value that is not allowed.
   */
  call(name: string, value?: number): SysctlValue {
    const variable = this.find(name);
    const before = variable.get();
    if (value === undefined) return before;
    if (!variable.set) throw new KeyError('EPERM', `${variable.name} can only be read`);
    const { min = -(2 ** 31), max = 2 ** 32 - 1, meanings } = variable;
    const isNamed = meanings === undefined || Object.hasOwn(meanings, value);
    if (!Number.isInteger(value) || value < min || value > max || !isNamed) {
      throw new KeyError('EINVAL', `${variable.name}: ${value} is not ${allowed(variable)}`);
    }
    variable.set(value);
    return before;
  }
}

/** `0 (discard) or 1 (none)`, `a whole number from 1 to 10`. */
export function allowed({ min, max, meanings }: Variable): string {
  if (meanings === undefined) return `a whole number from ${min} to ${max}`;
  const values = Object.keys(meanings).sort((a, b) => Number(a) - Number(b));
  return values.map((value) => `${value} (${meanings[Number(value)]})`).join(' or ');
}

/** The variables of `net.inet.ipsec` and `net.inet6.ipsec6` that the engine reads. */
export function engineVariables(settings: Settings): Variable[] {
  return [
    ...familyVariables('net.inet.ipsec', settings.inet),
    ...familyVariables('net.inet6.ipsec6', settings.inet6),
    flag({
      name: 'net.inet.ipsec.ah_cleartos',
      aliases: ['net.inet.ah.ah_cleartos'],
      description: 'whether AH leaves the TOS octet out, as RFC 4302 wants',
      get: () => settings.ahClearTos,
      set: (value) => {
        settings.ahClearTos = value;
      },
    }),
    int({
      name: 'net.inet.ipsec.ah_offsetmask',
      description: 'bits of the flags and the fragment offset that AH covers',
      ...{ min: 0, max: 0xffff },
      get: () => settings.ahOffsetMask,
      set: (value) => {
        settings.ahOffsetMask = value;
      },
    }),
    choice({
      name: 'net.inet.ipsec.dfbit',
      description: 'DF of IPv4 tunnel headers, where the SA does not say',
      meanings: { 0: 'clear', 1: 'set', 2: 'copy' },
      get: () => settings.dfbit,
      set: (value) => {
        settings.dfbit = value;
      },
    }),
    choice({
      name: 'net.inet.ipsec.check_policy_history',
      description: 'whether an inbound policy wants the very SAs that it names',
      meanings: { 0: 'loose', 1: 'strict' },
      get: () => settings.policyCheck,
      set: (value) => {
        settings.policyCheck = value;
      },
    }),
  ];
}

/**
 * Whether there is IPsec at all, and whether it has anything to do, as NetBSD tells. Both are about
 * the whole host under either name.
 */
export function useVariables(spd: { readonly size: number }): Variable[] {
  return ['net.inet.ipsec', 'net.inet6.ipsec6'].flatMap((prefix) => [
    {
      ...{ name: `${prefix}.enabled`, aliases: [], type: 'int' },
      description: 'whether the host does IPsec',
      get: () => 1,
    },
    {
      ...{ name: `${prefix}.used`, aliases: [], type: 'int' },
      description: 'whether there are policies',
      get: () => Number(spd.size > 0),
    },
  ]);
}

function familyVariables(prefix: string, settings: FamilySettings): Variable[] {
  return [
    choice({
      name: `${prefix}.def_policy`,
      description: 'what happens to a packet that no policy matches',
      meanings: { 0: 'discard', 1: 'none' },
      get: () => settings.defPolicy,
      set: (value) => {
        settings.defPolicy = value;
      },
    }),
    level(`${prefix}.esp_trans_deflev`, 'ESP in transport mode', settings, 'espTransDeflev'),
    level(`${prefix}.esp_net_deflev`, 'ESP in tunnel mode', settings, 'espNetDeflev'),
    level(`${prefix}.ah_trans_deflev`, 'AH in transport mode', settings, 'ahTransDeflev'),
    level(`${prefix}.ah_net_deflev`, 'AH in tunnel mode', settings, 'ahNetDeflev'),
    int({
      name: `${prefix}.ecn`,
      description: 'ECN of tunnel headers: 1 RFC 6040, 0 never capable, -1 as RFC 2401',
      ...{ min: -1, max: 1 },
      get: () => settings.ecn,
      set: (value) => {
        settings.ecn = value as -1 | 0 | 1;
      },
    }),
    int({
      name: `${prefix}.esp_randpad`,
      description: 'ESP pads payloads shorter than this at random, up to this length; -1: never',
      // What is padded must fit into any MTU.
      ...{ min: -1, max: 1024 },
      get: () => settings.espRandpad,
      set: (value) => {
        settings.espRandpad = value;
      },
    }),
    flag({
      name: `${prefix}.debug`,
      description: 'whether every packet that is dropped is logged',
      get: () => settings.debug,
      set: (value) => {
        settings.debug = value;
      },
    }),
  ];
}

type LevelName = 'espTransDeflev' | 'espNetDeflev' | 'ahTransDeflev' | 'ahNetDeflev';

function level(name: string, what: string, settings: FamilySettings, field: LevelName): Variable {
  return choice({
    name,
    description: `what the level "default" of a policy means for ${what}`,
    meanings: { 1: 'use', 2: 'require' },
    get: () => settings[field],
    set: (value) => {
      settings[field] = value;
    },
  });
}

interface Named<T> {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly description: string;
  get(): T;
  set(value: T): void;
}

/** A variable whose values are numbers for words of the settings. */
export function choice<T extends string>(
  given: Named<T> & { readonly meanings: Readonly<Record<number, T>> },
): Variable {
  const numbers = Object.keys(given.meanings).map(Number);
  return {
    ...{ name: given.name, aliases: given.aliases ?? [], type: 'int' },
    ...{ description: given.description, meanings: given.meanings },
    get: () => numbers.find((number) => given.meanings[number] === given.get())!,
    set: (value) => given.set(given.meanings[value]!),
  };
}

export function flag(given: Named<boolean>): Variable {
  return {
    ...{ name: given.name, aliases: given.aliases ?? [], type: 'int' },
    ...{ description: given.description, meanings: { 0: 'no', 1: 'yes' } },
    get: () => Number(given.get()),
    set: (value) => given.set(value === 1),
  };
}

export function int(
  given: Named<number> & { readonly min: number; readonly max: number },
): Variable {
  return { ...given, aliases: given.aliases ?? [], type: 'int' };
}
