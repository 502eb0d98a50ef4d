/* A disk that fails on request, preloaded into a process under test.
 *
 * FAULT_CALLS   which calls fail: any of "sync", "write", "read", separated by commas
 * FAULT_MATCH   only files whose path contains this
 * FAULT_AT      the how-manieth matching call fails, from 1 (once, as a passing fault would)
 * FAULT_WHEN    count only while this file exists (unset: always)
 * FAULT_HANG    every sync of a matching file takes for as long as this file exists
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long seen;

static int is_ours(int descriptor) {
    const char *match = getenv("FAULT_MATCH");
    char link[64], path[4096];
    ssize_t length;

    if (match == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return strstr(path, match) != NULL;
}

static int concerns(int descriptor, const char *call) {
    const char *calls = getenv("FAULT_CALLS"), *when = getenv("FAULT_WHEN");

    if (calls == NULL || strstr(calls, call) == NULL)
        return 0;
    if (when != NULL && access(when, F_OK) != 0)
        return 0;
    return is_ours(descriptor);
}

static int fails(int descriptor, const char *call) {
    const char *at = getenv("FAULT_AT");
    int before = errno;

    if (at != NULL && concerns(descriptor, call) && atomic_fetch_add(&seen, 1) + 1 == atol(at)) {
        errno = EIO;
        return 1;
    }
    errno = before;
    return 0;
}

static void hang(int descriptor) {
    const char *while_there = getenv("FAULT_HANG");
    int before = errno;

    while (while_there != NULL && access(while_there, F_OK) == 0 && is_ours(descriptor))
        usleep(10000);
    errno = before;
}

#define NEXT(name, type) ((type)dlsym(RTLD_NEXT, name))

int fsync(int descriptor) {
    hang(descriptor);
    return fails(descriptor, "sync") ? -1 : NEXT("fsync", int (*)(int))(descriptor);
}

int fdatasync(int descriptor) {
    hang(descriptor);
    return fails(descriptor, "sync") ? -1 : NEXT("fdatasync", int (*)(int))(descriptor);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t at) {
    typedef ssize_t (*call)(int, const void *, size_t, off_t);
    return fails(descriptor, "write") ? -1 : NEXT("pwrite", call)(descriptor, bytes, count, at);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t at) {
    typedef ssize_t (*call)(int, const void *, size_t, off64_t);
    return fails(descriptor, "write") ? -1 : NEXT("pwrite64", call)(descriptor, bytes, count, at);
}

ssize_t pread(int descriptor, void *bytes, size_t count, off_t at) {
    typedef ssize_t (*call)(int, void *, size_t, off_t);
    return fails(descriptor, "read") ? -1 : NEXT("pread", call)(descriptor, bytes, count, at);
}

ssize_t pread64(int descriptor, void *bytes, size_t count, off64_t at) {
    typedef ssize_t (*call)(int, void *, size_t, off64_t);
    return fails(descriptor, "read") ? -1 : NEXT("pread64", call)(descriptor, bytes, count, at);
}
