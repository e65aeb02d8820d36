#ifndef TESTUDO_SEGMENTS_H
#define TESTUDO_SEGMENTS_H
/*
 * Byte loops over packets that lie in one piece of memory: large packets are cut into segments,
 * segments are found that fit together again, checksums are made and verified. Plain C without any
 * library, compiled into a shared object where a compiler is, and into a WebAssembly module for
 * everywhere else. Knows nothing of IPsec.
 *
 * Every function gets the memory as `base` and `size` and a job: 32-bit words at `job`, which the
 * caller fills in. Places are offsets from `base`. All of them are checked before an address is
 * formed, so that a wrong one is REFUSED and touches nothing.
 */
#include <stdint.h>

#ifdef __wasm__
#define EXPORT(name) __attribute__((export_name(#name)))
#else
#define EXPORT(name) __attribute__((visibility("default")))
#endif

/* What a job ends with instead of a count. */
#define REFUSED (-1)   /* a place outside of the memory */
#define MALFORMED (-2) /* not a packet that can be cut */
#define TOO_LARGE (-3) /* a segment is larger than the room for it */

/* Longer than any IP packet, and short enough for sums in 32 bits. */
#define PACKET_MAX 0x1ffffu

#define IP4_LEN 20u
#define IP6_LEN 40u
#define UDP_LEN 8u
#define TCP_LEN 20u
#define TCP 6u
#define UDP 17u

/* TCP flags (RFC 9293 §3.1, RFC 3168 §6.1). */
#define FIN 0x01u
#define SYN 0x02u
#define RST 0x04u
#define PSH 0x08u
#define URG 0x20u
#define CWR 0x80u

typedef uint16_t half __attribute__((aligned(1), may_alias));
typedef uint32_t word __attribute__((aligned(1), may_alias));

static inline int inside(uint32_t size, uint32_t at, uint32_t len)
{
    return at <= size && len <= size - at;
}

/* `count` words at `at`, which must be aligned; 0 if they are not all inside. */
static inline uint32_t *words(uint8_t *base, uint32_t size, uint32_t at, uint32_t count)
{
    if ((at & 3) != 0 || count > size / 4 || !inside(size, at, count * 4))
        return 0;
    return (uint32_t *)(void *)(base + at);
}

static inline uint16_t net16(uint32_t value)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (uint16_t)((value << 8 & 0xff00) | (value >> 8 & 0xff));
#else
    return (uint16_t)value;
#endif
}

static inline uint32_t net32(uint32_t value)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return __builtin_bswap32(value);
#else
    return value;
#endif
}

static inline uint32_t get16(const uint8_t *p) { return net16(*(const half *)(const void *)p); }
static inline uint32_t get32(const uint8_t *p) { return net32(*(const word *)(const void *)p); }
static inline void put16(uint8_t *p, uint32_t value) { *(half *)(void *)p = net16(value); }
static inline void put32(uint8_t *p, uint32_t value) { *(word *)(void *)p = net32(value); }

/*
 * Sums of 16-bit words as they lie in memory: the order of octets does not matter to a one's
 * complement sum, as long as it is the same all along (RFC 1071 §2 (B)).
 */
static inline uint32_t fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)((sum & 0xffff) + (sum >> 16));
}

static inline uint64_t sum_tail(const uint8_t *p, uint32_t len)
{
    uint64_t sum = 0;
    for (; len >= 2; p += 2, len -= 2)
        sum += *(const half *)(const void *)p;
    /* An odd last octet counts as if a zero followed. */
    if (len > 0)
        sum += net16((uint32_t)*p << 8);
    return sum;
}

static inline int is_same(const uint8_t *a, const uint8_t *b, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        if (a[i] != b[i])
            return 0;
    return 1;
}

static inline void write_checksum(uint8_t *field, uint64_t sum, uint32_t protocol)
{
    uint32_t value = ~fold(sum) & 0xffff;
    /* 0 means "none" in UDP (RFC 768). */
    if (value == 0 && protocol == UDP)
        value = 0xffff;
    *(half *)(void *)field = (uint16_t)value;
}

static inline void write_ip4_checksum(uint8_t *ip, uint32_t len)
{
    put16(ip + 10, 0);
    write_checksum(ip + 10, sum_tail(ip, len), 0);
}

/* Where things are in a packet, as octets from its begin. */
struct headers {
    uint32_t family;
    uint32_t protocol;
    uint32_t upper; /* the transport header */
    uint32_t len;   /* all headers */
};

/* The sum of `len` octets. */
uint64_t sum_of(const uint8_t *p, uint32_t len);
/* Copies and sums in one pass. The two places do not overlap. */
uint64_t copy_sum(uint8_t *restrict to, const uint8_t *restrict from, uint32_t len);
void copy(uint8_t *restrict to, const uint8_t *restrict from, uint32_t len);
/* Whether this is an IP packet with a TCP or UDP header that is whole: then `h` says where. */
int read_headers(const uint8_t *p, uint32_t len, struct headers *h);

#endif
