/* The public C interface of mod_nssmtpd: what delivery providers, filters, scripts and
 * foreign modules may know of the SMTP server. Only smtp/ types and httpd's appear here;
 * how the server works inside is server/'s own.
 */
#ifndef MOD_NSSMTPD_H
#define MOD_NSSMTPD_H

#include <httpd.h>

#include "mod_nssmtpd_send.h"
#include "smtp/address.h"
#include "smtp/chars.h"
#include "smtp/reply.h"

#define NSSMTPD_VERSION "0.1.0"

/* Deadlines of SmtpdTimeout, as nssmtpd_timeout() takes them. */
typedef enum nssmtpd_timeout_e {
    NSSMTPD_TIMEOUT_COMMAND,
    NSSMTPD_TIMEOUT_DATA,
    NSSMTPD_TIMEOUT_CONNECT,
    NSSMTPD_TIMEOUT_RELAY,
    NSSMTPD_TIMEOUT_DOT,
    NSSMTPD_TIMEOUT_SCAN,
    NSSMTPD_TIMEOUT_SCRIPT,
    NSSMTPD_TIMEOUT_COUNT
} nssmtpd_timeout_e;

/* The phases: what may be run for /smtp/<name>. */
typedef enum nssmtpd_phase_e {
    NSSMTPD_PHASE_INIT,
    NSSMTPD_PHASE_CONNECT,
    NSSMTPD_PHASE_HELO,
    NSSMTPD_PHASE_AUTH,
    NSSMTPD_PHASE_MAIL,
    NSSMTPD_PHASE_RCPT,
    NSSMTPD_PHASE_DATA,
    NSSMTPD_PHASE_ERROR,
    NSSMTPD_PHASE_COUNT
} nssmtpd_phase_e;

/* The flags of a session's word and of a recipient's; their names are in server/flags.c. */
enum {
    NSSMTPD_FLAG_VERIFIED = 0x1,      /* recipient: it is accepted */
    NSSMTPD_FLAG_LOCAL = 0x2,         /* session: trusted with any recipient */
    NSSMTPD_FLAG_RELAY = 0x4,         /* recipient: its domain is listed */
    NSSMTPD_FLAG_DELIVERED = 0x8,     /* recipient: kept from the relay, or taken by it */
    NSSMTPD_FLAG_ABORT = 0x10,        /* session: close it behind the reply */
    NSSMTPD_FLAG_VIRUSCHECK = 0x20,   /* session, recipient: scan */
    NSSMTPD_FLAG_SPAMCHECK = 0x40,    /* session, recipient: scan */
    NSSMTPD_FLAG_NEEDDOMAIN = 0x100,  /* session: the sender's domain must take mail */
    NSSMTPD_FLAG_SEGV = 0x1000,       /* means nothing here */
    NSSMTPD_FLAG_FASTPROXY = 0x4000,  /* session: no filters, no scan, no body for scripts */
    NSSMTPD_FLAG_RESOLVE = 0x8000,    /* session: the client's address must have a name */
    NSSMTPD_FLAG_NEEDHELO = 0x10000,  /* session: EHLO before MAIL */
    NSSMTPD_FLAG_GOTHELO = 0x20000,   /* session: EHLO was said */
    NSSMTPD_FLAG_GOTMAIL = 0x40000,   /* session: a mail is in hand */
    NSSMTPD_FLAG_GOTSPAM = 0x80000,   /* session, recipient: the mail is spam */
    NSSMTPD_FLAG_GOTVIRUS = 0x100000  /* session, recipient: the mail has a virus */
};

/* The kinds of scanners, in both words. */
#define NSSMTPD_FLAGS_SCAN (NSSMTPD_FLAG_VIRUSCHECK | NSSMTPD_FLAG_SPAMCHECK)

/* The flag of that name, in any case; 0: there is none. */
apr_uint32_t nssmtpd_flag(const char *name);

typedef struct nssmtpd_delivery_t nssmtpd_delivery_t;

/* Where mail goes: a delivery URL, made ready for one server. Lives as long as the
 * configuration, or, made at run time, as long as the child. */
