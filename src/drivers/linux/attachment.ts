import { type Address, address } from '../../base/address.ts';
import type { Link } from '../link.ts';
import { checkDeviceName } from './device.ts';
import type { DiversionTable } from './diversion.ts';
import { Diverter, type DiverterEvents } from './diverter.ts';
import { undoLeftovers } from './leftovers.ts';
import { libc } from './libc.ts';
import { addHostAddress } from './netlink-link.ts';
import { families, setReversePathFilter } from './network.ts';
import type { OffloadWish } from './offload.ts';
import { openErrors, type RawLink } from './raw.ts';
import type { SocketPort } from './redirect-filter.ts';
import { removeSocketRules } from './socket-device.ts';
import { openTun, type TunLink } from './tun.ts';
import { openWire, type WireLink } from './wire-link.ts';

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
  /** The devices to guard; `auto`: all, also those that are down and those that come later. */
  readonly wires: readonly string[] | 'auto';
  /** UDP port of ESP in UDP; none if not given. */
  readonly encapPort?: number;
  /** Whether ESP and AH are received as IP protocols 50 and 51. */
  readonly rawIp: boolean;
  /** Whether large packets are exchanged with the kernel. Default `auto`. */
  readonly offload?: OffloadWish;
  /**
   * How many threads share the work; 1 if not given. This one reads the part of the first: the
   * others open theirs by `openShareLinks`, in order, before anything is diverted.
   */
  readonly workers?: number;
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
  readonly wire: WireLink;
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
   * From now on these packets are diverted. The work is that of what has changed in the table since
   * the last call; without a change, what has failed is tried again. Throws an Error; then what
   * both the old and the new table divert still is.
   */
  divert(table: DiversionTable): void;
  /**
   * UDP ports of programs whose ESP is redirected to `inspect`. Works with the next `divert` if
   * there was none yet. Throws an Error; then it is as before.
   */
  sharePorts(ports: readonly number[]): void;
  /**
   * Where sockets that are bound to a device of their own take clear packets: these go to
   * `inspect`. Throws an Error; then it is as before.
   */
  divertPorts(ports: readonly SocketPort[]): void;
  setMtu(mtu: number): void;
  /** For people: how packets are exchanged with the kernel, a line for each way. */
  describeIo(): readonly string[];
  /** Addresses of this host, on all devices that are up. */
  addresses(): readonly Address[];
  /** The network is followed without being asked to; these are told what came of it. */
  follow(events: DiverterEvents): void;
  /** Looks at everything anew, after a failure. Throws an Error. */
  refresh(): void;
  /** Detaches and undoes all changes; from then on packets go in the clear. */
  close(): void;
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
const TUN_ADDRESS = address('192.0.0.8');

/**
 * Attaches an engine to this network namespace. Nothing is diverted before `divert`; what a crashed
 * process has left stays in force until then. Needs CAP_NET_ADMIN and CAP_NET_RAW, and a kernel
 * with TUN, cls_bpf and act_mirred. Throws an Error that says what is missing, with everything
 * undone.
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
  const all = families();
  const c = libc('cleaning up');
  runAll([
    () => removeSocketRules(c, { ...socketDevicePlace({ table, rulePref }), families: all }),
    ...undoLeftovers(c, { table, rulePref, stateFile, families: all }),
  ]);
}

function inspectName(tunName: string): string {
  return `${tunName}i`;
}

/** Where the device for sockets is: beside the other two, with a table and a rule of its own. */
export function socketDevicePlace({
  tunName = TUN_DEFAULT,
  table = TABLE_DEFAULT,
  rulePref = RULE_PREF_DEFAULT,
}: Pick<AttachOptions, 'tunName' | 'table' | 'rulePref'>) {
  return { name: `${tunName}s`, table: table + 1, pref: rulePref - 1 };
}

class Attached implements Attachment {
  readonly #options: AttachOptions;
  readonly #tun: string;
  #diverter: Diverter | undefined;
  #errors: RawLink | undefined;
  #local: TunLink | undefined;
  #inspect: TunLink | undefined;
  #wire: WireLink | undefined;
  #events: DiverterEvents | undefined;
  #mtu: number | 'auto';
  #mtuNow = 0;
  #closed = false;

