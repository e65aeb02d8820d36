/*
 * Does with sockets what it is told on standard input, a command a line, and answers each by a
 * line: what came of it, or an error's name. It knows IPsec as programs on Linux do, by socket
 * options whose octets somebody else has made, and Testudo by its header only.
 *
 *     socket NAME udp|tcp|raw|ping 4|6   raw: of protocol 253, for experiments (RFC 3692)
 *     option NAME HEX                    setsockopt of a policy
 *     asked NAME HEX LEN                 getsockopt, with these octets in a buffer of that length
 *     status NAME                        whether it is protected, and how
 *     bind|connect NAME ADDRESS PORT
 *     listen NAME        accept NAME NEW    dup NAME NEW
 *     send NAME TEXT     sendto NAME ADDRESS PORT TEXT
 *     receive NAME       waits for a second
 *     close NAME         device NAME DEVICE
 *     pid
 *     fork               the child goes on, and the parent waits for it
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../native/testudo_ipsec.h"

enum { FDS_MAX = 256, TEXT_MAX = 8192 };

static struct {
  char name[16];
  int fd;
  int family;
} sockets[FDS_MAX];

static int find(const char *name) {
  for (int i = 0; i < FDS_MAX; i++) {
    if (sockets[i].name[0] != 0 && strcmp(sockets[i].name, name) == 0) return i;
  }
  fprintf(stderr, "there is no socket %s\n", name);
  exit(2);
}

static void keep(const char *name, int fd, int family) {
  if (fd < 0) return;
  for (int i = 0; i < FDS_MAX; i++) {
    if (sockets[i].name[0] != 0) continue;
    snprintf(sockets[i].name, sizeof sockets[i].name, "%s", name);
    sockets[i].fd = fd;
    sockets[i].family = family;
    struct timeval second = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
    return;
  }
  exit(3);
}

static void say(const char *text) {
  printf("%s\n", text);
  fflush(stdout);
}

static void say_result(long result) { say(result < 0 ? strerrorname_np(errno) : "ok"); }

static size_t from_hex(const char *hex, unsigned char *octets) {
  size_t len = strlen(hex) / 2;
  for (size_t i = 0; i < len; i++) {
    unsigned value = 0;
    sscanf(hex + 2 * i, "%2x", &value);
    octets[i] = (unsigned char)value;
  }
  return len;
}

static socklen_t read_address(int family, const char *text, int port, void *address) {
  memset(address, 0, sizeof(struct sockaddr_in6));
  if (family == AF_INET) {
    struct sockaddr_in *four = address;
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)port);
    inet_pton(AF_INET, text, &four->sin_addr);
    return sizeof *four;
  }
  struct sockaddr_in6 *six = address;
  six->sin6_family = AF_INET6;
  six->sin6_port = htons((uint16_t)port);
  inet_pton(AF_INET6, text, &six->sin6_addr);
  return sizeof *six;
}

static void make_socket(char **words) {
  int family = words[3][0] == '4' ? AF_INET : AF_INET6;
  int fd;
  if (strcmp(words[2], "udp") == 0) fd = socket(family, SOCK_DGRAM, 0);
  else if (strcmp(words[2], "tcp") == 0) fd = socket(family, SOCK_STREAM, 0);
  else if (strcmp(words[2], "raw") == 0) fd = socket(family, SOCK_RAW, 253);
  else fd = socket(family, SOCK_DGRAM, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
  int on = 1;
  if (strcmp(words[2], "tcp") == 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  keep(words[1], fd, family);
  say_result(fd);
}

static int level_of(int family) { return family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6; }

/* IP_IPSEC_POLICY and IPV6_IPSEC_POLICY. */
static int option_of(int family) { return family == AF_INET ? 16 : 34; }

static void set_option(int i, const char *hex) {
  unsigned char octets[TEXT_MAX];
  socklen_t len = (socklen_t)from_hex(hex, octets);
  int family = sockets[i].family;
  say_result(setsockopt(sockets[i].fd, level_of(family), option_of(family), octets, len));
}

static void ask_option(int i, const char *hex, socklen_t len) {
  unsigned char octets[TEXT_MAX] = {0};
  from_hex(hex, octets);
  int family = sockets[i].family;
  if (getsockopt(sockets[i].fd, level_of(family), option_of(family), octets, &len) < 0) {
    say(strerrorname_np(errno));
    return;
  }
  for (socklen_t at = 0; at < len; at++) printf("%02x", octets[at]);
  say("");
}

static void print_direction(const char *name, const struct testudo_ipsec_direction *direction) {
  static const char *states[] = {"clear", "waiting", "protected", "blocked"};
  static const char *rules[] = {"entrust", "bypass", "ipsec"};
  printf("%s %s %s", name, rules[direction->rule], states[direction->state]);
  for (int i = 0; i < direction->sa_count && i < TESTUDO_IPSEC_SAS_MAX; i++) {
    const struct testudo_ipsec_sa *sa = &direction->sas[i];
    char local[INET6_ADDRSTRLEN], remote[INET6_ADDRSTRLEN];
    inet_ntop(sa->family, sa->local, local, sizeof local);
    inet_ntop(sa->family, sa->remote, remote, sizeof remote);
    printf(" %s/%s/%#x/%s/%s/%s", sa->protocol == 50 ? "esp" : "ah",
           sa->mode == 1 ? "transport" : "tunnel", sa->spi, sa->encryption, local, remote);
  }
}