typedef struct nssmtpd_route_t {
    const char *url;                    /* as configured, without a password */
    const char *const *params;          /* key=value words behind it, NULL terminated */
    const nssmtpd_delivery_t *delivery; /* provider of its scheme */
    int is_default;                     /* SmtpdRelay's, not one of SmtpdRelayDomains */
    int at_run_time;                    /* made in a child: no directive names it */
    void *baton;                        /* the provider's own; with the same URL and baton, if it
                                         * has one, two routes lead to the same place */
} nssmtpd_route_t;

typedef struct nssmtpd_rcpt_t {
    const char *address; /* local@domain as the client sent it */
    const char *local;   /* without quotes */
    const char *domain;  /* lower case; "" for a bare postmaster */
    apr_uint32_t flags;  /* its word of NSSMTPD_FLAG_.. */
    double score;        /* the spam scanners' */
    smtp_span_t data;    /* a script's own; p is NULL: none */
    unsigned is_new : 1; /* the one that a rcpt phase is about: not yet offered to anybody */
    unsigned is_told : 1; /* the delivery has taken it */
} nssmtpd_rcpt_t;

/* 1 if the delivery is to have the recipient. */
#define nssmtpd_rcpt_is_due(rcpt) (!(rcpt)->is_new && !((rcpt)->flags & NSSMTPD_FLAG_DELIVERED))

/* One mail from MAIL to the end of its data. Everything in it lives in r->pool and ends
 * with it. Only the thread that works for the session touches it. */
typedef struct nssmtpd_transaction_t {
    request_rec *r;                /* for logs, filters and authorization; never HTTP */
    const char *id;                /* SMTP_ID: unique on this host */
    const char *from;              /* without brackets; "" is the null path */
    apr_array_header_t *rcpts;     /* of nssmtpd_rcpt_t: the accepted ones */
    const nssmtpd_route_t *route;  /* of all of them; NULL before the first */
    void *delivery;                /* the provider's state for this mail */
    const char *step;              /* the provider's: what was said last, for who asks how far
                                    * it came; NULL: nothing */
    smtp_span_t from_data;         /* a script's own; p is NULL: none */
    apr_int64_t declared_size;     /* SIZE=, -1: not said */
    unsigned has_client : 1;       /* it is a session's mail, not one that we send */
    unsigned body_8bitmime : 1;    /* BODY=8BITMIME was said */
    unsigned is_slow : 1;          /* the client has taken long to send the message, so far */
    unsigned offered : 1;          /* the provider knows of the mail: end() is owed */
    /* Set before deliver() */
    apr_bucket_brigade *body;      /* the message as it is to be delivered; canonical lines */
    apr_off_t body_length;
    unsigned body_is_8bit : 1;     /* octets above 127 are in it */
    unsigned body_has_dots : 1;    /* a line may begin with a dot: stuff it for the wire */
    apr_time_t ended;              /* when the client's final dot was read */
} nssmtpd_transaction_t;

/* Those of t->rcpts that are due, of nssmtpd_rcpt_t. */
const apr_array_header_t *nssmtpd_rcpts_due(nssmtpd_transaction_t *t);

/* A delivery provider: ap_register_provider(p, NSSMTPD_DELIVERY_GROUP, scheme,
 * NSSMTPD_DELIVERY_VERSION, &delivery). All functions of a mail are called in one thread
 * at a time, but in changing threads. A reply of NULL is the usual positive one. */
