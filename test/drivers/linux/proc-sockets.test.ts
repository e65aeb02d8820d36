import { describe, expect, test } from 'vitest';
import { parseSockets } from '../../../src/drivers/linux/proc-sockets.ts';

/** As Linux 6.18 prints them. */
const HEAD = `sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref`;
const RAW = `${HEAD}
   50: 00000000:0032 00000000:0000 07 00000000:00000000 00:00000000 00000000  0  0 94522 2 00000000
`;
const NONE = '00000000000000000000000000000000';
const ICMP6 = `${HEAD}
    3: ${NONE}:04D2 ${NONE}:0000 07 00000000:00000000 00:00000000 00000000 65534  0 94531 2 0000
`;

describe('sockets of /proc/net', () => {
  test('have an inode, and a port or identifier', () => {
    expect([...parseSockets(RAW)]).toEqual([[94522, 50]]);
    expect([...parseSockets(ICMP6)]).toEqual([[94531, 1234]]);
  });

  test('what is cut off or strange is none', () => {
    for (let len = 0; len < RAW.length - 30; len++) parseSockets(RAW.slice(0, len));
    expect(parseSockets('head\n 1: x y z\n\n   \n').size).toBe(0);
    expect(parseSockets('').size).toBe(0);
  });
});
