/* Faults of disks and machines, at a chosen call: a library to preload on Linux.

   Calls that change files below FAULTS_FOLDER are counted from 1 and, with FAULTS_LOG, listed. At
   number FAULTS_AT the process meets with FAULTS_DO:

   kill     SIGKILL; half of what a write had to write is written
   short    half is written, and what needs space afterwards fails with ENOSPC
   ENOSPC, EIO, EACCES, EROFS or a number: calls that can fail so do, from then on, or this one
            alone with FAULTS_ONCE=1

   FAULTS_LOST says what a kill takes along, as a loss of power does: of every file what was written
   and not synced is gone (cut), half gone (half) or zeros (zeros); or (names) new names in
   folders that were not synced are gone, and the old files are back. FAULTS_STASH is a folder
   on the same disk for these.

   A process that has the library may call faults_arm instead, after a fork for example. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ({ \
        static __typeof__(&name) real; \
        real = real ? real : (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        real; \
    })
#define SIZE 4096
#define MOST 20000

enum { KILL = -1, SHORT = -2 };
enum { NEEDS_SPACE = 1, NEEDS_LEAVE = 2 };  /* what of a call may fail */
enum lost { NOTHING, CUT, HALF, ZEROS, NAMES };

static char folder[SIZE], stash[SIZE];
static long count, at;
static int what, once, log_to = -1;
static enum lost lost;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct { char *path; dev_t dev; ino_t ino; off_t synced; int dirty; } files[MOST];
static struct { char *from, *to; int saved; } names[MOST];  /* a new name without `from` */
static int file_count, name_count;

/* ------------------------------------------------------------------------------ which calls */

