/* What the libraries in front of libc share. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

/* libc's own function of this name. */
#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

/* The path of an open file, in PATH_MAX + 1 bytes; an empty one when it has none. */
static void path_of(int fd, char *path) {
    char link[64];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX);
    errno = kept;
    path[length < 0 ? 0 : length] = 0;
}
