/* Scanner "clamd": ClamAV's daemon by its INSTREAM command, over TCP or a unix socket. The
 * message is sent from where it is, a second copy is clamd's own. Protocol: clamd(8).
 * Called by scan.c.
 */
#include <apr_strings.h>
#include <arpa/inet.h>
#include <string.h>

#include "filters/peer.h"
#include "filters/builtin.h"

#define PORT 3310

/* Without a field that it knows at the very beginning, libclamav takes a mail for a text and
 * looks into no attachment; with one it takes a file for a mail and does not know it. */
static const char first_field[] = "Received: by mod_nssmtpd\r\n";

typedef struct stream_t {
    nssmtpd_peer_t peer;
    apr_uint32_t first_length, length, end; /* in network order */
} stream_t;

static const char *configure(nssmtpd_scan_conf_t *conf, server_rec *s, apr_pool_t *pconf,
                             apr_pool_t *ptemp)
{
    const nssmtpd_peer_address_t *address;
    const char *wrong;

    (void)s;
    if (!conf->address) {
        return "needs the address of clamd, such as 127.0.0.1:3310 or unix:/run/clamav/clamd.ctl";
    }
    if (conf->params->nelts) {
        return apr_psprintf(ptemp, "%s is none of its key=value words",
                            APR_ARRAY_IDX(conf->params, 0, const char *));
    }
    wrong = nssmtpd_peer_parse(pconf, conf->address, PORT, &address);
    conf->baton = (void *)address;
    return wrong;
}

static void start(nssmtpd_scan_t *scan)
{
    static const char command[] = "zINSTREAM";
    stream_t *stream = apr_pcalloc(scan->p, sizeof(*stream));
    smtp_span_t message = scan->job->message;
    apr_size_t before = scan->job->is_file ? 0 : sizeof(first_field) - 1;
    struct iovec question[] = {
        { (void *)command, sizeof(command) }, /* with its NUL */
        { &stream->first_length, before ? sizeof(stream->first_length) : 0 },
        { (void *)first_field, before },
        { &stream->length, sizeof(stream->length) },
        { (void *)message.p, message.n },
        { &stream->end, sizeof(stream->end) }
    };

    scan->state = stream;
    stream->first_length = htonl((apr_uint32_t)before);
    stream->length = htonl((apr_uint32_t)message.n);
    if (message.n > APR_UINT32_MAX) {
        scan->verdict = NSSMTPD_VERDICT_TOO_LARGE;
        scan->why = "more than clamd's protocol can say";
        return;
    }
    nssmtpd_peer_start(&stream->peer, scan, scan->conf->baton, question,
                       sizeof(question) / sizeof(*question));
}

/* "stream: NAME FOUND" */
static void found(nssmtpd_scan_t *scan, const char *name, apr_size_t n)
{
    static const char limits[] = "Heuristics.Limits.Exceeded";

    scan->found = apr_pstrmemdup(scan->p, name, n);
    if (strncmp(scan->found, limits, sizeof(limits) - 1) == 0) { /* clamd.conf AlertExceedsMax */
        scan->verdict = NSSMTPD_VERDICT_TOO_LARGE;
        scan->why = scan->found;
        scan->found = NULL;
        return;
    }
    scan->verdict = NSSMTPD_VERDICT_BAD;
}

static int ends_with(smtp_span_t text, const char *end)
{
    apr_size_t n = strlen(end);

    return text.n >= n && memcmp(text.p + text.n - n, end, n) == 0;
}

static void judge(nssmtpd_scan_t *scan, const nssmtpd_peer_t *peer)
{
    static const char stream[] = "stream: ";
    apr_size_t skip = sizeof(stream) - 1;
    smtp_span_t text = { peer->answer, strlen(peer->answer) };

    if (strncmp(text.p, stream, skip) == 0 && ends_with(text, " FOUND")
        && text.n > skip + strlen(" FOUND")) { /* a name is between them */
        found(scan, text.p + skip, text.n - skip - strlen(" FOUND"));
    }
    else if (strcmp(text.p, "stream: OK") == 0) {
        scan->verdict = NSSMTPD_VERDICT_CLEAN;
    }
    else if (strncmp(text.p, "INSTREAM size limit exceeded", 28) == 0) {
        scan->verdict = NSSMTPD_VERDICT_TOO_LARGE;
        scan->why = "larger than clamd's StreamMaxLength";
    }
    else {
        nssmtpd_peer_fail(scan, peer->address,
                          text.n ? apr_psprintf(scan->p, "answered \"%.200s\"", text.p)
                                 : "closed the connection without an answer");
    }
    nssmtpd_peer_conclude(peer, scan);
}

/* An answer ends with a NUL; without one the connection was cut. */
static void step(nssmtpd_scan_t *scan)
{
    stream_t *stream = scan->state;
    nssmtpd_peer_t *peer = &stream->peer;

    if (!nssmtpd_peer_step(peer, scan)) {
        return;
    }
    if (memchr(peer->answer, '\0', peer->length)) {
        judge(scan, peer);
    }
    else if (peer->is_over) {
        nssmtpd_peer_fail(scan, peer->address, "closed the connection without an answer");
    }
}

static void end(nssmtpd_scan_t *scan)
{
    nssmtpd_peer_end(scan);
}

/* Whether it is there and who it is, over one connection. */
static const char *version(const nssmtpd_scan_conf_t *conf, apr_pool_t *p, const char **why)
{
    static const char command[] = "zIDSESSION\0zPING\0zVERSION\0zEND";
    static const char pong[] = "1: PONG", second[] = "2: ";
    const struct iovec question = { (void *)command, sizeof(command) };
    smtp_span_t answer;

    *why = nssmtpd_peer_ask(p, conf->baton, &question, 1, conf->timeout, &answer);
    if (*why) {
        return NULL;
    }
    if (answer.n > sizeof(pong) + sizeof(second) && memcmp(answer.p, pong, sizeof(pong)) == 0
        && memcmp(answer.p + sizeof(pong), second, sizeof(second) - 1) == 0) {
        return apr_pstrdup(p, answer.p + sizeof(pong) + sizeof(second) - 1);
    }
    *why = apr_pstrcat(p, conf->address, ": this is not clamd", NULL);
    return NULL;
}

const nssmtpd_scanner_t nssmtpd_clamd_scanner = {
    .configure = configure, .start = start, .step = step, .end = end, .version = version
};