struct nssmtpd_delivery_t {
    /* Once per URL and server, while httpd starts; with route->at_run_time once per child, by
     * one thread at a time, and pool is of the child. Sets route->baton. Returns what is
     * wrong, to stand behind the directive's name, or NULL. */
    const char *(*configure)(nssmtpd_route_t *route, server_rec *s, apr_pool_t *pool,
                             apr_pool_t *ptemp);
    /* A recipient the server would take; it is not due in t->rcpts yet. */
    const smtp_reply_t *(*rcpt)(nssmtpd_transaction_t *t, const nssmtpd_rcpt_t *rcpt);
    /* Both or none may be NULL; called only where nobody will judge or change the message.
     * begin: the client is about to send it; says ahead what can be said without waiting.
     * flow: takes what of it is in t->body, maybe more than once, and deliver() brings the rest;
     * of what is set before deliver(), only body and body_has_dots are. 1: t->body was taken and
     * is empty; if that came to nothing, deliver() says why. 0, the first time only: deliver()
     * must bring it all. */
    void (*begin)(nssmtpd_transaction_t *t);
    int (*flow)(nssmtpd_transaction_t *t);
    /* The message for those of t->rcpts that are due. A positive reply means that it is delivered:
     * nothing may be lost after it. */
    const smtp_reply_t *(*deliver)(nssmtpd_transaction_t *t);
    /* The session is about to wait for its client. */
    void (*idle)(nssmtpd_transaction_t *t);
    /* The envelope is another than what rcpt() was told, or what the mail holds is needed
     * elsewhere: lets go of it, and says from and all that is due again before deliver(). */
    void (*restart)(nssmtpd_transaction_t *t);
    /* The mail is over, delivered or not, or goes another way since nobody was taken here.
     * Called once if rcpt() or deliver() ever was. */
    void (*end)(nssmtpd_transaction_t *t);
    /* rcpt(), flow() and deliver() may wait for somebody. */
    int blocks;
};

#define NSSMTPD_DELIVERY_GROUP "nssmtpd-delivery"
#define NSSMTPD_DELIVERY_VERSION "1"

/* The provider of the URL's scheme; a bare host is smtp's. NULL: there is none for *scheme,
 * which is of p. */
const nssmtpd_delivery_t *nssmtpd_delivery_find(apr_pool_t *p, const char *url,
                                                const char **scheme);

/* The route of a delivery URL that the configuration need not know, with the TLS that the
 * host's relays have, and no credentials but the URL's own. In a child, by any thread; the
 * same URL is the same route. Returns what is wrong, until the thread's next call, or NULL. */
const char *nssmtpd_route_at_run_time(server_rec *s, const char *url, nssmtpd_route_t **route);

/* Where the host's own mail for a recipient's domain (lower case) goes: the route of the
 * domain's entry in the list, else SmtpdRelay; NULL: nowhere. */
const nssmtpd_route_t *nssmtpd_route_of(server_rec *s, const char *domain);

/* A recipient of the address, verified; its texts are of p. */
nssmtpd_rcpt_t nssmtpd_rcpt_make(apr_pool_t *p, const smtp_address_t *address);

/* A mail's id: unique on this host. */
const char *nssmtpd_new_id(apr_pool_t *p);

/* The time now, as Date and Received have it. */
const char *nssmtpd_date_now(apr_pool_t *p);

/* 1 if the server speaks SMTP: SmtpdEngine on. */
int nssmtpd_is_host(const server_rec *s);

/* The host's own name in SMTP, for EHLO and Received. */
const char *nssmtpd_hostname(const server_rec *s);

/* SmtpdRelay, without a password; "": not said. */
const char *nssmtpd_relay_url(const server_rec *s);
/* SmtpdSendLog: a path, or a program behind a '|'; NULL: none. */
const char *nssmtpd_send_log(const server_rec *s);

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
 * without QUIT behind the data. Reads what the client sent meanwhile, does not wait. Without
 * a client always 0. */
int nssmtpd_client_is_gone(nssmtpd_transaction_t *t);

/* Sets a variable of the mail for LogFormat %{NAME}e, expressions and scripts. The value
 * is copied. */
void nssmtpd_set_variable(nssmtpd_transaction_t *t, const char *name, const char *value);

/* Phases and their scripts */

/* A handler's call for a phase, while it runs. Only the thread that it runs in may use it,
 * and what is taken from it, until it is over. */
typedef struct nssmtpd_call_t {
    request_rec *r;              /* the phase's own; all that is told to a script is in it */
    apr_uint64_t serial;         /* of this call, unlike any other of this process */
    nssmtpd_phase_e phase;
    nssmtpd_transaction_t *t;    /* the mail in hand; NULL: none */
    const char *line;            /* the client's command; in error the step and the relay's
                                  * reply, "RCPT: 550 5.1.1 No such user" */
    apr_time_t deadline;         /* SmtpdTimeout script= */
    apr_uint64_t kept;           /* octets that it has made the mail keep: see call_keep */
} nssmtpd_call_t;

