// SPDX-License-Identifier: Apache-2.0
// remora-init: runs once in a pod's network namespace and sends its TCP through the proxy.
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init-net/commands.h"
#include "init-net/report.h"
#include "lib/base/scope.h"

static int cmd_help(struct options *o, const struct facts *facts)
{
    (void)o;
    (void)facts;
    struct buf out = { 0 };
    options_help(&out);
    return report_write(STDOUT_FILENO, &out) ? EXIT_APPLY : EXIT_OK;
}

static int cmd_version(struct options *o, const struct facts *facts)
{
    (void)o;
    (void)facts;
    printf("remora-init %s\n", REMORA_VERSION);
    return EXIT_OK;
}

static int (*const commands[CMD_COUNT])(struct options *o, const struct facts *facts) = {
    [CMD_APPLY] = cmd_apply,
    [CMD_CLEANUP] = cmd_cleanup,
    [CMD_CHECK] = cmd_check,
    [CMD_VERIFY] = cmd_verify,
    [CMD_EXPLAIN] = cmd_explain,
    [CMD_STATS] = cmd_stats,
    [CMD_DOCTOR] = cmd_doctor,
    [CMD_WAIT] = cmd_wait,
    [CMD_HELP] = cmd_help,
    [CMD_VERSION] = cmd_version,
};

// As a file capability CAP_NET_ADMIN is permitted, not effective: so the program still starts in a container that has
// dropped it, and only doctor, explain or a dry run are wanted there (capabilities(7), "capability-dumb binary").
static void raise_capability(void)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &head, data) == 0 && data[0].permitted & ~data[0].effective & (1u << CAP_NET_ADMIN)) {
        data[0].effective |= 1u << CAP_NET_ADMIN;
        syscall(SYS_capset, &head, data);
    }
}

static int enter_netns(const char *path, struct err *err)
{
    scope_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0) {
        return err_set(err, -errno, "cannot enter network namespace %s: %s", path, strerror(errno));
    }
    return 0;
}

static int run(int argc, char **argv, struct arena *a)
{
    struct facts facts;
    struct options o = { 0 };
    struct err err = { 0 };
    facts_gather("", a, &facts);
    struct str netns = options_netns(argc, argv, &facts, a);
    if (netns.n) {
        if (enter_netns(arena_str(a, netns).p, &err)) {
            report_message(NULL, "error", "%s", err.msg);
            return EXIT_APPLY;
        }
        facts_gather("", a, &facts);
    }
    int code = options_parse(argc, argv, &facts, a, &o, &err);
    if (code) {
        report_message(NULL, "error", "%s", err.msg);
        return code;
    }
    return commands[o.command](&o, &facts);
}

int main(int argc, char **argv)
{
    struct arena a;
    raise_capability();
    arena_init(&a, 65536, 0);
    int code = run(argc, argv, &a);
    arena_fini(&a);
    return code;
}
