import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { type Address, type Family, formatAddress } from '../../base/address.ts';
import type { Netlink } from './netlink.ts';
import {
  type Device,
  type DeviceAddress,
  decodeAddress,
  decodeDevice,
  listAddresses,
  listDevices,
  RTM_DELADDR,
  RTM_DELLINK,
} from './netlink-link.ts';
import type { NetlinkMessage } from './netlink-message.ts';

/** The address families that this kernel has. */
export function families(): Family[] {
  return existsSync('/proc/sys/net/ipv6') ? [4, 6] : [4];
}

export interface Wire {
  readonly name: string;
  /**
   * Another number under the same name is another device: nothing that we set on the old one holds.
   */
  readonly index: number;
  readonly up: boolean;
  readonly mtu: number;
  /** Octets in front of the IP header. */
  readonly linkHeaderLen: number;
}

/** What this namespace's network looks like: read once, and kept up with the kernel's notices. */
export class Network {
  readonly #devices = new Map<number, Device>();
  readonly #addresses = new Map<string, DeviceAddress>();
  #all: readonly Address[] | undefined;
  #locals: Readonly<Record<Family, readonly Address[]>> | undefined;

  /** Reads everything anew. Throws an Error. */
  read(netlink: Netlink): void {
    const devices = netlink.dump(listDevices(), decodeDevice);
    const addresses = netlink.dump(listAddresses(), decodeAddress);
    this.#devices.clear();
    this.#addresses.clear();
    for (const device of devices) this.#devices.set(device.index, device);
    for (const address of addresses) this.#addresses.set(keyOf(address), address);
    this.#forget();
  }

  /**
   * Takes a notice in. Returns what of the network has changed by it, or undefined for a notice
   * about something else. Throws an Error for a malformed one.
   */
  note(message: NetlinkMessage): 'device' | 'address' | undefined {
    const device = decodeDevice(message);
    if (device) {
      if (message.type === RTM_DELLINK) this.#devices.delete(device.index);
      else this.#devices.set(device.index, device);
      this.#forget();
      return 'device';
    }
    const address = decodeAddress(message);
    if (!address) return undefined;
    if (message.type === RTM_DELADDR) this.#addresses.delete(keyOf(address));
    else this.#addresses.set(keyOf(address), address);
    this.#forget();
    return 'address';
  }

  /**
   * The devices that packets can leave by, up or down: those named, or (`auto`) all but the
   * loopback and TUN devices, ours or of other programs. A named device that does not exist now is
   * left out.
   */
  wires(which: readonly string[] | 'auto'): Wire[] {
    return [...this.#devices.values()]
      .filter((device) => (which === 'auto' ? isWire(device) : which.includes(device.name)))
      .map(wireOf);
  }

  device(name: string): Device | undefined {
    for (const device of this.#devices.values()) if (device.name === name) return device;
    return undefined;
  }

  /** Also false without the device. */
  isUp(index: number): boolean {
    return this.#devices.get(index)?.isUp === true;
  }

  /** All addresses of devices that are up. */
  addresses(): readonly Address[] {
    this.#all ??= [...this.#addresses.values()]
      .filter(({ device }) => this.isUp(device))
      .map(({ address }) => address);
    return this.#all;
  }

  /** This host's addresses that packets can have as their source; those of one link at the end. */
  locals(family: Family): readonly Address[] {
    this.#locals ??= { 4: this.#findLocals(4), 6: this.#findLocals(6) };
    return this.#locals[family];
  }

  #forget(): void {
    this.#all = undefined;
    this.#locals = undefined;
  }

  #findLocals(family: Family): Address[] {
    const usable = [...this.#addresses.values()].filter(
      (one) =>
        one.address.family === family &&
        one.isUsable &&
        one.scope !== 'host' &&
        this.isUp(one.device),
    );
    usable.sort((a, b) => Number(a.scope === 'link') - Number(b.scope === 'link'));
    return usable.map(({ address }) => address);
  }
}

/** The same address with another length, or on another device, is another entry of the kernel. */
function keyOf({ address, device, prefixLength }: DeviceAddress): string {
  return `${formatAddress(address)}/${prefixLength} ${device}`;
}

/**
 * A device under a bridge or bond passes its packets on before IP sees them: the upper device is
 * the wire.
 */
const UPPER_KINDS = new Set(['bridge', 'bond', 'team', 'openvswitch']);

function isWire({ isLoopback, kind, upperKind = '' }: Device): boolean {
  return !isLoopback && kind !== 'tun' && !UPPER_KINDS.has(upperKind);
}

function wireOf({ name, index, isUp, mtu, isEthernet }: Device): Wire {
  return { name, index, up: isUp, mtu, linkHeaderLen: isEthernet ? 14 : 0 };
}

/**
 * The reverse path filter of a device (Linux ip-sysctl: 0 off, 1 strict, 2 loose), or undefined
 * without the device.
 */
export function reversePathFilter(device: string): string | undefined {
  const file = `/proc/sys/net/ipv4/conf/${device}/rp_filter`;
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : undefined;
}

export function setReversePathFilter(device: string, value: string): void {
  const file = `/proc/sys/net/ipv4/conf/${device}/rp_filter`;
  if (existsSync(file)) writeFileSync(file, value);
}