/* The call that this thread runs, or NULL. */
nssmtpd_call_t *nssmtpd_call(void);

/* What follows returns NULL, or a sentence that says why not, where it returns something. */

/* n octets more are about to be kept for as long as the mail or the call lives: for functions
 * that copy what a script gives them. A call's limit is SmtpdScriptMemory. */
const char *nssmtpd_call_keep(nssmtpd_call_t *call, apr_size_t n);

/* The reply: "550 5.7.1 text", more lines with code and '-' or without. */
const char *nssmtpd_call_set_reply(nssmtpd_call_t *call, const char *text, apr_size_t n);

/* The script has failed where its caller does not ask: the reason, which is copied. NULL: it
 * is not known. */
void nssmtpd_call_fail(nssmtpd_call_t *call, const char *reason);

/* The script has nothing to say of the phase, though its caller believes so. */
void nssmtpd_call_miss(nssmtpd_call_t *call);

/* The envelope. Addresses stand without brackets; "" or "<>" is the null sender. */
const char *nssmtpd_call_set_from(nssmtpd_call_t *call, const char *address);
const char *nssmtpd_call_add_rcpt(nssmtpd_call_t *call, const char *address, apr_uint32_t flags,
                                  smtp_span_t data);
const char *nssmtpd_call_delete_rcpt(nssmtpd_call_t *call, int index);
const char *nssmtpd_call_set_rcpt_flags(nssmtpd_call_t *call, int index, apr_uint32_t flags);

/* The session's word of flags. */
apr_uint32_t nssmtpd_call_flags(const nssmtpd_call_t *call);
const char *nssmtpd_call_set_flags(nssmtpd_call_t *call, apr_uint32_t flags);

/* A field of the message's header as it stands now. */
typedef struct nssmtpd_field_t {
    const char *name;
    const char *value; /* unfolded, without blanks at its ends */
} nssmtpd_field_t;

/* The fields, of nssmtpd_field_t, in their order; none before the data phase. */
const apr_array_header_t *nssmtpd_call_fields(nssmtpd_call_t *call);

/* Changes the header: adds a field above all others; sets the first of that name, adding it
 * where there is none, and drops others of that name; drops all of that name. */
const char *nssmtpd_call_add_field(nssmtpd_call_t *call, const char *name, const char *value);
const char *nssmtpd_call_set_field(nssmtpd_call_t *call, const char *name, const char *value);
const char *nssmtpd_call_delete_field(nssmtpd_call_t *call, const char *name);

/* The message as it stands now, without our Received, behind bb; where its body begins and
 * its octets. The buckets live as long as the call. */
const char *nssmtpd_call_message(nssmtpd_call_t *call, apr_bucket_brigade *bb, apr_off_t *body,
                                 apr_off_t *size);

/* Servers by name */

/* The SMTP virtual host "name:port"; NULL: there is none. */
server_rec *nssmtpd_host_find(const char *name);

/* The SMTP host that a request means without saying: its own, else the first; or NULL. */
server_rec *nssmtpd_host_of(const request_rec *r);

/* The lists of a host, at run time: all children follow. What fails is said. */

typedef enum nssmtpd_list_e {
    NSSMTPD_LIST_RELAY, /* SmtpdRelayDomains */
    NSSMTPD_LIST_LOCALS /* SmtpdTrustedClients */
} nssmtpd_list_e;

const char *nssmtpd_list_add(server_rec *s, nssmtpd_list_e list, apr_pool_t *p, const char *word);
const char *nssmtpd_list_delete(server_rec *s, nssmtpd_list_e list, apr_pool_t *p,
                                const char *word);

/* Replaces all of it by words, of const char *; none clears it. */
const char *nssmtpd_list_set(server_rec *s, nssmtpd_list_e list, apr_pool_t *p,
                             const apr_array_header_t *words);

