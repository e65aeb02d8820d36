/* Large packets into segments, and rows of datagrams into packets. */
#include "segments.h"

/*
 * Completes a checksum: the field has the sum of the pseudo header. `start`: where the sum begins,
 * `field`: where it goes, both counted from the packet's begin. Returns 0.
 */
EXPORT(testudo_complete)
int32_t testudo_complete(uint8_t *base, uint32_t size, uint32_t at, uint32_t len, uint32_t start,
                         uint32_t field)
{
    if (!inside(size, at, len) || len > PACKET_MAX)
        return REFUSED;
    if (!inside(len, start, 2) || !inside(len, field, 2) || field < start)
        return MALFORMED;
    uint8_t *p = base + at;
    /* The only checksum at this place is UDP's. */
    write_checksum(p + field, sum_of(p + start, len - start), field - start == 6 ? UDP : 0);
    return 0;
}

/* Cuts a TCP or UDP packet; its checksum field has the sum of its pseudo header. */
struct cut {
    uint32_t at, end;  /* the packet */
    uint32_t family;   /* that it must have */
    uint32_t protocol; /* likewise */
    uint32_t segment;  /* octets of payload in each segment but the last */
    uint32_t from;     /* which segment comes first this time */
    uint32_t places;   /* pairs of words: where a segment goes, and out: its length */
    uint32_t count;    /* of these */
    uint32_t room;     /* octets from each place on */
    uint32_t total;    /* out: how many segments there are */
    uint32_t spread;   /* not 0: the payloads lie in their places, behind so much for the headers */
};

static int check_cut(uint8_t *base, uint32_t size, struct cut *job, uint32_t **places)
{
    if (job->count == 0 || job->count > size / 8)
        return 0;
    *places = words(base, size, job->places, job->count * 2);
    if (*places == 0 || job->end < job->at || !inside(size, job->at, job->end - job->at))
        return 0;
    return job->end - job->at <= PACKET_MAX && job->room <= PACKET_MAX;
}

/* Checked when it is used: what was written before may have changed it. */
static uint8_t *place(uint8_t *base, uint32_t size, uint32_t at, uint32_t room)
{
    return inside(size, at, room) ? base + at : 0;
}

static void finish_ip(uint8_t *p, const struct headers *h, uint32_t len, uint32_t number)
{
    if (h->family == 6) {
        put16(p + 4, len - IP6_LEN);
        return;
    }
    put16(p + 2, len);
    put16(p + 4, get16(p + 4) + number);
    write_ip4_checksum(p, h->upper);
}

static void finish_tcp(uint8_t *tcp, uint32_t offset, int is_first, int is_last)
{
    put32(tcp + 4, get32(tcp + 4) + offset);
    if (!is_last)
        tcp[13] &= (uint8_t)~(FIN | PSH);
    /* One notice is enough (RFC 3168 §6.1.2). */
    if (!is_first)
        tcp[13] &= (uint8_t)~CWR;
}

/* Returns how many segments were written. */
EXPORT(testudo_cut)
int32_t testudo_cut(uint8_t *base, uint32_t size, uint32_t job_at)
{
    struct cut *job = (struct cut *)(void *)words(base, size, job_at, sizeof(struct cut) / 4);
    uint32_t *places;
    if (job == 0 || !check_cut(base, size, job, &places))
        return REFUSED;
    const uint8_t *whole = base + job->at;
    const uint32_t len = job->end - job->at, segment = job->segment, room = job->room;
    const uint32_t from = job->from, count = job->count;
    struct headers h;
    if (!read_headers(whole, len, &h) || h.family != job->family || h.protocol != job->protocol)
        return MALFORMED;
    if (job->spread != 0 && job->spread != h.len)
        return MALFORMED;
    const uint32_t payload = len - h.len, check = h.upper + (h.protocol == TCP ? 16u : 6u);
    const uint32_t total = segment == 0 || payload == 0 ? 0 : (payload - 1) / segment + 1;
    if (from >= total)
        return MALFORMED;
    if (h.len + (total > 1 ? segment : payload) > room)
        return TOO_LARGE;
    job->total = total;
    /* The pseudo header without the length in it, which is each segment's own. */
    const uint64_t pseudo = (uint64_t)*(const half *)(const void *)(whole + check) +
                            (uint16_t)~net16((len - h.upper) & 0xffff);
    uint32_t done = 0;
    for (; done < count && from + done < total; done++) {
        const uint32_t number = from + done, offset = number * segment;
        const uint32_t part = payload - offset < segment ? payload - offset : segment;
        uint8_t *p = place(base, size, places[2 * done], room);
        if (p == 0)
            return REFUSED;
        uint8_t *upper = p + h.upper;
        copy(p, whole, h.len);
        const uint64_t sum = job->spread != 0 ? sum_of(p + h.len, part)
                                         : copy_sum(p + h.len, whole + h.len + offset, part);
        finish_ip(p, &h, h.len + part, number);
        const uint32_t upper_len = h.len - h.upper + part;
        if (h.protocol == TCP)
            finish_tcp(upper, offset, number == 0, number + 1 == total);
        else
            put16(upper + 4, upper_len);
        put16(p + check, 0);
        write_checksum(p + check,
                       pseudo + net16(upper_len) + sum_tail(upper, h.len - h.upper) + sum,
                       h.protocol);
        places[2 * done + 1] = h.len + part;
    }
    return (int32_t)done;
}

