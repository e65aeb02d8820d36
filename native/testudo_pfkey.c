/*
 * Preloaded by `testudo exec` into a program that expects IPsec from its kernel: its sockets of
 * PF_KEY become connections to a Testudo host, and the two socket options that IKE daemons need are
 * done by the host.
 *
 * A connection is an AF_UNIX SOCK_SEQPACKET socket, so that whole messages, MSG_PEEK, poll, fork
 * and SCM_RIGHTS are the kernel's own. What is left to do here:
 *   - writing returns when the host has taken the message and queued the answer, as with a kernel,
 *     and never raises SIGPIPE
 *   - the receive buffer of an AF_UNIX socket has no meaning, so its size is told to the host,
 *     whose send buffer it is
 *
 * The environment says where the host is: TESTUDO_EXEC=NAME:TOKEN, an abstract address, which is
 * there after chroot too, and 32 octets in hexadecimal, which open it whoever the program has
 * become. The first message of every connection is a `greeting`, and an int is the answer: 0, or
 * why not (errno). src/daemon/exec-greeting.ts is the other side.
 *
 * Nothing is remembered about descriptors (but for `wants_encap`): they are closed, duplicated and
 * passed on in more ways than can be watched, so each call asks the kernel what its descriptor is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PF_KEY_V2 2
#define KEY_PROTOCOL_FAMILY 15
#define IP_POLICY_OPTION 16   /* IP_IPSEC_POLICY */
#define IPV6_POLICY_OPTION 34 /* IPV6_IPSEC_POLICY */
#define UDP_ENCAP_OPTION 100  /* UDP_ENCAP */
#define ESP_IN_UDP 2          /* UDP_ENCAP_ESPINUDP, RFC 3948 */

enum { POLICY_ENTRUST = 3, POLICY_BYPASS = 4 };
enum { PFKEY_HEADER_LEN = 16, MESSAGE_LEN_MAX = 65536, TOKEN_LEN = 32 };
enum { ANSWER_TIMEOUT_S = 5, TAKEN_TIMEOUT_MS = 1000, SPINS = 50, PAUSE_NS = 50000 };

enum operation {
  OP_PFKEY = 1,
  OP_BYPASS = 2,
  OP_ENTRUST = 3,
  OP_ENCAPSULATE = 4,
  OP_RECEIVE_BUFFER = 5
};

struct greeting {
  char magic[4];
  uint32_t operation;
  uint32_t value;
  unsigned char token[TOKEN_LEN];
};
_Static_assert(sizeof(struct greeting) == 44, "the host reads 44 octets");

/*
 * As much of sadb_x_policy as matters. Its exttype is not looked at, since OpenIKED sends a wrong
 * one.
 */
struct policy {
  uint16_t len;
  uint16_t exttype;
  uint16_t type;
  uint8_t direction;
  uint8_t reserved;
};

static struct sockaddr_un host_address;
static socklen_t host_address_len; /* 0 when the program does not run under `testudo exec` */
static unsigned char host_token[TOKEN_LEN];

/* UDP sockets that asked for ESP in UDP before they had a port: the host is told at bind. */
enum { WANTS_MAX = 4096 };
static atomic_uchar wants_encap[WANTS_MAX];

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

static int fail(int why) {
  errno = why;
  return -1;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

__attribute__((constructor)) static void read_environment(void) {
  const char *text = getenv("TESTUDO_EXEC");
  const char *colon = text == NULL ? NULL : strchr(text, ':');
  if (colon == NULL || strlen(colon + 1) != 2 * TOKEN_LEN) return;
  size_t name_len = (size_t)(colon - text);
  if (name_len == 0 || name_len > sizeof host_address.sun_path - 1) return;
  for (size_t i = 0; i < TOKEN_LEN; i++) {
    int high = hex_digit(colon[1 + 2 * i]);
    int low = hex_digit(colon[2 + 2 * i]);
    if (high < 0 || low < 0) return;
    host_token[i] = (unsigned char)(high << 4 | low);
  }
  host_address.sun_family = AF_UNIX;
  /* The first octet of an abstract name is zero, and all octets up to the length belong to it. */
  memcpy(host_address.sun_path + 1, text, name_len);
  host_address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + name_len);
}

