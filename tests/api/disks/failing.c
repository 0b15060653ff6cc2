/* Preloaded into the server: while the file named by IDOL_TEST_BROKEN_DISK is there, every sync
   of a file fails as it does on a broken disk. What was written before stays in the page cache. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int sync_with(const char *function, int file)
{
	const char *broken = getenv("IDOL_TEST_BROKEN_DISK");
	int (*real)(int);

	if (broken != NULL && access(broken, F_OK) == 0) {
		errno = EIO;
		return -1;
	}
	*(void **)&real = dlsym(RTLD_NEXT, function);
	return real(file);
}

int fsync(int file)
{
	return sync_with("fsync", file);
}

int fdatasync(int file)
{
	return sync_with("fdatasync", file);
}
