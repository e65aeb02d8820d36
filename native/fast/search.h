/*
 * The first of many rules that fits a key, for a batch of keys at once. A rule is ternary: two
 * prefixes, a word of two halves that it may leave open, and a type that it may leave open. The
 * tables are arrays of JavaScript's, which also searches them itself where this code is missing.
 * Plain C without any library; knows nothing of IPsec.
 *
 * Words of a key: n of the one prefix, n of the other, the halves, and the type in the highest
 * octet of the last. n is 1 or 4.
 *
 * A node is a word: 0 leads nowhere; the complement of its place is a list; else it is the place of
 * a branch, where its cut is, with a node for each of its ways behind it. The cut says which bits
 * of a key are the number of the way: a run of them and maybe another, lower one
 * (src/spd/cut.ts):
 *
 *     word 4, shift 5, bits 5; word 4, shift 5, bits 5
 *
 * A list is its length, the priority of its first rule, and the rules in their order. A length that
 * is negative says that the list is stale: its owner has to make it anew. Of a rule it has 2 n + 3
 * words (src/spd/leaf-pool.ts): both prefixes, the halves, the word about it, and its number, by
 * which priorities and serials are found. The word about it:
 *
 *     type 8, unused 2, flags 2, unused 1 | the type counts 1, unused 1, halves that count 2,
 *     length of the one prefix 8, of the other 8
 *
 * A rule does not fit a key that has one of its flags. Of two rules the one of the smaller priority
 * comes first, then that of the smaller serial.
 *
 * Lengths are trusted, what stands in the arrays is not: every place is compared with the length of
 * its array before an address is formed, so that wrong tables are SEARCH_REFUSED and nothing else
 * is read.
 */
#ifndef TESTUDO_SEARCH_H
#define TESTUDO_SEARCH_H

#include <stdint.h>

/* What a search ends with. */
enum {
  SEARCH_DONE = 0,
  /* The list is stale to which the key `stale_key` leads from `stale_root`; nothing was found. */
  SEARCH_STALE = 1,
  /* A place outside of its array, or numbers that cannot be. Nothing was found. */
  SEARCH_REFUSED = -1,
};

/* The meaning of nodes, cuts and lists: another number where it is another. */
enum { SEARCH_FORMAT = 1 };
/* Keys of a batch, and roots of a table. */
enum { SEARCH_MAX = 256, SEARCH_ROOTS_MAX = 8 };
/* A way down is no longer: each step looks at a bit of the key. */
enum { SEARCH_STEPS_MAX = 320 };
/* Words before the rules of a list. */
enum { LIST_HEAD = 2 };

/* Addresses have 64 bits wherever this runs; lengths are in elements. */
struct search {
  uint64_t nodes;      /* int32_t */
  uint64_t lists;      /* int32_t */
  uint64_t priorities; /* uint32_t, by number of the rule */
  uint64_t serials;    /* double, likewise */
  uint64_t keys;       /* int32_t: `room` times `key_words` */
  uint64_t flags;      /* uint8_t: of each key, 0 to 3 */
  uint64_t found;      /* out, int32_t: for each key the number of the rule, or -1 */
  uint32_t nodes_len;
  uint32_t lists_len;
  uint32_t rules_len;
  uint32_t key_words; /* 2 n + 2 */
  uint32_t room;
  uint32_t count;      /* keys to be looked up */
  uint32_t plain;      /* not 0: without instructions that only some processors have */
  uint32_t root_count;
  uint32_t stale_root; /* out */
  uint32_t stale_key;  /* out */
  /* In the order in which they are best asked: a node, and below it no priority is smaller. */
  struct {
    uint32_t at;
    uint32_t least;
  } roots[SEARCH_ROOTS_MAX];
};

/* A batch on its way, by key. */
struct batch {
  const int32_t *nodes, *lists;
  const uint32_t *priorities;
  const double *serials;
  const int32_t *keys;
  int32_t at[SEARCH_MAX];      /* its node */
  int32_t types[SEARCH_MAX];   /* the last word of the key, and its flags where rules have them */
  uint32_t places[SEARCH_MAX]; /* where it is in its list */
  uint32_t lens[SEARCH_MAX];   /* how many rules there are from there on */
  int32_t hits[SEARCH_MAX];    /* what the list has for it */
  int32_t found[SEARCH_MAX];
  uint32_t bounds[SEARCH_MAX]; /* the priority of that: later lists need not be looked at */
  uint32_t todo_count;
  uint32_t hit_count;
  uint16_t todo[SEARCH_MAX];     /* keys that go on */
  uint16_t with_hit[SEARCH_MAX]; /* keys that have found something in this tree */
};

/* Keys of 4 words and of 10, on any processor and on one with AVX2. */
int32_t search_plain(struct search *search, struct batch *batch);
int32_t search_avx2(struct search *search, struct batch *batch);
/* Whether this processor can run the latter. */
int has_search_avx2(void);

#endif
