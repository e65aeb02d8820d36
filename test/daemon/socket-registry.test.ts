import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type Address, address } from '../../src/base/address.ts';
import { ClearPorts } from '../../src/daemon/socket-clear-ports.ts';
import type { SocketKernel } from '../../src/daemon/socket-kernel.ts';
import { SocketRegistry } from '../../src/daemon/socket-registry.ts';
import type { ProgramSocket } from '../../src/drivers/linux/program-socket.ts';
import type { KernelSocket, Tuple } from '../../src/drivers/linux/sock-diag.ts';
import { defaultSettings } from '../../src/engine/settings.ts';
import { readSocketOption } from '../../src/engine/socket-option.ts';
import { SocketPolicies } from '../../src/engine/socket-policies.ts';

/** A kernel with as many sockets as a test says; descriptors are cookies. */
class Kernel implements SocketKernel {
  readonly sockets = new Map<number, ProgramSocket>();
  readonly marks = new Map<number, number>();
  readonly echo = new Map<number, number>();
  readonly running = new Set<number>();
  found: KernelSocket | undefined;
  there: KernelSocket[] = [];
  describe = (fd: number) => this.sockets.get(fd);
  bind = (fd: number, device: string) => {
    this.sockets.set(fd, { ...this.sockets.get(fd)!, device });
    return 0;
  };
  mark = (fd: number, mark: number, on: 'set' | 'unset') => {
    this.marks.set(fd, on === 'set' ? mark : 0);
    return 0;
  };
  find = () => this.found;
  isSilent = false;
  all = () => {
    if (this.isSilent) throw new Error('the kernel gave no answer');
    return this.there;
  };
  raws = () => this.echo;
  isRunning = (pid: number) => this.running.has(pid);
  catchUp = () => undefined;
  close = () => undefined;
}

const NOWHERE = { address: undefined, port: 0 };
const ROOT = { pid: 1, uid: 0 };
/** Not root, not who runs the tests, and not a process. */
const SOMEBODY = { pid: -1, uid: 4_000_000 };
const A = address('10.0.0.1');
const B = address('10.0.0.2');

