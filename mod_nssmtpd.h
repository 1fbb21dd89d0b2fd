/* The public C interface of mod_nssmtpd: what delivery providers, filters, scripts and
 * foreign modules may know of the SMTP server. Only smtp/ types and httpd's appear here;
 * how the server works inside is server/'s own.
 */
#ifndef MOD_NSSMTPD_H
#define MOD_NSSMTPD_H

#include <httpd.h>

#include "smtp/reply.h"

#define NSSMTPD_VERSION "0.1.0"

/* Deadlines of SmtpdTimeout, as nssmtpd_timeout() takes them. */
typedef enum nssmtpd_timeout_e {
    NSSMTPD_TIMEOUT_COMMAND,
    NSSMTPD_TIMEOUT_DATA,
    NSSMTPD_TIMEOUT_CONNECT,
    NSSMTPD_TIMEOUT_RELAY,
    NSSMTPD_TIMEOUT_DOT,
    NSSMTPD_TIMEOUT_COUNT
} nssmtpd_timeout_e;

typedef struct nssmtpd_delivery_t nssmtpd_delivery_t;

/* Where mail goes: a delivery URL of the configuration, made ready for one server. Lives
 * as long as the configuration. */
typedef struct nssmtpd_route_t {
    const char *url;                    /* as configured, without a password */
    const char *const *params;          /* key=value words behind it, NULL terminated */
    const nssmtpd_delivery_t *delivery; /* provider of its scheme */
    int is_default;                     /* SmtpdRelay's, not one of SmtpdRelayDomains */
    void *baton;                        /* the provider's own */
} nssmtpd_route_t;

typedef struct nssmtpd_rcpt_t {
    const char *address; /* local@domain as the client sent it */
    const char *local;   /* without quotes */
    const char *domain;  /* lower case; "" for a bare postmaster */
} nssmtpd_rcpt_t;

/* One mail from MAIL to the end of its data. Everything in it lives in r->pool and ends
 * with it. Only the thread that works for the session touches it. */
typedef struct nssmtpd_transaction_t {
    request_rec *r;                /* for logs, filters and authorization; never HTTP */
    const char *id;                /* SMTP_ID: unique on this host */
    const char *from;              /* without brackets; "" is the null path */
    apr_array_header_t *rcpts;     /* of nssmtpd_rcpt_t: the accepted ones */
    const nssmtpd_route_t *route;  /* of all of them; NULL before the first */
    void *delivery;                /* the provider's state for this mail */
    apr_int64_t declared_size;     /* SIZE=, -1: not said */
    unsigned body_8bitmime : 1;    /* BODY=8BITMIME was said */
    unsigned offered : 1;          /* the provider has seen a recipient: end() is owed */
    /* Set before deliver() */
    apr_bucket_brigade *body;      /* the message as it is to be delivered; canonical lines */
    apr_off_t body_length;
    unsigned body_is_8bit : 1;     /* octets above 127 are in it */
    unsigned body_has_dots : 1;    /* a line may begin with a dot: stuff it for the wire */
    apr_time_t ended;              /* when the client's final dot was read */
} nssmtpd_transaction_t;

/* A delivery provider: ap_register_provider(p, NSSMTPD_DELIVERY_GROUP, scheme,
 * NSSMTPD_DELIVERY_VERSION, &delivery). All functions of a mail are called in one thread
 * at a time, but in changing threads. A reply of NULL is the usual positive one. */
struct nssmtpd_delivery_t {
    /* Once per URL and server, while httpd starts. Sets route->baton. Returns what is
     * wrong, to stand behind the directive's name, or NULL. */
    const char *(*configure)(nssmtpd_route_t *route, server_rec *s, apr_pool_t *pconf,
                             apr_pool_t *ptemp);
    /* A recipient the server would take; it is not in t->rcpts yet. */
    const smtp_reply_t *(*rcpt)(nssmtpd_transaction_t *t, const nssmtpd_rcpt_t *rcpt);
    /* The message for all of t->rcpts. A positive reply means that it is delivered:
     * nothing may be lost after it. */
    const smtp_reply_t *(*deliver)(nssmtpd_transaction_t *t);
    /* The session is about to wait for its client. */
    void (*idle)(nssmtpd_transaction_t *t);
    /* The mail is over, delivered or not. Called once if rcpt() ever was. */
    void (*end)(nssmtpd_transaction_t *t);
    /* rcpt() and deliver() may wait for somebody. */
    int blocks;
};

#define NSSMTPD_DELIVERY_GROUP "nssmtpd-delivery"
#define NSSMTPD_DELIVERY_VERSION "0"

/* The host's own name in SMTP, for EHLO and Received. */
const char *nssmtpd_hostname(const server_rec *s);

/* SmtpdRelayTLS: how much TLS a relay must have. */
typedef enum nssmtpd_relay_tls_e {
    NSSMTPD_RELAY_TLS_UNSET = -1, /* not said: may, or verify where there are credentials */
    NSSMTPD_RELAY_TLS_NONE,
    NSSMTPD_RELAY_TLS_MAY,
    NSSMTPD_RELAY_TLS_ENCRYPT,
    NSSMTPD_RELAY_TLS_VERIFY
} nssmtpd_relay_tls_e;

nssmtpd_relay_tls_e nssmtpd_relay_tls(const server_rec *s);

/* SmtpdRelayCredentials: where they are to be found, not what they are; NULL: not said. */
const char *nssmtpd_relay_credentials(const server_rec *s);

/* The arguments of the last directive of that name for the server, in its virtual host or
 * else outside of any; NULL: there is none. For directives of other modules, whose settings
 * are their own. While httpd starts. */
const char *nssmtpd_find_directive(const server_rec *s, const char *directive);

/* All directives for the server whose names begin with prefix, of ap_directive_t *: those
 * outside of any virtual host first. */
apr_array_header_t *nssmtpd_find_directives(apr_pool_t *p, const server_rec *s,
                                            const char *prefix);

/* A deadline of the server, as an interval. */
apr_interval_time_t nssmtpd_timeout(const server_rec *s, nssmtpd_timeout_e which);

/* 1 if t's client has left, so that nobody would hear of a delivery: a reset, or a close
 * without QUIT behind the data. Reads what the client sent meanwhile, does not wait. */
int nssmtpd_client_is_gone(nssmtpd_transaction_t *t);

/* Sets a variable of the mail for LogFormat %{NAME}e, expressions and scripts. The value
 * is copied. */
void nssmtpd_set_variable(nssmtpd_transaction_t *t, const char *name, const char *value);

#endif