static bool is_active(void) { return host_address_len != 0; }

static int int_option(int fd, int level, int name) {
  int value = -1;
  socklen_t len = sizeof value;
  return NEXT(getsockopt)(fd, level, name, &value, &len) < 0 ? -1 : value;
}

/* Whether the descriptor is one of our connections. Leaves errno alone. */
static bool is_ours(int fd) {
  if (!is_active()) return false;
  int before = errno;
  struct sockaddr_un peer;
  memset(&peer, 0, sizeof peer);
  socklen_t len = sizeof peer;
  bool ours = int_option(fd, SOL_SOCKET, SO_DOMAIN) == AF_UNIX &&
              int_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_SEQPACKET &&
              getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && len == host_address_len &&
              memcmp(&peer, &host_address, len) == 0;
  errno = before;
  return ours;
}

static long elapsed_ms(const struct timespec *since) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (now.tv_sec - since->tv_sec) * 1000L + (now.tv_nsec - since->tv_nsec) / 1000000L;
}

/*
 * SIOCOUTQ of <linux/sockios.h>, which not every C library has, is the number of TIOCOUTQ: what the
 * other end has not taken. The host takes a request only after it has queued the answer. OpenIKED
 * waits for one millisecond, since a kernel answers before write() returns. A host that is busy for
 * longer than the bound may still answer later.
 */
static void wait_until_taken(int fd) {
  int before = errno;
  struct timespec start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int turn = 0; elapsed_ms(&start) < TAKEN_TIMEOUT_MS; turn++) {
    int left = 0;
    if (ioctl(fd, TIOCOUTQ, &left) < 0 || left == 0) break;
    if (turn < SPINS) {
      sched_yield();
    } else {
      struct timespec pause = {0, PAUSE_NS};
      nanosleep(&pause, NULL);
    }
  }
  errno = before;
}

static ssize_t send_message(int fd, const struct iovec *parts, size_t count, int flags) {
  size_t len = 0;
  for (size_t i = 0; i < count; i++) {
    if (parts[i].iov_len > MESSAGE_LEN_MAX) return fail(EMSGSIZE);
    len += parts[i].iov_len;
  }
  if (len < PFKEY_HEADER_LEN || len > MESSAGE_LEN_MAX) return fail(EMSGSIZE);
  struct msghdr message;
  memset(&message, 0, sizeof message);
  message.msg_iov = (struct iovec *)(uintptr_t)parts;
  message.msg_iovlen = count;
  ssize_t sent = NEXT(sendmsg)(fd, &message, flags | MSG_NOSIGNAL);
  if (sent >= 0) wait_until_taken(fd);
  return sent;
}

static void fill_greeting(struct greeting *greeting, enum operation operation, uint32_t value) {
  memcpy(greeting->magic, "TSD1", 4);
  greeting->operation = (uint32_t)operation;
  greeting->value = value;
  memcpy(greeting->token, host_token, TOKEN_LEN);
}