static int is_below(const char *path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int absolute(int dir, const char *path, char *out) {
    char base[SIZE] = "", link[64];
    if (path[0] != '/' && dir == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return 0;
    } else if (path[0] != '/') {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        if (readlink(link, base, sizeof base - 1) < 0) return 0;
    }
    while (path[0] == '.' && path[1] == '/') path += 2;
    snprintf(out, SIZE, "%.2000s%s%.2000s", base, *base ? "/" : "", path);
    return is_below(out);
}

static int of_descriptor(int fd, char *out) {
    char link[64];
    memset(out, 0, SIZE);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return *folder && readlink(link, out, SIZE - 1) > 0 && is_below(out);
}

static int is_for_writing(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

/* ------------------------------------------------------------------- what a loss of power takes */

static void parent(const char *path, char *out) {
    snprintf(out, SIZE, "%s", path);
    *strrchr(out, '/') = 0;
}

static int file_of(int fd, int is_new) {
    struct stat status;
    char path[SIZE];
    if (fstat(fd, &status) || !S_ISREG(status.st_mode) || !of_descriptor(fd, path)) return -1;
    int i = 0;
    while (i < file_count && (files[i].dev != status.st_dev || files[i].ino != status.st_ino)) i++;
    if (i == MOST) abort();
    if (i == file_count || is_new) {
        if (i == file_count) file_count++;
        files[i].path = strdup(path), files[i].dev = status.st_dev, files[i].ino = status.st_ino;
        files[i].synced = is_new ? 0 : status.st_size, files[i].dirty = is_new;
    }
    return i;
}

static void remember_write(int fd) {
    int i = lost ? file_of(fd, 0) : -1;
    if (i >= 0) files[i].dirty = 1;
}

static void remember_sync(int fd, const char *path) {
    struct stat status;
    if (!lost || fstat(fd, &status)) return;
    int i = file_of(fd, 0);
    if (i >= 0) files[i].dirty = 0, files[i].synced = status.st_size;
    for (int k = 0; k < name_count; k++) {
        char inside[SIZE];
        if (!names[k].to) continue;
        parent(names[k].to, inside);
        if (!strcmp(inside, path) || (!names[k].from && !strcmp(names[k].to, path)))
            names[k].to = NULL;
    }
}

static void remember_name(const char *from, const char *to) {  /* before the call */
    char saved[SIZE];
    if (name_count == MOST) abort();
    snprintf(saved, SIZE, "%.4000s/%d", stash, name_count);
    names[name_count].saved = from && *stash && !link(to, saved);
    names[name_count].from = from ? strdup(from) : NULL;
    names[name_count++].to = strdup(to);
}

static void remember_open(int fd, const char *path, int is_new, int is_emptied) {
    if (is_new && lost == NAMES && (fcntl(fd, F_GETFL) & O_TMPFILE) != O_TMPFILE)
        remember_name(NULL, path);
    if (lost) file_of(fd, is_new || is_emptied);
}

static void remember_move(const char *from, const char *to) {  /* after the call */
    size_t length = strlen(from);
    for (int i = 0; lost && i < file_count; i++) {
        if (!files[i].path) continue;
        if (!strcmp(files[i].path, to)) files[i].path = NULL;
        else if (!strncmp(files[i].path, from, length) && strchr("/", files[i].path[length])) {
            char moved[SIZE];
            snprintf(moved, SIZE, "%.2000s%.2000s", to, files[i].path + length);
            files[i].path = strdup(moved);
        }
    }
}

static void lose(void) {
    for (int i = 0; lost != NAMES && i < file_count; i++) {
        struct stat status;
        if (!files[i].path || !files[i].dirty || stat(files[i].path, &status)) continue;
        if (status.st_ino != files[i].ino || status.st_size < files[i].synced) continue;
        off_t unsynced = status.st_size - files[i].synced;
        if (truncate(files[i].path, files[i].synced + (lost == HALF ? unsynced / 2 : 0))) abort();
        if (lost == ZEROS && truncate(files[i].path, status.st_size)) abort();
    }
    for (int k = name_count - 1; lost == NAMES && k >= 0; k--) {
        char saved[SIZE];
        if (!names[k].to) continue;
        snprintf(saved, SIZE, "%.4000s/%d", stash, k);
        if (!names[k].from) {
            if (REAL(unlink)(names[k].to)) REAL(rmdir)(names[k].to);
        } else if (!REAL(rename)(names[k].to, names[k].from) && names[k].saved)
            REAL(rename)(saved, names[k].to);
    }
}

/* ------------------------------------------------------------------------------- the moment */

static void die(void) {
    if (lost) lose();
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int can_fail(int error, int needs) {
    if (error == ENOSPC || error == EDQUOT) return needs & NEEDS_SPACE;
    if (error == EACCES || error == EPERM || error == EROFS) return needs & NEEDS_LEAVE;
    return 1;
}

/* 0: go on; SHORT and KILL: for a write, half of it and then nothing; else errno is set */
static int gate(const char *call, const char *path, int needs) {
    long number = ++count;
    int is_due = at && (number == at || (number > at && !once && what != KILL));
    int error = what == SHORT && number > at ? ENOSPC : what, is_write = strstr(call, "write") != 0;
    if (is_due && error > 0) is_due = can_fail(error, needs);
    if (is_due && error == SHORT) is_due = is_write;
    if (log_to >= 0) {
        char line[SIZE + 64];
        int length = snprintf(line, sizeof line, "%s%s %s\n", is_due ? "!" : "", call, path);
        if (REAL(write)(log_to, line, length) != length) abort();
    }
    if (!is_due) return 0;
    if (error == KILL && !is_write) die();
    errno = error;
    return error;
}

void faults_arm(const char *below, long number, const char *fault, int is_once, const char *losing,
                const char *stash_folder, const char *log_file) {
    static const struct { const char *name; int value; } known[] = {
        {"kill", KILL}, {"short", SHORT}, {"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EACCES", EACCES},
        {"EROFS", EROFS}, {"cut", CUT}, {"half", HALF}, {"zeros", ZEROS}, {"names", NAMES}};
    what = atoi(fault), lost = NOTHING;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!strcmp(fault, known[i].name)) what = known[i].value;
        if (!strcmp(losing, known[i].name)) lost = known[i].value;
    }
    if (*log_file) log_to = REAL(open)(log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    snprintf(stash, SIZE, "%.4000s", stash_folder);
    count = 0, at = number, once = is_once;
    snprintf(folder, SIZE, "%.4000s", below);
}

static const char *environment(const char *name) { return getenv(name) ? getenv(name) : ""; }

__attribute__((constructor)) static void start(void) {
    if (*environment("FAULTS_FOLDER"))
        faults_arm(environment("FAULTS_FOLDER"), atol(environment("FAULTS_AT")),
                   environment("FAULTS_DO"), atoi(environment("FAULTS_ONCE")),
                   environment("FAULTS_LOST"), environment("FAULTS_STASH"),
                   environment("FAULTS_LOG"));
}

/* -------------------------------------------------------------------------------- the calls */

/* Run `act` if the call is not below the folder, or may go on; `done` is then run when it went well. */
#define CALL(call, is_counted, path, needs, type, bad, act, done) do { \
        if (!(is_counted)) return act; \
        pthread_mutex_lock(&lock); \
        type got = bad; \
        if (!gate(call, path, needs)) { got = act; if (got != bad) { done; } } \
        int error = errno; \
        pthread_mutex_unlock(&lock); \
        errno = error; \
        return got; \
    } while (0)

static int open_file(int dir, const char *path, int flags, mode_t mode) {
    char name[SIZE];
    int creates = (flags & O_CREAT) != 0, is_counted = 0, is_new;
    if (*folder && ((flags & O_ACCMODE) != O_RDONLY || creates)) is_counted = absolute(dir, path, name);
    is_new = is_counted && creates && access(name, F_OK);
    CALL("open", is_counted, name, (creates ? NEEDS_SPACE : 0) | NEEDS_LEAVE, int, -1,
         REAL(openat)(dir, path, flags, mode), remember_open(got, name, is_new, flags & O_TRUNC));
}

#define OPEN(name, dir, ...) int name(__VA_ARGS__, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return open_file(dir, path, flags, mode); \
    }
