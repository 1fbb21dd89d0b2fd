/* discard: takes any mail and forgets it, for tests and for sinks made on purpose.
 * The log says where it went.
 */
#include "relay/register.h"

static const char *configure(nssmtpd_route_t *route, server_rec *s, apr_pool_t *pconf,
                             apr_pool_t *ptemp)
{
    (void)s, (void)pconf, (void)ptemp;
    return *route->params ? "discard: takes no parameters" : NULL;
}

static const smtp_reply_t *rcpt(nssmtpd_transaction_t *t, const nssmtpd_rcpt_t *who)
{
    (void)t, (void)who;
    return NULL;
}

static const smtp_reply_t *deliver(nssmtpd_transaction_t *t)
{
    return nssmtpd_client_is_gone(t) ? smtp_reply(SMTP_REPLY_CLIENT_GONE) : NULL;
}

static void nothing(nssmtpd_transaction_t *t)
{
    (void)t;
}

const nssmtpd_delivery_t nssmtpd_discard_delivery = {
    .configure = configure,
    .rcpt = rcpt,
    .deliver = deliver,
    .idle = nothing,
    .restart = nothing,
    .end = nothing
};
