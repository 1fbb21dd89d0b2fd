/* What a script may do to the mail in hand and its session while a phase runs. Addresses are
 * checked as a client's are; who may be added is the script's word, where it goes is the
 * configuration's. Called by the Lua binding through mod_nssmtpd.h.
 */
#include <apr_strings.h>

#include "server/fields.h"
#include "server/script.h"
#include "server/verdict.h"

static nssmtpd_script_t *script_of(nssmtpd_call_t *call)
{
    return (nssmtpd_script_t *)call;
}

static nssmtpd_mail_t *mail_of(nssmtpd_call_t *call)
{
    return script_of(call)->session->mail;
}

static nssmtpd_rcpt_t *rcpt_at(nssmtpd_mail_t *mail, int index)
{
    return mail && index >= 0 && index < mail->t.rcpts->nelts
               ? &APR_ARRAY_IDX(mail->t.rcpts, index, nssmtpd_rcpt_t)
               : NULL;
}

/* Pools give nothing back before their end, so a script in a loop could fill all memory. */
const char *nssmtpd_call_keep(nssmtpd_call_t *call, apr_size_t n)
{
    enum { OVERHEAD = 256 };

    if (call->kept + n + OVERHEAD > (apr_uint64_t)nssmtpd_script_memory(call->r->server)) {
        return "not enough memory: too much was given to the mail";
    }
    call->kept += n + OVERHEAD;
    return NULL;
}

/* The session's flags; what they say of scanning holds for all recipients so far. */

apr_uint32_t nssmtpd_call_flags(const nssmtpd_call_t *call)
{
    const nssmtpd_session_t *session = script_of((nssmtpd_call_t *)call)->session;

    return session->flags | (session->dialogue.helo ? NSSMTPD_FLAG_GOTHELO : 0)
           | (session->mail ? NSSMTPD_FLAG_GOTMAIL : 0);
}

const char *nssmtpd_call_set_flags(nssmtpd_call_t *call, apr_uint32_t flags)
{
    nssmtpd_session_t *session = script_of(call)->session;
    apr_uint32_t changed = (session->flags ^ flags) & NSSMTPD_FLAGS_SCAN;
    int i;

    session->flags = flags & ~(NSSMTPD_FLAG_GOTHELO | NSSMTPD_FLAG_GOTMAIL);
    for (i = 0; session->mail && i < session->mail->t.rcpts->nelts; i++) {
        nssmtpd_rcpt_t *rcpt = rcpt_at(session->mail, i);

        rcpt->flags = (rcpt->flags & ~changed) | (flags & changed);
    }
    return NULL;
}

/* Addresses */

/* "local@domain", with brackets or without. */
static const char *parse(apr_pool_t *p, const char *text, smtp_address_t *address)
{
    const char *copy = apr_pstrdup(p, text), *at = copy, *end = at + strlen(at);

    if (smtp_address_parse(address, &at, end) != SMTP_OK || at != end) {
        return apr_psprintf(p, "\"%s\" is no address", ap_escape_logitem(p, text));
    }
    return NULL;
}

static const char *no_mail(void)
{
    return "there is no mail in hand in this phase";
}

/* A relay that was told of the envelope hears it again. */
static void tell_again(nssmtpd_mail_t *mail)
{
    if (mail->t.offered) {
        mail->t.route->delivery->restart(&mail->t);
    }
}

const char *nssmtpd_call_set_from(nssmtpd_call_t *call, const char *text)
{
    nssmtpd_mail_t *mail = mail_of(call);
    smtp_address_t address;
    const char *wrong = mail ? nssmtpd_call_keep(call, 2 * strlen(text)) : no_mail();

    if (wrong) {
        return wrong;
    }
    if (!*text) {
        mail->t.from = "";
    }
    else if ((wrong = parse(mail->t.r->pool, text, &address))) {
        return wrong;
    }
    else {
        mail->t.from = apr_pstrmemdup(mail->t.r->pool, address.text.p, address.text.n);
    }
    tell_again(mail);
    return NULL;
}

/* Recipients */

static const char *no_rcpt(void)
{
    return "there is no such recipient";
}

/* NULL: it has it now; else what the delivery says of it. */
static const char *offer(nssmtpd_mail_t *mail, const nssmtpd_route_t *route, nssmtpd_rcpt_t *rcpt)
{
    const smtp_reply_t *reply;

    if (!nssmtpd_transaction_go(mail, route)) {
        return "it goes another way than the mail's other recipients";
    }
    if (rcpt->flags & NSSMTPD_FLAG_DELIVERED) {
        return NULL;
    }
    mail->t.offered = 1;
    reply = route->delivery->rcpt(&mail->t, rcpt);
    if (reply && !smtp_reply_is_positive(reply)) {
        return smtp_reply_line(mail->t.r->pool, reply);
    }
    rcpt->is_told = 1;
    return NULL;
}

