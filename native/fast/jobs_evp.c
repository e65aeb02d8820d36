/* The cryptography of OpenSSL: contexts are keyed once per SA, and a packet brings an IV. */
#include <string.h>

#include "jobs.h"

enum { GET_TAG = 0x10, SET_TAG = 0x11 };

static bool starts(const struct task *task, void *ctx, bool encrypt) {
  return task->functions->cipher_init(ctx, NULL, NULL, NULL, task->work->iv, encrypt) == 1;
}

/* `out` null: associated data. */
static bool feeds(const struct task *task, void *ctx, uint8_t *out, const uint8_t *in, size_t len) {
  int written;
  return task->functions->cipher_update(ctx, out, &written, in, (int)len) == 1;
}

static bool ends(const struct task *task, void *ctx) {
  uint8_t none[BLOCK_LEN];
  int written;
  return task->functions->cipher_final(ctx, none, &written) == 1;
}

static bool tag(const struct task *task, void *ctx, int what, uint8_t *at) {
  return task->functions->cipher_ctrl(ctx, what, (int)task->context->icv_len, at) == 1;
}

static size_t text_len(const struct task *task) { return (size_t)(task->end - task->text); }

static bool feeds_aad(const struct task *task, void *ctx) {
  const uint8_t *aad;
  const size_t len = aad_of(task, &aad);
  return feeds(task, ctx, NULL, aad, len);
}

/* AES-GCM and ChaCha20-Poly1305. */
uint32_t evp_aead(const struct task *task) {
  const bool encrypt = task->job->op == OP_SEAL;
  void *ctx = encrypt ? task->context->sealing : task->context->opening;
  write_nonce(task);
  const bool worked = starts(task, ctx, encrypt) && feeds_aad(task, ctx) &&
                      feeds(task, ctx, task->text, task->text, text_len(task));
  if (!worked) return STATUS_FAILED;
  if (encrypt) {
    return ends(task, ctx) && tag(task, ctx, GET_TAG, task->icv) ? STATUS_OK : STATUS_FAILED;
  }
  if (tag(task, ctx, SET_TAG, task->icv) && ends(task, ctx)) return STATUS_OK;
  /* OpenSSL decrypts before it knows the tag: the key stream once more gives back what came. */
  if (!starts(task, ctx, true) || !feeds(task, ctx, task->text, task->text, text_len(task))) {
    memset(task->text, 0, text_len(task));
    return STATUS_FAILED;
  }
  return STATUS_WRONG_ICV;
}

/* CCM has to know the length of the text before it sees any of it. */
uint32_t evp_ccm(const struct task *task) {
  const bool encrypt = task->job->op == OP_SEAL;
  const size_t len = text_len(task);
  void *ctx = encrypt ? task->context->sealing : task->context->opening;
  uint8_t *copy = task->queue->scratch;
  write_nonce(task);
  if (!starts(task, ctx, encrypt)) return STATUS_FAILED;
  if (encrypt) {
    const bool worked = feeds(task, ctx, NULL, NULL, len) && feeds_aad(task, ctx) &&
                        feeds(task, ctx, task->text, task->text, len) &&
                        tag(task, ctx, GET_TAG, task->icv);
    return worked ? STATUS_OK : STATUS_FAILED;
  }
  const bool worked = tag(task, ctx, SET_TAG, task->icv) && feeds(task, ctx, NULL, NULL, len) &&
                      feeds_aad(task, ctx);
  if (!worked) return STATUS_FAILED;
  /* Where the tag is wrong, OpenSSL zeroes what it wrote. */
  memcpy(copy, task->text, len);
  if (feeds(task, ctx, task->text, copy, len)) return STATUS_OK;
  memcpy(task->text, copy, len);
  return STATUS_WRONG_ICV;
}

/*
 * GCM that encrypts nothing (RFC 4543). ESP: header, with the high half of the sequence number
 * inside, then IV and text. AH: what is covered, and that half behind it. The tag is left in
 * `work`.
 */
