import { ENGINE_GROUPS, fieldsOf } from '../../src/daemon/netstat-groups.ts';
import type { Node } from './node.ts';

/** Every counter of `netstat -s` that an action changes, and by how much: `esp.output`, … */
export function changes(node: Node, act: () => void): Record<string, number> {
  const before = counters(node);
  act();
  const found: Record<string, number> = {};
  for (const [name, number] of counters(node)) {
    const was = before.get(name) ?? 0;
    if (number !== was) found[name] = number - was;
  }
  return found;
}

/** Without those of the cache of lookups, which say how and not what. */
function counters(node: Node): Map<string, number> {
  const { stats } = node.host;
  const source = { stats, cacheCounters: node.spd.cacheCounters, keys: node.engine };
  const all = new Map<string, number>();
  for (const group of ENGINE_GROUPS) {
    for (const [key, value] of Object.entries(fieldsOf(group.lines(source)))) {
      if (key.startsWith('spdcache')) continue;
      const name = `${group.name}.${key}`;
      if (typeof value === 'number') {
        all.set(name, value);
        continue;
      }
      const histogram = Object.entries(value as Record<string, number>);
      for (const [one, number] of histogram) all.set(`${name}.${one}`, number);
    }
  }
  return all;
}
