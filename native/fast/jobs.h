/*
 * Batches of cryptography. JavaScript notes down jobs (which key, where in which memory, which
 * way), and one call does them all. This code knows no policy and no state of IPsec, only the
 * layouts of ESP (RFC 4303 §2) and AH (RFC 4302 §2) that say what a key covers. It links no
 * library: the functions that it calls are handed to it.
 *
 * The structs are written by src/drivers/native/layout.ts, whose offsets are compared with
 * `testudo_jobs_layout` before the first call.
 */
#ifndef TESTUDO_JOBS_H
#define TESTUDO_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OP_NONE, OP_SEAL, OP_OPEN, OP_SIGN, OP_VERIFY };

/* What became of a job. */
enum {
  STATUS_NEW,
  STATUS_OK,
  STATUS_WRONG_ICV,
  /* The library did not do it. */
  STATUS_FAILED,
  /* It points outside of the memory that it names; nothing was touched. */
  STATUS_REFUSED,
  /* intel-ipsec-mb has it. */
  STATUS_SUBMITTED,
};

enum { CIPHER_NONE, CIPHER_AEAD, CIPHER_CCM, CIPHER_GMAC, CIPHER_CBC, CIPHER_CTR, CIPHER_COUNT };
enum { MAC_NONE, MAC_HMAC, MAC_BLOCK, MAC_COUNT };
enum { HASH_COUNT = 6, HASH_STATE_MAX = 216, BLOCK_LEN = 16, IV_LEN_MAX = 16, ICV_LEN_MAX = 32 };

/* In `imb_cipher` and `imb_mac` (there the numbers of intel-ipsec-mb's hashes). */
enum { IMB_NONE, IMB_GCM, IMB_CHACHA, IMB_CCM, IMB_CBC, IMB_CTR, IMB_COUNT };
enum { IMB_HASH_COUNT = 16 };

enum { LANES_CIPHER = 1, LANES_MAC = 2 };

/* Lengths of multi-buffer jobs have 16 bits inside of intel-ipsec-mb. */
enum { IMB_LEN_MAX = 65534 };

struct job {
  uint32_t op;
  uint32_t context;
  uint32_t region;
  /* ESP: header, IV, text, and for OP_OPEN the ICV. AH: what is covered. */
  uint32_t at;
  uint32_t end;
  /* The high half of an extended sequence number, if `extended`. */
  uint32_t seq_high;
  uint32_t extended;
  /* AH only. */
  uint32_t icv_region;
  uint32_t icv_at;
  uint32_t status;
  /* Which of its parts multi-buffer jobs are made of: LANES_*. Written here. */
  uint32_t lanes;
  uint32_t reserved[5];
};

struct region {
  uint8_t *base;
  uint64_t len;
};

/* The keys of an SA, aligned to 64. */
struct context {
  uint32_t cipher;
  uint32_t mac;
  uint32_t iv_len;
  uint32_t icv_len;
  uint32_t salt_len;
  uint32_t key_len;
  uint32_t block_len;
  uint32_t hash;
  uint32_t imb_cipher;
  uint32_t imb_mac;
  uint8_t salt[8];
  /* EVP_CIPHER_CTX for either direction; they may be one. */
  void *sealing;
  void *opening;
  /* EVP_CIPHER_CTX in CBC mode for MAC_BLOCK. */
  void *chaining;
  /*
   * From how many jobs of its kind in a batch intel-ipsec-mb is faster than OpenSSL: one lane of
   * many costs as much as all of them.
   */
  uint32_t imb_cipher_min;
  uint32_t imb_mac_min;
  uint8_t reserved[48];
  /*
   * MAC_HMAC: the hash after the first block; intel-ipsec-mb wants to have its beginning.
   * MAC_BLOCK: `inner` is the expanded key for intel-ipsec-mb, `outer` the two masks of the last
   * block, for a full one and for a padded one.
   */
  uint8_t inner[256];
  uint8_t outer[256];
  /*
   * For intel-ipsec-mb: the key data of GCM; or the round keys of AES for encryption and, from
   * DECRYPTION_AT, for decryption; or the key of ChaCha20.
   */
  uint8_t schedule[1024];
};

