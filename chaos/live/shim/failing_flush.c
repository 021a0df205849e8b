/* A flush that fails once: preloaded into a node, it answers EIO to the next fdatasync or fsync of a file of the log
   when the directory FAILING_FLUSH has a file named like the process's id, and takes that file away. The bytes are not flushed: as a kernel does
   after a failed write-back, later flushes of the same descriptor succeed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    const char *directory = getenv("FAILING_FLUSH");
    char link[64], armed[PATH_MAX], path[PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX);
    if (directory == NULL || length < 0)
        return 0;
    path[length] = 0;
    snprintf(armed, sizeof armed, "%s/%d", directory, (int)getpid());
    return strstr(path, "/log/segments/") != NULL && unlink(armed) == 0;
}

static int flush(const char *name, int fd) {
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fdatasync(int fd) { return flush("fdatasync", fd); }

int fsync(int fd) { return flush("fsync", fd); }
