/* Counters in shared memory. Counting is one atomic addition where the thing happens; what
 * they mean is said in the table of mod_nssmtpd.h. Called by everybody.
 */
#include "server/counters.h"

#include <apr_atomic.h>

#include "server/shared.h"

static const char *const names[] = {
#define NAME(id, name) [NSSMTPD_COUNT_##id] = name,
    NSSMTPD_COUNTERS(NAME)
#undef NAME
};

static apr_uint64_t *counters; /* NULL: no host speaks SMTP */

int nssmtpd_counters_create(server_rec *s)
{
    int is_new;

    counters = nssmtpd_shared_keep(s, "counters", NSSMTPD_COUNTER_COUNT * sizeof(*counters),
                                   &is_new);
    return counters ? OK : !OK;
}

void nssmtpd_count(nssmtpd_counter_e counter, apr_uint64_t n)
{
    if (counters) {
        apr_atomic_add64(&counters[counter], n);
    }
}

apr_uint64_t nssmtpd_counter(nssmtpd_counter_e counter)
{
    return counters ? apr_atomic_read64(&counters[counter]) : 0;
}

const char *nssmtpd_counter_name(nssmtpd_counter_e counter)
{
    return names[counter];
}
