/* Tells what a process does to the files in the directory TRACE_BELOW and below, in order, in the file TRACE/PID: every write, new
   length, new, renamed or removed name, and flush. The state's files are left out: after a loss of power nobody believes them.

   A record is a head, the path, a second path of a rename, and a write's bytes, unless they are all zero. It is there before
   the call returns, so who hears that something is done finds it in the trace. */
#include "shim.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

enum kind { WRITE = 1, LENGTH, CREATE, RENAME, UNLINK, SYNC, MKDIR };

struct head {
    uint8_t kind, zeros;
    uint16_t path, other;
    uint16_t unused;
    uint64_t offset, length;
};

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

static int is_watched(const char *path) {
    const char *below = getenv("TRACE_BELOW");
    size_t length = below ? strlen(below) : 0;
    return length && strncmp(path, below, length) == 0 && (path[length] == 0 || path[length] == '/') && !strstr(path, "/state/");
}

static int is_open_and_watched(int fd, char *path) {
    path_of(fd, path);
    return is_watched(path);
}

static void put(int out, const void *bytes, size_t length) {
    for (const char *at = bytes; length > 0;) {
        ssize_t done = REAL(write)(out, at, length);
        if (done < 0)
            abort();
        at += done;
        length -= (size_t)done;
    }
}

static void tell(enum kind kind, const char *path, const char *other, uint64_t offset, const void *bytes, uint64_t length) {
    static int out = -1;
    if (out < 0) {
        char name[PATH_MAX];
        snprintf(name, sizeof name, "%s/%d", getenv("TRACE"), (int)getpid());
        out = REAL(open64)(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (out < 0)
            abort();
    }
    struct head head = {.kind = (uint8_t)kind, .path = (uint16_t)strlen(path), .offset = offset, .length = length};
    head.other = other ? (uint16_t)strlen(other) : 0;
    head.zeros = 1;
    for (uint64_t at = 0; bytes && head.zeros && at < length; at++)
        head.zeros = ((const char *)bytes)[at] == 0;
    size_t whole = sizeof head + head.path + head.other + (head.zeros ? 0 : length);
    char *record = malloc(whole);
    if (!record)
        abort();
    memcpy(record, &head, sizeof head);
    memcpy(record + sizeof head, path, head.path);
    memcpy(record + sizeof head + head.path, other ? other : "", head.other);
    if (!head.zeros)
        memcpy(record + whole - length, bytes, length);
    put(out, record, whole);
    free(record);
}

/* Makes a call, and tells of it if it succeeds. */
#define TOLD(watched, type, call, telling)    \
    do {                                      \
        if (!(watched))                       \
            return call;                      \
        pthread_mutex_lock(&order);           \
        type answer = call;                   \
        int kept = errno;                     \
        if (answer >= 0) {                    \
            telling;                          \
        }                                     \
        pthread_mutex_unlock(&order);         \
        errno = kept;                         \
        return answer;                        \
    } while (0)

static int opened(const char *path, int flags, mode_t mode) {
    int is_new = access(path, F_OK) != 0;
    TOLD(is_watched(path) && (flags & (O_CREAT | O_TRUNC)), int, REAL(open64)(path, flags, mode), {
        if (is_new)
            tell(CREATE, path, NULL, 0, NULL, 0);
        else if (flags & O_TRUNC)
            tell(LENGTH, path, NULL, 0, NULL, 0);
    });
}

#define MODE_OF(flags, mode)         \
    if (flags & (O_CREAT)) {         \
        va_list more;                \
        va_start(more, flags);       \
        mode = va_arg(more, mode_t); \
        va_end(more);                \
    }

int open(const char *path, int flags, ...) {
    mode_t mode = 0;
    MODE_OF(flags, mode)
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    MODE_OF(flags, mode)
    return opened(path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    char path[PATH_MAX + 1];
    TOLD(is_open_and_watched(fd, path), ssize_t, REAL(write)(fd, bytes, length),
         tell(WRITE, path, NULL, (uint64_t)(lseek(fd, 0, SEEK_CUR) - answer), bytes, (uint64_t)answer));
}

static ssize_t written_at(int fd, const void *bytes, size_t length, off64_t offset) {
    char path[PATH_MAX + 1];
    TOLD(is_open_and_watched(fd, path), ssize_t, REAL(pwrite64)(fd, bytes, length, offset),
         tell(WRITE, path, NULL, (uint64_t)offset, bytes, (uint64_t)answer));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return written_at(fd, bytes, length, offset); }

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return written_at(fd, bytes, length, offset); }

/* Calls that nobody makes on these files; whoever begins to, must teach them here. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX + 1];
    if (is_open_and_watched(fd, path))
        abort();
    return REAL(writev)(fd, parts, count);
}

static int shortened(int fd, off64_t length) {
    char path[PATH_MAX + 1];
    TOLD(is_open_and_watched(fd, path), int, REAL(ftruncate64)(fd, length), tell(LENGTH, path, NULL, 0, NULL, (uint64_t)length));
}

int ftruncate64(int fd, off64_t length) { return shortened(fd, length); }

int ftruncate(int fd, off_t length) { return shortened(fd, length); }

int rename(const char *path, const char *other) {
    TOLD(is_watched(path), int, REAL(rename)(path, other), tell(RENAME, path, other, 0, NULL, 0));
}

int unlink(const char *path) { TOLD(is_watched(path), int, REAL(unlink)(path), tell(UNLINK, path, NULL, 0, NULL, 0)); }

int mkdir(const char *path, mode_t mode) {
    TOLD(is_watched(path), int, REAL(mkdir)(path, mode), tell(MKDIR, path, NULL, 0, NULL, 0));
}

int fsync(int fd) {
    char path[PATH_MAX + 1];
    TOLD(is_open_and_watched(fd, path), int, REAL(fsync)(fd), tell(SYNC, path, NULL, 0, NULL, 0));
}

int fdatasync(int fd) {
    char path[PATH_MAX + 1];
    TOLD(is_open_and_watched(fd, path), int, REAL(fdatasync)(fd), tell(SYNC, path, NULL, 0, NULL, 0));
}
