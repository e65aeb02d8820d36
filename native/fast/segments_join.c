/* Segments that fit together into large packets. */
#include "segments.h"

/*
 * Which packets of a batch are one stream, and so can be handed on as one large packet that will
 * be cut again at the same places: what the kernel's own receive offload would put together.
 */
struct join {
    uint32_t packets; /* pairs of words: begin and end of each packet */
    uint32_t count;   /* of these */
    uint32_t states;  /* out: a word for each packet */
    uint32_t with_udp;
    uint32_t heads;     /* places for headers of large packets, `head_room` octets each */
    uint32_t head_room; /* at least HEAD_MAX; there are count / 2 such places */
};

/* IP without options, TCP with all of them. */
#define HEAD_MAX 100u
#define STATE_VERIFIED 1u /* the transport checksum is right */
#define STATE_FOLLOWS 2u  /* belongs to the same large packet as the one before it */
#define STATE_LEADS 4u    /* is the first of one */
#define STATE_SHIFT 8     /* above: octets of headers */

/* The large packet that is being put together. */
struct train {
    const uint8_t *first;
    struct headers h;
    uint32_t segment; /* octets of payload */
    uint32_t payload; /* of all packets so far */
    uint32_t number;  /* of packets */
    uint32_t flags;   /* FIN and PSH of its last packet */
    int is_open;
};

static int is_verified(const uint8_t *p, uint32_t len, const struct headers *h)
{
    const uint8_t *addresses = p + (h->family == 4 ? 12 : 8);
    const uint64_t sum = sum_tail(addresses, h->family == 4 ? 8 : 32) + net16(h->protocol) +
                         net16(len - h->upper) + sum_of(p + h->upper, len - h->upper);
    return fold(sum) == 0xffff;
}

/* Plain headers whose lengths say what there is. */
static int is_plain(const uint8_t *p, uint32_t len, const struct headers *h)
{
    if (h->family == 4 ? h->upper != IP4_LEN || get16(p + 2) != len
                       : h->upper != IP6_LEN || get16(p + 4) != len - IP6_LEN)
        return 0;
    if (h->protocol == TCP)
        return 1;
    /* Without a checksum there is nothing to rely on. */
    return get16(p + h->upper + 4) == len - h->upper && get16(p + h->upper + 6) != 0;
}

static int is_same_ip(const struct train *t, const uint8_t *p)
{
    const uint8_t *q = t->first;
    if (t->h.family == 6)
        return is_same(p, q, 4) && is_same(p + 6, q + 6, 34);
    /* Where DF is not set the identifications count up, or reassembly could mix packets. */
    const uint32_t id = (get16(q + 4) + t->number) & 0xffff;
    const int same_id = get16(p + 4) == id || ((p[6] & 0x40) && get16(p + 4) == get16(q + 4));
    return same_id && is_same(p, q, 2) && is_same(p + 6, q + 6, 4) && is_same(p + 12, q + 12, 8);
}

static int is_same_tcp(const struct train *t, const uint8_t *p)
{
    const uint8_t *tcp = p + t->h.upper, *first = t->first + t->h.upper;
    /* Ports, acknowledgement, header length, window: all but sequence, flags and checksum. */
    if (!is_same(tcp, first, 4) || !is_same(tcp + 8, first + 8, 5) ||
        !is_same(tcp + 14, first + 14, 2) || !is_same(tcp + 18, first + 18, 2))
        return 0;
    if (get32(tcp + 4) != get32(first + 4) + t->payload)
        return 0;
    if ((tcp[13] ^ first[13]) & (uint8_t)~(FIN | PSH))
        return 0;
    return is_same(tcp + TCP_LEN, first + TCP_LEN, t->h.len - t->h.upper - TCP_LEN);
}

static int fits(const struct train *t, const uint8_t *p, uint32_t len, const struct headers *h)
{
    const uint32_t payload = len - h->len;
    if (!t->is_open || payload > t->segment || h->family != t->h.family ||
        h->protocol != t->h.protocol || h->len != t->h.len)
        return 0;
    if (t->h.len + t->payload + payload - (h->family == 6 ? IP6_LEN : 0) > 0xffff)
        return 0;
    if (!is_same_ip(t, p))
        return 0;
    return h->protocol == TCP ? is_same_tcp(t, p)
                              : is_same(p + h->upper, t->first + h->upper, 4);
}

