/* Counts instructions under qemu's user mode: a plugin of its interface 1 (qemu 4.2 to 8.0), declared here by hand.
 * The count so far is written to standard error at every sched_yield of the program, which is how it marks a place,
 * and at the end.
 */

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct qemu_plugin_tb;
typedef void (*grit_translated)(uint64_t id, struct qemu_plugin_tb *block);
typedef void (*grit_ended)(uint64_t id, void *nothing);
typedef void (*grit_called)(uint64_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                            uint64_t e, uint64_t f, uint64_t g, uint64_t h);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, grit_translated callback);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int operation, void *number, uint64_t value);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, grit_called callback);
void qemu_plugin_register_atexit_cb(uint64_t id, grit_ended callback, void *nothing);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t instructions;

static void translated(uint64_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, 0 /* add */, &instructions, qemu_plugin_tb_n_insns(block));
}

static void said(void)
{
    fprintf(stderr, "%" PRIu64 "\n", instructions);
}

static void called(uint64_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == 124 /* sched_yield on arm64 */)
        said();
}

static void ended(uint64_t id, void *nothing)
{
    (void)id, (void)nothing;
    said();
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *about, int count, char **words)
{
    (void)about, (void)count, (void)words;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
