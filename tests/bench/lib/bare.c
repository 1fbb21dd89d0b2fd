/* A proxy with the round trips of ours and nothing else: no syntax, no policy, no spool, no log, and
 * a thread for each client. What it costs is what these trips cost on the machine, so that figures
 * of a server that has them can be judged. It believes whatever it is told and knows messages
 * up to 64 KiB only. Compiled and used by tests/bench/compare alone.
 *
 *   bare PORT RELAY_PORT                on 127.0.0.1, until it is killed
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEPT 1024

typedef struct client_t {
    int fd, relay; /* -1: none */
    char mail[1024], in[64 * 1024];
    size_t n; /* octets of in */
} client_t;

static struct sockaddr_in relay_address;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int kept[KEPT], n_kept;

static struct sockaddr_in loopback(const char *port)
{
    struct sockaddr_in a = { 0 };

    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((unsigned short)atoi(port));
    return a;
}

static int tcp(void)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    return fd;
}

static int say(int fd, const char *text, size_t n)
{
    return send(fd, text, n, MSG_NOSIGNAL) == (ssize_t)n;
}

#define SAY(fd, text) say(fd, text, sizeof(text) - 1)

/* Reads that many replies of one line. */
static int hear(int fd, int lines)
{
    char text[4096];

    while (lines > 0) {
        ssize_t i, n = recv(fd, text, sizeof(text), 0);

        if (n <= 0) {
            return 0;
        }
        for (i = 0; i < n; i++) {
            lines -= text[i] == '\n';
        }
    }
    return 1;
}

/* A connection that somebody has given back, or a new one. */
static int take_relay(void)
{
    int fd = -1;

    pthread_mutex_lock(&mutex);
    if (n_kept) {
        fd = kept[--n_kept];
    }
    pthread_mutex_unlock(&mutex);
    if (fd >= 0) {
        return fd;
    }
    fd = tcp();
    if (connect(fd, (struct sockaddr *)&relay_address, sizeof(relay_address)) != 0
        || !hear(fd, 1) || !SAY(fd, "HELO bare.test\r\n") || !hear(fd, 1)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void give_relay(int fd)
{
    pthread_mutex_lock(&mutex);
    if (fd >= 0 && n_kept < KEPT) {
        kept[n_kept++] = fd;
        fd = -1;
    }
    pthread_mutex_unlock(&mutex);
    if (fd >= 0) {
        close(fd);
    }
}

/* The client's next octets, to the end of a line or of a message. */
static int next(client_t *c, const char *end)
{
    size_t length = strlen(end);

    c->n = 0;
    do {
        ssize_t n = recv(c->fd, c->in + c->n, sizeof(c->in) - c->n, 0);

        if (n <= 0) {
            return 0;
        }
        c->n += n;
    } while (c->n < length || memcmp(c->in + c->n - length, end, length) != 0);
    return 1;
}

static int on_mail(client_t *c)
{
    snprintf(c->mail, sizeof(c->mail), "%.*s", (int)c->n, c->in);
    return SAY(c->fd, "250 Ok\r\n");
}

static int on_rcpt(client_t *c)
{
    char both[2048];
    int n = snprintf(both, sizeof(both), "%s%.*s", c->mail, (int)c->n, c->in);

    c->relay = c->relay >= 0 ? c->relay : take_relay();
    return say(c->relay, both, n) && hear(c->relay, 2) && SAY(c->fd, "250 Ok\r\n");
}

static int on_data(client_t *c)
{
    return SAY(c->relay, "DATA\r\n") && SAY(c->fd, "354 Go on\r\n") && next(c, "\r\n.\r\n")
           && hear(c->relay, 1) && say(c->relay, c->in, c->n) && hear(c->relay, 1)
           && SAY(c->fd, "250 Ok\r\n");
}

static int answer(client_t *c)
{
    switch (c->in[0]) {
    case 'M':
        return on_mail(c);
    case 'R':
        return on_rcpt(c);
    case 'D':
        return on_data(c);
    case 'Q':
        SAY(c->fd, "221 Bye\r\n");
        return 0;
    default:
        return SAY(c->fd, "250 bare.test\r\n");
    }
}

static void *serve(void *client)
{
    client_t *c = client;
    int goes_on = SAY(c->fd, "220 bare.test ESMTP\r\n");

    while (goes_on && next(c, "\r\n")) {
        goes_on = answer(c);
    }
    give_relay(c->relay);
    close(c->fd);
    free(c);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_in own;
    int one = 1, listener = tcp();
    pthread_attr_t detached;

    if (argc != 3) {
        fprintf(stderr, "bare PORT RELAY_PORT\n");
        return 2;
    }
    own = loopback(argv[1]);
    relay_address = loopback(argv[2]);
    if (bind(listener, (struct sockaddr *)&own, sizeof(own)) != 0 || listen(listener, 511) != 0) {
        perror("bare");
        return 1;
    }
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    for (;;) {
        client_t *c = malloc(sizeof(*c));
        pthread_t thread;

        c->relay = -1;
        c->fd = accept(listener, NULL, NULL);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (c->fd < 0 || pthread_create(&thread, &detached, serve, c) != 0) {
            perror("bare");
            return 1;
        }
    }
}
