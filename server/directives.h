/* The directives and the numbers of the configuration that they set. config.c makes,
 * merges and finishes configurations with it.
 */
#ifndef NSSMTPD_DIRECTIVES_H
#define NSSMTPD_DIRECTIVES_H

#include "server/config.h"

/* A number of the configuration: where it stands and what it may be. */
typedef struct nssmtpd_number_t {
    apr_size_t offset;
    apr_int64_t initial, min, max;
    int is_own; /* not inherited: it says what one port speaks */
} nssmtpd_number_t;

extern const command_rec nssmtpd_commands[];

/* Visits every number of conf once, with the outer server's where base is not NULL. */
void nssmtpd_directives_each(void (*visit)(const nssmtpd_number_t *number, apr_int64_t *value,
                                           const apr_int64_t *outer),
                             nssmtpd_config_t *conf, nssmtpd_config_t *base);

#endif
