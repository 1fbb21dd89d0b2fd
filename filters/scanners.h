/* The lines of SmtpdScanner, as scan.c and outcome.c need them. Made while httpd starts. */
#ifndef NSSMTPD_FILTERS_SCANNERS_H
#define NSSMTPD_FILTERS_SCANNERS_H

#include "mod_nssmtpd.h"

/* What follows from a bad verdict, from a message that is too large, from an error. */
typedef enum nssmtpd_consequence_e {
    NSSMTPD_CONSEQUENCE_UNSET = -1,
    NSSMTPD_CONSEQUENCE_ACCEPT,
    NSSMTPD_CONSEQUENCE_DEFER,
    NSSMTPD_CONSEQUENCE_REJECT,
    NSSMTPD_CONSEQUENCE_TAG,
    NSSMTPD_CONSEQUENCE_DISCARD
} nssmtpd_consequence_e;

/* max=: a semaphore that poll() can wait for. All copies of a line share one. */
typedef struct nssmtpd_gate_t {
    int max;
    int fd; /* of this child; -1: not made, so nobody is kept waiting */
} nssmtpd_gate_t;

typedef struct nssmtpd_line_t {
    nssmtpd_scan_conf_t conf;
    nssmtpd_consequence_e action, oversize, onerror;
    nssmtpd_gate_t *gate;
    struct nssmtpd_line_t *spare; /* the next line of the same name; NULL: there is none */
    int is_spare;                 /* a line of the same name stands before */
} nssmtpd_line_t;

struct nssmtpd_scanners_t {
    apr_array_header_t *lines;    /* of nssmtpd_line_t * */
};

/* The flag of the kind of mail that the line's scanner looks for. */
apr_uint32_t nssmtpd_scanners_kind(const nssmtpd_line_t *line);

/* The host's line i; NULL: there are no more. */
const nssmtpd_line_t *nssmtpd_scanners_line(const server_rec *s, int i);

#endif