const char *nssmtpd_call_add_rcpt(nssmtpd_call_t *call, const char *text, apr_uint32_t flags,
                                  smtp_span_t data)
{
    nssmtpd_session_t *session = script_of(call)->session;
    nssmtpd_mail_t *mail = session->mail;
    const nssmtpd_route_t *route;
    smtp_address_t address;
    nssmtpd_rcpt_t rcpt;
    const char *wrong = mail ? nssmtpd_call_keep(call, 4 * strlen(text) + data.n) : no_mail();

    if (wrong || (wrong = parse(mail->t.r->pool, text, &address))) {
        return wrong;
    }
    if (address.text.n == 0) {
        return "a recipient is never the null path";
    }
    if (mail->t.rcpts->nelts >= session->conf->max_recipients) {
        return "the mail has too many recipients (SmtpdMaxRecipients)";
    }
    rcpt = nssmtpd_verdict_make_rcpt(session, &address);
    rcpt.flags |= flags;
    if (data.p) {
        rcpt.data = (smtp_span_t){ apr_pmemdup(mail->t.r->pool, data.p, data.n + 1), data.n };
    }
    if (!(route = nssmtpd_verdict_way(session, rcpt.domain))) {
        return "there is no route for its domain";
    }
    if ((wrong = offer(mail, route, &rcpt))) {
        return wrong;
    }
    APR_ARRAY_PUSH(mail->t.rcpts, nssmtpd_rcpt_t) = rcpt;
    return NULL;
}

const char *nssmtpd_call_delete_rcpt(nssmtpd_call_t *call, int index)
{
    nssmtpd_mail_t *mail = mail_of(call);
    nssmtpd_rcpt_t *rcpt = rcpt_at(mail, index);
    int was_told;

    if (!rcpt) {
        return no_rcpt();
    }
    was_told = rcpt->is_told;
    nssmtpd_transaction_drop_rcpt(mail, index);
    if (was_told) {
        tell_again(mail);
    }
    return NULL;
}

const char *nssmtpd_call_set_rcpt_flags(nssmtpd_call_t *call, int index, apr_uint32_t flags)
{
    nssmtpd_mail_t *mail = mail_of(call);
    nssmtpd_rcpt_t *rcpt = rcpt_at(mail, index);

    if (!rcpt) {
        return no_rcpt();
    }
    if ((rcpt->flags & ~flags) & NSSMTPD_FLAG_VERIFIED) {
        return nssmtpd_call_delete_rcpt(call, index);
    }
    if ((flags & NSSMTPD_FLAG_DELIVERED) && rcpt->is_told) {
        tell_again(mail);
    }
    rcpt->flags = flags;
    return NULL;
}

/* The message */

static const char *no_message(const nssmtpd_mail_t *mail)
{
    if (!mail || !mail->spool) {
        return "there is no message yet in this phase";
    }
    return mail->session->flags & NSSMTPD_FLAG_FASTPROXY
               ? "messages are not shown to scripts here (fastproxy)"
               : NULL;
}

const apr_array_header_t *nssmtpd_call_fields(nssmtpd_call_t *call)
{
    nssmtpd_mail_t *mail = mail_of(call);

    return !no_message(mail) ? nssmtpd_fields_list(mail)
                             : apr_array_make(call->r->pool, 1, sizeof(nssmtpd_field_t));
}

static const char *may_change(nssmtpd_call_t *call, const char *name, const char *value)
{
    const char *wrong = no_message(mail_of(call));

    return wrong ? wrong : nssmtpd_call_keep(call, 2 * (strlen(name) + strlen(value)));
}

const char *nssmtpd_call_add_field(nssmtpd_call_t *call, const char *name, const char *value)
{
    const char *wrong = may_change(call, name, value);

    return wrong ? wrong : nssmtpd_fields_add(mail_of(call), name, value);
}

const char *nssmtpd_call_set_field(nssmtpd_call_t *call, const char *name, const char *value)
{
    const char *wrong = may_change(call, name, value);

    return wrong ? wrong : nssmtpd_fields_set(mail_of(call), name, value);
}

const char *nssmtpd_call_delete_field(nssmtpd_call_t *call, const char *name)
{
    const char *wrong = may_change(call, name, "");

    return wrong ? wrong : nssmtpd_fields_delete(mail_of(call), name);
}

const char *nssmtpd_call_message(nssmtpd_call_t *call, apr_bucket_brigade *bb, apr_off_t *body,
                                 apr_off_t *size)
{
    const char *wrong = no_message(mail_of(call));

    if (!wrong && nssmtpd_fields_message(mail_of(call), bb, body, size) != APR_SUCCESS) {
        wrong = "the message cannot be read back (SmtpdSpool)";
    }
    return wrong;
}
