import type { Family } from '../../base/address.ts';
import type { PacketSink } from '../../wire/packet.ts';
import type { Link } from '../link.ts';
import { checkDeviceName } from './device.ts';
import { type Diversion, NO_DIVERSION } from './diversion.ts';
import { families, setReversePathFilter } from './network.ts';
import { openErrors, openRaw, type RawLink } from './raw.ts';
import { applyRoutes, flushRoutes, type RouteContext } from './routes.ts';
import { addRule, removeRule } from './rule.ts';
import { run } from './tools.ts';
import { openTun, type TunLink } from './tun.ts';
import { openUdpEncap, type UdpEncap } from './udp.ts';
import { Wires } from './wires.ts';

export interface AttachOptions {
  /**
   * The device that diverted packets are read from, 1 to 14 octets; `…i` is the one for clear
   * packets from the wire.
   */
  readonly tunName?: string;
  /**
   * SO_MARK of our sockets, not 0. Programs with CAP_NET_ADMIN that set it bypass the engine, as
   * IKE daemons must.
   */
  readonly mark: number;
  /** A routing table of our own. */
  readonly table?: number;
  /** Preference of the routing rule and of the filters at the wires. */
  readonly rulePref?: number;
  /**
   * MTU of the TUN device; `auto`: the smallest of the wires less `OVERHEAD_AUTO`, at least 1280.
   */
  readonly mtu: number | 'auto';
  /** The devices to guard; `auto`: all that are up. */
  readonly wires: readonly string[] | 'auto';
  /** UDP port of ESP in UDP; none if not given. */
  readonly encapPort?: number;
  /** Whether ESP and AH are received as IP protocols 50 and 51. */
  readonly rawIp: boolean;
  /** What must be undone is written here (mode 0600), for a process that comes after a crash. */
  readonly stateFile: string;
}

export interface Attachment {
  /**
   * The host's own side: what it sends and does not know to be protected, and what it receives
   * opened.
   */
  readonly local: Link;
  /** The network's side: ESP, AH and ESP in UDP in; whole IP packets out. */
  readonly wire: RefusingLink;
  /**
   * Clear packets that came from the wire, to be judged. What may pass is sent to `local`, not back
   * here.
   */
  readonly inspect: Link;
  /** Copies of the ICMP errors that the kernel gets from the wire. */
  readonly errors: Link;
  /** The smallest MTU of the guarded devices, in octets. */
  readonly wireMtu: number;
  /**
   * From now on these packets are diverted. Throws an Error; then what both the old and the new one
   * divert still is.
   */
  setDiversion(diversion: Diversion): void;
  /**
   * UDP ports of programs whose ESP is redirected to `inspect`. Works with the next diversion if
   * there is none yet. Throws as `setDiversion`.
   */
  sharePorts(ports: readonly number[]): void;
  setMtu(mtu: number): void;
  /** Call when devices, addresses or routes of the host may have changed. */
  refresh(): void;
  /** Detaches and undoes all changes; from then on packets go in the clear. */
  close(): void;
}

export interface RefusingLink extends Link {
  readonly refusals: ReadonlyMap<string, number>;
}

/**
 * What the largest usual SA adds: tunnel in IPv6 (40), UDP (8), ESP (8), IV (16), padding (17), ICV
 * (32), rounded up.
 */
export const OVERHEAD_AUTO = 128;
const MTU_MIN = 1280;
const MTU_MAX = 65_535;
export const TABLE_DEFAULT = 7557;
export const RULE_PREF_DEFAULT = 100;
export const TUN_DEFAULT = 'testudo0';
/** For a node that must have some IPv4 address and has none (RFC 7600 §4.8). */
const TUN_ADDRESS = '192.0.0.8';

/**
 * Attaches an engine to this network namespace. Nothing is diverted before `setDiversion`; what a
 * crashed process has left stays in force until then. Needs CAP_NET_ADMIN and CAP_NET_RAW,
 * iproute2, and a kernel with TUN, cls_bpf and act_mirred. Throws an Error that says what is
 * missing, with everything undone.
 *
 * The order matters: a socket for ESP must exist before anything is diverted, since otherwise the
 * kernel answers ESP by "protocol unreachable", and that answer would be diverted, protected and
 * answered in turn, for ever.
 */
export function attach(options: AttachOptions): Attachment {
  const tunName = options.tunName ?? TUN_DEFAULT;
  checkDeviceName(tunName);
  checkDeviceName(inspectName(tunName));
  if (options.mark === 0) throw new Error('the mark of our sockets must not be 0');
  const attached = new Attached(options, tunName);
  try {
    attached.open();
  } catch (error) {
    try {
      attached.abandon();
    } catch {
      // What made the start fail usually makes this fail too, and says it better.
    }
    throw error;
  }
  return attached;
}

/** Which attachment of an earlier process to undo: the options it had. */
export interface CleanUpOptions {
  readonly table?: number;
  readonly rulePref?: number;
  readonly stateFile: string;
}

/**
 * Undoes what a process that was killed has left, also its block: from then on packets go in the
 * clear.
 */
export function cleanUp(options: CleanUpOptions): void {
  const { table = TABLE_DEFAULT, rulePref = RULE_PREF_DEFAULT, stateFile } = options;
  const wires = new Wires({ wires: [], filterPref: rulePref, stateFile });
  runAll([
    ...families().map((family) => () => removeRule(family, { table, pref: rulePref })),
    () => wires.restore(),
    ...families().map((family) => () => flushRoutes(table, family)),
  ]);
}

function inspectName(tunName: string): string {
  return `${tunName}i`;
}