  constructor(options: AttachOptions, tunName: string) {
    this.#options = options;
    this.#mtu = options.mtu;
    this.#tun = tunName;
  }

  get local(): Link {
    return this.#local!;
  }

  get wire(): WireLink {
    return this.#wire!;
  }

  get inspect(): Link {
    return this.#inspect!;
  }

  get errors(): Link {
    return this.#errors!;
  }

  describeIo(): readonly string[] {
    const { name } = this.#local!;
    const how = this.#wire!.describeEncap();
    const encap = how === undefined ? [] : [`ESP in UDP: ${how}`];
    return [`${name}: ${this.#local!.describe()}`, ...encap];
  }

  get wireMtu(): number {
    return this.#diverter?.mtu ?? 1500;
  }

  open(): void {
    const { mark, rawIp, encapPort, wires, stateFile, offload = 'auto' } = this.#options;
    const { table = TABLE_DEFAULT, rulePref = RULE_PREF_DEFAULT } = this.#options;
    const tun = this.#tun;
    const all = families();
    const otherTables = [socketDevicePlace(this.#options).table];
    const places = { table, otherTables, rulePref, mark, families: all };
    const diverter = new Diverter(libc('TUN'), { ...places, wires, stateFile, encapPort });
    this.#diverter = diverter;
    diverter.follow({
      changed: () => this.#networkChanged(),
      failed: (error) => this.#events?.failed(error),
    });
    diverter.open();
    const { workers = 1 } = this.#options;
    const share = workers > 1 ? { self: 0, count: workers } : undefined;
    this.#wire = openWire({ mark, families: all, rawIp, encapPort, offload, share });
    this.#errors = openErrors({ mark, families: all });
    this.#mtuNow = this.#currentMtu();
    const queue = share ? { queue: 'first' as const } : {};
    this.#local = openTun({ name: tun, mtu: this.#mtuNow, offload, ...queue });
    this.#wire.backlog.pauses(this.#local);
    // Opened packets have sources that are routed elsewhere than to this device, if only one
    // direction is protected.
    setReversePathFilter(tun, '2');
    // To a device without an address, Linux applies the strict filter whatever is set. The scope
    // keeps it from being a source of packets.
    diverter.netlink.run(addHostAddress(diverter.index(tun), TUN_ADDRESS, 32));
    this.#inspect = openTun({ name: inspectName(tun), mtu: MTU_MAX, offload });
    diverter.start(tun, inspectName(tun));
  }

  addresses(): readonly Address[] {
    return this.#diverter?.addresses ?? [];
  }

  divert(table: DiversionTable): void {
    this.#diverter?.divert(table);
  }

  sharePorts(ports: readonly number[]): void {
    this.#diverter?.sharePorts(ports);
  }

  divertPorts(ports: readonly SocketPort[]): void {
    this.#diverter?.divertPorts(ports);
  }

  setMtu(mtu: number): void {
    this.#mtu = mtu;
    this.#followMtu();
  }

  follow(events: DiverterEvents): void {
    this.#events = events;
  }

  refresh(): void {
    this.#diverter?.refresh();
    this.#followMtu();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    runAll([...(this.#diverter?.restore() ?? []), () => this.#closeDevices()]);
  }

  /**
   * After a failed start: undoes what we did, but what an earlier process has left goes on
   * blocking, and what another one has set stays.
   */
  abandon(): void {
    this.#closed = true;
    runAll([...(this.#diverter?.abandon() ?? []), () => this.#closeDevices()]);
  }

  #networkChanged(): void {
    if (this.#closed) return;
    this.#followMtu();
    this.#events?.changed();
  }

  #followMtu(): void {
    const mtu = this.#currentMtu();
    if (mtu === this.#mtuNow) return;
    this.#local?.setMtu(mtu);
    this.#mtuNow = mtu;
  }

  #closeDevices(): void {
    this.#inspect?.close();
    this.#local?.close();
    this.#wire?.close();
    this.#errors?.close();
    this.#diverter?.close();
  }

  #currentMtu(): number {
    if (this.#mtu !== 'auto') return this.#mtu;
    const least = this.wireMtu - OVERHEAD_AUTO;
    return Math.max(MTU_MIN, Math.min(MTU_MAX, least));
  }
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
