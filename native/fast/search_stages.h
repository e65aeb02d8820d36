/*
 * The stages of a search, compiled once for each kind of processor: who includes this defines
 * TARGET, the attribute of its functions, and
 *
 *     uint32_t match_4(const int32_t *rules, const int32_t *key, int32_t type, uint32_t len)
 *     uint32_t match_10(the same)
 *
 * which compare a key of 4 or 10 words with the next GROUP rules of a list that has `len` more, at
 * least one, and return a bit for each that fits, the lowest for the first. Bits behind the last
 * rule may be set only if that of the last is.
 *
 * All keys take their first step down, then all that go on their second, then all are compared with
 * the first rules of their lists, and so on: a table that is larger than the processor's own cache
 * costs waiting for memory, and what one key waits for the next does not. There is no branch whose
 * way hangs on a key: it would be guessed wrongly as often as rightly, and each time costs as much
 * as a comparison with two rules.
 */
#include "search.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define IS_RARE(condition) __builtin_expect(!!(condition), 0)

enum { GROUP_4 = 4, GROUP_10 = 2 };
enum { LINE_OCTETS = 64 };

/* Only for the cache: it reads nothing, and may point behind the array. */
static ALWAYS_INLINE TARGET void prefetch(const void *place, uintptr_t lines) {
  for (uintptr_t line = 0; line < lines; line++)
    __builtin_prefetch((const void *)((uintptr_t)place + line * LINE_OCTETS));
}

/* What loops read at every turn, in variables of their own: nothing that they write can be it. */
struct trees {
  const int32_t *nodes, *lists;
  uint32_t nodes_len, lists_len;
};

static ALWAYS_INLINE TARGET struct trees trees_of(const struct search *s, const struct batch *b) {
  return (struct trees){b->nodes, b->lists, s->nodes_len, s->lists_len - (LIST_HEAD - 1)};
}

/* Prefetches what is at a node; 0 if it points outside of its array. */
static ALWAYS_INLINE TARGET int fetch(const struct trees *trees, int32_t node) {
  const uint32_t place = (uint32_t)(node < 0 ? ~node : node);
  const uint32_t len = node < 0 ? trees->lists_len : trees->nodes_len;
  if (IS_RARE(place >= len)) return 0;
  /* Most lists end in the third line. */
  prefetch((node < 0 ? trees->lists : trees->nodes) + place, 3);
  return 1;
}

static ALWAYS_INLINE TARGET uint32_t low_bits(uint32_t value, uint32_t bits) {
  return value & ((1u << bits) - 1);
}

static ALWAYS_INLINE TARGET uint32_t way_of(uint32_t cut, const int32_t *key, uint32_t one,
                                            uint32_t other) {
  const uint32_t high = low_bits((uint32_t)key[one] >> (cut >> 19 & 31), cut >> 14 & 31);
  const uint32_t low = low_bits((uint32_t)key[other] >> (cut >> 5 & 31), cut & 31);
  return high << (cut & 31) | low;
}

/* Puts key `i` where it comes to; it goes on if that is a branch. Returns how many do. */
static ALWAYS_INLINE TARGET uint32_t arrive(struct batch *b, uint32_t i, int32_t node,
                                            uint32_t todo) {
  b->at[i] = node;
  b->todo[todo] = (uint16_t)i;
  return todo + (node > 0);
}

/* Where keys go whose bound is not before all of the tree: to the root's node. */
static TARGET int32_t first_step(const struct search *s, struct batch *b, uint32_t r,
                                 uint32_t words) {
  const uint32_t root = s->roots[r].at, least = s->roots[r].least;
  b->todo_count = 0;
  const struct trees trees = trees_of(s, b);
  const uint32_t count = s->count;
  if (root >= trees.nodes_len || !fetch(&trees, trees.nodes[root])) return SEARCH_REFUSED;
  const int32_t node = trees.nodes[root];
  if (node <= 0) {
    for (uint32_t i = 0; i < count; i++) b->at[i] = b->bounds[i] < least ? 0 : node;
    return SEARCH_DONE;
  }
  const int32_t *keys = b->keys;
  const uint32_t cut = (uint32_t)trees.nodes[node];
  const uint32_t one = cut >> 24, other = cut >> 10 & 15;
  if (one >= words || other >= words) return SEARCH_REFUSED;
  uint32_t todo = 0;
  for (uint32_t i = 0; i < count; i++) {
    const uint64_t next = (uint64_t)node + 1 + way_of(cut, keys + i * words, one, other);
    if (IS_RARE(next >= trees.nodes_len)) return SEARCH_REFUSED;
    const int32_t to = b->bounds[i] < least ? 0 : trees.nodes[next];
    if (!fetch(&trees, to)) return SEARCH_REFUSED;
    todo = arrive(b, i, to, todo);
  }
  b->todo_count = todo;
  return SEARCH_DONE;
}

/* All keys that are at a branch take a step. */
static TARGET int32_t next_step(const struct search *s, struct batch *b, uint32_t words) {
  const struct trees trees = trees_of(s, b);
  const int32_t *keys = b->keys;
  const uint32_t count = b->todo_count;
  uint32_t todo = 0;
  for (uint32_t t = 0; t < count; t++) {
    const uint32_t i = b->todo[t];
    const int32_t node = b->at[i];
    const uint32_t cut = (uint32_t)trees.nodes[node];
    const uint32_t one = cut >> 24, other = cut >> 10 & 15;
    if (IS_RARE(one >= words || other >= words)) return SEARCH_REFUSED;
    const uint64_t next = (uint64_t)node + 1 + way_of(cut, keys + i * words, one, other);
    if (IS_RARE(next >= trees.nodes_len)) return SEARCH_REFUSED;
    const int32_t to = trees.nodes[next];
    if (!fetch(&trees, to)) return SEARCH_REFUSED;
    todo = arrive(b, i, to, todo);
  }
  b->todo_count = todo;
  return SEARCH_DONE;
}

