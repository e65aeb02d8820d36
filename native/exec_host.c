/*
 * The way to the host. The environment says where it is: TESTUDO_EXEC=NAME:TOKEN, an abstract
 * address, which is there after chroot too, and 32 octets in hexadecimal, which open it whoever the
 * program has become. The first message of every connection is a `greeting`, with the details of a
 * question behind it, and an int is the answer: 0, or why not (errno), with the answer's own octets
 * behind it. src/daemon/exec-greeting.ts is the other side.
 */
#include "exec_host.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TOKEN_LEN = 32 };
enum { ANSWER_TIMEOUT_S = 5, TAKEN_TIMEOUT_MS = 1000, SPINS = 50, PAUSE_NS = 50000 };

struct greeting {
  char magic[4];
  uint32_t operation;
  uint32_t value;
  unsigned char token[TOKEN_LEN];
};
_Static_assert(sizeof(struct greeting) == 44, "the host reads 44 octets");

static struct sockaddr_un host_address;
static socklen_t host_address_len; /* 0 when the program does not run under `testudo exec` */
static unsigned char host_token[TOKEN_LEN];

int fail(int why) {
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

bool is_active(void) { return host_address_len != 0; }

int int_option(int fd, int level, int name) {
  int value = -1;
  socklen_t len = sizeof value;
  return NEXT(getsockopt)(fd, level, name, &value, &len) < 0 ? -1 : value;
}

bool is_ours(int fd) {
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
void wait_until_taken(int fd) {
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

static void fill_greeting(struct greeting *greeting, enum operation operation, uint32_t value) {
  memcpy(greeting->magic, "TSD2", 4);
  greeting->operation = (uint32_t)operation;
  greeting->value = value;
  memcpy(greeting->token, host_token, TOKEN_LEN);
}

static ssize_t send_question(int fd, const struct question *question) {
  struct greeting greeting;
  fill_greeting(&greeting, question->operation, question->value);
  struct iovec parts[2] = {
      {&greeting, sizeof greeting},
      {(void *)(uintptr_t)question->detail, question->detail_len},
  };
  union {
    char octets[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  memset(&control, 0, sizeof control);
  struct msghdr message;
  memset(&message, 0, sizeof message);
  message.msg_iov = parts;
  message.msg_iovlen = question->detail_len > 0 ? 2 : 1;
  if (question->passed >= 0) {
    message.msg_control = control.octets;
    message.msg_controllen = sizeof control.octets;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &question->passed, sizeof(int));
  }
  ssize_t sent;
  do sent = NEXT(sendmsg)(fd, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent;
}

ssize_t tell_host(int fd, enum operation operation, uint32_t value) {
  struct question question = {operation, value, -1, NULL, 0};
  return send_question(fd, &question);
}

static void set_timeouts(int fd, int seconds) {
  struct timeval timeout = {seconds, 0};
  NEXT(setsockopt)(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  NEXT(setsockopt)(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

/* Why the host could not be asked: a program without its host is one on a kernel without PF_KEY. */
static int unreachable(void) { return errno == EAGAIN ? ETIMEDOUT : EAFNOSUPPORT; }

static ssize_t receive_answer(int fd, void *octets, size_t len) {
  ssize_t received;
  do received = recv(fd, octets, len, 0);
  while (received < 0 && errno == EINTR);
  return received;
}

/* The length of the answer, or minus the errno with which the host refused or was not there. */
static ssize_t greet(int fd, const struct question *question, void *answer, size_t answer_len) {
  set_timeouts(fd, ANSWER_TIMEOUT_S);
  while (NEXT(connect)(fd, (struct sockaddr *)&host_address, host_address_len) < 0) {
    if (errno != EINTR) return -unreachable();
  }
  if (send_question(fd, question) < 0) return -unreachable();
  unsigned char octets[sizeof(int32_t) + DETAIL_LEN_MAX];
  ssize_t len = receive_answer(fd, octets, sizeof octets);
  if (len < 0) return -unreachable();
  int32_t why = 0;
  if ((size_t)len < sizeof why) return -EAFNOSUPPORT;
  memcpy(&why, octets, sizeof why);
  if (why != 0) return -why;
  set_timeouts(fd, 0);
  size_t rest = (size_t)len - sizeof why;
  if (answer_len > 0) memcpy(answer, octets + sizeof why, rest < answer_len ? rest : answer_len);
  return (ssize_t)rest;
}

static int open_socket(void) { return NEXT(socket)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0); }

int open_connection(enum operation operation, uint32_t value) {
  struct question question = {operation, value, -1, NULL, 0};
  int fd = open_socket();
  if (fd < 0) return -1;
  ssize_t len = greet(fd, &question, NULL, 0);
  if (len >= 0) return fd;
  close(fd);
  return fail((int)-len);
}

ssize_t ask_host(const struct question *question, void *answer, size_t answer_len) {
  int fd = open_socket();
  if (fd < 0) return -1;
  ssize_t len = greet(fd, question, answer, answer_len);
  close(fd);
  return len >= 0 ? len : fail((int)-len);
}
