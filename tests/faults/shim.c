/* For LD_PRELOAD: counts what a process writes below a folder, and lets one such call fail, or kills the process in it.

   fault_arm(folder, n, error): the n-th call from now on fails with `error`; 0 for n: none does. For error -1 the process
   is killed there, amid the call: half of what was to be written is. fault_count(): the calls so far; fault_call(n): what
   the n-th was, as "name path". Calls that only read do not count. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 8192
#define ROOM 256
static char folder[PATH_MAX];
static long wanted, count;
static int fault;
static char calls[MOST][ROOM];

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void fault_arm(const char *below, long n, int error) {
    strncpy(folder, below, sizeof folder - 1);
    wanted = n;
    fault = error;
    count = 0;
}
long fault_count(void) { return count; }
const char *fault_call(long n) { return n > 0 && n <= count && n <= MOST ? calls[n - 1] : ""; }

/* Whether this call is the one: -1 it fails, with errno; 1 the process is to be killed in it; 0 it is another. */
static int strikes(const char *name, const char *path) {
    if (!folder[0] || !path || strncmp(path, folder, strlen(folder))) return 0;
    if (count < MOST) snprintf(calls[count], ROOM, "%s %s", name, path + strlen(folder));
    if (++count != wanted) return 0;
    if (fault < 0) return 1;
    errno = fault;
    return -1;
}
static int strikes_fd(const char *name, int fd) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strikes(name, path);
}
static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

#define ON_PATH(name, path) switch (strikes(name, path)) { case -1: return -1; case 1: die(); }
#define ON_FD(name, fd) switch (strikes_fd(name, fd)) { case -1: return -1; case 1: die(); }

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...) {                       \
        va_list more; va_start(more, flags);                           \
        mode_t mode = va_arg(more, mode_t); va_end(more);              \
        if (flags & (O_CREAT | O_TRUNC)) ON_PATH("open", path)         \
        return NEXT(name)(path, flags, mode);                          \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name)                                                   \
    int name(int at, const char *path, int flags, ...) {               \
        va_list more; va_start(more, flags);                           \
        mode_t mode = va_arg(more, mode_t); va_end(more);              \
        if (flags & (O_CREAT | O_TRUNC)) ON_PATH("open", path)         \
        return NEXT(name)(at, path, flags, mode);                      \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
    int struck = strikes_fd("write", fd);
    if (struck < 0) return -1;
    if (struck) { NEXT(write)(fd, data, size / 2); die(); }
    return NEXT(write)(fd, data, size);
}
#define PWRITE(name, offset_type)                                                  \
    ssize_t name(int fd, const void *data, size_t size, offset_type at) {          \
        int struck = strikes_fd("pwrite", fd);                                     \
        if (struck < 0) return -1;                                                 \
        if (struck) { NEXT(name)(fd, data, size / 2, at); die(); }                 \
        return NEXT(name)(fd, data, size, at);                                     \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
ssize_t writev(int fd, const struct iovec *parts, int n) { ON_FD("writev", fd) return NEXT(writev)(fd, parts, n); }
int fsync(int fd) { ON_FD("fsync", fd) return NEXT(fsync)(fd); }
int fdatasync(int fd) { ON_FD("fdatasync", fd) return NEXT(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { ON_FD("ftruncate", fd) return NEXT(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { ON_FD("ftruncate", fd) return NEXT(ftruncate64)(fd, size); }
int rename(const char *from, const char *to) { ON_PATH("rename", to) return NEXT(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { ON_PATH("rename", to) return NEXT(renameat)(a, from, b, to); }
int unlink(const char *path) { ON_PATH("unlink", path) return NEXT(unlink)(path); }
int unlinkat(int at, const char *path, int flags) { ON_PATH("unlink", path) return NEXT(unlinkat)(at, path, flags); }
int rmdir(const char *path) { ON_PATH("rmdir", path) return NEXT(rmdir)(path); }
int mkdir(const char *path, mode_t mode) { ON_PATH("mkdir", path) return NEXT(mkdir)(path, mode); }