/* With a copy of descriptor `passed`, unless that is negative. */
static ssize_t send_greeting(int fd, enum operation operation, uint32_t value, int passed) {
  struct greeting greeting;
  fill_greeting(&greeting, operation, value);
  struct iovec part = {&greeting, sizeof greeting};
  union {
    char octets[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  memset(&control, 0, sizeof control);
  struct msghdr message;
  memset(&message, 0, sizeof message);
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (passed >= 0) {
    message.msg_control = control.octets;
    message.msg_controllen = sizeof control.octets;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &passed, sizeof(int));
  }
  ssize_t sent;
  do sent = NEXT(sendmsg)(fd, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent;
}

static void set_timeouts(int fd, int seconds) {
  struct timeval timeout = {seconds, 0};
  NEXT(setsockopt)(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  NEXT(setsockopt)(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

/* Why the host could not be asked: a program without its host is one on a kernel without PF_KEY. */
static int unreachable(void) { return errno == EAGAIN ? ETIMEDOUT : EAFNOSUPPORT; }

/* 0, or the errno with which the host refused, or could not be asked. */
static int greet(int fd, enum operation operation, uint32_t value, int passed) {
  set_timeouts(fd, ANSWER_TIMEOUT_S);
  while (connect(fd, (struct sockaddr *)&host_address, host_address_len) < 0) {
    if (errno != EINTR) return unreachable();
  }
  if (send_greeting(fd, operation, value, passed) < 0) return unreachable();
  int32_t answer = 0;
  ssize_t len;
  do len = recv(fd, &answer, sizeof answer, 0);
  while (len < 0 && errno == EINTR);
  if (len < 0) return unreachable();
  if (len != sizeof answer) return EAFNOSUPPORT;
  set_timeouts(fd, 0);
  return answer;
}

/* The descriptor of a connection that the host has agreed to, or -1 and errno. */
static int open_connection(enum operation operation, uint32_t value, int passed) {
  int fd = NEXT(socket)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  int why = greet(fd, operation, value, passed);
  if (why == 0) return fd;
  close(fd);
  return fail(why);
}

/* Asks the host for something about a socket of the program, as one system call. */
static int ask_host(enum operation operation, uint32_t value, int passed) {
  int fd = open_connection(operation, value, passed);
  if (fd < 0) return -1;
  close(fd);
  return 0;
}

static int open_pfkey(int type, int protocol) {
  if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_RAW) return fail(ESOCKTNOSUPPORT);
  if (protocol != PF_KEY_V2) return fail(EPROTONOSUPPORT);
  int fd = open_connection(OP_PFKEY, 0, -1);
  if (fd < 0) return -1;
  if ((type & SOCK_CLOEXEC) == 0) fcntl(fd, F_SETFD, 0);
  if ((type & SOCK_NONBLOCK) != 0) fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static void want_encap(int fd, bool wanted) {
  if (fd >= 0 && fd < WANTS_MAX) atomic_store(&wants_encap[fd], wanted);
}

/* The local port in host order, 0 when there is none yet, or -1. */
static int local_port(int fd) {
  struct sockaddr_storage name;
  memset(&name, 0, sizeof name);
  socklen_t len = sizeof name;
  if (getsockname(fd, (struct sockaddr *)&name, &len) < 0) return -1;
  if (name.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)&name)->sin_port);
  if (name.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)&name)->sin6_port);
  return fail(ENOPROTOOPT);
}

/* IP_IPSEC_POLICY: the host marks the socket, which the program may have no right to. */
static int set_policy(int fd, const void *value, socklen_t len) {
  struct policy policy;
  int domain = int_option(fd, SOL_SOCKET, SO_DOMAIN);
  if (domain < 0) return -1;
  if (domain != AF_INET && domain != AF_INET6) return fail(ENOPROTOOPT);
  if (value == NULL) return fail(EFAULT);
  if (len < sizeof policy) return fail(EINVAL);
  memcpy(&policy, value, sizeof policy);
  if (policy.type == POLICY_BYPASS) return ask_host(OP_BYPASS, 0, fd);
  if (policy.type == POLICY_ENTRUST) return ask_host(OP_ENTRUST, 0, fd);
  return fail(EOPNOTSUPP);
}

/*
 * UDP_ENCAP: not set, since a kernel that knows it and has no ESP throws the packets away. The host
 * takes ESP that is sent to the port; IKE, behind its four zero octets, goes to the program.
 */
static int set_encapsulation(int fd, const void *value, socklen_t len) {
  int kind;
  if (value == NULL) return fail(EFAULT);
  if (len < sizeof kind) return fail(EINVAL);
  memcpy(&kind, value, sizeof kind);
  int port = local_port(fd);
  if (port < 0) return -1;
  if (int_option(fd, SOL_SOCKET, SO_TYPE) != SOCK_DGRAM) return fail(ENOPROTOOPT);
  want_encap(fd, false);
  if (kind == 0) return 0;
  if (kind != ESP_IN_UDP) return fail(ENOPROTOOPT);
  if (port != 0) return ask_host(OP_ENCAPSULATE, (uint32_t)port, -1);
  if (fd >= WANTS_MAX) return fail(EINVAL);
  want_encap(fd, true);
  return 0;
}

/* After the kernel has set it, and said what it has made of it: twice as much, within bounds. */
static void tell_receive_buffer(int fd) {
  int before = errno;
  int doubled = int_option(fd, SOL_SOCKET, SO_RCVBUF);
  uint32_t len = (uint32_t)doubled / 2;
  if (doubled > 0 && send_greeting(fd, OP_RECEIVE_BUFFER, len, -1) >= 0) wait_until_taken(fd);
  errno = before;
}

EXPORT int socket(int domain, int type, int protocol) {
  if (domain == KEY_PROTOCOL_FAMILY && is_active()) return open_pfkey(type, protocol);
  int fd = NEXT(socket)(domain, type, protocol);
  want_encap(fd, false);
  return fd;
}

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t len) {
  int result = NEXT(bind)(fd, address, len);
  if (result < 0 || fd >= WANTS_MAX || !atomic_exchange(&wants_encap[fd], false)) return result;
  int port = local_port(fd);
  return port <= 0 ? result : ask_host(OP_ENCAPSULATE, (uint32_t)port, -1);
}

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
  if (is_active()) {
    if (level == IPPROTO_IP && name == IP_POLICY_OPTION) return set_policy(fd, value, len);
    if (level == IPPROTO_IPV6 && name == IPV6_POLICY_OPTION) return set_policy(fd, value, len);
    if (level == IPPROTO_UDP && name == UDP_ENCAP_OPTION) return set_encapsulation(fd, value, len);
  }
  int result = NEXT(setsockopt)(fd, level, name, value, len);
  bool sizes = level == SOL_SOCKET && (name == SO_RCVBUF || name == SO_RCVBUFFORCE);
  if (sizes && result == 0 && is_ours(fd)) tell_receive_buffer(fd);
  return result;
}

