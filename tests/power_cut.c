/* Loaded into a process with LD_PRELOAD: keeps beside a directory what its disk would hold if the power failed now.
 *
 * The process works on the directory POWER_CUT_LIVE as ever. Into POWER_CUT_DISK go only writes that fsync or fdatasync has
 * answered for, and names that an fsync of the directory has. Whoever kills the process finds there what a power cut leaves.
 * A disk may keep more than it must: POWER_CUT_LEAK percent of the sectors written, and of the names, reach it at once, out of
 * order; POWER_CUT_SEED picks them. Shared memory of SQLite (-shm) is none of the disk's concern, and is left out.
 *
 * Files of POWER_CUT_DISK that have no name yet are called .unnamed-N; after the power cut nobody finds them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FDS_MAX = 65536, SECTOR_BYTES = 512, NAME_BYTES_MAX = 256 };
enum { DIRECTORY = -1 };            /* in `files_open`, in place of a file */

typedef struct change {
    struct change *next;
    off_t offset;
    size_t size;
    bool cuts;                      /* the file ends at `offset`; otherwise `bytes` go there */
    uint8_t bytes[];
} change_t;

typedef struct file {
    int disk;                       /* open in POWER_CUT_DISK */
    char name[NAME_BYTES_MAX];
    bool named;                     /* the process's directory has the name for this very file */
    change_t *first, **last;        /* since the last fsync, in order */
    struct file *next;
} file_t;