/* Whether more can come behind this packet, as far as it says itself. */
static int is_followed(const uint8_t *p, const struct headers *h)
{
    return h->protocol == UDP || (p[h->upper + 13] & (FIN | SYN | RST | PSH | URG | CWR)) == 0;
}

static int may_follow(const uint8_t *p, const struct headers *h)
{
    return h->protocol == UDP || (p[h->upper + 13] & (SYN | RST | URG | CWR)) == 0;
}

/* The header of the large packet, with the sum of its pseudo header in place of a checksum. */
static void write_head(const struct train *t, uint8_t *head)
{
    const uint32_t len = t->h.len + t->payload, upper_len = len - t->h.upper;
    copy(head, t->first, t->h.len);
    uint8_t *upper = head + t->h.upper;
    if (t->h.family == 4) {
        put16(head + 2, len);
        write_ip4_checksum(head, t->h.upper);
    } else {
        put16(head + 4, len - IP6_LEN);
    }
    if (t->h.protocol == TCP)
        upper[13] |= (uint8_t)t->flags;
    else
        put16(upper + 4, upper_len);
    const uint8_t *addresses = head + (t->h.family == 4 ? 12 : 8);
    const uint32_t pseudo = fold(sum_tail(addresses, t->h.family == 4 ? 8 : 32) +
                                 net16(t->h.protocol) + net16(upper_len));
    *(half *)(void *)(upper + (t->h.protocol == TCP ? 16 : 6)) = (uint16_t)pseudo;
}

static void begin(struct train *t, const uint8_t *p, uint32_t len, const struct headers *h)
{
    t->first = p;
    t->h = *h;
    t->segment = t->payload = len - h->len;
    t->number = 1;
    t->flags = 0;
    t->is_open = t->payload > 0 && is_followed(p, h);
}

static void append(struct train *t, const uint8_t *p, uint32_t len)
{
    const uint32_t payload = len - t->h.len;
    t->payload += payload;
    t->number++;
    if (t->h.protocol == TCP)
        t->flags = p[t->h.upper + 13] & (FIN | PSH);
    t->is_open = payload == t->segment && is_followed(p, &t->h);
}

/* Returns how many large packets there are; the state of each packet says to which it belongs. */
EXPORT(testudo_join)
int32_t testudo_join(uint8_t *base, uint32_t size, uint32_t job_at)
{
    struct join *job = (struct join *)(void *)words(base, size, job_at, sizeof(struct join) / 4);
    if (job == 0 || job->count > size / 8 || job->head_room < HEAD_MAX || job->head_room > size)
        return REFUSED;
    const uint32_t count = job->count, head_room = job->head_room, with_udp = job->with_udp;
    const uint32_t *packets = words(base, size, job->packets, count * 2);
    uint32_t *states = words(base, size, job->states, count);
    if (packets == 0 || states == 0 || !inside(size, job->heads, 0) ||
        (uint64_t)(count / 2) * head_room > size - job->heads)
        return REFUSED;
    uint8_t *head = base + job->heads;
    struct train train = {.is_open = 0};
    uint32_t leader = 0;
    int32_t trains = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t at = packets[i * 2], end = packets[i * 2 + 1];
        if (end < at || !inside(size, at, end - at) || end - at > PACKET_MAX)
            return REFUSED;
        const uint8_t *p = base + at;
        struct headers h;
        const int is_candidate = read_headers(p, end - at, &h) && is_plain(p, end - at, &h) &&
                                 is_verified(p, end - at, &h);
        const int joins = is_candidate && (h.protocol == TCP || with_udp) &&
                          end - at > h.len && may_follow(p, &h) && fits(&train, p, end - at, &h);
        states[i] = is_candidate ? STATE_VERIFIED | h.len << STATE_SHIFT : 0;
        if (joins) {
            states[i] |= STATE_FOLLOWS;
            if (train.number == 1) {
                states[leader] |= STATE_LEADS;
                trains++;
            }
            append(&train, p, end - at);
            continue;
        }
        if (train.number > 1)
            write_head(&train, head + (uint32_t)(trains - 1) * head_room);
        train.number = 0;
        train.is_open = 0;
        if (is_candidate && (h.protocol == TCP || with_udp))
            begin(&train, p, end - at, &h);
        leader = i;
    }
    if (train.number > 1)
        write_head(&train, head + (uint32_t)(trains - 1) * head_room);
    return trains;
}
