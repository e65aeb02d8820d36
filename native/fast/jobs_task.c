/* From a job to pointers: the only place where they are formed, and none before all is checked. */
#include <string.h>

#include "jobs.h"

enum { ESP_HEADER_LEN = 8, SCRATCH_MARGIN = 64 };

static bool is_esp(uint32_t op) { return op == OP_SEAL || op == OP_OPEN; }

static bool fits(const struct queue *queue, uint32_t region, uint64_t end) {
  if (region >= queue->region_count) return false;
  return queue->regions[region].base != NULL && end <= queue->regions[region].len;
}

static bool esp_task(const struct queue *queue, struct task *task) {
  const struct job *job = task->job;
  const struct context *context = task->context;
  const uint64_t head = ESP_HEADER_LEN + context->iv_len;
  const uint64_t tail = job->op == OP_OPEN ? context->icv_len : 0;
  if (job->end - job->at < head + tail) return false;
  const uint64_t icv_at = job->end - tail;
  if (!fits(queue, job->region, icv_at + context->icv_len)) return false;
  const uint64_t text_len = icv_at - job->at - head;
  if (context->cipher == CIPHER_CBC) {
    if (text_len == 0 || text_len % context->block_len != 0) return false;
  }
  uint8_t *base = queue->regions[job->region].base;
  task->begin = base + job->at;
  task->iv = task->begin + ESP_HEADER_LEN;
  task->text = task->begin + head;
  task->end = base + icv_at;
  task->icv = task->end;
  return true;
}

static bool ah_task(const struct queue *queue, struct task *task) {
  const struct job *job = task->job;
  const struct context *context = task->context;
  if (context->cipher != CIPHER_GMAC && context->mac == MAC_NONE) return false;
  if (!fits(queue, job->region, job->end)) return false;
  const uint64_t icv_end = (uint64_t)job->icv_at + context->iv_len + context->icv_len;
  if (!fits(queue, job->icv_region, icv_end)) return false;
  uint8_t *base = queue->regions[job->region].base;
  task->begin = base + job->at;
  task->text = task->begin;
  task->end = base + job->end;
  task->iv = queue->regions[job->icv_region].base + job->icv_at;
  task->icv = task->iv + context->iv_len;
  return true;
}

/* False: the job is refused. */
bool task_of(const struct queue *queue, uint32_t number, struct task *task) {
  struct job *job = &queue->jobs[number];
  if (job->op < OP_SEAL || job->op > OP_VERIFY) return false;
  if (job->context >= queue->context_count) return false;
  struct context *context = queue->contexts[job->context];
  if (context == NULL || job->at > job->end) return false;
  if (job->end - job->at > queue->scratch_len - SCRATCH_MARGIN) return false;
  *task = (struct task){
      .functions = queue->functions,
      .queue = queue,
      .job = job,
      .work = &queue->works[number],
      .context = context,
  };
  return is_esp(job->op) ? esp_task(queue, task) : ah_task(queue, task);
}

/* SPI and sequence number, with its high half between them if it is extended (RFC 4106 §5). */
size_t aad_of(const struct task *task, const uint8_t **aad) {
  if (!task->job->extended) {
    *aad = task->begin;
    return ESP_HEADER_LEN;
  }
  uint8_t *to = task->work->aad;
  memcpy(to, task->begin, 4);
  write_seq_high(task, to + 4);
  memcpy(to + 8, task->begin + 4, 4);
  *aad = to;
  return ESP_HEADER_LEN + 4;
}

/* Salt and IV; for AES-CTR, the counter, which begins with 1 (RFC 3686 §4), is behind them. */
void write_nonce(const struct task *task) {
  const struct context *context = task->context;
  uint8_t *nonce = task->work->iv;
  memcpy(nonce, context->salt, 4);
  memcpy(nonce + context->salt_len, task->iv, 8);
  if (context->cipher != CIPHER_CTR) return;
  memset(nonce + 12, 0, 3);
  nonce[15] = 1;
}

void write_seq_high(const struct task *task, uint8_t *to) {
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(task->job->seq_high >> (24 - 8 * i));
}

/* What is too long for intel-ipsec-mb, or nothing at all, is OpenSSL's. */
static bool is_imb_len(size_t len) { return len > 0 && len + 4 <= IMB_LEN_MAX; }

/* The parts of a job that intel-ipsec-mb could do among others. */
uint32_t lanes_of(const struct task *task) {
  const struct context *context = task->context;
  const bool is_cipher = context->imb_cipher != IMB_NONE && context->imb_cipher != IMB_GCM &&
                         is_imb_len((size_t)(task->end - task->text));
  const bool is_mac = context->imb_mac != 0 && is_imb_len((size_t)(task->end - task->begin));
  return (is_cipher ? LANES_CIPHER : 0) | (is_mac ? LANES_MAC : 0);
}

/* In constant time: the compiler must not find an early way out. All ICVs are whole words. */
bool same_icv(const uint8_t *a, const uint8_t *b, size_t len) {
  uint32_t differ = 0;
  for (size_t i = 0; i < len; i += 4) {
    uint32_t left;
    uint32_t right;
    memcpy(&left, a + i, 4);
    memcpy(&right, b + i, 4);
    differ |= left ^ right;
    __asm__ volatile("" : "+r"(differ));
  }
  return differ == 0;
}
