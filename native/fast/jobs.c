/*
 * All jobs of a batch in two steps, with the multi-buffer library between them: encrypt, then MAC;
 * or check the MAC, then decrypt. What one call can do is done in the first.
 */
#include <string.h>

#include "jobs.h"

#define EXPORT __attribute__((visibility("default")))

static bool is_sender(const struct task *task) {
  return task->job->op == OP_SEAL || task->job->op == OP_SIGN;
}

/* The tag is in `work`: it is written, or compared with what came. */
static uint32_t settle(const struct task *task) {
  const size_t len = task->context->icv_len;
  if (is_sender(task)) {
    memcpy(task->icv, task->work->tag, len);
    return STATUS_OK;
  }
  return same_icv(task->work->tag, task->icv, len) ? STATUS_OK : STATUS_WRONG_ICV;
}

static uint32_t status_of(bool worked) { return worked ? STATUS_OK : STATUS_FAILED; }

static uint32_t gmac(const struct task *task) {
  if (task->context->imb_cipher == IMB_GCM) {
    imb_gmac(task);
  } else if (!evp_gmac(task)) {
    return STATUS_FAILED;
  }
  return settle(task);
}

static bool has_imb_cipher(const struct task *task) {
  return (task->job->lanes & LANES_CIPHER) != 0;
}

static bool has_imb_mac(const struct task *task) { return (task->job->lanes & LANES_MAC) != 0; }

/* Returns STATUS_NEW where the tag is there. */
static uint32_t begin_mac(const struct task *task) {
  const struct context *context = task->context;
  if (context->mac == MAC_NONE) return STATUS_NEW;
  if (has_imb_mac(task)) {
    imb_submit_mac(task);
    return task->job->status;
  }
  return evp_mac(task) ? STATUS_NEW : STATUS_FAILED;
}

static uint32_t begin_cipher(const struct task *task) {
  if (task->context->cipher == CIPHER_NONE) return STATUS_NEW;
  if (has_imb_cipher(task)) {
    imb_submit_cipher(task);
    return task->job->status;
  }
  return evp_crypt(task) ? STATUS_NEW : STATUS_FAILED;
}

/* Returns what is final, or STATUS_NEW or STATUS_SUBMITTED. */
static uint32_t first_step(const struct task *task) {
  const struct context *context = task->context;
  switch (context->cipher) {
    case CIPHER_AEAD:
      if (context->imb_cipher == IMB_GCM) return imb_gcm(task);
      if (!has_imb_cipher(task)) return evp_aead(task);
      imb_submit_aead(task, task->job->op == OP_SEAL);
      return task->job->status;
    case CIPHER_CCM:
      if (!has_imb_cipher(task)) return evp_ccm(task);
      imb_submit_aead(task, task->job->op == OP_SEAL);
      return task->job->status;
    case CIPHER_GMAC:
      return gmac(task);
    default:
      return task->job->op == OP_SEAL ? begin_cipher(task) : begin_mac(task);
  }
}

/* What submitted jobs had changed in the packet, back to what came. */
static void restore(const struct task *task) {
  const bool is_replaced = task->job->op == OP_OPEN && task->job->extended && has_imb_mac(task);
  if (is_replaced) memcpy(task->icv, task->work->saved, task->context->icv_len);
}

static bool is_aead(const struct context *context) {
  return context->cipher == CIPHER_AEAD || context->cipher == CIPHER_CCM;
}

static uint32_t second_step(const struct task *task) {
  const struct context *context = task->context;
  if (is_aead(context)) {
    const uint32_t status = settle(task);
    if (status == STATUS_OK) return status;
    /* As in imb_gcm: nothing of a forged packet stays decrypted. */
    imb_submit_aead(task, true);
    return task->job->status;
  }
  if (task->job->op == OP_SEAL) {
    const uint32_t status = begin_mac(task);
    if (status != STATUS_NEW) return status;
    return context->mac == MAC_NONE ? STATUS_OK : settle(task);
  }
  const uint32_t status = context->mac == MAC_NONE ? STATUS_OK : settle(task);
  if (status != STATUS_OK || task->job->op != OP_OPEN) return status;
  if (context->cipher == CIPHER_NONE) return STATUS_OK;
  if (!has_imb_cipher(task)) return status_of(evp_crypt(task));
  imb_submit_cipher(task);
  return task->job->status;
}

/* What the second step left to the multi-buffer library is done. */
static uint32_t third_step(const struct task *task) {
  if (is_aead(task->context)) return STATUS_WRONG_ICV;
  return task->job->op == OP_SEAL ? settle(task) : STATUS_OK;
}

/* How many jobs of a batch could be in lanes, by kind of cipher and by hash. */
struct crowd {
  uint32_t ciphers[IMB_COUNT];
  uint32_t macs[IMB_HASH_COUNT];
};

