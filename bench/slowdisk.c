/* A disk that takes SLOW_SYNC_US microseconds longer for each sync, preloaded into the process that is measured. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void dawdle(void) {
    const char *us = getenv("SLOW_SYNC_US");
    long asked = us == NULL ? 0 : atol(us);
    struct timespec longer = {asked / 1000000, asked % 1000000 * 1000};

    nanosleep(&longer, NULL);
}

int fsync(int descriptor) {
    dawdle();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(descriptor);
}

int fdatasync(int descriptor) {
    dawdle();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(descriptor);
}