/* Its words, of const char *. */
apr_array_header_t *nssmtpd_list_get(server_rec *s, nssmtpd_list_e list, apr_pool_t *p);

/* The route of an address's domain as a URL, "" where it has none of its own; NULL: the
 * domain is not listed. */
const char *nssmtpd_list_route(server_rec *s, apr_pool_t *p, const char *address);

/* 1 if the client's address is trusted; 0 if not or if it is no address. */
int nssmtpd_list_trusts(server_rec *s, apr_pool_t *p, const char *ip);

/* What goes on in all children */

typedef struct nssmtpd_session_info_t {
    apr_uint64_t id;
    int pid;
    const char *client, *helo, *user, *from; /* "" where there is none */
    const char *phase;                       /* "connect", "helo", "mail", "rcpt", "data" .. */
    apr_array_header_t *rcpts;               /* of nssmtpd_rcpt_t; address and flags are set */
    int rcpt_count;                          /* of which the first are in rcpts */
    int is_tls;
    apr_time_t started;
    apr_off_t bytes;                         /* of the message in hand */
} nssmtpd_session_info_t;

/* The sessions of all children, of nssmtpd_session_info_t. */
apr_array_header_t *nssmtpd_sessions(apr_pool_t *p);

/* Counters since httpd was started: each row is a member of nssmtpd_counter_e and its name
 * for scripts. */
#define NSSMTPD_COUNTERS(X)                                                                       \
    X(CONNECTIONS, "connections")   /* sessions begun */                                          \
    X(DENIED, "denied")             /* of them, refused by limits or scripts at once */           \
    X(MAILS, "mails")               /* messages answered 250 */                                   \
    X(DEFERRED, "deferred")         /* messages answered 4yz */                                   \
    X(REFUSED, "refused")           /* messages answered 5yz */                                   \
    X(RECIPIENTS, "recipients")     /* of accepted messages */                                    \
    X(RCPT_REFUSED, "rcpt_refused") /* recipients answered 4yz or 5yz */                          \
    X(BYTES, "bytes")               /* octets of accepted messages */                             \
    X(AUTH_OK, "auth_ok")           /* users let in */                                            \
    X(AUTH_FAILED, "auth_failed")   /* wrong passwords */                                         \
    X(SENT, "sent")                 /* mails that scripts sent */                                 \
    X(SEND_FAILED, "send_failed")   /* and could not */                                           \
    X(SCRIPT_FAILED, "script_failed") /* phases that ended in 451 for a script's fault */         \
    X(SCANNED, "scanned")           /* messages that scanners have seen */                        \
    X(SPAM, "spam")                                                                               \
    X(VIRUS, "virus")                                                                             \
    X(SCAN_FAILED, "scan_failed")   /* verdicts that a scanner failed to give */                  \
    X(SCAN_SKIPPED, "scan_skipped") /* messages too large for a scanner */

typedef enum nssmtpd_counter_e {
#define NSSMTPD_COUNTER_MEMBER(id, name) NSSMTPD_COUNT_##id,
    NSSMTPD_COUNTERS(NSSMTPD_COUNTER_MEMBER)
#undef NSSMTPD_COUNTER_MEMBER
    NSSMTPD_COUNTER_COUNT
} nssmtpd_counter_e;

void nssmtpd_count(nssmtpd_counter_e counter, apr_uint64_t n);
apr_uint64_t nssmtpd_counter(nssmtpd_counter_e counter);
const char *nssmtpd_counter_name(nssmtpd_counter_e counter);

/* Names: 1 if mail to the domain has somewhere to go, by MX or address; 0 if not; -1: DNS
 * does not say, *why does. May block for seconds. */
int nssmtpd_domain_takes_mail(const server_rec *s, apr_pool_t *p, const char *domain,
                              const char **why);

/* SmtpdScriptMemory: octets of a Lua state. */
apr_int64_t nssmtpd_script_memory(const server_rec *s);

/* SmtpdFlags as configured. */
apr_uint32_t nssmtpd_flags(const server_rec *s);

#include "mod_nssmtpd_scan.h"

#endif
