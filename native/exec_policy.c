/*
 * IP_IPSEC_POLICY and IPV6_IPSEC_POLICY on the program's sockets of IP. The host gets the option
 * and a copy of the descriptor, marks the socket or binds it to a device of its own, and has the
 * socket's addresses from then on: it asks the kernel when a packet comes, and is told here, so
 * that it knows them before one does.
 *
 * A socket with a policy is one that has a device or a mark, which the kernel remembers through
 * dup, fork, accept and SCM_RIGHTS; the host knows which of them are its own.
 */
#include "exec_policy.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "testudo_ipsec.h"

#define IP_POLICY_OPTION 16   /* IP_IPSEC_POLICY */
#define IPV6_POLICY_OPTION 34 /* IPV6_IPSEC_POLICY */

enum { DEVICE_NAME_LEN = 16 };

/*
 * What is remembered about a descriptor, to no harm when it has become another one.
 *   HAS_POLICY   the kernel may know nothing of it: one that lets clear packets in needs no mark
 *   UNSETTLED    a datagram socket without a port yet: the host is told at the first one sent,
 *                since a program may close the socket before the host has read that
 */
enum { HAS_POLICY = 1, UNSETTLED = 2, NOTES_MAX = 4096 };
static atomic_uchar notes[NOTES_MAX];

_Static_assert(sizeof(struct testudo_ipsec_status) == 872, "the host writes 872 octets");
_Static_assert(sizeof(struct testudo_ipsec_status) <= DETAIL_LEN_MAX, "an answer has room");

bool is_policy_option(int level, int name) {
  if (level == IPPROTO_IP) return name == IP_POLICY_OPTION || name == TESTUDO_IPSEC_STATUS;
  if (level == IPPROTO_IPV6) return name == IPV6_POLICY_OPTION || name == TESTUDO_IPSEC_STATUS;
  return false;
}

/* 0, or why the socket has no such option: each family has its own, as on Linux. */
static int wrong_socket(int fd, int level) {
  int domain = int_option(fd, SOL_SOCKET, SO_DOMAIN);
  if (domain < 0) return errno;
  if (domain != AF_INET && domain != AF_INET6) return ENOPROTOOPT;
  return (domain == AF_INET) == (level == IPPROTO_IP) ? 0 : EOPNOTSUPP;
}

static bool has_policy(int fd) {
  int domain = int_option(fd, SOL_SOCKET, SO_DOMAIN);
  if (domain != AF_INET && domain != AF_INET6) return false;
  if (int_option(fd, SOL_SOCKET, SO_MARK) > 0) return true;
  char device[DEVICE_NAME_LEN];
  socklen_t len = sizeof device;
  if (NEXT(getsockopt)(fd, SOL_SOCKET, SO_BINDTODEVICE, device, &len) < 0) return errno == ENODEV;
  return len > 0;
}

static bool has_port(int fd) {
  struct sockaddr_storage name;
  memset(&name, 0, sizeof name);
  socklen_t len = sizeof name;
  if (getsockname(fd, (struct sockaddr *)&name, &len) < 0) return true;
  /* At the same place in both families. */
  return ((struct sockaddr_in *)&name)->sin_port != 0;
}

static void note(int fd) {
  if (fd >= NOTES_MAX) return;
  bool waits = int_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM && !has_port(fd);
  atomic_store(&notes[fd], (unsigned char)(HAS_POLICY | (waits ? UNSETTLED : 0)));
}

static bool is_noted(int fd) {
  return fd >= 0 && fd < NOTES_MAX && (atomic_load(&notes[fd]) & HAS_POLICY) != 0;
}

/* Whether it was there. */
static bool take_unsettled(int fd) {
  if (fd < 0 || fd >= NOTES_MAX || atomic_load(&notes[fd]) == 0) return false;
  return (atomic_fetch_and(&notes[fd], (unsigned char)~UNSETTLED) & UNSETTLED) != 0;
}

void forget_policy(int fd) {
  if (fd >= 0 && fd < NOTES_MAX) atomic_store(&notes[fd], 0);
}

static int tell_moved(int fd) {
  struct question question = {OP_MOVED, 0, fd, NULL, 0};
  return ask_host(&question, NULL, 0) < 0 ? -1 : 0;
}

int set_policy(int fd, int level, int name, const void *value, socklen_t len) {
  int wrong = wrong_socket(fd, level);
  if (wrong != 0) return fail(wrong);
  if (name == TESTUDO_IPSEC_STATUS) return fail(ENOPROTOOPT);
  if (value == NULL) return fail(EFAULT);
  if (len > DETAIL_LEN_MAX) return fail(EINVAL);
  struct question question = {OP_SET_POLICY, 0, fd, value, len};
  if (ask_host(&question, NULL, 0) < 0) return -1;
  note(fd);
  return 0;
}

/* As KAME: a direction in the buffer says which policy, and the buffer must have room for it. */
int get_policy(int fd, int level, int name, void *value, socklen_t *len) {
  int wrong = wrong_socket(fd, level);
  if (wrong != 0) return fail(wrong);
  if (value == NULL || len == NULL) return fail(EFAULT);
  bool is_status = name == TESTUDO_IPSEC_STATUS;
  struct question question = {is_status ? OP_STATUS : OP_GET_POLICY, 0, fd, NULL, 0};
  if (!is_status) {
    question.detail = value;
    question.detail_len = *len < DETAIL_LEN_MAX ? *len : DETAIL_LEN_MAX;
  }
  unsigned char answer[DETAIL_LEN_MAX];
  ssize_t answer_len = ask_host(&question, answer, sizeof answer);
  if (answer_len < 0) return -1;
  if ((size_t)answer_len > sizeof answer || (size_t)answer_len > *len) return fail(EINVAL);
  memcpy(value, answer, (size_t)answer_len);
  *len = (socklen_t)answer_len;
  return 0;
}

int confirm_device(int fd) {
  int before = errno;
  int domain = int_option(fd, SOL_SOCKET, SO_DOMAIN);
  bool is_ip = domain == AF_INET || domain == AF_INET6;
  if (is_ip && tell_moved(fd) < 0 && errno == EBUSY) return -1;
  errno = before;
  return 0;
}

void moved(int fd) {
  int before = errno;
  if (is_noted(fd) || has_policy(fd)) tell_moved(fd);
  take_unsettled(fd);
  errno = before;
}

void has_sent(int fd) {
  if (!take_unsettled(fd)) return;
  int before = errno;
  tell_moved(fd);
  errno = before;
}