/* Where lanes are worth it: by now, `crowd` has counted all jobs of the batch. */
static uint32_t lanes_in(const struct task *task, const struct crowd *crowd) {
  const struct context *context = task->context;
  const uint32_t lanes = task->job->lanes;
  /* CBC is decrypted with all blocks of a packet side by side. */
  const bool is_alone = context->imb_cipher == IMB_CBC && task->job->op == OP_OPEN;
  const bool is_cipher_worth =
      is_alone || crowd->ciphers[context->imb_cipher] >= context->imb_cipher_min;
  const bool is_mac_worth = crowd->macs[context->imb_mac] >= context->imb_mac_min;
  return lanes & ((is_cipher_worth ? LANES_CIPHER : 0) | (is_mac_worth ? LANES_MAC : 0));
}

static void count_in(const struct task *task, struct crowd *crowd) {
  if ((task->job->lanes & LANES_CIPHER) != 0) crowd->ciphers[task->context->imb_cipher]++;
  if ((task->job->lanes & LANES_MAC) != 0) crowd->macs[task->context->imb_mac]++;
}

/* Jobs without lanes are done as they come; others when it is known how many there are. */
static void first_round(const struct queue *queue, uint32_t from, uint32_t end) {
  struct task task;
  struct crowd crowd = {0};
  bool is_crowded = false;
  for (uint32_t i = from; i < end; i++) {
    struct job *job = &queue->jobs[i];
    if (job->op == OP_NONE) continue;
    job->lanes = 0;
    job->status = STATUS_NEW;
    if (!task_of(queue, i, &task)) {
      job->status = STATUS_REFUSED;
      continue;
    }
    job->lanes = lanes_of(&task);
    if (job->lanes == 0) job->status = first_step(&task);
    else is_crowded = true;
    count_in(&task, &crowd);
  }
  for (uint32_t i = from; is_crowded && i < end; i++) {
    struct job *job = &queue->jobs[i];
    if (job->op == OP_NONE || job->lanes == 0) continue;
    task_of(queue, i, &task);
    job->lanes = lanes_in(&task, &crowd);
    job->status = first_step(&task);
  }
}

static bool is_open(const struct job *job) {
  return job->op != OP_NONE && (job->status == STATUS_NEW || job->status == STATUS_SUBMITTED);
}

/* A further step for all jobs that are not finished. */
static void next_round(const struct queue *queue, uint32_t from, uint32_t end,
                       uint32_t (*step)(const struct task *)) {
  struct task task;
  imb_flush(queue->functions);
  for (uint32_t i = from; i < end; i++) {
    struct job *job = &queue->jobs[i];
    if (!is_open(job)) continue;
    task_of(queue, i, &task);
    if (step == second_step) restore(&task);
    job->status = job->status == STATUS_SUBMITTED ? STATUS_FAILED : step(&task);
  }
}

/*
 * Does jobs `from` to `from + count`, and leaves in each what became of it. Returns 0, or 1 where
 * the numbers themselves are wrong and nothing was done.
 */
EXPORT uint32_t testudo_jobs_run(const struct queue *queue, uint32_t from, uint32_t count) {
  if (from > queue->job_count || count > queue->job_count - from) return 1;
  const uint32_t end = from + count;
  first_round(queue, from, end);
  uint32_t i = from;
  while (i < end && !is_open(&queue->jobs[i])) i++;
  if (i == end) return 0;
  next_round(queue, from, end, second_step);
  next_round(queue, from, end, third_step);
  return 0;
}

/* How many numbers follow, and where the fields are that somebody else writes or reads. */
EXPORT const uint32_t testudo_jobs_layout[] = {
    41,
    sizeof(struct job),
    offsetof(struct job, context),
    offsetof(struct job, region),
    offsetof(struct job, at),
    offsetof(struct job, end),
    offsetof(struct job, seq_high),
    offsetof(struct job, extended),
    offsetof(struct job, icv_region),
    offsetof(struct job, icv_at),
    offsetof(struct job, status),
    offsetof(struct job, lanes),
    sizeof(struct context),
    offsetof(struct context, mac),
    offsetof(struct context, iv_len),
    offsetof(struct context, icv_len),
    offsetof(struct context, salt_len),
    offsetof(struct context, key_len),
    offsetof(struct context, block_len),
    offsetof(struct context, hash),
    offsetof(struct context, imb_cipher),
    offsetof(struct context, imb_mac),
    offsetof(struct context, salt),
    offsetof(struct context, sealing),
    offsetof(struct context, opening),
    offsetof(struct context, chaining),
    offsetof(struct context, imb_cipher_min),
    offsetof(struct context, imb_mac_min),
    offsetof(struct context, inner),
    offsetof(struct context, outer),
    offsetof(struct context, schedule),
    sizeof(struct work),
    sizeof(struct functions),
    offsetof(struct functions, hash),
    offsetof(struct functions, imb),
    offsetof(struct functions, gcm),
    sizeof(struct queue),
    offsetof(struct queue, scratch_len),
    offsetof(struct queue, region_count),
    offsetof(struct queue, context_count),
    offsetof(struct queue, job_count),
    DECRYPTION_AT,
};
