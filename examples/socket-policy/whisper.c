/*
 * Says something to a server by TCP and prints the answer, on a connection that has to be protected
 * by ESP whatever the policies of the machine are; then tells how it was protected.
 *
 *     whisper [-p] ADDRESS PORT TEXT      -p: plainly, without a policy of its own
 *
 * The policy is the one that ipsec_set_policy(3) makes of "out ipsec esp/transport//require", and
 * of the same with "in".
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../native/testudo_ipsec.h"

#define IP_IPSEC_POLICY 16 /* of <linux/in.h> */

enum { IN = 1, OUT = 2 };
enum { TYPE_IPSEC = 2, PROTOCOL_ESP = 50, MODE_TRANSPORT = 1, LEVEL_REQUIRE = 2 };

/* sadb_x_policy and sadb_x_ipsecrequest of <linux/pfkeyv2.h>. */
struct policy {
  uint16_t len; /* of all of it, in units of 8 octets */
  uint16_t exttype;
  uint16_t type;
  uint8_t direction;
  uint8_t reserved;
  uint32_t id;
  uint32_t priority;
  struct {
    uint16_t len; /* in octets */
    uint16_t protocol;
    uint8_t mode;
    uint8_t level;
    uint16_t reserved;
    uint32_t reqid;
    uint32_t reserved2;
  } request;
};

static void give_up(const char *what) {
  perror(what);
  exit(1);
}

static void require_esp(int fd, uint8_t direction) {
  struct policy policy;
  memset(&policy, 0, sizeof policy);
  policy.len = sizeof policy / 8;
  policy.exttype = 18; /* SADB_X_EXT_POLICY */
  policy.type = TYPE_IPSEC;
  policy.direction = direction;
  policy.request.len = sizeof policy.request;
  policy.request.protocol = PROTOCOL_ESP;
  policy.request.mode = MODE_TRANSPORT;
  policy.request.level = LEVEL_REQUIRE;
  if (setsockopt(fd, IPPROTO_IP, IP_IPSEC_POLICY, &policy, sizeof policy) < 0) {
    give_up("IP_IPSEC_POLICY");
  }
}

static void print_status(int fd) {
  struct testudo_ipsec_status status;
  socklen_t len = sizeof status;
  if (getsockopt(fd, IPPROTO_IP, TESTUDO_IPSEC_STATUS, &status, &len) < 0) {
    give_up("TESTUDO_IPSEC_STATUS");
  }
  const struct testudo_ipsec_direction *ways[] = {&status.out, &status.in};
  for (int i = 0; i < 2; i++) {
    const struct testudo_ipsec_direction *way = ways[i];
    const struct testudo_ipsec_sa *sa = &way->sas[0];
    printf("%s: ", i == 0 ? "out" : "in");
    if (way->state == TESTUDO_IPSEC_PROTECTED) {
      printf("%s, SPI %#x, %s\n", sa->protocol == PROTOCOL_ESP ? "ESP" : "AH", sa->spi,
             sa->encryption);
    } else {
      puts(way->state == TESTUDO_IPSEC_CLEAR ? "in the clear" : "nothing can pass");
    }
  }
}

int main(int argc, char **argv) {
  int plain = argc == 5 && strcmp(argv[1], "-p") == 0;
  if (argc != 4 + plain) {
    fprintf(stderr, "usage: %s [-p] ADDRESS PORT TEXT\n", argv[0]);
    return 2;
  }
  char **words = argv + 1 + plain;
  struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[1]))};
  if (inet_pton(AF_INET, words[0], &server.sin_addr) != 1) {
    fprintf(stderr, "%s: %s is no IPv4 address\n", argv[0], words[0]);
    return 2;
  }
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) give_up("socket");
  if (!plain) {
    require_esp(fd, OUT);
    require_esp(fd, IN);
  }
  if (connect(fd, (struct sockaddr *)&server, sizeof server) < 0) give_up("connect");
  if (write(fd, words[2], strlen(words[2])) < 0) give_up("write");
  char answer[1000];
  ssize_t len = read(fd, answer, sizeof answer);
  if (len < 0) give_up("read");
  printf("answer: %.*s\n", (int)len, answer);
  print_status(fd);
  close(fd);
  return 0;
}