describe('sockets with policies', () => {
  let kernel: Kernel;
  let table: SocketPolicies;
  let registry: SocketRegistry;
  let opened: number;
  let ports: string[];
  let nowMs: number;

  beforeEach(() => {
    vi.useFakeTimers();
    kernel = new Kernel();
    table = new SocketPolicies();
    opened = 0;
    ports = [];
    nowMs = 0;
    registry = makeRegistry(table);
  });
  afterEach(() => {
    registry.close();
    vi.useRealTimers();
  });

  function makeRegistry(of: SocketPolicies): SocketRegistry {
    const clearPorts = new ClearPorts(defaultSettings(), (all) => {
      ports = all.map(({ protocol, port }) => `${protocol}/${port}`);
    });
    const clock = { monotonicMs: () => nowMs, wallMs: () => 0 };
    const env = { clock, random: { fill: () => undefined }, log: () => undefined };
    const openDevice = () => {
      opened++;
      return { name: 'sockets0', index: 9 };
    };
    return new SocketRegistry({ env, table: of, kernel, clearPorts, mark: 7, openDevice });
  }

  function passS(seconds: number): void {
    for (let i = 0; i < seconds; i++) {
      nowMs += 1000;
      vi.advanceTimersByTime(1000);
    }
  }

  /** A socket of the kernel's. */
  function socket(cookie: number, changes: Partial<ProgramSocket> = {}): ProgramSocket {
    const made: ProgramSocket = {
      ...{ cookie, inode: cookie, uid: 4_000_000, family: 4, type: 'datagram', protocol: 17 },
      ...{ local: NOWHERE, remote: NOWHERE, isListening: false, isDual: false, device: '' },
      ...kernel.sockets.get(cookie),
      ...changes,
    };
    kernel.sockets.set(cookie, made);
    return made;
  }

  function set(cookie: number, policy: string, asker = ROOT): void {
    const { direction, rule } = readSocketOption(policy, { dialect: 'linux', reqid: () => 1 });
    registry.setRule(cookie, kernel.sockets.get(cookie)!, direction, rule, asker);
  }

  function moved(cookie: number, changes: Partial<ProgramSocket>): void {
    registry.moved(cookie, socket(cookie, changes));
  }

  function found(cookie: number, remote: Address, state = 1): KernelSocket {
    const local = { local: A, localPort: 80 };
    return { family: 4, cookie, state, uid: 0, ...local, remote, remotePort: 1024 };
  }

  const tuple: Tuple = {
    ...{ protocol: 6 as const, device: 9 },
    ...{ local: A, localPort: 80, remote: B, remotePort: 1 },
  };
  const rules = () =>
    [...table.all()].map(
      ({ ends, rules }) => `${ends.localPort} ${rules.in.type} ${rules.out.type}`,
    );

  test('protection needs the device, and a bypass a mark alone', () => {
    socket(1);
    set(1, 'out bypass');
    set(1, 'in bypass');
    expect([opened, kernel.sockets.get(1)!.device, kernel.marks.get(1)]).toEqual([0, '', 7]);
    set(1, 'out ipsec esp/transport//require');
    expect([kernel.sockets.get(1)!.device, kernel.marks.get(1)]).toEqual(['sockets0', 0]);
    expect(rules()).toEqual(['0 bypass ipsec']);
    set(1, 'out entrust');
    expect(kernel.sockets.get(1)!.device).toBe('');
    set(1, 'in entrust');
    expect(rules()).toEqual([]);
    expect(registry.get(1)).toBeUndefined();
  });

  test('a bypass is for the privileged, and what is refused leaves no trace', () => {
    socket(1);
    expect(() => set(1, 'out bypass', SOMEBODY)).toThrow('privileged');
    expect([registry.get(1), table.size]).toEqual([undefined, 0]);
    set(1, 'out ipsec esp/transport//require', SOMEBODY);
    // As it was when it got its first policy.
    expect(() => set(1, 'in bypass', ROOT)).toThrow('privileged');
    expect(rules()).toEqual(['0 entrust ipsec']);
    socket(2, { uid: 0 });
    set(2, 'out bypass', SOMEBODY);
    expect(registry.get(2)!.origin.privileged).toBe(true);
  });

  test('no room in the table: the socket is as before', () => {
    const full = makeRegistry(new SocketPolicies({ max: 0 }));
    const { direction, rule } = readSocketOption('out ipsec esp/transport//require', {
      dialect: 'linux',
      reqid: () => 1,
    });
    expect(() => full.setRule(1, socket(1), direction, rule, ROOT)).toThrow('room');
    expect(kernel.sockets.get(1)!.device).toBe('');
  });

  test('on another device it cannot be protected, and cannot go there later', () => {
    socket(1, { device: 'eth0' });
    expect(() => set(1, 'out ipsec esp/transport//require')).toThrow('eth0');
    expect(kernel.sockets.get(1)!.device).toBe('eth0');
    socket(2);
    set(2, 'out ipsec esp/transport//require');
    expect(() => moved(2, { device: 'eth0' })).toThrow('its own device');
    expect(kernel.sockets.get(2)!.device).toBe('sockets0');
  });

  test('a connection that is being made keeps the other end that the kernel told', () => {
    socket(1, { type: 'stream', protocol: 6 });
    set(1, 'out ipsec esp/transport//require');
    kernel.found = found(1, B, 2);
    registry.learn(tuple, undefined);
    moved(1, { local: { address: A, port: 80 } });
    expect([...table.all()][0]!.ends).toMatchObject({ remotePort: 1024, remote: B });
  });

  test('an accepted connection inherits, by whichever way it gets known', () => {
    const tcp = { type: 'stream', protocol: 6 } as const;
    socket(1, tcp);
    set(1, 'out ipsec esp/transport//require');
    set(1, 'in ipsec esp/transport//require');
    moved(1, { local: { address: undefined, port: 80 }, isListening: true });
    const listener = [...table.all()][0]!;
    // Half open: it may never become one.
    kernel.found = found(2, B, 12);
    registry.learn(tuple, listener);
    expect(table.size).toBe(1);
    kernel.found = found(2, B);
    registry.learn(tuple, listener);
    registry.learn(tuple, listener);
    const end = { local: { address: A, port: 80 }, remote: { address: B, port: 2048 } };
    moved(3, { ...tcp, ...end, device: 'sockets0' });
    // This one was there before the policy.
    moved(4, { ...tcp, ...end, device: '' });
    expect(rules()).toEqual(['80 ipsec ipsec', '80 ipsec ipsec', '80 ipsec ipsec']);
    expect(registry.get(3)!.takesFromDevice).toBe(true);
    registry.destroyed(1);
    expect(table.size).toBe(2);
  });

  test('a packet of a socket that nobody knows changes nothing', () => {
    socket(1);
    set(1, 'out ipsec esp/transport//require');
    kernel.found = found(77, B);
    registry.learn({ ...tuple, protocol: 17 }, undefined);
    expect(rules()).toEqual(['0 entrust ipsec']);
  });

  test('what it sent before its end is still known for a while, and nothing is for it', () => {
    socket(1, { local: { address: undefined, port: 5000 } });
    set(1, 'out ipsec esp/transport//require');
    set(1, 'in ipsec esp/transport//require');
    registry.destroyed(1);
    expect(rules()).toEqual(['5000 entrust ipsec']);
    expect(registry.get(1)!.takesFromDevice).toBe(false);
    passS(3);
    expect(rules()).toEqual([]);
  });

  test('the next socket on its port does not wait for that', () => {
    const local = { address: undefined, port: 5000 };
    socket(1, { local });
    set(1, 'out ipsec ah/transport//require');
    registry.destroyed(1);
    socket(2);
    set(2, 'out ipsec esp/transport//require');
    moved(2, { local });
    expect([...table.all()].map(({ owner }) => (owner as { cookie: number }).cookie)).toEqual([2]);
  });

  test('a connection in TIME_WAIT is known until that is over', () => {
    const end = { local: { address: A, port: 80 }, remote: { address: B, port: 1024 } };
    socket(1, { type: 'stream', protocol: 6, ...end });
    set(1, 'out ipsec esp/transport//require');
    registry.destroyed(1);
    kernel.found = found(1, B, 6);
    passS(10);
    expect(registry.get(1)!.takesFromDevice).toBe(true);
    // Its ends, and another socket.
    kernel.found = found(2, B, 1);
    passS(1);
    expect(table.size).toBe(0);
  });

  test('when reports are lost, those that are not there have ended', () => {
    for (const cookie of [1, 2]) {
      socket(cookie);
      set(cookie, 'out ipsec esp/transport//require');
    }
    kernel.there = [found(2, B)];
    kernel.isSilent = true;
    registry.lost();
    expect(table.size).toBe(2);
    kernel.isSilent = false;
    passS(1);
    expect([registry.get(1), registry.get(2)?.cookie]).toEqual([undefined, 2]);
  });

  test('what a process without our library does is seen a moment later', () => {
    socket(1);
    socket(2, { type: 'stream', protocol: 6 });
    for (const cookie of [1, 2]) set(cookie, 'in ipsec esp/transport//require');
    const nowhere = { remote: address('0.0.0.0'), remotePort: 0 };
    const listens = { ...found(2, B, 10), ...nowhere, local: address('0.0.0.0') };
    kernel.there = [{ ...found(1, B, 7), ...nowhere, localPort: 5000 }, listens, found(3, B)];
    passS(1);
    expect(rules().sort()).toEqual(['5000 ipsec entrust', '80 ipsec entrust']);
    expect([registry.get(1)!.isListening, registry.get(2)!.isListening]).toEqual([false, true]);
    // That is all there is to find out.
    kernel.there = [{ ...found(1, B, 7), ...nowhere, localPort: 6000 }];
    passS(5);
    expect(rules()).toContain('5000 ipsec entrust');
  });

  test('raw and echo sockets are looked after', () => {
    socket(1, { type: 'raw', protocol: 89 });
    socket(2, { protocol: 1 });
    kernel.echo.set(1, 89);
    kernel.running.add(ROOT.pid);
    for (const cookie of [1, 2]) set(cookie, 'out ipsec esp/transport//require');
    passS(5);
    expect(table.size).toBe(2);
    // The kernel lists it from its first packet on.
    kernel.echo.set(2, 1234);
    registry.learnEcho();
    expect(rules()).toContain('1234 entrust ipsec');
    kernel.echo.delete(2);
    passS(1);
    expect([registry.get(1)?.cookie, registry.get(2)]).toEqual([1, undefined]);
    kernel.echo.clear();
    passS(1);
    expect(table.size).toBe(0);
  });

  test('clear packets come to those that take them, and to no others', () => {
    const at = (port: number) => ({ local: { address: undefined, port } });
    socket(1, at(1000));
    set(1, 'out ipsec esp/transport//require');
    expect(ports).toEqual(['17/1000']);
    set(1, 'in ipsec esp/transport//require');
    expect(ports).toEqual([]);
    set(1, 'in ipsec esp/transport//use');
    socket(2, at(1000));
    set(2, 'out ipsec esp/transport//require');
    registry.destroyed(1);
    expect(ports).toEqual(['17/1000']);
    moved(2, at(2000));
    expect(ports).toEqual(['17/2000']);
    // It goes past the device anyway.
    set(2, 'out bypass');
    expect(ports).toEqual([]);
  });

  test('kinds of sockets that we know nothing about have none', () => {
    socket(1, { type: 'other', protocol: 132 });
    expect(() => set(1, 'out ipsec esp/transport//require')).toThrow('TCP, UDP');
  });
});