class Attached implements Attachment {
  readonly #options: AttachOptions;
  readonly #routes: RouteContext;
  readonly #rulePref: number;
  readonly #wires: Wires;
  #raw: RawLink | undefined;
  #udp: UdpEncap | undefined;
  #errors: RawLink | undefined;
  #local: TunLink | undefined;
  #inspect: TunLink | undefined;
  #wire: RefusingLink | undefined;
  #diversion: Diversion = NO_DIVERSION;
  #diverting = false;
  readonly #addedRules: Family[] = [];
  #mtu: number | 'auto';
  #closed = false;

  constructor(options: AttachOptions, tunName: string) {
    const { table = TABLE_DEFAULT, rulePref = RULE_PREF_DEFAULT, mark, encapPort } = options;
    this.#options = options;
    this.#mtu = options.mtu;
    this.#rulePref = rulePref;
    this.#routes = { table, tun: tunName, mark, families: families() };
    const { wires, stateFile } = options;
    this.#wires = new Wires({ wires, stateFile, encapPort, filterPref: rulePref });
  }

  get local(): Link {
    return this.#local!;
  }

  get wire(): RefusingLink {
    return this.#wire!;
  }

  get inspect(): Link {
    return this.#inspect!;
  }

  get errors(): Link {
    return this.#errors!;
  }

  get wireMtu(): number {
    return this.#wires.mtu ?? 1500;
  }

  open(): void {
    const { mark, rawIp, encapPort } = this.#options;
    const { tun, families: all, table } = this.#routes;
    this.#wires.find();
    // Also when nothing is read from them: without a socket the kernel would answer what arrives.
    this.#raw = openRaw({ mark, families: all, protocols: [50, 51] });
    this.#errors = openErrors({ mark, families: all });
    if (encapPort !== undefined) this.#udp = openUdpEncap({ port: encapPort, mark, families: all });
    this.#wire = mergeWire(this.#raw, this.#udp, rawIp);
    this.#local = openTun({ name: tun, mtu: this.#currentMtu() });
    // Opened packets have sources that are routed elsewhere than to this device, if only one
    // direction is protected.
    setReversePathFilter(tun, '2');
    // To a device without an address, Linux applies the strict filter whatever is set. The scope
    // keeps it from being a source of packets.
    run('ip', ['-4', 'address', 'add', `${TUN_ADDRESS}/32`, 'dev', tun, 'scope', 'host']);
    this.#inspect = openTun({ name: inspectName(tun), mtu: MTU_MAX });
    for (const family of all) {
      if (addRule(family, { table, pref: this.#rulePref, mark })) this.#addedRules.push(family);
    }
  }

  setDiversion(diversion: Diversion): void {
    this.#diversion = diversion;
    this.#diverting = true;
    applyRoutes(diversion, this.#routes);
    this.#wires.setFilters(diversion, inspectName(this.#routes.tun));
  }

  sharePorts(ports: readonly number[]): void {
    const before = this.#wires.sharedPorts;
    this.#wires.sharedPorts = ports;
    if (!this.#diverting) return;
    try {
      this.#wires.setFilters(this.#diversion, inspectName(this.#routes.tun));
    } catch (error) {
      this.#wires.sharedPorts = before;
      throw error;
    }
  }

  setMtu(mtu: number): void {
    this.#mtu = mtu;
    this.#local?.setMtu(mtu);
  }

  refresh(): void {
    this.#wires.find();
    if (this.#mtu === 'auto') this.#local?.setMtu(this.#currentMtu());
    if (this.#diverting) this.setDiversion(this.#diversion);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const { families: all, table } = this.#routes;
    runAll([
      ...all.map((family) => () => removeRule(family, { table, pref: this.#rulePref })),
      () => this.#wires.restore(),
      ...all.map((family) => () => flushRoutes(table, family)),
      () => this.#closeDevices(),
    ]);
  }

  /**
   * After a failed start: undoes what we did, but what an earlier process has left goes on
   * blocking, and what another one has set stays.
   */
  abandon(): void {
    this.#closed = true;
    const { table } = this.#routes;
    runAll([
      ...this.#addedRules.map(
        (family) => () => removeRule(family, { table, pref: this.#rulePref }),
      ),
      () => this.#wires.tookOver || this.#wires.unfind(),
      () => this.#closeDevices(),
    ]);
  }

  #closeDevices(): void {
    this.#inspect?.close();
    this.#local?.close();
    this.#udp?.close();
    this.#errors?.close();
    this.#raw?.close();
  }

  #currentMtu(): number {
    if (this.#mtu !== 'auto') return this.#mtu;
    const least = this.wireMtu - OVERHEAD_AUTO;
    return Math.max(MTU_MIN, Math.min(MTU_MAX, least));
  }
}

function mergeWire(raw: RawLink, udp: UdpEncap | undefined, rawIp: boolean): RefusingLink {
  return {
    name: 'wire',
    receive(handler: PacketSink): void {
      if (rawIp) raw.receive(handler);
      udp?.receive(handler);
    },
    send: (packets, count) => raw.send(packets, count),
    get refused() {
      return raw.refused + (udp?.refused ?? 0);
    },
    get refusals() {
      const all = new Map(raw.refusals);
      for (const [reason, count] of udp?.refusals ?? []) {
        all.set(reason, (all.get(reason) ?? 0) + count);
      }
      return all;
    },
    close(): void {
      raw.close();
      udp?.close();
    },
  };
}

/**
 * Runs all steps even if some fail, then throws what failed: half undone is worse than undone with
 * an error.
 */
function runAll(steps: readonly (() => unknown)[]): void {
  const errors: Error[] = [];
  for (const step of steps) {
    try {
      step();
    } catch (error) {
      errors.push(error instanceof Error ? error : new Error(String(error)));
    }
  }
  if (errors.length === 1) throw errors[0];
  if (errors.length > 1) {
    throw new AggregateError(errors, errors.map((error) => error.message).join('; '));
  }
}
