/* The public C interface of mod_nssmtpd, continued: scanners for spam and viruses, what they are
 * given, what they say, and who asks them. mod_nssmtpd.h includes it; include that.
 */
#ifndef MOD_NSSMTPD_SCAN_H
#define MOD_NSSMTPD_SCAN_H

#include "mod_nssmtpd.h"

/* Scanners: ap_register_provider(p, NSSMTPD_SCANNER_GROUP, name, NSSMTPD_SCANNER_VERSION,
 * &scanner). A scanner looks at a whole message for viruses or for spam and gives a verdict;
 * what follows from it is SmtpdScanner's action=, onerror= and oversize=, not the scanner's. */

typedef struct nssmtpd_scanner_t nssmtpd_scanner_t;

/* A line of SmtpdScanner, made ready for one server. Lives as long as the configuration. */
typedef struct nssmtpd_scan_conf_t {
    const nssmtpd_scanner_t *scanner;
    const char *name;             /* the provider's */
    const char *address;          /* as configured; NULL: not given */
    apr_interval_time_t timeout;  /* timeout= */
    apr_off_t max_size;           /* maxsize=; 0: none */
    double reject, tag;           /* scores; NAN: the scanner's own verdict counts */
    const char *user;             /* user=, with %u %d %r; NULL: not given */
    const apr_array_header_t *params; /* other key=value words, of const char * */
    void *baton;                  /* the scanner's own */
} nssmtpd_scan_conf_t;

/* What is known of the message in hand, for all its scans. */
typedef struct nssmtpd_scan_job_t {
    apr_pool_t *p;
    server_rec *s;
    request_rec *r;                  /* for the log */
    smtp_span_t message;             /* canonical lines, in memory or mapped */
    int is_file;                     /* message is a file of any kind and no mail */
    const char *id, *from, *helo, *client, *user; /* "" where there is none */
    const apr_array_header_t *rcpts; /* of nssmtpd_rcpt_t */
} nssmtpd_scan_job_t;

typedef enum nssmtpd_verdict_e {
    NSSMTPD_VERDICT_NONE,     /* not yet */
    NSSMTPD_VERDICT_CLEAN,
    NSSMTPD_VERDICT_BAD,      /* a virus, spam */
    NSSMTPD_VERDICT_TAG,      /* spam that the scanner wants marked only */
    NSSMTPD_VERDICT_DEFER,    /* the scanner wants it to come again later */
    NSSMTPD_VERDICT_TOO_LARGE, /* for the scanner itself */
    NSSMTPD_VERDICT_ERROR     /* it could not say; why is set */
} nssmtpd_verdict_e;

/* One message at one scanner. */
typedef struct nssmtpd_scan_t {
    const nssmtpd_scan_job_t *job;
    const nssmtpd_scan_conf_t *conf;
    apr_pool_t *p;               /* its own; lives as long as the job's */
    int fd;                      /* what it waits for; -1: nothing */
    short events;                /* POLLIN, POLLOUT */
    apr_time_t deadline;
    volatile apr_uint32_t is_unwanted; /* nobody waits for the verdict any more */
    void *state;                 /* the scanner's own */
    /* The result */
    nssmtpd_verdict_e verdict;
    const char *found;           /* the virus, the rules; NULL: none */
    const char *why;             /* of an error, a deferral or a refusal; NULL: not said */
    double score, threshold;     /* of spam scanners */
    const char *signature;       /* to train with later; NULL: none */
    apr_array_header_t *add;     /* header fields that it wants, of nssmtpd_field_t; or NULL */
    apr_array_header_t *remove;  /* and names that it does not want, of const char *; or NULL */
    const char *subject;         /* another Subject; NULL: as it is */
} nssmtpd_scan_t;

