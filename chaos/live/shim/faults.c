/* Faults of a disk and of a network, preloaded into a node. They are asked for by files in the directory FAULTS:

   flush-PID      the next fdatasync or fsync of a file of PID's log fails with EIO, once, and takes the file away. The
                  bytes are not flushed, and later flushes succeed, as after a failed write-back of the kernel.
   cut-PID-PORT   while it is there, PID cannot talk to those who listen on PORT: what it sends vanishes, it hears nothing,
                  and a new connection is refused. A connection that lost bytes is reset once the file is gone.

   Nodes talk to each other over connections of the one that asks: with a cut at both ends two of them are apart, while
   everybody else still reaches both. */
#include "shim.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define DESCRIPTORS 65536

/* Descriptors of connections that lost bytes. */
static atomic_char lossy[DESCRIPTORS];

static void name_of(char *to, const char *kind, int port) {
    const char *directory = getenv("FAULTS");
    if (port < 0)
        snprintf(to, PATH_MAX, "%s/%s-%d", directory ? directory : "", kind, (int)getpid());
    else
        snprintf(to, PATH_MAX, "%s/%s-%d-%d", directory ? directory : "", kind, (int)getpid(), port);
}

static int flush_fails(int fd) {
    char path[PATH_MAX + 1], asked[PATH_MAX];
    path_of(fd, path);
    name_of(asked, "flush", -1);
    return strstr(path, "/log/segments/") != NULL && unlink(asked) == 0;
}

static int is_cut_to(const struct sockaddr *peer) {
    if (peer->sa_family != AF_INET)
        return 0;
    char asked[PATH_MAX];
    name_of(asked, "cut", ntohs(((const struct sockaddr_in *)peer)->sin_port));
    return access(asked, F_OK) == 0;
}

enum state { WHOLE, CUT, BROKEN };

static enum state state_of(int fd) {
    if (fd < 0 || fd >= DESCRIPTORS)
        return WHOLE;
    int kept = errno;
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int cut = getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && is_cut_to((struct sockaddr *)&peer);
    errno = kept;
    if (cut) {
        lossy[fd] = 1;
        return CUT;
    }
    return lossy[fd] ? BROKEN : WHOLE;
}

/* What a call answers instead of being made; 0 for one that is made. */
static int hears_nothing(int fd) {
    enum state state = state_of(fd);
    if (state != WHOLE)
        errno = state == CUT ? EAGAIN : ECONNRESET;
    return state != WHOLE;
}

static int vanishes(int fd, ssize_t length, ssize_t *answer) {
    enum state state = state_of(fd);
    if (state == BROKEN)
        errno = ECONNRESET;
    *answer = state == CUT ? length : -1;
    return state != WHOLE;
}

int fdatasync(int fd) {
    if (flush_fails(fd)) {
        errno = EIO;
        return -1;
    }
    return REAL(fdatasync)(fd);
}

int fsync(int fd) {
    if (flush_fails(fd)) {
        errno = EIO;
        return -1;
    }
    return REAL(fsync)(fd);
}

int connect(int fd, const struct sockaddr *peer, socklen_t length) {
    if (is_cut_to(peer)) {
        errno = EHOSTUNREACH;
        return -1;
    }
    return REAL(connect)(fd, peer, length);
}

int close(int fd) {
    if (fd >= 0 && fd < DESCRIPTORS)
        lossy[fd] = 0;
    return REAL(close)(fd);
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    ssize_t answer;
    return vanishes(fd, (ssize_t)length, &answer) ? answer : REAL(send)(fd, bytes, length, flags);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t length = 0, answer;
    for (int at = 0; at < count; at++)
        length += (ssize_t)parts[at].iov_len;
    return vanishes(fd, length, &answer) ? answer : REAL(writev)(fd, parts, count);
}

ssize_t recv(int fd, void *bytes, size_t length, int flags) {
    return hears_nothing(fd) ? -1 : REAL(recv)(fd, bytes, length, flags);
}

ssize_t readv(int fd, const struct iovec *parts, int count) {
    return hears_nothing(fd) ? -1 : REAL(readv)(fd, parts, count);
}
