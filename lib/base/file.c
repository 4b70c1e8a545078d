// SPDX-License-Identifier: Apache-2.0
#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/mem.h"
#include "lib/base/rand.h"
#include "lib/base/scope.h"

// Reads to the end; st_size is only a hint (0 in /proc, and files grow).
static int read_all(int fd, size_t hint, size_t max_bytes, char **ret_data, size_t *ret_len)
{
    size_t cap = (hint < max_bytes ? hint : max_bytes) + 1, len = 0;
    scope_free char *data = mem_alloc(cap);
    for (;;) {
        if (len == cap) {
            cap = cap * 2 > max_bytes + 1 ? max_bytes + 1 : cap * 2;
            data = mem_realloc(data, cap);
        }
        ssize_t k = read(fd, data + len, cap - len);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k < 0) {
            return -errno;
        }
        if (k == 0) {
            break;
        }
        len += (size_t)k;
        if (len > max_bytes) {
            return -EFBIG;
        }
    }
    *ret_data = data;
    *ret_len = len;
    data = NULL;
    return 0;
}

int file_read(const char *path, size_t max_bytes, struct arena *a, struct str *ret, struct err *err)
{
    scope_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_errno(err, errno, path);
    }
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return err_errno(err, errno, path);
    }
    scope_free char *data = NULL;
    size_t len = 0;
    int r = read_all(fd, st.st_size > 0 ? (size_t)st.st_size : 4096, max_bytes, &data, &len);
    if (r == -EFBIG) {
        return err_set(err, r, "%s: larger than %zu bytes", path, max_bytes);
    }
    if (r < 0) {
        return err_errno(err, -r, path);
    }
    struct str s = arena_str(a, str_n(data, len));
    if (!s.p) {
        return err_set(err, -ENOMEM, "%s: does not fit in the memory set aside for it", path);
    }
    *ret = s;
    return 0;
}

static int write_all(int fd, struct str data)
{
    while (data.n) {
        ssize_t k = write(fd, data.p, data.n);
        if (k < 0 && errno != EINTR) {
            return -errno;
        }
        data = str_skip(data, k > 0 ? (size_t)k : 0);
    }
    return fsync(fd) < 0 ? -errno : 0;
}

int file_write_atomic(const char *path, struct str data, int mode, struct err *err)
{
    scope_free char *tmp = NULL;
    if (asprintf(&tmp, "%s.%016llx.tmp", path, (unsigned long long)rand_u64()) < 0) {
        tmp = NULL;
        return err_errno(err, ENOMEM, path);
    }
    // O_EXCL: never through a link that somebody else put there.
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
    if (fd < 0) {
        return err_errno(err, errno, tmp);
    }
    int r = fchmod(fd, (mode_t)mode) < 0 ? -errno : write_all(fd, data); // fchmod: the umask does not count
    if (close(fd) < 0 && r == 0) {
        r = -errno;
    }
    if (r == 0 && rename(tmp, path) < 0) {
        r = -errno;
    }
    if (r < 0) {
        unlink(tmp);
        return err_errno(err, -r, path);
    }
    return 0;
}
