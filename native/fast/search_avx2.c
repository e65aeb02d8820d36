/* Comparisons with rules on x86 processors that have AVX2 and BMI2. */
#include "search.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,bmi,bmi2")))
static inline TARGET uint32_t match_4(const int32_t *rules, const int32_t *key, int32_t type,
                                      uint32_t len);
static inline TARGET uint32_t match_10(const int32_t *rules, const int32_t *key, int32_t type,
                                       uint32_t len);
#include "search_stages.h"

typedef __m128i four;

static inline TARGET four load(const int32_t *words) {
  return _mm_loadu_si128((const four *)(const void *)words);
}

/* By the lowest two bits of each word one of the four. */
static inline TARGET four choose(four which, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const four choices = _mm_setr_epi32((int32_t)a, (int32_t)b, (int32_t)c, (int32_t)d);
  return _mm_castps_si128(_mm_permutevar_ps(_mm_castsi128_ps(choices), which));
}

/* Which bits of the halves and of the type differ, and flags that rule and key share. */
static inline TARGET four rest(four halves, four about, four key_halves, four type) {
  const four halves_mask = choose(_mm_srli_epi32(about, 16), 0, 0xffff, 0xffff0000, 0xffffffff);
  const four type_mask = choose(_mm_srli_epi32(about, 19), 0, 0xff000000, 0, 0xff000000);
  const four flags = _mm_and_si128(about, _mm_and_si128(type, _mm_set1_epi32(3 << 20)));
  four differ = _mm_and_si128(_mm_xor_si128(halves, key_halves), halves_mask);
  differ = _mm_or_si128(differ, _mm_and_si128(_mm_xor_si128(about, type), type_mask));
  return _mm_or_si128(differ, flags);
}

static inline TARGET uint32_t zeros(four differ) {
  const four is_zero = _mm_cmpeq_epi32(differ, _mm_setzero_si128());
  return (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(is_zero));
}

/* Four rules, or the last one again where there are fewer. */
static inline TARGET uint32_t match_4(const int32_t *rules, const int32_t *key, int32_t type,
                                      uint32_t len) {
  const uint32_t last = len - 1;
  const four a = load(rules), b = load(rules + 5 * (last < 1 ? last : 1));
  const four c = load(rules + 5 * (last < 2 ? last : 2));
  const four d = load(rules + 5 * (last < 3 ? last : 3));
  const four ab = _mm_unpacklo_epi32(a, b), cd = _mm_unpacklo_epi32(c, d);
  const four ab_rest = _mm_unpackhi_epi32(a, b), cd_rest = _mm_unpackhi_epi32(c, d);
  const four one = _mm_unpacklo_epi64(ab, cd), other = _mm_unpackhi_epi64(ab, cd);
  const four halves = _mm_unpacklo_epi64(ab_rest, cd_rest);
  const four about = _mm_unpackhi_epi64(ab_rest, cd_rest);
  /* Bits behind a prefix are shifted out; shifting by 32 leaves nothing. */
  const four octet = _mm_set1_epi32(255), all = _mm_set1_epi32(32);
  const four one_len = _mm_and_si128(_mm_srli_epi32(about, 8), octet);
  const four other_len = _mm_and_si128(about, octet);
  four differ = rest(halves, about, _mm_set1_epi32(key[2]), _mm_set1_epi32(type));
  differ = _mm_or_si128(differ, _mm_srlv_epi32(_mm_xor_si128(one, _mm_set1_epi32(key[0])),
                                               _mm_sub_epi32(all, one_len)));
  differ = _mm_or_si128(differ, _mm_srlv_epi32(_mm_xor_si128(other, _mm_set1_epi32(key[1])),
                                               _mm_sub_epi32(all, other_len)));
  return zeros(differ);
}

/* Both prefixes of a rule at once; the words that differ are not 0. */
static inline TARGET four prefixes(const int32_t *rule, __m256i key) {
  const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)rule);
  const __m256i shifts = _mm256_setr_epi32(8, 8, 8, 8, 0, 0, 0, 0);
  const __m256i ends = _mm256_setr_epi32(32, 64, 96, 128, 32, 64, 96, 128);
  __m256i len = _mm256_srlv_epi32(_mm256_set1_epi32(rule[9]), shifts);
  len = _mm256_and_si256(len, _mm256_set1_epi32(255));
  const __m256i behind = _mm256_max_epi32(_mm256_sub_epi32(ends, len), _mm256_setzero_si256());
  const __m256i differ = _mm256_srlv_epi32(_mm256_xor_si256(both, key), behind);
  return _mm_or_si128(_mm256_castsi256_si128(differ), _mm256_extracti128_si256(differ, 1));
}

/* Two rules, or one twice. */
static inline TARGET uint32_t match_10(const int32_t *rules, const int32_t *key, int32_t type,
                                       uint32_t len) {
  const int32_t *second = rules + (len < 2 ? 0 : 11);
  const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)key);
  const four a = prefixes(rules, both), b = prefixes(second, both);
  const four halves = _mm_setr_epi32(rules[8], second[8], 0, 0);
  const four about = _mm_setr_epi32(rules[9], second[9], 0, 0);
  four differ = rest(halves, about, _mm_set1_epi32(key[8]), _mm_set1_epi32(type));
  /* Words of the first rule to the even ones, of the second to the odd ones, then both together. */
  const four sums = _mm_or_si128(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
  differ = _mm_or_si128(differ, _mm_or_si128(sums, _mm_unpackhi_epi64(sums, sums)));
  return zeros(differ) & 3;
}

int32_t search_avx2(struct search *search, struct batch *batch) {
  return search_stages(search, batch);
}

int has_search_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
}
#else

int32_t search_avx2(struct search *search, struct batch *batch) {
  return search_plain(search, batch);
}

int has_search_avx2(void) { return 0; }
#endif
