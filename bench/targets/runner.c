/* Answers the texts on standard input with model.c, and says how long each call took: raw numbers on standard output.
 *
 * It needs a Linux kernel and nothing else (its own start, four system calls), so one static file runs on any phone or
 * board; elsewhere a POSIX C library will do. All statistics are made from its numbers by whoever started it.
 *
 * In:  u32 texts, rounds of warm-up of text to logits, the same of the network alone, least and most milliseconds of
 *      each; then each text: u32 bytes, the bytes.
 * Out: u32 sizeof(model_logit), classes, texts, nanoseconds between two readings of the clock; for each text its tokens
 *      (u32) and logits; then twice, for text to logits and for the network alone: u32 samples, the samples (u32 ns), in
 *      rounds over the texts. All little-endian.
 */

#define _POSIX_C_SOURCE 199309L /* the clock, where there is a C library */

#include "model.h"

#if defined(GRIT_LINUX) && (defined(__aarch64__) || defined(__x86_64__))

#if defined(__aarch64__)
enum { GRIT_READ = 63, GRIT_WRITE = 64, GRIT_EXIT = 93, GRIT_CLOCK = 113 };
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tbl grit_main\n");

static long grit_call(long number, long a, long b, long c)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory", "cc");
    return x0;
}
#else
enum { GRIT_READ = 0, GRIT_WRITE = 1, GRIT_EXIT = 60, GRIT_CLOCK = 228 };
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tcall grit_main\n");

static long grit_call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
#endif

static uint64_t grit_now(void)
{
    long time[2];
    grit_call(GRIT_CLOCK, 1, (long)time, 0); /* CLOCK_MONOTONIC */
    return (uint64_t)time[0] * 1000000000u + (uint64_t)time[1];
}

static long grit_input(char *to, long size)
{
    return grit_call(GRIT_READ, 0, (long)to, size);
}

static long grit_output(const char *from, long size)
{
    return grit_call(GRIT_WRITE, 1, (long)from, size);
}

static void grit_exit(int code)
{
    for (;;)
        grit_call(GRIT_EXIT, code, 0, 0);
}

void grit_main(void);

#else

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static uint64_t grit_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

#define grit_input(to, size) read(0, to, (size_t)(size))
#define grit_output(from, size) write(1, from, (size_t)(size))
#define grit_exit(code) exit(code)
static void grit_main(void);

int main(void)
{
    grit_main();
    return 0;
}

#endif

#define GRIT_TEXTS 256
#define GRIT_TEXT_BYTES (1 << 20)
#define GRIT_SAMPLES (1 << 18)

static char grit_text[GRIT_TEXT_BYTES];
static uint32_t grit_begin[GRIT_TEXTS], grit_size[GRIT_TEXTS], grit_read[GRIT_TEXTS], grit_best[GRIT_TEXTS];
static uint32_t grit_samples[GRIT_SAMPLES];
static model_token grit_tokens[GRIT_TEXTS][MODEL_MAX_TOKENS];
static model_scratch grit_scratch;

static void grit_take(void *to, uint32_t size)
{
    char *at = to;
    while (size) {
        const long more = grit_input(at, (long)size);
        if (more <= 0)
            grit_exit(1);
        at += more, size -= (uint32_t)more;
    }
}

static void grit_give(const void *from, uint32_t size)
{
    const char *at = from;
    while (size) {
        const long less = grit_output(at, (long)size);
        if (less <= 0)
            grit_exit(1);
        at += less, size -= (uint32_t)less;
    }
}

static void grit_one(int whole, uint32_t text)
{
    model_logit logits[MODEL_CLASSES];
    if (whole)
        model_text(grit_text + grit_begin[text], grit_size[text], logits, &grit_scratch);
    else
        model_run(grit_tokens[text], grit_read[text], logits, &grit_scratch);
}

/* Rounds over the texts, for least_ns at least, until a round lowers the sum of the best times by less than 1 %. */
static uint32_t grit_sample(int whole, uint32_t texts, uint32_t warm, uint64_t least_ns, uint64_t most_ns)
{
    uint32_t text, samples = 0;
    uint64_t before, best = ~UINT64_C(0), spent;
    const uint64_t begun = grit_now();
    for (text = 0; text < texts; text++)
        grit_best[text] = ~UINT32_C(0);
    for (; warm; warm--)
        for (text = 0; text < texts; text++)
            grit_one(whole, text);
    do {
        before = best, best = 0;
        for (text = 0; text < texts; text++) {
            const uint64_t start = grit_now();
            uint32_t took;
            grit_one(whole, text);
            took = (uint32_t)(grit_now() - start);
            grit_samples[samples++] = took;
            if (took < grit_best[text])
                grit_best[text] = took;
            best += grit_best[text];
        }
        spent = grit_now() - begun;
    } while (samples + texts <= GRIT_SAMPLES && spent < most_ns && (spent < least_ns || best < before - before / 100));
    return samples;
}

void grit_main(void)
{
    uint32_t job[5], text, at = 0, whole, said[4] = {sizeof(model_logit), MODEL_CLASSES, 0, 0};
    uint64_t clock;
    grit_take(job, sizeof job);
    if (job[0] < 1 || job[0] > GRIT_TEXTS)
        grit_exit(2);
    for (text = 0; text < job[0]; text++, at += grit_size[text - 1]) {
        grit_take(&grit_size[text], 4);
        if (grit_size[text] > GRIT_TEXT_BYTES - at)
            grit_exit(2);
        grit_take(grit_text + at, grit_size[text]);
        grit_begin[text] = at;
    }
    clock = grit_now();
    said[2] = job[0], said[3] = (uint32_t)(grit_now() - clock);
    grit_give(said, sizeof said);
    for (text = 0; text < job[0]; text++) {
        model_logit logits[MODEL_CLASSES];
        grit_read[text] = model_read(grit_text + grit_begin[text], grit_size[text], grit_tokens[text]);
        model_text(grit_text + grit_begin[text], grit_size[text], logits, &grit_scratch);
        grit_give(&grit_read[text], 4);
        grit_give(logits, sizeof logits);
    }
    for (whole = 2; whole--;) {
        const uint32_t samples =
            grit_sample((int)whole, job[0], job[whole ? 1 : 2], job[3] * UINT64_C(1000000), job[4] * UINT64_C(1000000));
        grit_give(&samples, 4);
        grit_give(grit_samples, 4 * samples);
    }
    grit_exit(0);
}
