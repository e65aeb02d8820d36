import { decodeFilter, decodeQdisc, RTM_DELQDISC, RTM_DELTFILTER } from './netlink-filter.ts';
import type { NetlinkMessage } from './netlink-message.ts';
import { decodeRoute, RTM_DELROUTE, RTM_NEWROUTE } from './netlink-route.ts';
import { RTM_DELRULE } from './netlink-rule.ts';
import type { Network } from './network.ts';
import type { Routes } from './routes.ts';
import type { Wires } from './wires.ts';

/** What the kernel has told and nothing was done about yet. */
export interface News {
  /** Something that nobody knows. */
  isLost: boolean;
  devices: boolean;
  /** Local addresses, or devices that went up or down. */
  sources: boolean;
  /** Routes of other tables. */
  routes: boolean;
  /** Rules, filters and routes that somebody has removed; the routes by their keys. */
  rules: boolean;
  filters: boolean;
  readonly lostRoutes: Set<string>;
}

export interface NewsOptions {
  readonly network: Network;
  readonly routes: Routes;
  readonly wires: Wires;
  /** The table of `routes`. */
  readonly table: number;
  /** Tables that others of this process keep: what changes there is not news. */
  readonly otherTables: readonly number[];
  /** Preference of the filters. */
  readonly filterPref: number;
}

/** The kernel's own table, which follows the addresses; and its copies of routes for one peer. */
const TABLE_LOCAL = 255;
const RTM_F_CLONED = 0x200;

/** Takes the kernel's notices in: notes what was lost, and keeps the network up to date. */
export class NewsDesk {
  readonly #options: NewsOptions;
  #news = noNews();
  /** Whether the TUN was down since `wayIsBack` was called. */
  #areWaysLost = false;

  constructor(options: NewsOptions) {
    this.#options = options;
  }

  /** Undefined if there are none. */
  take(): News | undefined {
    const news = this.#news;
    const { isLost, devices, sources, routes, rules, filters, lostRoutes } = news;
    if (!(isLost || devices || sources || routes || rules || filters || lostRoutes.size > 0)) {
      return undefined;
    }
    this.#news = noNews();
    return news;
  }

  lost(): void {
    this.#news.isLost = true;
  }

  /** Whether the routes through the TUN have gone with it, and can be put back now. */
  areWaysLost(): boolean {
    const { network, routes } = this.#options;
    if (!this.#areWaysLost || !network.isUp(routes.device)) return false;
    this.#areWaysLost = false;
    return true;
  }

  /** Throws an Error for a malformed message. */
  note(message: NetlinkMessage): void {
    const news = this.#news;
    const { wires, filterPref } = this.#options;
    switch (message.type) {
      case RTM_NEWROUTE:
      case RTM_DELROUTE:
        return this.#noteRoute(message);
      case RTM_DELRULE:
        news.rules = true;
        return;
      case RTM_DELQDISC: {
        const qdisc = decodeQdisc(message);
        const isIngress = qdisc?.kind === 'ingress' || qdisc?.kind === 'clsact';
        if (isIngress && wires.lost(qdisc.device)) news.filters = true;
        return;
      }
      case RTM_DELTFILTER: {
        const filter = decodeFilter(message);
        if (filter?.pref === filterPref && wires.lost(filter.device)) news.filters = true;
        return;
      }
    }
    this.#noteNetwork(message);
  }

  #noteNetwork(message: NetlinkMessage): void {
    const news = this.#news;
    const { network, routes } = this.#options;
    const index = message.body.len >= 8 ? message.body.i32(4) : 0;
    const wasUp = network.isUp(index);
    const what = network.note(message);
    if (what === 'address') news.sources = true;
    if (what !== 'device') return;
    news.devices = true;
    // IPv4 routes go with their device, and nobody says so.
    news.sources ||= network.isUp(index) !== wasUp;
    this.#areWaysLost ||= routes.device !== 0 && !network.isUp(routes.device);
  }

  #noteRoute(message: NetlinkMessage): void {
    const route = decodeRoute(message);
    const isCopy = (message.body.u32(8) & RTM_F_CLONED) !== 0;
    const { table, otherTables, routes } = this.#options;
    if (!route || isCopy || [TABLE_LOCAL, ...otherTables].includes(route.table)) return;
    if (route.table !== table) this.#news.routes = true;
    else if (message.type === RTM_DELROUTE) {
      const key = routes.lost(route);
      if (key !== undefined) this.#news.lostRoutes.add(key);
    }
  }
}

function noNews(): News {
  return {
    isLost: false,
    devices: false,
    sources: false,
    routes: false,
    rules: false,
    filters: false,
    lostRoutes: new Set(),
  };
}
