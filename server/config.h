/* What the directives of a server say. Made while httpd starts, constant afterwards. */
#ifndef NSSMTPD_CONFIG_H
#define NSSMTPD_CONFIG_H

#include <httpd.h>

#include <http_config.h>

#include "mod_nssmtpd.h"
#include "server/lists.h"
#include "smtp/dialogue.h"

/* Not set in this server: the outer one's value holds, then the default. */
#define NSSMTPD_UNSET (-1)

enum { NSSMTPD_NEWLINE_REJECT, NSSMTPD_NEWLINE_NORMALIZE };

/* The default spool, below DefaultRuntimeDir. */
#define NSSMTPD_SPOOL_DIRECTORY "nssmtpd"

/* For all that one check asks of DNS. */
#define NSSMTPD_DNS_TIMEOUT apr_time_from_sec(10)

typedef struct nssmtpd_config_t {
    /* As configured; NSSMTPD_UNSET or NULL where not. Numbers are apr_int64_t so that the
     * directive table can name them by offset. */
    apr_int64_t engine;
    apr_int64_t received;
    apr_int64_t tls, tls_required;
    apr_int64_t auth_plaintext;
    apr_int64_t relay_tls;          /* of nssmtpd_relay_tls_e */
    apr_int64_t flags;
    apr_int64_t bare_newline, bare_newline_trusted;
    apr_int64_t max_message_size, max_recipients, max_line, max_errors, max_busy;
    apr_int64_t script_memory;                  /* octets */
    apr_int64_t max_connections, max_connections_per_address;
    apr_int64_t timeout[NSSMTPD_TIMEOUT_COUNT]; /* seconds */
    apr_int64_t spool_memory;                   /* octets */
    const char *spool_directory;
    const char *hostname;
    const char *send_log;           /* SmtpdSendLog */
    const char *relay_credentials;  /* where they are: SmtpdRelayCredentials */
    nssmtpd_route_t *relay;         /* SmtpdRelay */
    apr_array_header_t *domains;    /* of nssmtpd_domain_t: SmtpdRelayDomains */
    apr_array_header_t *auth_providers; /* of const char *: SmtpdAuthProvider */
    apr_array_header_t *trusted;    /* of nssmtpd_client_t: SmtpdTrustedClients */
    apr_array_header_t *name_servers; /* of const char *: SmtpdNameServer, see names.h */
    nssmtpd_scanners_t *scanners;   /* SmtpdScanner */
    /* Made of them by nssmtpd_config_finish() */
    server_rec *server;
    int spool_configured;           /* spool_directory is the administrator's */
    smtp_offer_t offer;
    nssmtpd_domains_t *domain_list;
    struct nssmtpd_phase_state_t *phases;   /* NSSMTPD_PHASE_COUNT of them, see phase.h */
    struct nssmtpd_memo_t *memo;            /* of their scripts, see memo.h */
    int changes;                    /* where changed lists stand, see changes.h */
} nssmtpd_config_t;

void *nssmtpd_config_create(apr_pool_t *p, server_rec *s);
void *nssmtpd_config_merge(apr_pool_t *p, void *base, void *add);

/* The configuration of a server. */
nssmtpd_config_t *nssmtpd_config(const server_rec *s);

/* Fills in defaults, makes routes ready and checks what belongs together, for all
 * servers. Logs what is wrong with directive, reason and remedy; then not OK. */
int nssmtpd_config_finish(apr_pool_t *pconf, apr_pool_t *ptemp, server_rec *main_server);

#endif
