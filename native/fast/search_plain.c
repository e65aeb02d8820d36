/* Comparisons with rules for any processor. */
#include "search.h"

#define TARGET
static uint32_t match_4(const int32_t *rules, const int32_t *key, int32_t type, uint32_t len);
static uint32_t match_10(const int32_t *rules, const int32_t *key, int32_t type, uint32_t len);
#include "search_stages.h"

/* Of a prefix the mask of one word, whose first bit is bit `from`. */
static inline uint32_t prefix_mask(uint32_t len, uint32_t from) {
  const uint32_t bits = len < from ? 0 : len - from;
  return (uint32_t)(0xffffffff00000000 >> (bits < 32 ? bits : 32));
}

static inline int fits(const int32_t *rule, const int32_t *key, int32_t type, uint32_t words) {
  const uint32_t n = (words - 2) / 2;
  const uint32_t about = (uint32_t)rule[2 * n + 1];
  const uint32_t halves = (about & 2 << 16 ? 0xffff0000 : 0) | (about & 1 << 16 ? 0xffff : 0);
  const uint32_t type_mask = about & 1 << 19 ? 0xff000000 : 0;
  uint32_t differ = (uint32_t)(rule[2 * n] ^ key[2 * n]) & halves;
  differ |= (about ^ (uint32_t)type) & type_mask;
  differ |= about & (uint32_t)type & 3 << 20;
  for (uint32_t i = 0; i < n; i++) {
    differ |= (uint32_t)(rule[i] ^ key[i]) & prefix_mask(about >> 8 & 255, 32 * i);
    differ |= (uint32_t)(rule[n + i] ^ key[n + i]) & prefix_mask(about & 255, 32 * i);
  }
  return differ == 0;
}

static inline uint32_t match(const int32_t *rules, const int32_t *key, int32_t type, uint32_t len,
                             uint32_t words, uint32_t group) {
  uint32_t fit = 0;
  for (uint32_t i = 0; i < group && i < len; i++)
    fit |= (uint32_t)fits(rules + i * (words + 1), key, type, words) << i;
  return fit;
}

static uint32_t match_4(const int32_t *rules, const int32_t *key, int32_t type, uint32_t len) {
  return match(rules, key, type, len, 4, GROUP_4);
}

static uint32_t match_10(const int32_t *rules, const int32_t *key, int32_t type, uint32_t len) {
  return match(rules, key, type, len, 10, GROUP_10);
}

int32_t search_plain(struct search *search, struct batch *batch) {
  return search_stages(search, batch);
}
