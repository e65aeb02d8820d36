/*
 * What the parts of the library that `testudo exec` preloads share: the C library's own functions
 * behind those that it replaces, and questions to the host.
 */
#ifndef TESTUDO_EXEC_HOST_H
#define TESTUDO_EXEC_HOST_H

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/types.h>

#define EXPORT __attribute__((visibility("default")))

/* Looked up at the first use: constructors of other libraries may call us before ours has run. */
#define NEXT(name)                                                                                \
  ({                                                                                              \
    static _Atomic(void *) found;                                                                 \
    void *next = atomic_load(&found);                                                             \
    if (next == NULL) {                                                                           \
      next = dlsym(RTLD_NEXT, #name);                                                             \
      if (next == NULL) abort();                                                                  \
      atomic_store(&found, next);                                                                 \
    }                                                                                             \
    (__typeof__(&name))next;                                                                      \
  })

enum operation {
  OP_PFKEY = 1,
  OP_SET_POLICY = 2,
  OP_GET_POLICY = 3,
  OP_ENCAPSULATE = 4,
  OP_RECEIVE_BUFFER = 5,
  OP_MOVED = 6,
  OP_STATUS = 7
};

/* Octets that a question or an answer may have, besides the greeting and the errno. */
enum { DETAIL_LEN_MAX = 4096 };

/* A question about a socket of the program. */
struct question {
  enum operation operation;
  uint32_t value;
  int passed; /* a descriptor, or negative */
  const void *detail;
  size_t detail_len; /* at most DETAIL_LEN_MAX */
};

/* -1, with errno set to `why`. */
int fail(int why);

/* Whether the program runs under `testudo exec`. */
bool is_active(void);

/* The value of an option that is an int, or -1. */
int int_option(int fd, int level, int name);

/* Whether the descriptor is one of our connections. Leaves errno alone. */
bool is_ours(int fd);

/* Until the host has taken what was written, and so has queued its answer. */
void wait_until_taken(int fd);

/* Says something on a connection that the host has agreed to, without an answer. */
ssize_t tell_host(int fd, enum operation operation, uint32_t value);

/* The descriptor of a connection that the host has agreed to, or -1 and errno. */
int open_connection(enum operation operation, uint32_t value);

/*
 * Asks as one system call: the length of the answer, of which no more than `answer_len` octets are
 * written, or -1 and errno.
 */
ssize_t ask_host(const struct question *question, void *answer, size_t answer_len);

#endif
