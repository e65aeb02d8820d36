/* Sums, copies, and where the headers are: what the loops of segments.h have in common. */
#include "segments.h"

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
/* Picked when the library is loaded: 32 octets at a time where the processor has them. */
#define FAST __attribute__((target_clones("avx2", "default")))
#else
#define FAST
#endif

typedef uint32_t lanes __attribute__((vector_size(16), aligned(1), may_alias));

static uint64_t sum_lanes(lanes low, lanes high)
{
    uint64_t sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (uint64_t)low[i] + (uint64_t)high[i];
    return sum;
}

/* Each lane takes 2 x 4,096 halves of a packet at most, so it does not overflow. */
FAST uint64_t sum_of(const uint8_t *p, uint32_t len)
{
    lanes low = {0, 0, 0, 0}, high = low;
    for (; len >= 16; p += 16, len -= 16) {
        const lanes v = *(const lanes *)(const void *)p;
        low += v & 0xffff;
        high += v >> 16;
    }
    return sum_lanes(low, high) + sum_tail(p, len);
}

FAST uint64_t copy_sum(uint8_t *restrict to, const uint8_t *restrict from, uint32_t len)
{
    lanes low = {0, 0, 0, 0}, high = low;
    for (; len >= 16; to += 16, from += 16, len -= 16) {
        const lanes v = *(const lanes *)(const void *)from;
        *(lanes *)(void *)to = v;
        low += v & 0xffff;
        high += v >> 16;
    }
    for (uint32_t i = 0; i < len; i++)
        to[i] = from[i];
    return sum_lanes(low, high) + sum_tail(from, len);
}

FAST void copy(uint8_t *restrict to, const uint8_t *restrict from, uint32_t len)
{
    for (; len >= 16; to += 16, from += 16, len -= 16)
        *(lanes *)(void *)to = *(const lanes *)(const void *)from;
    for (uint32_t i = 0; i < len; i++)
        to[i] = from[i];
}

static int read_transport(const uint8_t *p, uint32_t len, struct headers *h)
{
    if (h->protocol == UDP) {
        h->len = h->upper + UDP_LEN;
        return h->len <= len;
    }
    if (h->protocol != TCP || h->upper + TCP_LEN > len)
        return 0;
    const uint32_t tcp_len = (uint32_t)(p[h->upper + 12] >> 4) * 4;
    h->len = h->upper + tcp_len;
    return tcp_len >= TCP_LEN && h->len <= len;
}

static int read_ip4(const uint8_t *p, uint32_t len, struct headers *h)
{
    if (len < IP4_LEN)
        return 0;
    h->family = 4;
    h->upper = (uint32_t)(p[0] & 15) * 4;
    h->protocol = p[9];
    /* A fragment has no transport header of its own. */
    if (h->upper < IP4_LEN || h->upper > len || (get16(p + 6) & 0x3fff) != 0)
        return 0;
    return read_transport(p, len, h);
}

static int read_ip6(const uint8_t *p, uint32_t len, struct headers *h)
{
    if (len < IP6_LEN)
        return 0;
    h->family = 6;
    h->upper = IP6_LEN;
    h->protocol = p[6];
    /* Hop-by-hop options, routing header, destination options (RFC 8200 §4). */
    while (h->protocol == 0 || h->protocol == 43 || h->protocol == 60) {
        if (h->upper + 8 > len)
            return 0;
        h->protocol = p[h->upper];
        h->upper += ((uint32_t)p[h->upper + 1] + 1) * 8;
    }
    return h->upper <= len && read_transport(p, len, h);
}

int read_headers(const uint8_t *p, uint32_t len, struct headers *h)
{
    if (len < 1)
        return 0;
    if (p[0] >> 4 == 4)
        return read_ip4(p, len, h);
    return p[0] >> 4 == 6 && read_ip6(p, len, h);
}
