/* Ends a process, or fails it, at one of its changes to files below a folder; tests/faults/__main__.py says which. */
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
#include <sys/uio.h>
#include <unistd.h>

enum { BEFORE, HALFWAY, AFTER };

static char folder[PATH_MAX];
static int wanted, place, failure, counted;

/* From here on changes below `below` are counted. The change number `number` (none: 0) fails with `error` and so do those
   behind it, or the process is killed `where` in it. */
void faults_arm(const char *below, int number, int where, int error) {
    snprintf(folder, sizeof folder, "%s", below);
    wanted = number, place = where, failure = error, counted = 0;
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
    return wanted && (failure ? number >= wanted : number == wanted);
}

static void end(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define CHANGE(is_below, half, call)              \
    if (meant(is_below)) {                        \
        if (failure) { errno = failure; return -1; } \
        if (place == HALFWAY) { half; }           \
        if (place == AFTER) { (void)!(call); }    \
        end();                                    \
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
