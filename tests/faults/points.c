/* Ends a process, fails it, sends it a signal or moves its clock at one of its changes to files below a folder;
   tests/faults/changes.py says which. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BEFORE, HALFWAY, AFTER, FAIL, SIGNAL, GROUP, CLOCK };

static char folder[PATH_MAX];
static int wanted, place, counted;
static long value, moved;

/* From here on changes below `below` are counted. At the change number `number` (none: 0) the process is killed before
   it, halfway or after; or it fails with the errno `what`, and so do those behind it; or the signal `what` goes to the
   process or its group; or from there on it is `what` seconds later than it is. */
void faults_arm(const char *below, int number, int where, long what) {
    snprintf(folder, sizeof folder, "%s", below);
    wanted = number, place = where, value = what, counted = 0, moved = 0;
}

int faults_counted(void) { return counted; }

static int below(const char *path) {
    char whole[2 * PATH_MAX], here[PATH_MAX];
    if (!folder[0] || !path) return 0;
    if (path[0] == '/') return !strncmp(path, folder, strlen(folder));
    if (!getcwd(here, sizeof here)) return 0;
    snprintf(whole, sizeof whole, "%s/%s", here, path);
    return !strncmp(whole, folder, strlen(folder));
}

static int of_file(int file) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = syscall(SYS_readlink, link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    return below(path);
}

static int meant(int is_below) {
    if (!is_below) return 0;
    int number = __sync_add_and_fetch(&counted, 1);
    return wanted && (place == FAIL ? number >= wanted : number == wanted);
}

static void end(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

static void disturb(void) {
    if (place == CLOCK) moved = value;
    else syscall(SYS_kill, place == GROUP ? 0 : syscall(SYS_getpid), (int)value);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define CHANGE(is_below, half, call)              \
    if (meant(is_below)) {                        \
        if (place == FAIL) { errno = value; return -1; } \
        if (place == HALFWAY) { half; }           \
        if (place == AFTER) { (void)!(call); }    \
        if (place <= AFTER) end();                \
        disturb();                                \
    }                                             \
    return call

ssize_t write(int file, const void *from, size_t size) {
    REAL(write);
    CHANGE(of_file(file), (void)!real(file, from, size / 2), real(file, from, size));
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev);
    CHANGE(of_file(file), (void)!syscall(SYS_write, file, parts[0].iov_base, parts[0].iov_len / 2), real(file, parts, count));
}

ssize_t pwrite64(int file, const void *from, size_t size, off64_t at) {
    REAL(pwrite64);
    CHANGE(of_file(file), (void)!real(file, from, size / 2, at), real(file, from, size, at));
}

int fsync(int file) { REAL(fsync); CHANGE(of_file(file), , real(file)); }
int fdatasync(int file) { REAL(fdatasync); CHANGE(of_file(file), , real(file)); }
int ftruncate64(int file, off64_t size) { REAL(ftruncate64); CHANGE(of_file(file), , real(file, size)); }
int rename(const char *from, const char *to) { REAL(rename); CHANGE(below(to), , real(from, to)); }
int link(const char *from, const char *to) { REAL(link); CHANGE(below(to), , real(from, to)); }
int symlink(const char *to, const char *at) { REAL(symlink); CHANGE(below(at), , real(to, at)); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); CHANGE(below(path), , real(path, mode)); }
int rmdir(const char *path) { REAL(rmdir); CHANGE(below(path), , real(path)); }
int unlink(const char *path) { REAL(unlink); CHANGE(below(path), , real(path)); }

int unlinkat(int in, const char *path, int flags) {
    REAL(unlinkat);
    CHANGE(path[0] == '/' || in == AT_FDCWD ? below(path) : of_file(in), , real(in, path, flags));
}

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    CHANGE((flags & (O_CREAT | O_TRUNC)) && below(path), , real(path, flags, mode));
}

#define OPEN(name)                                                            \
    int name(const char *path, int flags, ...) {                              \
        static int (*real)(const char *, int, ...);                           \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        va_list more;                                                         \
        va_start(more, flags);                                                \
        mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;             \
        va_end(more);                                                         \
        return opened(real, path, flags, mode);                               \
    }

OPEN(open)
OPEN(open64)

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += moved;
    return result;
}

time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec, now->tv_usec = found.tv_nsec / 1000;
    return 0;
}
