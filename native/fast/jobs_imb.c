/*
 * The cryptography of intel-ipsec-mb 1.3: GCM and GMAC by calls, all else as jobs that its manager
 * does many of at a time, each in a lane of a vector register.
 */
#include <string.h>

#include "jobs.h"

/* Its IMB_JOB. */
struct imb_job {
  const void *encryption_keys;
  const void *decryption_keys;
  uint64_t key_len;
  const uint8_t *src;
  uint8_t *dst;
  uint64_t cipher_at;
  uint64_t cipher_len;
  uint64_t hash_at;
  uint64_t hash_len;
  const uint8_t *iv;
  uint64_t iv_len;
  uint8_t *tag;
  uint64_t tag_len;
  union {
    struct {
      const uint8_t *inner;
      const uint8_t *outer;
    } hmac;
    struct {
      const uint8_t *round_keys;
      const uint8_t *full;
      const uint8_t *padded;
    } block;
    struct {
      const uint8_t *aad;
      uint64_t aad_len;
      void *state;
    } aead;
  } mac;
  int32_t status;
  int32_t cipher;
  int32_t direction;
  int32_t hash;
  int32_t order;
  void *user;
  void *user2;
  void *functions[2];
  int32_t sgl;
  void *next_iv;
};

_Static_assert(sizeof(struct imb_job) == 200, "the IMB_JOB of 1.3");

enum { JOB_COMPLETED = 3 };
enum { CIPHER_MODE_CBC = 1, CIPHER_MODE_CTR = 2, CIPHER_MODE_NULL = 3, CIPHER_MODE_CCM = 9 };
enum { CIPHER_MODE_CHACHA20_POLY1305 = 19, HASH_CHACHA20_POLY1305 = 29 };
enum { HASH_XCBC = 6, HASH_NULL = 8, HASH_CCM = 11, HASH_CMAC = 12 };
enum { ENCRYPT = 1, DECRYPT = 2, CIPHER_THEN_HASH = 1, HASH_THEN_CIPHER = 2 };

static int key_size(const struct context *context) { return (int)(context->key_len / 8) - 2; }

uint32_t imb_gcm(const struct task *task) {
  const struct context *context = task->context;
  const int size = key_size(context);
  const uint8_t *aad;
  const size_t aad_len = aad_of(task, &aad);
  const size_t len = (size_t)(task->end - task->text);
  uint8_t *state = task->queue->state;
  uint8_t *nonce = task->work->iv;
  write_nonce(task);
  if (task->job->op == OP_SEAL) {
    task->functions->gcm[size].seal(context->schedule, state, task->text, task->text, len, nonce,
                                    aad, aad_len, task->icv, context->icv_len);
    return STATUS_OK;
  }
  uint8_t *tag = task->work->tag;
  task->functions->gcm[size].open(context->schedule, state, task->text, task->text, len, nonce, aad,
                                  aad_len, tag, context->icv_len);
  if (same_icv(tag, task->icv, context->icv_len)) return STATUS_OK;
  /* Nothing of a forged packet stays decrypted: the key stream once more gives back what came. */
  task->functions->gcm[size].seal(context->schedule, state, task->text, task->text, len, nonce, aad,
                                  aad_len, tag, context->icv_len);
  return STATUS_WRONG_ICV;
}

/* As `evp_gmac`. */
void imb_gmac(const struct task *task) {
  const struct context *context = task->context;
  const int size = key_size(context);
  const void *key = context->schedule;
  uint8_t *state = task->queue->state;
  write_nonce(task);
  task->functions->gcm[size].gmac_init(key, state, task->work->iv, 12);
  if (task->job->op == OP_SEAL || task->job->op == OP_OPEN) {
    const uint8_t *aad;
    const size_t aad_len = aad_of(task, &aad);
    task->functions->gcm[size].gmac_update(key, state, aad, aad_len);
    const size_t len = (size_t)(task->end - task->iv);
    task->functions->gcm[size].gmac_update(key, state, task->iv, len);
  } else {
    const size_t len = (size_t)(task->end - task->begin);
    if (len > 0) task->functions->gcm[size].gmac_update(key, state, task->begin, len);
    if (task->job->extended) {
      write_seq_high(task, task->work->aad);
      task->functions->gcm[size].gmac_update(key, state, task->work->aad, 4);
    }
  }
  task->functions->gcm[size].gmac_final(key, state, task->work->tag, context->icv_len);
}

/* What the manager hands back is done, but not always what was handed in last. */
static void note_done(const struct imb_job *done) {
  if (done == NULL || done->status != JOB_COMPLETED) return;
  struct job *job = done->user;
  job->status = STATUS_NEW;
}