/* Programs that were handed a descriptor may ask what it is. */
EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
  int result = NEXT(getsockopt)(fd, level, name, value, len);
  if (result != 0 || level != SOL_SOCKET || value == NULL || *len != sizeof(int)) return result;
  if (name != SO_DOMAIN && name != SO_TYPE && name != SO_PROTOCOL) return result;
  if (!is_ours(fd)) return result;
  int shown = name == SO_DOMAIN ? KEY_PROTOCOL_FAMILY : name == SO_TYPE ? SOCK_RAW : PF_KEY_V2;
  memcpy(value, &shown, sizeof shown);
  return result;
}

EXPORT ssize_t write(int fd, const void *octets, size_t len) {
  if (!is_ours(fd)) return NEXT(write)(fd, octets, len);
  struct iovec part = {(void *)(uintptr_t)octets, len};
  return send_message(fd, &part, 1, 0);
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (!is_ours(fd)) return NEXT(writev)(fd, parts, count);
  if (count < 0) return fail(EINVAL);
  return send_message(fd, parts, (size_t)count, 0);
}

EXPORT ssize_t send(int fd, const void *octets, size_t len, int flags) {
  if (!is_ours(fd)) return NEXT(send)(fd, octets, len, flags);
  struct iovec part = {(void *)(uintptr_t)octets, len};
  return send_message(fd, &part, 1, flags);
}

/* The destination has no meaning, as for a kernel. */
EXPORT ssize_t sendto(int fd, const void *octets, size_t len, int flags, const struct sockaddr *to,
                      socklen_t to_len) {
  if (!is_ours(fd)) return NEXT(sendto)(fd, octets, len, flags, to, to_len);
  struct iovec part = {(void *)(uintptr_t)octets, len};
  return send_message(fd, &part, 1, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  if (message == NULL || !is_ours(fd)) return NEXT(sendmsg)(fd, message, flags);
  return send_message(fd, message->msg_iov, message->msg_iovlen, flags);
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
  if (messages == NULL || !is_ours(fd)) return NEXT(sendmmsg)(fd, messages, count, flags);
  for (unsigned int i = 0; i < count; i++) {
    const struct msghdr *message = &messages[i].msg_hdr;
    ssize_t sent = send_message(fd, message->msg_iov, message->msg_iovlen, flags);
    if (sent < 0) return i == 0 ? -1 : (int)i;
    messages[i].msg_len = (unsigned int)sent;
  }
  return (int)count;
}
