/*
 * For programs that want to know whether the traffic of a socket is protected, and how.
 *
 * Under `testudo exec`, getsockopt(fd, level, TESTUDO_IPSEC_STATUS, &status, &len) fills a `struct
 * testudo_ipsec_status`; the level is IPPROTO_IP for sockets of AF_INET and IPPROTO_IPV6 for those
 * of AF_INET6, as with IP_IPSEC_POLICY. A buffer that is too short: EINVAL. Elsewhere, the kernel
 * does not know the option: ENOPROTOOPT.
 */
#ifndef TESTUDO_IPSEC_H
#define TESTUDO_IPSEC_H

#include <stdint.h>

#define TESTUDO_IPSEC_STATUS 0x7e57
#define TESTUDO_IPSEC_VERSION 1
#define TESTUDO_IPSEC_SAS_MAX 4

/* What the last packet in a direction had; where there was none, what the next one would. */
enum testudo_ipsec_state {
  TESTUDO_IPSEC_CLEAR = 0,     /* no protection */
  TESTUDO_IPSEC_WAITING = 1,   /* a policy wants protection, and there is no SA for it yet */
  TESTUDO_IPSEC_PROTECTED = 2, /* by the SAs that follow */
  TESTUDO_IPSEC_BLOCKED = 3    /* a policy lets nothing pass */
};

/* The policy that the socket itself has in a direction. */
enum testudo_ipsec_rule {
  TESTUDO_IPSEC_ENTRUST = 0, /* none: the host's policies decide */
  TESTUDO_IPSEC_BYPASS = 1,
  TESTUDO_IPSEC_IPSEC = 2
};

struct testudo_ipsec_sa {
  uint32_t spi;             /* in host order */
  uint8_t protocol;         /* 50: ESP, 51: AH */
  uint8_t mode;             /* 1: transport, 2: tunnel */
  uint8_t family;           /* AF_INET or AF_INET6: of the SA's own ends, in network order */
  uint8_t reserved;
  unsigned char local[16];
  unsigned char remote[16];
  char encryption[32];      /* as setkey(8) calls it; empty: none */
  char authentication[32];  /* empty: none, or the encryption does both */
};

struct testudo_ipsec_direction {
  uint8_t state;
  uint8_t rule;
  uint8_t sa_count; /* may be more than there is room for */
  uint8_t reserved[5];
  uint64_t packets; /* of the socket, if it has a policy of its own; 0: there was none */
  /* As they are on the packet, outermost first. */
  struct testudo_ipsec_sa sas[TESTUDO_IPSEC_SAS_MAX];
};

struct testudo_ipsec_status {
  uint32_t version;
  uint32_t reserved;
  struct testudo_ipsec_direction in;
  struct testudo_ipsec_direction out;
};

#endif