static struct imb_job *next_job(const struct task *task) {
  struct imb_job *next = task->functions->imb_next(task->functions->imb);
  next->src = task->begin;
  next->cipher = CIPHER_MODE_NULL;
  next->cipher_len = 0;
  next->hash = HASH_NULL;
  next->hash_len = 0;
  next->direction = ENCRYPT;
  next->order = CIPHER_THEN_HASH;
  next->user = task->job;
  return next;
}

static void submit(const struct task *task) {
  task->job->status = STATUS_SUBMITTED;
  note_done(task->functions->imb_submit(task->functions->imb));
}

static void set_cipher(const struct task *task, struct imb_job *job, bool encrypt) {
  const struct context *context = task->context;
  job->encryption_keys = context->schedule;
  job->decryption_keys = context->schedule;
  job->key_len = context->key_len;
  job->dst = task->text;
  job->cipher_at = (uint64_t)(task->text - task->begin);
  job->cipher_len = (uint64_t)(task->end - task->text);
  job->direction = encrypt ? ENCRYPT : DECRYPT;
}

/* ChaCha20-Poly1305 (RFC 7634) and CCM (RFC 4309). The tag is left in `work`. */
void imb_submit_aead(const struct task *task, bool encrypt) {
  const struct context *context = task->context;
  const bool is_ccm = context->imb_cipher == IMB_CCM;
  struct imb_job *job = next_job(task);
  const uint8_t *aad;
  job->mac.aead.aad_len = aad_of(task, &aad);
  job->mac.aead.aad = aad;
  write_nonce(task);
  set_cipher(task, job, encrypt);
  job->cipher = is_ccm ? CIPHER_MODE_CCM : CIPHER_MODE_CHACHA20_POLY1305;
  job->hash = is_ccm ? HASH_CCM : HASH_CHACHA20_POLY1305;
  /* CCM's MAC is that of the plain text, Poly1305's that of the encrypted one. */
  job->order = is_ccm == encrypt ? HASH_THEN_CIPHER : CIPHER_THEN_HASH;
  job->hash_at = job->cipher_at;
  job->hash_len = job->cipher_len;
  job->iv = task->work->iv;
  job->iv_len = context->salt_len + 8;
  job->tag = task->work->tag;
  job->tag_len = context->icv_len;
  submit(task);
}

/* AES in CBC and CTR mode. */
void imb_submit_cipher(const struct task *task) {
  const struct context *context = task->context;
  const bool encrypt = task->job->op == OP_SEAL;
  struct imb_job *job = next_job(task);
  set_cipher(task, job, encrypt);
  job->decryption_keys = context->schedule + DECRYPTION_AT;
  job->iv_len = BLOCK_LEN;
  if (context->imb_cipher == IMB_CBC) {
    job->cipher = CIPHER_MODE_CBC;
    job->iv = task->iv;
  } else {
    job->cipher = CIPHER_MODE_CTR;
    write_nonce(task);
    job->iv = task->work->iv;
  }
  submit(task);
}

/*
 * The message has to be in one piece, so the high half of the sequence number is put behind it: for
 * ESP into the ICV's place (what was there is in `saved`), for AH into a copy.
 */
void imb_submit_mac(const struct task *task) {
  const struct context *context = task->context;
  struct imb_job *job = next_job(task);
  size_t len = (size_t)(task->end - task->begin);
  const bool is_copy =
      task->job->extended && (task->job->op == OP_SIGN || task->job->op == OP_VERIFY);
  if (is_copy) {
    memcpy(task->queue->scratch, task->begin, len);
    write_seq_high(task, task->queue->scratch + len);
    job->src = task->queue->scratch;
  } else if (task->job->extended) {
    memcpy(task->work->saved, task->icv, context->icv_len);
    write_seq_high(task, task->end);
  }
  if (task->job->extended) len += 4;
  job->hash = (int32_t)context->imb_mac;
  job->hash_at = 0;
  job->hash_len = len;
  job->tag = task->work->tag;
  job->tag_len = context->icv_len;
  if (context->mac == MAC_HMAC) {
    job->mac.hmac.inner = context->inner;
    job->mac.hmac.outer = context->outer;
  } else {
    job->mac.block.round_keys = context->inner;
    job->mac.block.full = context->outer;
    job->mac.block.padded = context->outer + BLOCK_LEN;
  }
  submit(task);
  /* There is one place for a copy. */
  if (is_copy) imb_flush(task->functions);
}

void imb_flush(const struct functions *functions) {
  if (functions->imb == NULL) return;
  struct imb_job *done;
  while ((done = functions->imb_flush(functions->imb)) != NULL) note_done(done);
}