static void ask_status(int i) {
  struct testudo_ipsec_status status;
  socklen_t len = sizeof status;
  int level = level_of(sockets[i].family);
  if (getsockopt(sockets[i].fd, level, TESTUDO_IPSEC_STATUS, &status, &len) < 0) {
    say(strerrorname_np(errno));
    return;
  }
  if (status.version != TESTUDO_IPSEC_VERSION || len != sizeof status) exit(4);
  print_direction("in", &status.in);
  print_direction("; out", &status.out);
  say("");
}

static void receive(int i) {
  char text[TEXT_MAX];
  ssize_t len = recv(sockets[i].fd, text, sizeof text - 1, 0);
  if (len < 0) {
    say(strerrorname_np(errno));
    return;
  }
  text[len] = 0;
  /* Behind the headers. */
  long head = strncmp(sockets[i].name, "ping", 4) == 0 ? 8 : 0;
  say(len == 0 ? "end" : text + (head < len ? head : len));
}

static void give(char **words, bool to) {
  int i = find(words[1]);
  const char *text = words[to ? 4 : 2];
  /* An echo request begins with its type, and the kernel does the rest. */
  char message[TEXT_MAX] = {sockets[i].family == AF_INET ? 8 : (char)128};
  size_t head = strncmp(sockets[i].name, "ping", 4) == 0 ? 8 : 0;
  size_t len = head + strlen(text);
  memcpy(message + head, text, strlen(text));
  struct sockaddr_in6 address;
  socklen_t address_len = 0;
  if (to) address_len = read_address(sockets[i].family, words[2], atoi(words[3]), &address);
  struct sockaddr *name = to ? (struct sockaddr *)&address : NULL;
  say_result(sendto(sockets[i].fd, message, len, MSG_NOSIGNAL, name, address_len));
}

static void obey(char **words) {
  const char *what = words[0];
  struct sockaddr_in6 address;
  if (strcmp(what, "socket") == 0) return make_socket(words);
  if (strcmp(what, "fork") == 0) {
    pid_t child = fork();
    if (child > 0) {
      for (int i = 0; i < FDS_MAX; i++) {
        if (sockets[i].name[0] != 0) close(sockets[i].fd);
      }
      waitpid(child, NULL, 0);
      exit(0);
    }
    say("ok");
    return;
  }
  if (strcmp(what, "pid") == 0) {
    printf("%d\n", getpid());
    fflush(stdout);
    return;
  }
  if (strcmp(what, "send") == 0) return give(words, false);
  if (strcmp(what, "sendto") == 0) return give(words, true);
  int i = find(words[1]);
  int fd = sockets[i].fd;
  if (strcmp(what, "option") == 0) return set_option(i, words[2]);
  if (strcmp(what, "asked") == 0) return ask_option(i, words[2], (socklen_t)atoi(words[3]));
  if (strcmp(what, "status") == 0) return ask_status(i);
  if (strcmp(what, "receive") == 0) return receive(i);
  if (strcmp(what, "listen") == 0) return say_result(listen(fd, 16));
  if (strcmp(what, "bind") == 0 || strcmp(what, "connect") == 0) {
    socklen_t len = read_address(sockets[i].family, words[2], atoi(words[3]), &address);
    struct sockaddr *name = (struct sockaddr *)&address;
    return say_result(what[0] == 'b' ? bind(fd, name, len) : connect(fd, name, len));
  }
  if (strcmp(what, "accept") == 0 || strcmp(what, "dup") == 0) {
    int new = what[0] == 'a' ? accept(fd, NULL, NULL) : dup(fd);
    keep(words[2], new, sockets[i].family);
    return say_result(new);
  }
  if (strcmp(what, "device") == 0) {
    socklen_t len = (socklen_t)strlen(words[2]);
    return say_result(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, words[2], len));
  }
  if (strcmp(what, "close") == 0) {
    sockets[i].name[0] = 0;
    return say_result(close(fd));
  }
  exit(5);
}

int main(void) {
  static char line[4 * TEXT_MAX];
  /* Unbuffered, or a child would have what its parent has read ahead. */
  setvbuf(stdin, NULL, _IONBF, 0);
  while (fgets(line, sizeof line, stdin) != NULL) {
    char *words[6] = {NULL, "", "", "", "", ""};
    char *rest = line;
    for (int i = 0; i < 6; i++) {
      char *word = strtok_r(NULL, " \n", &rest);
      if (word == NULL) break;
      words[i] = word;
    }
    if (words[0] != NULL) obey(words);
  }
  return 0;
}
