/* Questions to name servers, blocking, for names.c, which says what follows from the answers. */
#ifndef NSSMTPD_RESOLVER_H
#define NSSMTPD_RESOLVER_H

#include <apr_pools.h>
#include <apr_tables.h>
#include <apr_time.h>
#include <ares.h>
#include <netdb.h>

/* Questions of one call, one after the other. */
typedef struct nssmtpd_lookup_t {
    apr_pool_t *p;
    ares_channel channel;
    apr_time_t deadline;
    int status; /* of the last question, as c-ares has it */
    int is_done;
    unsigned char *reply; /* to it, in p */
    int length;
} nssmtpd_lookup_t;

/* Begins: all questions to the servers (strings of ip:port; NULL: those of resolv.conf) together
 * take timeout at most. 1, or 0 and l->status. nssmtpd_resolver_close() follows in both cases. */
int nssmtpd_resolver_open(nssmtpd_lookup_t *l, apr_pool_t *p, const apr_array_header_t *servers,
                          apr_interval_time_t timeout);
void nssmtpd_resolver_close(nssmtpd_lookup_t *l);

/* Asks for the records of the type (ns_t_mx ..) and sets status, reply and length. */
void nssmtpd_resolver_ask(nssmtpd_lookup_t *l, const char *name, int type);

/* Asks for the addresses of AF_INET or AF_INET6. The caller frees them with ares_free_hostent().
 * NULL: l->status says why. */
struct hostent *nssmtpd_resolver_ask_addresses(nssmtpd_lookup_t *l, const char *name, int family);

/* Sets the status of the last question once its reply is parsed: rc, or that nothing was found. */
void nssmtpd_resolver_conclude(nssmtpd_lookup_t *l, int rc, int found);

/* 1 if the answer is that there is no such name, or no record of that type. */
int nssmtpd_resolver_is_nothing(int status);

/* Why the last question has no answer, for a log. */
const char *nssmtpd_resolver_failure(const nssmtpd_lookup_t *l);

#endif
