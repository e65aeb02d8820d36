/*
 * Preloaded by `testudo exec` into a program that expects IPsec from its kernel: its sockets of
 * PF_KEY become connections to a Testudo host, and the socket options of IPsec are done by the
 * host. exec_host.c has the way there, exec_policy.c the policies of sockets.
 *
 * A connection is an AF_UNIX SOCK_SEQPACKET socket, so that whole messages, MSG_PEEK, poll, fork
 * and SCM_RIGHTS are the kernel's own. What is left to do here:
 *   - writing returns when the host has taken the message and queued the answer, as with a kernel,
 *     and never raises SIGPIPE
 *   - the receive buffer of an AF_UNIX socket has no meaning, so its size is told to the host,
 *     whose send buffer it is
 *
 * Nothing is remembered about descriptors (but for `wants_encap` here and `notes` there): they
 * are closed, duplicated and passed on in more ways than can be watched, so each call asks the
 * kernel what its descriptor is.
 */
#include "exec_host.h"
#include "exec_policy.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>

#define PF_KEY_V2 2
#define KEY_PROTOCOL_FAMILY 15
#define UDP_ENCAP_OPTION 100 /* UDP_ENCAP */
#define ESP_IN_UDP 2         /* UDP_ENCAP_ESPINUDP, RFC 3948 */
#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

enum { PFKEY_HEADER_LEN = 16, MESSAGE_LEN_MAX = 65536 };

/* UDP sockets that asked for ESP in UDP before they had a port: the host is told at bind. */
enum { WANTS_MAX = 4096 };
static atomic_uchar wants_encap[WANTS_MAX];

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

static int open_pfkey(int type, int protocol) {
  if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_RAW) return fail(ESOCKTNOSUPPORT);
  if (protocol != PF_KEY_V2) return fail(EPROTONOSUPPORT);
  int fd = open_connection(OP_PFKEY, 0);
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

static int encapsulate(int port) {
  struct question question = {OP_ENCAPSULATE, (uint32_t)port, -1, NULL, 0};
  return ask_host(&question, NULL, 0) < 0 ? -1 : 0;
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
  if (port != 0) return encapsulate(port);
  if (fd >= WANTS_MAX) return fail(EINVAL);
  want_encap(fd, true);
  return 0;
}

/* After the kernel has set it, and said what it has made of it: twice as much, within bounds. */
static void tell_receive_buffer(int fd) {
  int before = errno;
  int doubled = int_option(fd, SOL_SOCKET, SO_RCVBUF);
  uint32_t len = (uint32_t)doubled / 2;
  if (doubled > 0 && tell_host(fd, OP_RECEIVE_BUFFER, len) >= 0) wait_until_taken(fd);
  errno = before;
}

EXPORT int socket(int domain, int type, int protocol) {
  if (domain == KEY_PROTOCOL_FAMILY && is_active()) return open_pfkey(type, protocol);
  int fd = NEXT(socket)(domain, type, protocol);
  want_encap(fd, false);
  forget_policy(fd);
  return fd;
}

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t len) {
  int result = NEXT(bind)(fd, address, len);
  if (result < 0 || !is_active()) return result;
  moved(fd);
  if (fd >= WANTS_MAX || !atomic_exchange(&wants_encap[fd], false)) return result;
  int port = local_port(fd);
  return port <= 0 ? result : encapsulate(port);
}

EXPORT int connect(int fd, const struct sockaddr *address, socklen_t len) {
  int result = NEXT(connect)(fd, address, len);
  if (is_active() && (result == 0 || errno == EINPROGRESS)) moved(fd);
  return result;
}

EXPORT int listen(int fd, int backlog) {
  int result = NEXT(listen)(fd, backlog);
  if (is_active() && result == 0) moved(fd);
  return result;
}

static int accepted(int fd) {
  if (!is_active() || fd < 0) return fd;
  want_encap(fd, false);
  forget_policy(fd);
  moved(fd);
  return fd;
}

EXPORT int accept(int fd, struct sockaddr *address, socklen_t *len) {
  return accepted(NEXT(accept)(fd, address, len));
}

EXPORT int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags) {
  return accepted(NEXT(accept4)(fd, address, len, flags));
}

/* It would take a socket off the device that its policy has given it. */
static bool changes_device(int level, int name) {
  return level == SOL_SOCKET && (name == SO_BINDTODEVICE || name == SO_BINDTOIFINDEX);
}

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
  if (is_active()) {
    if (is_policy_option(level, name)) return set_policy(fd, level, name, value, len);
    if (level == IPPROTO_UDP && name == UDP_ENCAP_OPTION) return set_encapsulation(fd, value, len);
  }
  int result = NEXT(setsockopt)(fd, level, name, value, len);
  if (result != 0 || !is_active()) return result;
  if (changes_device(level, name)) return confirm_device(fd);
  bool sizes = level == SOL_SOCKET && (name == SO_RCVBUF || name == SO_RCVBUFFORCE);
  if (sizes && is_ours(fd)) tell_receive_buffer(fd);
  return result;
}

/* Programs that were handed a descriptor may ask what it is. */
EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
  if (is_active() && is_policy_option(level, name)) return get_policy(fd, level, name, value, len);
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

/* Of a socket of IP: only what names a destination can be the first that it sends. */
static ssize_t sent(int fd, ssize_t result) {
  if (result >= 0) has_sent(fd);
  return result;
}

/* The destination has no meaning, as for a kernel. */
EXPORT ssize_t sendto(int fd, const void *octets, size_t len, int flags, const struct sockaddr *to,
                      socklen_t to_len) {
  if (!is_ours(fd)) return sent(fd, NEXT(sendto)(fd, octets, len, flags, to, to_len));
  struct iovec part = {(void *)(uintptr_t)octets, len};
  return send_message(fd, &part, 1, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  if (message == NULL || !is_ours(fd)) return sent(fd, NEXT(sendmsg)(fd, message, flags));
  return send_message(fd, message->msg_iov, message->msg_iovlen, flags);
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
  if (messages == NULL || !is_ours(fd)) {
    return (int)sent(fd, NEXT(sendmmsg)(fd, messages, count, flags));
  }
  for (unsigned int i = 0; i < count; i++) {
    const struct msghdr *message = &messages[i].msg_hdr;
    ssize_t len = send_message(fd, message->msg_iov, message->msg_iovlen, flags);
    if (len < 0) return i == 0 ? -1 : (int)i;
    messages[i].msg_len = (unsigned int)len;
  }
  return (int)count;
}
