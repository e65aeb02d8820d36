/* Policies of the program's own sockets; see exec_policy.c. */
#ifndef TESTUDO_EXEC_POLICY_H
#define TESTUDO_EXEC_POLICY_H

#include "exec_host.h"

/* Whether the option is one of those below, whatever the socket is. */
bool is_policy_option(int level, int name);

/* setsockopt and getsockopt of such an option. */
int set_policy(int fd, int level, int name, const void *value, socklen_t len);
int get_policy(int fd, int level, int name, void *value, socklen_t *len);

/* After the program has bound the socket to a device, or to none: 0, or -1 and EBUSY. */
int confirm_device(int fd);

/* After bind, connect, listen: the socket has other addresses. Leaves errno alone. */
void moved(int fd);

/* The descriptor is a new socket. */
void forget_policy(int fd);

/* After something was sent: the kernel may have given the socket its port. Leaves errno alone. */
void has_sent(int fd);

#endif
