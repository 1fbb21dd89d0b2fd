/* SmtpdSendLog: a line for each mail that a script sends, or could not send.
 */
#ifndef NSSMTPD_SENDLOG_H
#define NSSMTPD_SENDLOG_H

#include "mod_nssmtpd.h"

/* What is written of a call. Texts may be anything: they are escaped. */
typedef struct nssmtpd_sendlog_t {
    apr_time_t started;
    int status;                      /* code of the deciding reply; 0: none came */
    const char *outcome;             /* SUCCESS, CONNECT_FAILURE .. */
    const char *host;                /* NULL: it never came to one */
    int port;
    apr_off_t octets;                /* sent as the message, with the dots of the wire */
    const char *from;
    const apr_array_header_t *rcpts; /* of const char * */
} nssmtpd_sendlog_t;

/* Hook; see mod_nssmtpd.c. Opens the logs of all hosts, as root. */
int nssmtpd_sendlog_open(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s);

/* Sets what the deciding reply says: status, outcome and place. */
void nssmtpd_sendlog_judge(nssmtpd_sendlog_t *entry, apr_pool_t *p,
                           const nssmtpd_transaction_t *t, const smtp_reply_t *reply);

/* Writes a line to the host's log, where it has one. By any thread. */
void nssmtpd_sendlog_write(apr_pool_t *p, server_rec *s, const nssmtpd_sendlog_t *entry);

#endif
