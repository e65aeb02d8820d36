/**
 * The system-wide defaults of ipsec(4), as the engine reads them. Changed at run time; each change
 * works from then on.
 */
export interface Settings {
  readonly inet: FamilySettings;
  readonly inet6: FamilySettings;
  /** DF of an IPv4 tunnel header, where the SA does not say. */
  dfbit: 'clear' | 'set' | 'copy';
  /** Whether AH over IPv4 leaves the TOS octet out, as RFC 4302 wants. */
  ahClearTos: boolean;
  /** Bits of the flags and fragment offset that AH over IPv4 covers; RFC 4302 wants none. */
  ahOffsetMask: number;
  /**
   * `strict`: the SAs used must be the ones that the policy asks for (RFC 4301 §5.2). `loose`: any
   * ESP or AH will do.
   */
  policyCheck: 'strict' | 'loose';
  preferOldSa: boolean;
  /** Local UDP ports on which ESP in UDP arrives. */
  encapsulationPorts: readonly number[];
  /**
   * Whether an authenticated packet from a new address or port of a NAT moves the SAs of that peer.
   */
  followNat: boolean;
  /** Seconds of silence after which a NAT is sent a keep-alive; 0: never. */
  keepaliveSeconds: number;
}

export interface FamilySettings {
  /** What happens to a packet that no policy matches. */
  defPolicy: 'discard' | 'none';
  espTransDeflev: 'use' | 'require';
  espNetDeflev: 'use' | 'require';
  ahTransDeflev: 'use' | 'require';
  ahNetDeflev: 'use' | 'require';
  /**
   * Tunnel headers and ECN: 1 RFC 6040 normal mode, 0 outer never ECN capable, -1 outer copied and
   * ignored (RFC 2401).
   */
  ecn: -1 | 0 | 1;
  /**
   * ESP pads payloads shorter than this by a random number of octets, up to this length; -1: never.
   */
  espRandpad: number;
  /** Whether every packet that is dropped is logged. */
  debug: boolean;
}

/** Whether ESP in UDP arrives on a local port. */
export function isEncapsulationPort({ encapsulationPorts }: Settings, port: number): boolean {
  // There are one or two: `includes` would take five times as long.
  for (let i = 0; i < encapsulationPorts.length; i++) {
    if (encapsulationPorts[i] === port) return true;
  }
  return false;
}

export function defaultSettings(): Settings {
  return {
    inet: familyDefaults(),
    inet6: familyDefaults(),
    dfbit: 'clear',
    ahClearTos: true,
    ahOffsetMask: 0,
    policyCheck: 'strict',
    preferOldSa: false,
    encapsulationPorts: [4500],
    followNat: true,
    keepaliveSeconds: 20,
  };
}

function familyDefaults(): FamilySettings {
  return {
    defPolicy: 'none',
    espTransDeflev: 'use',
    espNetDeflev: 'use',
    ahTransDeflev: 'use',
    ahNetDeflev: 'use',
    // Deviation: KAME's default is 0, from before RFC 6040 §4.1 made copying the ECN field the
    // rule.
    ecn: 1,
    espRandpad: -1,
    debug: false,
  };
}