bool evp_gmac(const struct task *task) {
  void *ctx = task->context->sealing;
  write_nonce(task);
  if (!starts(task, ctx, true)) return false;
  if (task->job->op == OP_SEAL || task->job->op == OP_OPEN) {
    if (!feeds_aad(task, ctx)) return false;
    if (!feeds(task, ctx, NULL, task->iv, (size_t)(task->end - task->iv))) return false;
  } else {
    if (!feeds(task, ctx, NULL, task->begin, (size_t)(task->end - task->begin))) return false;
    write_seq_high(task, task->work->aad);
    if (task->job->extended && !feeds(task, ctx, NULL, task->work->aad, 4)) return false;
  }
  return ends(task, ctx) && tag(task, ctx, GET_TAG, task->work->tag);
}

/* CBC and CTR. */
bool evp_crypt(const struct task *task) {
  const bool encrypt = task->job->op == OP_SEAL;
  void *ctx = encrypt ? task->context->sealing : task->context->opening;
  if (task->context->cipher == CIPHER_CTR) {
    write_nonce(task);
  } else {
    memcpy(task->work->iv, task->iv, task->context->iv_len);
  }
  return starts(task, ctx, encrypt) && feeds(task, ctx, task->text, task->text, text_len(task));
}

/* RFC 2104, from the states that the key has left behind the first block of either hash. */
static bool hmac(const struct task *task) {
  const uint32_t which = task->context->hash;
  uint8_t *state = task->queue->state;
  uint8_t *digest = task->work->tag;
  int (*update)(void *, const void *, size_t) = task->functions->hash[which].update;
  int (*final)(uint8_t *, void *) = task->functions->hash[which].final;
  const size_t state_len = task->functions->hash[which].state_len;
  memcpy(state, task->context->inner, state_len);
  if (update(state, task->begin, (size_t)(task->end - task->begin)) != 1) return false;
  if (task->job->extended) {
    write_seq_high(task, task->work->aad);
    if (update(state, task->work->aad, 4) != 1) return false;
  }
  if (final(digest, state) != 1) return false;
  memcpy(state, task->context->outer, state_len);
  if (update(state, digest, task->functions->hash[which].digest_len) != 1) return false;
  return final(digest, state) == 1;
}

/* XCBC (RFC 3566 §4) and CMAC (RFC 4493): CBC-MAC whose last block is masked. */
static bool block_mac(const struct task *task) {
  uint8_t *message = task->queue->scratch;
  size_t len = (size_t)(task->end - task->begin);
  memcpy(message, task->begin, len);
  if (task->job->extended) {
    write_seq_high(task, message + len);
    len += 4;
  }
  const size_t blocks = len == 0 ? 1 : (len + BLOCK_LEN - 1) / BLOCK_LEN;
  const size_t whole = blocks * BLOCK_LEN;
  const uint8_t *mask = task->context->outer;
  if (len < whole) {
    message[len] = 0x80;
    memset(message + len + 1, 0, whole - len - 1);
    mask += BLOCK_LEN;
  }
  uint8_t *last = message + whole - BLOCK_LEN;
  for (size_t i = 0; i < BLOCK_LEN; i++) last[i] ^= mask[i];
  memset(task->work->iv, 0, BLOCK_LEN);
  void *ctx = task->context->chaining;
  const bool worked = starts(task, ctx, true) && feeds(task, ctx, message, message, whole);
  memcpy(task->work->tag, last, BLOCK_LEN);
  /* Had it not been encrypted, this would be the mask xor what everybody knows. */
  memset(last, 0, BLOCK_LEN);
  return worked;
}

/* The MAC of ESP or AH, as long as it is untruncated, into `work`. */
bool evp_mac(const struct task *task) {
  return task->context->mac == MAC_HMAC ? hmac(task) : block_mac(task);
}