static TARGET int32_t descend(const struct search *s, struct batch *b, uint32_t r,
                              uint32_t words) {
  int32_t result = first_step(s, b, r, words);
  for (uint32_t steps = 1; result == SEARCH_DONE && b->todo_count > 0; steps++) {
    if (steps > SEARCH_STEPS_MAX) return SEARCH_REFUSED;
    result = next_step(s, b, words);
  }
  return result;
}

/* Notes which keys are at a list that may have something for them. */
static TARGET int32_t open_lists(struct search *s, struct batch *b, uint32_t r, uint32_t words) {
  const uint32_t rule_len = words + 1, count = s->count, lists_len = s->lists_len;
  const int32_t *lists = b->lists;
  uint32_t todo = 0;
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t is_list = b->at[i] < 0;
    const uint32_t list = is_list ? (uint32_t)~b->at[i] : 0;
    const int32_t len = lists[list];
    const uint32_t is_open = is_list & ((uint32_t)lists[list + 1] <= b->bounds[i]);
    if (IS_RARE(is_open != 0 && len < 0)) {
      s->stale_root = s->roots[r].at;
      s->stale_key = i;
      return SEARCH_STALE;
    }
    const uint64_t end = (uint64_t)list + LIST_HEAD + (uint64_t)(uint32_t)len * rule_len;
    if (IS_RARE(is_open != 0 && end > lists_len)) return SEARCH_REFUSED;
    b->places[i] = list + LIST_HEAD;
    b->lens[i] = (uint32_t)len;
    b->todo[todo] = (uint16_t)i;
    todo += is_open & (len != 0);
  }
  b->todo_count = todo;
  return SEARCH_DONE;
}

/* All keys that have not found anything are compared with the next rules of their lists. */
static ALWAYS_INLINE TARGET int32_t compare(const struct search *s, struct batch *b, uint32_t words,
                                            uint32_t group) {
  const uint32_t rule_len = words + 1, count = b->todo_count, rules_len = s->rules_len;
  const int32_t *lists = b->lists, *keys = b->keys;
  uint32_t todo = 0, hits = b->hit_count;
  for (uint32_t t = 0; t < count; t++) {
    const uint32_t i = b->todo[t], len = b->lens[i];
    const int32_t *rules = lists + b->places[i], *key = keys + i * words;
    const uint32_t fit = words == 4 ? match_4(rules, key, b->types[i], len)
                                    : match_10(rules, key, b->types[i], len);
    /* The first if none fits: then it is not used. */
    const uint32_t which = (uint32_t)__builtin_ctz(fit | 1u << group) & (group - 1);
    const int32_t rule = rules[which * rule_len + rule_len - 1];
    if (IS_RARE((uint32_t)rule >= rules_len)) return SEARCH_REFUSED;
    b->hits[i] = rule;
    b->with_hit[hits] = (uint16_t)i;
    hits += fit != 0;
    b->places[i] += group * rule_len;
    b->lens[i] = len - group;
    b->todo[todo] = (uint16_t)i;
    todo += (fit == 0) & (len > group);
  }
  b->todo_count = todo;
  b->hit_count = hits;
  return SEARCH_DONE;
}

/* Keeps what comes earlier: what was found before, or what this tree has. */
static TARGET void keep(const struct search *s, struct batch *b) {
  if (s->root_count == 1) {
    for (uint32_t h = 0; h < b->hit_count; h++) b->found[b->with_hit[h]] = b->hits[b->with_hit[h]];
    return;
  }
  for (uint32_t h = 0; h < b->hit_count; h++) {
    const int32_t rule = b->hits[b->with_hit[h]];
    prefetch(b->priorities + rule, 1);
    prefetch(b->serials + rule, 1);
  }
  for (uint32_t h = 0; h < b->hit_count; h++) {
    const uint32_t i = b->with_hit[h];
    const int32_t hit = b->hits[i], before = b->found[i];
    const uint32_t priority = b->priorities[hit], bound = b->bounds[i];
    const int is_tie = priority == bound;
    const int is_first = b->serials[hit] < b->serials[before < 0 ? hit : before];
    const int is_earlier = (priority < bound) | (before < 0) | (is_tie & is_first);
    b->found[i] = is_earlier ? hit : before;
    b->bounds[i] = is_earlier ? priority : bound;
  }
}

static ALWAYS_INLINE TARGET int32_t search_trees(struct search *s, struct batch *b, uint32_t words,
                                                 uint32_t group) {
  for (uint32_t r = 0; r < s->root_count; r++) {
    b->hit_count = 0;
    int32_t result = descend(s, b, r, words);
    if (result == SEARCH_DONE) result = open_lists(s, b, r, words);
    while (result == SEARCH_DONE && b->todo_count > 0) result = compare(s, b, words, group);
    if (result != SEARCH_DONE) return result;
    keep(s, b);
  }
  return SEARCH_DONE;
}

static TARGET int32_t search_stages(struct search *s, struct batch *b) {
  return s->key_words == 4 ? search_trees(s, b, 4, GROUP_4) : search_trees(s, b, 10, GROUP_10);
}