enum { DECRYPTION_AT = 512 };

/* What belongs to a job while it is in hand. */
struct work {
  uint8_t iv[IV_LEN_MAX];
  uint8_t aad[16];
  uint8_t tag[64];
  uint8_t saved[ICV_LEN_MAX];
};

struct imb_job;

/* Those of a library that is not there are null, and then no context needs them. */
struct functions {
  int (*cipher_init)(void *ctx, const void *cipher, void *engine, const uint8_t *key,
                     const uint8_t *iv, int encrypt);
  int (*cipher_update)(void *ctx, uint8_t *out, int *out_len, const uint8_t *in, int len);
  int (*cipher_final)(void *ctx, uint8_t *out, int *out_len);
  int (*cipher_ctrl)(void *ctx, int what, int number, void *pointer);
  struct {
    int (*update)(void *state, const void *data, size_t len);
    int (*final)(uint8_t *digest, void *state);
    uint64_t state_len;
    uint64_t digest_len;
  } hash[HASH_COUNT];
  void *imb;
  struct imb_job *(*imb_next)(void *imb);
  struct imb_job *(*imb_submit)(void *imb);
  struct imb_job *(*imb_flush)(void *imb);
  /* By the length of the key: 128, 192, 256. */
  struct {
    void (*seal)(const void *key, void *state, uint8_t *out, const uint8_t *in, uint64_t len,
                 const uint8_t *iv, const uint8_t *aad, uint64_t aad_len, uint8_t *tag,
                 uint64_t tag_len);
    void (*open)(const void *key, void *state, uint8_t *out, const uint8_t *in, uint64_t len,
                 const uint8_t *iv, const uint8_t *aad, uint64_t aad_len, uint8_t *tag,
                 uint64_t tag_len);
    void (*gmac_init)(const void *key, void *state, const uint8_t *iv, uint64_t iv_len);
    void (*gmac_update)(const void *key, void *state, const uint8_t *data, uint64_t len);
    void (*gmac_final)(const void *key, void *state, uint8_t *tag, uint64_t tag_len);
  } gcm[3];
};

struct queue {
  const struct functions *functions;
  const struct region *regions;
  /* Null: that context is gone. */
  struct context *const *contexts;
  struct job *jobs;
  struct work *works;
  /* Room for the longest packet. */
  uint8_t *scratch;
  /* For the state of a hash or of GCM, which is key material; aligned to 64. */
  uint8_t *state;
  uint64_t scratch_len;
  uint32_t region_count;
  uint32_t context_count;
  uint32_t job_count;
  uint32_t reserved;
};

/* A job whose octets were checked. */
struct task {
  const struct functions *functions;
  const struct queue *queue;
  struct job *job;
  struct work *work;
  struct context *context;
  /* ESP: its header. AH: the first octet that is covered. */
  uint8_t *begin;
  /* Where the IV stands. */
  uint8_t *iv;
  uint8_t *text;
  /* Behind the text, or behind what AH covers. */
  uint8_t *end;
  uint8_t *icv;
};

/* jobs_task.c */
bool task_of(const struct queue *queue, uint32_t number, struct task *task);
size_t aad_of(const struct task *task, const uint8_t **aad);
void write_nonce(const struct task *task);
void write_seq_high(const struct task *task, uint8_t *to);
uint32_t lanes_of(const struct task *task);
bool same_icv(const uint8_t *a, const uint8_t *b, size_t len);

/* jobs_evp.c: by OpenSSL. Those that return a status leave the octets alone unless it is OK. */
uint32_t evp_aead(const struct task *task);
uint32_t evp_ccm(const struct task *task);
bool evp_gmac(const struct task *task);
bool evp_crypt(const struct task *task);
bool evp_mac(const struct task *task);

/* jobs_imb.c: by intel-ipsec-mb. What is submitted is done after `imb_flush`. */
uint32_t imb_gcm(const struct task *task);
void imb_gmac(const struct task *task);
void imb_submit_aead(const struct task *task, bool encrypt);
void imb_submit_cipher(const struct task *task);
void imb_submit_mac(const struct task *task);
void imb_flush(const struct functions *functions);

#endif
