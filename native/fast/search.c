/* The entry: what can be checked before the first step. */
#include "search.h"

#define EXPORT __attribute__((visibility("default")))

/* Compared by who fills the struct in. */
EXPORT const uint32_t testudo_search_layout[] = {SEARCH_FORMAT, sizeof(struct search) / 4,
                                                 SEARCH_MAX, SEARCH_ROOTS_MAX};

enum { FLAGS_SHIFT = 20, FLAGS_MASK = 3 };

static int is_sound(const struct search *s) {
  if (s->key_words != 4 && s->key_words != 10) return 0;
  if (s->count > s->room || s->count > SEARCH_MAX || s->root_count > SEARCH_ROOTS_MAX) return 0;
  return s->nodes_len > 0 && s->lists_len > LIST_HEAD && s->rules_len > 0;
}

static const void *array(uint64_t address) { return (const void *)(uintptr_t)address; }

static void begin(const struct search *s, struct batch *b) {
  b->nodes = array(s->nodes);
  b->lists = array(s->lists);
  b->priorities = array(s->priorities);
  b->serials = array(s->serials);
  b->keys = array(s->keys);
  const uint8_t *flags = array(s->flags);
  for (uint32_t i = 0; i < s->count; i++) {
    const uint32_t type = (uint32_t)b->keys[i * s->key_words + s->key_words - 1] & 0xff000000;
    b->types[i] = (int32_t)(type | (uint32_t)(flags[i] & FLAGS_MASK) << FLAGS_SHIFT);
    b->found[i] = -1;
    b->bounds[i] = UINT32_MAX;
  }
}

/* Searches for `count` keys; see the results above. */
EXPORT int32_t testudo_search(struct search *search) {
  struct batch batch;
  if (!is_sound(search)) return SEARCH_REFUSED;
  begin(search, &batch);
  const int is_plain = search->plain != 0 || !has_search_avx2();
  const int32_t result =
      is_plain ? search_plain(search, &batch) : search_avx2(search, &batch);
  if (result != SEARCH_DONE) return result;
  int32_t *found = (int32_t *)(uintptr_t)search->found;
  for (uint32_t i = 0; i < search->count; i++) found[i] = batch.found[i];
  return SEARCH_DONE;
}
