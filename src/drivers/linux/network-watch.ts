import { failure, libc, SOCK_FLAGS, SOCK_RAW } from './libc.ts';
import { nativeBlock, unpin, withBlock } from './native-memory.ts';
import { type Watch, watch } from './poll.ts';

const AF_NETLINK = 16;
const NETLINK_ROUTE = 0;
/** RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR of <linux/rtnetlink.h>. */
const GROUPS = 0x1 | 0x10 | 0x100;
const BUFFER_LEN = 65_536;

/**
 * Calls back when devices or addresses of this namespace have changed, once for many changes at a
 * time. What has changed is not said: look again. Throws an Error when the kernel does not tell.
 */
export function watchNetwork(onChange: () => void): Watch {
  const c = libc('watching the network');
  const fd = c.socket(AF_NETLINK, SOCK_RAW | SOCK_FLAGS, NETLINK_ROUTE);
  if (fd < 0) throw failure(c, 'open a netlink socket');
  const bound = withBlock(c, 64, (name) => {
    name.view.setUint16(0, AF_NETLINK, true);
    name.view.setUint32(8, GROUPS, true);
    return c.bind(fd, name.base, 12);
  });
  if (bound < 0) {
    const error = failure(c, 'listen to changes of the network');
    c.close(fd);
    throw error;
  }
  const buffer = nativeBlock(c, BUFFER_LEN);
  const watching = watch(c, fd, () => {
    // A full socket reports ENOBUFS instead of what it lost; that is a change too.
    while (c.read(fd, buffer.base, BUFFER_LEN) > 0);
    onChange();
  });
  return {
    close(): void {
      watching.close();
      c.close(fd);
      unpin(buffer.bytes);
    },
  };
}
