/** Capture files, and the programs that read them. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CapturedPacket } from '../../src/wire/linktype.ts';

/** A file that tcpdump, editcap or mergecap wrote. */
export function capture(name: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(`../vectors/data/captures/${name}`, import.meta.url)));
}

export function octetsOf(packet: CapturedPacket): Uint8Array {
  return packet.bytes.slice(packet.at, packet.end);
}

/** Whether a program is installed; says so if tests are skipped for want of it. */
export function installed(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    console.info(`skipped: ${program} is not installed`);
    return false;
  }
}

/**
 * What a program prints that is given a file of these octets; FILE among the arguments stands for
 * its name.
 */
export function printed(program: string, args: readonly string[], file: Uint8Array): string {
  const dir = mkdtempSync(join(tmpdir(), 'testudo-'));
  try {
    const path = join(dir, 'file');
    writeFileSync(path, file);
    const given = args.map((arg) => (arg === 'FILE' ? path : arg));
    return execFileSync(program, given, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } finally {
    rmSync(dir, { recursive: true });
  }
}
