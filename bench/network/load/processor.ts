import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Seconds of processor time so far. */
export interface Processor {
  /** Of the programs that make the tunnel: all threads, in user space and in the kernel. */
  readonly programs: number;
  /** Of the whole machine: what is not idle. Includes those who make the load. */
  readonly machine: number;
}

const TICKS_A_SECOND = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

export function processorTime(pids: readonly number[]): Processor {
  let ticks = 0;
  for (const pid of pids) ticks += ticksOf(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  return {
    programs: ticks / TICKS_A_SECOND,
    machine: busyTicks(readFileSync('/proc/stat', 'utf8')) / TICKS_A_SECOND,
  };
}

/** Of a line of /proc/PID/stat: `utime` and `stime`, proc(5). */
export function ticksOf(stat: string): number {
  // The second field is the program's name, and may have blanks and parentheses in it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** Of /proc/stat: all processors, everything but `idle` and `iowait`. */
export function busyTicks(stat: string): number {
  const [, ...ticks] = /^cpu .*/m.exec(stat)![0].trim().split(/\s+/).map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = ticks;
  return user + nice + system + irq + softirq;
}

/** Octets of memory that a program has in use (VmRSS). */
export function residentOctets(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return 1024 * Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN);
}