struct nssmtpd_scanner_t {
    int is_spam;                 /* 0: it looks for viruses */
    /* Once per line and server, while httpd starts: sets conf->baton. Returns what is wrong,
     * to stand behind "SmtpdScanner name: ", or NULL. Refuses an address that it has no use
     * for, and what it does not know of params. */
    const char *(*configure)(nssmtpd_scan_conf_t *conf, server_rec *s, apr_pool_t *pconf,
                             apr_pool_t *ptemp);
    /* Either both of these, called by the loop that serves all scans of a message: start
     * begins to connect, step goes on when fd is ready; fd and events say for what. Neither
     * ever blocks. Both end by setting verdict; ERROR from a socket lets the next line of the
     * same name be tried, where there is one: start is called again, with that conf. */
    void (*start)(nssmtpd_scan_t *scan);
    void (*step)(nssmtpd_scan_t *scan);
    /* or this, which may take its time: it has a thread of its own while other scans go on, so
     * it leaves the job's pool and request alone. Nobody can end it but itself: it looks at
     * deadline and is_unwanted as often as it can. */
    void (*run)(nssmtpd_scan_t *scan);
    /* Closes what is open; also called when nobody wants the verdict any more. */
    void (*end)(nssmtpd_scan_t *scan);
    /* Product, version and date of its data in one line; NULL: it does not answer, *why. */
    const char *(*version)(const nssmtpd_scan_conf_t *conf, apr_pool_t *p, const char **why);
    /* Learns a message as spam or as none. NULL: done; else why not. May be NULL itself. */
    const char *(*train)(const nssmtpd_scan_conf_t *conf, const nssmtpd_scan_job_t *job,
                         int is_spam);
};

#define NSSMTPD_SCANNER_GROUP "nssmtpd-scanner"
#define NSSMTPD_SCANNER_VERSION "0"

/* What all scanners of a host say of a message. */
typedef struct nssmtpd_scanned_t {
    const smtp_reply_t *reply; /* to refuse it with; NULL: it may go on */
    int is_discarded;          /* to be answered 250 and sent nowhere */
    int is_spam;
    const char *virus;         /* NULL: none */
    int has_score;             /* a spam scanner has said one */
    double score;              /* the highest */
    const char *signature;     /* NULL: none */
    apr_array_header_t *add;   /* of nssmtpd_field_t, to be added to the header */
    apr_array_header_t *remove; /* of const char *: fields to be removed before, forged ones too */
    const char *subject;       /* another Subject; NULL: as it is */
    const char *failed;        /* what went wrong and was let pass, for the log; NULL: nothing */
} nssmtpd_scanned_t;

/* Asks the host's scanners of the wanted kinds, NSSMTPD_FLAG_VIRUSCHECK and SPAMCHECK, all at
 * once. must_refuse has the kinds of which a rejecting verdict refuses the message; of others
 * it is marked instead. May block for as long as SmtpdTimeout scan=. */
void nssmtpd_scan(const nssmtpd_scan_job_t *job, apr_uint32_t wanted, apr_uint32_t must_refuse,
                  nssmtpd_scanned_t *result);

/* The kinds for which the host has a scanner. */
apr_uint32_t nssmtpd_scan_kinds(const server_rec *s);

/* Versions of the host's scanners of a kind, one a line; NULL: there is none, or *why. */
const char *nssmtpd_scan_version(server_rec *s, apr_uint32_t kind, apr_pool_t *p,
                                 const char **why);

/* Trains all spam scanners of the host that can be. NULL: done; else why not. */
const char *nssmtpd_scan_train(const nssmtpd_scan_job_t *job, int is_spam);

/* The lines of SmtpdScanner of one server: the directive's words go in, filters/ knows what
 * they mean. What returns text returns what is wrong, or NULL. */
typedef struct nssmtpd_scanners_t nssmtpd_scanners_t;

/* Adds a line; *scanners is made with the first one. */
const char *nssmtpd_scanners_add(apr_pool_t *p, nssmtpd_scanners_t **scanners, int argc,
                                 char *const argv[]);

/* Makes the lines ready for a server that may have inherited them, once all modules are there. */
const char *nssmtpd_scanners_configure(nssmtpd_scanners_t **scanners, server_rec *s,
                                       apr_pool_t *pconf, apr_pool_t *ptemp);

/* Those of a server; NULL: none. */
nssmtpd_scanners_t *nssmtpd_scanners(const server_rec *s);

/* SmtpdMaxMessageSize; 0: none. */
apr_int64_t nssmtpd_max_message_size(const server_rec *s);

#endif
