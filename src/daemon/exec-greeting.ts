import { equal, u8 } from '../wire/bytes.ts';

/**
 * What a program under `testudo exec` says first on each connection, and the answer is an int: 0,
 * or an errno, and behind a 0 what was asked for. native/exec_host.c is the other side; both run on
 * one machine, so numbers are little-endian as all of koffi's platforms are.
 *
 *     0         4          8        12                  44
 *     | "TSD2"  | operation | value  | token, 32 octets  | details of the operation
 */
export interface Greeting {
  readonly operation: Operation;
  /** `encapsulate`: a UDP port; `receive-buffer`: octets. */
  readonly value: number;
  /** Shares the memory of what was parsed. */
  readonly token: Uint8Array;
  /** The same. */
  readonly details: Uint8Array;
}

/**
 * `pfkey`: from now on, messages of PF_KEY. `encapsulate`: ESP in UDP to this port is ours.
 * `receive-buffer`: how much may wait for the program; said later, between messages of PF_KEY, and
 * has no answer. The others are about a socket that comes along: `set-policy` and `get-policy` with
 * the octets of the option, `moved` when its addresses may have changed, and `status`.
 */
export type Operation = (typeof OPERATIONS)[number];

const OPERATIONS = [
  'pfkey',
  'set-policy',
  'get-policy',
  'encapsulate',
  'receive-buffer',
  'moved',
  'status',
] as const;
const MAGIC = new TextEncoder().encode('TSD2');
const OPERATION_AT = 4;
const VALUE_AT = 8;
const TOKEN_AT = 12;
export const TOKEN_LEN = 32;
const GREETING_LEN = TOKEN_AT + TOKEN_LEN;

/** Undefined for anything else, such as a message of PF_KEY, which begins with octet 2. */
export function parseGreeting(p: Uint8Array): Greeting | undefined {
  if (p.length < GREETING_LEN || !equal(p, 0, MAGIC, 0, MAGIC.length)) return undefined;
  const operation = OPERATIONS[little(p, OPERATION_AT) - 1];
  if (operation === undefined) return undefined;
  const token = p.subarray(TOKEN_AT, GREETING_LEN);
  return { operation, value: little(p, VALUE_AT), token, details: p.subarray(GREETING_LEN) };
}

export function encodeAnswer(errno: number, details?: Uint8Array): Uint8Array {
  const answer = new Uint8Array(4 + (details?.length ?? 0));
  answer.set([errno, errno >> 8, errno >> 16, errno >> 24]);
  if (details) answer.set(details, 4);
  return answer;
}

function little(p: Uint8Array, at: number): number {
  return (u8(p, at) | (u8(p, at + 1) << 8) | (u8(p, at + 2) << 16) | (u8(p, at + 3) << 24)) >>> 0;
}