OPEN(open, AT_FDCWD, const char *path)
OPEN(open64, AT_FDCWD, const char *path)
OPEN(openat, dir, int dir, const char *path)
OPEN(openat64, dir, int dir, const char *path)
int __open_2(const char *path, int flags) { return open_file(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_file(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) {
    return open_file(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

FILE *fopen(const char *path, const char *mode) {
    char name[SIZE];
    int is_counted = *folder && strpbrk(mode, "wa+") && absolute(AT_FDCWD, path, name);
    int is_new = is_counted && access(name, F_OK);
    CALL("open", is_counted, name, NEEDS_SPACE | NEEDS_LEAVE, FILE *, NULL, REAL(fopen)(path, mode),
         remember_open(fileno(got), name, is_new, mode[0] == 'w'));
}
FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }

/* `all` and `part` write all bytes and the first half of them */
#define WRITE(fd, type, total, all, part) do { \
        char path[SIZE]; \
        if (!of_descriptor(fd, path)) return all; \
        pthread_mutex_lock(&lock); \
        type result = -1; \
        int fault = gate("write", path, NEEDS_SPACE), error; \
        if (fault == 0) result = all; \
        else if (fault < 0 && (total) > 1) result = part; \
        error = fault < 0 ? ENOSPC : errno; \
        if (result > 0) remember_write(fd); \
        if (fault == KILL) die(); \
        pthread_mutex_unlock(&lock); \
        errno = error; \
        return result; \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    WRITE(fd, ssize_t, size, REAL(write)(fd, data, size), REAL(write)(fd, data, size / 2));
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t place) {
    WRITE(fd, ssize_t, size, REAL(pwrite)(fd, data, size, place),
          REAL(pwrite)(fd, data, size / 2, place));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t place) {
    return pwrite(fd, data, size, place);
}
ssize_t writev(int fd, const struct iovec *parts, int number) {
    WRITE(fd, ssize_t, parts[0].iov_len, REAL(writev)(fd, parts, number),
          REAL(write)(fd, parts[0].iov_base, parts[0].iov_len / 2));
}
ssize_t sendfile(int fd, int from, off_t *place, size_t size) {
    WRITE(fd, ssize_t, size, REAL(sendfile)(fd, from, place, size), 0);
}
ssize_t sendfile64(int fd, int from, off_t *place, size_t size) {
    return sendfile(fd, from, place, size);
}
ssize_t copy_file_range(int from, off_t *a, int fd, off_t *b, size_t size, unsigned flags) {
    WRITE(fd, ssize_t, size, REAL(copy_file_range)(from, a, fd, b, size, flags), 0);
}

static size_t put(const void *data, size_t size, size_t number, FILE *file) {
    size_t result = REAL(fwrite)(data, size, number, file);
    return fflush(file) ? 0 : result;
}
size_t fwrite(const void *data, size_t size, size_t number, FILE *file) {  /* NumPy's */
    char path[SIZE];
    if (!of_descriptor(fileno(file), path)) return REAL(fwrite)(data, size, number, file);
    pthread_mutex_lock(&lock);
    int fault = gate("write", path, NEEDS_SPACE);
    size_t result = fault ? 0 : put(data, size, number, file);
    if (fault < 0) result = put(data, 1, size * number / 2, file) / size;
    int error = fault < 0 ? ENOSPC : errno;
    remember_write(fileno(file));
    if (fault == KILL) die();
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int fsync(int fd) {
    char path[SIZE];
    CALL("fsync", of_descriptor(fd, path), path, NEEDS_SPACE, int, -1, REAL(fsync)(fd),
         remember_sync(fd, path));
}
int fdatasync(int fd) {
    char path[SIZE];
    CALL("fsync", of_descriptor(fd, path), path, NEEDS_SPACE, int, -1, REAL(fdatasync)(fd),
         remember_sync(fd, path));
}
int ftruncate(int fd, off_t size) {
    char path[SIZE];
    CALL("truncate", of_descriptor(fd, path), path, 0, int, -1, REAL(ftruncate)(fd, size),
         remember_write(fd));
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }
int close(int fd) {
    char path[SIZE];
    int is_counted = is_for_writing(fd) && of_descriptor(fd, path), result = REAL(close)(fd);
    CALL("close", is_counted, path, NEEDS_SPACE, int, -1, result, );
}
int fclose(FILE *file) {
    char path[SIZE];
    int fd = fileno(file);
    int is_counted = is_for_writing(fd) && of_descriptor(fd, path), result = REAL(fclose)(file);
    CALL("close", is_counted, path, NEEDS_SPACE, int, -1, result, );
}

static int move(const char *from, const char *to) {
    if (lost == NAMES) remember_name(from, to);
    int result = REAL(rename)(from, to);
    if (result && lost == NAMES) name_count--;
    return result;
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    char old[SIZE], new[SIZE];
    if (!*folder || !absolute(from_dir, from, old) || !absolute(to_dir, to, new))
        return REAL(renameat)(from_dir, from, to_dir, to);
    CALL("rename", 1, new, NEEDS_SPACE | NEEDS_LEAVE, int, -1, move(old, new),
         remember_move(old, new));
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int dir, const char *path, int flags) {
    char name[SIZE];
    CALL(flags & AT_REMOVEDIR ? "rmdir" : "unlink", *folder && absolute(dir, path, name), name,
         NEEDS_LEAVE, int, -1, REAL(unlinkat)(dir, path, flags), );
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int dir, const char *path, mode_t mode) {
    char name[SIZE];
    int is_counted = *folder && absolute(dir, path, name);
    CALL("mkdir", is_counted, name, NEEDS_SPACE | NEEDS_LEAVE, int, -1,
         REAL(mkdirat)(dir, path, mode), if (lost == NAMES) remember_name(NULL, name));
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
