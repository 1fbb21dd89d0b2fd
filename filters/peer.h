/* A scanner's daemon behind a TCP or unix socket: one question of any length, one answer until
 * the daemon closes. Never blocks but in nssmtpd_peer_ask(); deadlines are the caller's. For the
 * scanners of this folder; what the octets mean is theirs.
 */
#ifndef NSSMTPD_FILTERS_PEER_H
#define NSSMTPD_FILTERS_PEER_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "mod_nssmtpd.h"

enum {
    NSSMTPD_PEER_VECTORS = 8,             /* pieces of a question */
    NSSMTPD_PEER_ANSWER_MAX = 1024 * 1024 /* octets of an answer; beyond it is an error */
};

typedef struct nssmtpd_peer_address_t {
    const char *text;                  /* as configured */
    const char *host;                  /* for HTTP's Host; "localhost" for a unix socket */
    const apr_array_header_t *sockets; /* what it stands for, to be tried in order */
} nssmtpd_peer_address_t;

typedef struct nssmtpd_peer_t {
    const nssmtpd_peer_address_t *address;
    int next;                              /* of address->sockets, to be tried */
    struct iovec question[NSSMTPD_PEER_VECTORS];
    int first, count;                      /* of them, those that are not sent yet */
    char *answer;                          /* so far; a NUL stands behind it */
    apr_size_t length, room;
    unsigned is_connected : 1;
    unsigned is_asked : 1;                 /* all of the question was sent */
    unsigned is_over : 1;                  /* the daemon has closed: the answer is all of it */
} nssmtpd_peer_t;

/* Understands "host:port", "host" (with the default port), "[ipv6]:port", "unix:/path" and
 * "/path". Names are looked up, now. Returns what is wrong, or NULL. While httpd starts. */
const char *nssmtpd_peer_parse(apr_pool_t *p, const char *text, apr_port_t port,
                               const nssmtpd_peer_address_t **address);

/* Begins to connect and to ask; what the vectors point to must live as long as the scan. Sets
 * the scan's fd and events, or its verdict to ERROR with why. */
void nssmtpd_peer_start(nssmtpd_peer_t *peer, nssmtpd_scan_t *scan,
                        const nssmtpd_peer_address_t *address, const struct iovec *question,
                        int count);

/* Goes on when the scan's fd is ready. 1: the answer has grown or is over; 0: wait, or the
 * verdict is ERROR now. An answer may come, and the daemon may close, before all of the
 * question is sent: that is no error here. Call it no more once is_over is 1. */
int nssmtpd_peer_step(nssmtpd_peer_t *peer, nssmtpd_scan_t *scan);

/* Closes the scan's fd, if it is open. */
void nssmtpd_peer_end(nssmtpd_scan_t *scan);

/* Ends a scan with ERROR: why is the address, a colon and the text. */
void nssmtpd_peer_fail(nssmtpd_scan_t *scan, const nssmtpd_peer_address_t *address,
                       const char *text);

/* The answer gave the verdict. One that lets the message go on is ERROR if the daemon was not
 * even sent all of it. */
void nssmtpd_peer_conclude(const nssmtpd_peer_t *peer, nssmtpd_scan_t *scan);

/* Asks and waits for the whole answer. NULL, or why there is none. */
const char *nssmtpd_peer_ask(apr_pool_t *p, const nssmtpd_peer_address_t *address,
                             const struct iovec *question, int count,
                             apr_interval_time_t timeout, smtp_span_t *answer);

#endif