/*
 * Deals out UDP payloads that lie one behind the other, each behind a copy of one IP and UDP
 * header. An IPv4 datagram goes without a UDP checksum, an IPv6 one gets its own (RFC 8200 §8.1).
 */
struct deal {
    uint32_t at, end; /* the payloads */
    uint32_t header;  /* 28 octets of IPv4 and UDP or 48 of IPv6 and UDP, lengths to be filled in */
    uint32_t family;
    uint32_t segment; /* octets of each payload but the last */
    uint32_t from;    /* octets from `at` where this time begins */
    uint32_t places, count, room, spread; /* as in struct cut */
};

#ifndef __wasm__
/* How many words the jobs have, for whoever writes them. */
EXPORT(testudo_segments_layout)
const uint32_t testudo_segments_layout[] = {sizeof(struct cut) / 4, sizeof(struct deal) / 4};
#endif

static void finish_datagram(uint8_t *p, uint32_t family, uint32_t len, uint64_t sum)
{
    if (family == 4) {
        put16(p + 2, len);
        write_ip4_checksum(p, IP4_LEN);
        put16(p + IP4_LEN + 4, len - IP4_LEN);
        put16(p + IP4_LEN + 6, 0);
        return;
    }
    const uint32_t udp_len = len - IP6_LEN;
    put16(p + 4, udp_len);
    put16(p + IP6_LEN + 4, udp_len);
    put16(p + IP6_LEN + 6, 0);
    write_checksum(p + IP6_LEN + 6,
                   sum + sum_tail(p + 8, 32) + sum_tail(p + IP6_LEN, UDP_LEN) + net16(UDP) +
                       net16(udp_len),
                   UDP);
}

/* Returns how many datagrams were written. */
EXPORT(testudo_deal)
int32_t testudo_deal(uint8_t *base, uint32_t size, uint32_t job_at)
{
    struct deal *job = (struct deal *)(void *)words(base, size, job_at, sizeof(struct deal) / 4);
    if (job == 0)
        return REFUSED;
    struct cut places_of = {.at = job->at, .end = job->end, .places = job->places};
    places_of.count = job->count;
    places_of.room = job->room;
    uint32_t *places;
    const uint32_t family = job->family, segment = job->segment, count = job->count;
    const uint32_t header_len = (family == 4 ? IP4_LEN : IP6_LEN) + UDP_LEN, room = job->room;
    if (!check_cut(base, size, &places_of, &places) || !inside(size, job->header, header_len))
        return REFUSED;
    const uint32_t at = job->at, len = job->end - at;
    if ((family != 4 && family != 6) || segment == 0 || job->from >= len)
        return MALFORMED;
    if (job->spread != 0 && job->spread != header_len)
        return MALFORMED;
    if (header_len + (segment < len ? segment : len) > room)
        return TOO_LARGE;
    const uint8_t *header = base + job->header;
    uint32_t done = 0, offset = job->from;
    for (; done < count && offset < len; done++) {
        const uint32_t part = len - offset < segment ? len - offset : segment;
        uint8_t *p = place(base, size, places[2 * done], room);
        if (p == 0)
            return REFUSED;
        copy(p, header, header_len);
        uint64_t sum = 0;
        if (family == 6)
            sum = job->spread != 0 ? sum_of(p + header_len, part)
                                   : copy_sum(p + header_len, base + at + offset, part);
        else if (job->spread == 0)
            copy(p + header_len, base + at + offset, part);
        finish_datagram(p, family, header_len + part, sum);
        places[2 * done + 1] = header_len + part;
        offset += part;
    }
    return (int32_t)done;
}
