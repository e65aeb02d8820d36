import { errnoName } from '../../base/errno.ts';
import type { Libc } from './libc.ts';

/**
 * The name of an error number, for counters: `EMSGSIZE`, or what strerror(3) says about less common
 * ones.
 */
export function errnoReason(c: Libc, errno: number): string {
  return errnoName(errno) ?? c.strerror(errno);
}
