/* Preloaded into a peer that leaves Nagle's algorithm on: every TCP socket that it makes or accepts
 * gets TCP_NODELAY. A proxy that writes a reply in several pieces otherwise waits for the delayed
 * acknowledgement of the other side, 40 ms a time. Compiled and used by tests/bench/compare alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static int no_delay(int fd)
{
    int one = 1;

    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    return fd;
}

int socket(int domain, int type, int protocol)
{
    int (*next)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");

    return no_delay(next(domain, type, protocol));
}

int accept(int fd, struct sockaddr *address, socklen_t *length)
{
    int (*next)(int, struct sockaddr *, socklen_t *)
        = (int (*)(int, struct sockaddr *, socklen_t *))dlsym(RTLD_NEXT, "accept");

    return no_delay(next(fd, address, length));
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    int (*next)(int, struct sockaddr *, socklen_t *, int)
        = (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");

    return no_delay(next(fd, address, length, flags));
}