typedef struct renaming {           /* of the directory, since its last fsync, in order */
    struct renaming *next;
    char from[NAME_BYTES_MAX];      /* "" for none: `to` goes */
    char to[NAME_BYTES_MAX];
} renaming_t;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char live[PATH_MAX];
static int disk_directory = -1, leak_percent, unnamed_count;
static uint64_t random_state;
static file_t *files;
static intptr_t files_open[FDS_MAX];    /* what a descriptor is open on: NULL, a file_t, or DIRECTORY */
static renaming_t *renamings, **renamings_last = &renamings;

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);
static int (*real_ftruncate)(int, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static void fail(const char *what) {
    dprintf(2, "power_cut: %s: %s\n", what, strerror(errno));
    abort();
}

__attribute__((constructor)) static void begin(void) {
    const char *live_path = getenv("POWER_CUT_LIVE"), *disk_path = getenv("POWER_CUT_DISK");
    const char *leak = getenv("POWER_CUT_LEAK"), *seed = getenv("POWER_CUT_SEED");
    *(void **)&real_open = dlsym(RTLD_NEXT, "open64");
    *(void **)&real_close = dlsym(RTLD_NEXT, "close");
    *(void **)&real_unlink = dlsym(RTLD_NEXT, "unlink");
    *(void **)&real_rename = dlsym(RTLD_NEXT, "rename");
    *(void **)&real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    if (live_path == NULL || disk_path == NULL || realpath(live_path, live) == NULL)
        fail("POWER_CUT_LIVE and POWER_CUT_DISK name directories");
    disk_directory = real_open(disk_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (disk_directory < 0)
        fail(disk_path);
    leak_percent = leak == NULL ? 0 : atoi(leak);
    random_state = (seed == NULL ? 0 : strtoull(seed, NULL, 10)) * 2 + 1;
}

static bool leaks(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (int)(random_state % 100) < leak_percent;
}

static void to_disk(const file_t *file, const uint8_t *bytes, size_t size, off_t offset) {
    while (size > 0) {
        ssize_t written = real_pwrite(file->disk, bytes, size, offset);
        if (written <= 0)
            fail(file->name);
        bytes += written, size -= written, offset += written;
    }
}

/* ---- Names ---- */

static void rename_on_disk(void) {
    while (renamings != NULL) {
        renaming_t *done = renamings;
        if (done->from[0] ? renameat(disk_directory, done->from, disk_directory, done->to)
                          : unlinkat(disk_directory, done->to, 0) && errno != ENOENT)
            fail(done->to);
        renamings = done->next;
        free(done);
    }
    renamings_last = &renamings;
}

static void note_renaming(const char *from, const char *to) {
    renaming_t *renaming = calloc(1, sizeof *renaming);
    strcpy(renaming->from, from);
    strcpy(renaming->to, to);
    *renamings_last = renaming;
    renamings_last = &renaming->next;
    if (leaks())
        rename_on_disk();           /* all of them: a file system keeps names in order */
}

static file_t *file_named(const char *name) {
    file_t *file = files;
    while (file != NULL && !(file->named && strcmp(file->name, name) == 0))
        file = file->next;
    return file;
}

/* The file of that name, which the process has just opened. One that the disk has already, from before, has its name there. */
static file_t *file_opened(const char *name) {
    file_t *file = file_named(name);
    char unnamed[32];
    if (file != NULL)
        return file;
    file = calloc(1, sizeof *file);
    strcpy(file->name, name);
    file->named = true;
    file->last = &file->first;
    file->disk = openat(disk_directory, name, O_RDWR | O_CLOEXEC);
    for (renaming_t *it = renamings; it != NULL && file->disk >= 0; it = it->next)
        if (strcmp(it->to, name) == 0) {
            real_close(file->disk);     /* it is the old file of this name, and on its way out */
            file->disk = -1;
        }
    if (file->disk < 0) {
        sprintf(unnamed, ".unnamed-%d", unnamed_count++);
        file->disk = openat(disk_directory, unnamed, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (file->disk < 0)
            fail(unnamed);
        note_renaming(unnamed, name);
    }
    file->next = files;
    files = file;
    return file;
}

/* The name within POWER_CUT_LIVE, "" for the directory itself, NULL for anything else. */
static const char *name_within(const char *path) {
    size_t size = strlen(live);
    if (strncmp(path, live, size) != 0 || (path[size] != '/' && path[size] != 0))
        return NULL;
    path += size + (path[size] == '/');
    size = strlen(path);
    if (strchr(path, '/') != NULL || size >= NAME_BYTES_MAX || (size > 4 && strcmp(path + size - 4, "-shm") == 0))
        return NULL;
    return path;
}

/* ---- Bytes ---- */

static file_t *file_of(int fd) {
    if (fd < 0 || fd >= FDS_MAX || files_open[fd] == DIRECTORY)
        return NULL;
    return (file_t *)files_open[fd];
}

static void note_change(file_t *file, bool cuts, off_t offset, const void *bytes, size_t size) {
    change_t *change = malloc(sizeof *change + size);
    change->next = NULL;
    change->cuts = cuts;
    change->offset = offset;
    change->size = size;
    if (size > 0)
        memcpy(change->bytes, bytes, size);
    *file->last = change;
    file->last = &change->next;
    for (size_t at = 0; at < size; at += SECTOR_BYTES)
        if (leaks())
            to_disk(file, change->bytes + at, size - at < SECTOR_BYTES ? size - at : SECTOR_BYTES, offset + at);
}

static int sync_file(int fd, int (*real)(int)) {
    intptr_t what = fd >= 0 && fd < FDS_MAX ? files_open[fd] : 0;
    if (what == 0)
        return real(fd);
    pthread_mutex_lock(&mutex);
    if (what == DIRECTORY)
        rename_on_disk();
    else
        for (file_t *file = (file_t *)what; file->first != NULL;) {
            change_t *done = file->first;
            if (!done->cuts)
                to_disk(file, done->bytes, done->size, done->offset);
            else if (real_ftruncate(file->disk, done->offset))
                fail(file->name);
            file->first = done->next;
            if (file->first == NULL)
                file->last = &file->first;
            free(done);
        }
    pthread_mutex_unlock(&mutex);
    return 0;
}

/* ---- What the process calls ---- */

static int open_any(const char *path, int flags, mode_t mode) {
    char link[32], resolved[PATH_MAX];
    int fd = real_open(path, flags, mode);
    if (fd < 0 || fd >= FDS_MAX || disk_directory < 0)
        return fd;
    sprintf(link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, resolved, sizeof resolved - 1);
    if (size < 0)
        return fd;
    resolved[size] = 0;
    const char *name = name_within(resolved);
    if (name == NULL)
        return fd;
    pthread_mutex_lock(&mutex);
    file_t *file = *name ? file_opened(name) : NULL;
    files_open[fd] = file != NULL ? (intptr_t)file : DIRECTORY;
    if (file != NULL && flags & O_TRUNC)
        note_change(file, true, 0, NULL, 0);
    pthread_mutex_unlock(&mutex);
    return fd;
}

static mode_t mode_from(int flags, va_list list) {
    return flags & O_CREAT ? va_arg(list, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_from(flags, list);
    va_end(list);
    return open_any(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_from(flags, list);
    va_end(list);
    return open_any(path, flags, mode);
}

int close(int fd) {
    if (fd >= 0 && fd < FDS_MAX)
        files_open[fd] = 0;
    return real_close(fd);
}

int unlink(const char *path) {
    char resolved[PATH_MAX];
    const char *name = realpath(path, resolved) == NULL ? NULL : name_within(resolved);
    int status = real_unlink(path);
    if (status == 0 && name != NULL && *name) {
        pthread_mutex_lock(&mutex);
        file_t *file = file_named(name);
        if (file != NULL)
            file->named = false;
        note_renaming("", name);
        pthread_mutex_unlock(&mutex);
    }
    return status;
}

/* Within the directory; what comes from elsewhere or goes there is not kept. */
int rename(const char *from, const char *to) {
    char resolved_from[PATH_MAX], resolved_to[PATH_MAX];
    const char *name_from = realpath(from, resolved_from) == NULL ? NULL : name_within(resolved_from);
    int status = real_rename(from, to);
    const char *name_to = status || realpath(to, resolved_to) == NULL ? NULL : name_within(resolved_to);
    if (name_from != NULL && name_to != NULL) {
        pthread_mutex_lock(&mutex);
        file_t *file = file_named(name_from), *replaced = file_named(name_to);
        if (replaced != NULL)
            replaced->named = false;
        if (file != NULL)
            strcpy(file->name, name_to);
        note_renaming(name_from, name_to);
        pthread_mutex_unlock(&mutex);
    }
    return status;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    ssize_t written = real_pwrite(fd, bytes, size, offset);
    file_t *file = file_of(fd);
    if (written > 0 && file != NULL) {
        pthread_mutex_lock(&mutex);
        note_change(file, false, offset, bytes, written);
        pthread_mutex_unlock(&mutex);
    }
    return written;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t offset) {
    return pwrite(fd, bytes, size, offset);
}

ssize_t write(int fd, const void *bytes, size_t size) {
    ssize_t written = real_write(fd, bytes, size);
    file_t *file = file_of(fd);
    if (written > 0 && file != NULL) {
        pthread_mutex_lock(&mutex);
        note_change(file, false, lseek(fd, 0, SEEK_CUR) - written, bytes, written);
        pthread_mutex_unlock(&mutex);
    }
    return written;
}

int ftruncate(int fd, off_t size) {
    int status = real_ftruncate(fd, size);
    file_t *file = file_of(fd);
    if (status == 0 && file != NULL) {
        pthread_mutex_lock(&mutex);
        note_change(file, true, size, NULL, 0);
        pthread_mutex_unlock(&mutex);
    }
    return status;
}

int ftruncate64(int fd, off_t size) {
    return ftruncate(fd, size);
}

int fsync(int fd) {
    return sync_file(fd, real_fsync);
}

int fdatasync(int fd) {
    return sync_file(fd, real_fdatasync);
}
