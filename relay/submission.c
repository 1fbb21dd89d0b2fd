/* Makes a script's text a message that may go to the wire. Not a composer: what is a bad
 * message stays one, but its line ends, which are the wire's business, and what RFC 6409 8.2
 * and 8.3 let be added. Called by send.c.
 */
#include "relay/submission.h"

#include <apr_strings.h>

#include "smtp/header.h"
#include "smtp/lines.h"

/* Room for the fields that are added, in front of a text that is copied. */
#define FIELDS_MAX 1024

static apr_size_t put(char *out, apr_size_t n, smtp_span_t run)
{
    if (out) {
        memcpy(out + n, run.p, run.n);
    }
    return n + run.n;
}

/* Runs the text through the automaton; out NULL: only to know how long it becomes. */
static apr_size_t make_canonical(smtp_lines_t *l, smtp_span_t text, char *out)
{
    const char *at = text.p, *end = text.p + text.n;
    apr_size_t n = 0;
    smtp_span_t run;

    smtp_lines_init(l);
    while (at < end) {
        smtp_lines_next(l, &at, end, &run);
        n = put(out, n, run);
    }
    return put(out, n, smtp_lines_end(l));
}

/* Header */

typedef struct seen_t {
    int date, message_id;
} seen_t;

static void on_field(void *baton, const smtp_field_t *field)
{
    seen_t *seen = baton;

    seen->date |= smtp_span_is(field->name, "Date");
    seen->message_id |= smtp_span_is(field->name, "Message-ID");
}

/* Returns where the body begins. */
static apr_size_t scan_header(apr_pool_t *p, smtp_span_t text,
                              void (*field)(void *, const smtp_field_t *), void *baton)
{
    smtp_header_t *h = apr_palloc(p, sizeof(*h));

    smtp_header_init(h, field, baton);
    smtp_header_feed(h, text.p, text.n);
    smtp_header_finish(h);
    return h->body;
}

static smtp_span_t make_fields(apr_pool_t *p, const server_rec *s, const char *id,
                               smtp_span_t text)
{
    seen_t seen = { 0, 0 };
    apr_size_t body = scan_header(p, text, on_field, &seen);
    const char *date = "", *message_id = "", *fields;

    if (!seen.date) {
        date = apr_psprintf(p, "Date: %s\r\n", nssmtpd_date_now(p));
    }
    if (!seen.message_id) {
        message_id = apr_psprintf(p, "Message-ID: <%s@%.255s>\r\n", id, nssmtpd_hostname(s));
    }
    /* a text without any header section is a body */
    fields = apr_pstrcat(p, date, message_id, body == 0 ? "\r\n" : "", NULL);
    return (smtp_span_t){ fields, strlen(fields) };
}

/* The message */

static void add_piece(nssmtpd_submission_t *m, const char *p, apr_size_t n)
{
    if (n) {
        APR_ARRAY_PUSH(m->pieces, smtp_span_t) = (smtp_span_t){ p, n };
        m->length += n;
    }
}

void nssmtpd_submission_make(nssmtpd_submission_t *m, apr_pool_t *p, const server_rec *s,
                             const char *id, smtp_span_t text, int in_one)
{
    smtp_lines_t l;
    apr_size_t n = make_canonical(&l, text, NULL);
    char *copy = NULL;
    smtp_span_t fields;

    if (n != text.n || in_one) { /* every repair makes it longer */
        copy = (char *)apr_palloc(p, FIELDS_MAX + n) + FIELDS_MAX;
        make_canonical(&l, text, copy);
        text = (smtp_span_t){ copy, n };
    }
    m->pieces = apr_array_make(p, 2, sizeof(smtp_span_t));
    m->length = 0;
    m->is_8bit = l.is_8bit;
    m->dots = l.dots;
    fields = make_fields(p, s, id, text);
    if (copy) {
        memcpy(copy - fields.n, fields.p, fields.n);
        add_piece(m, copy - fields.n, fields.n + n);
    }
    else {
        add_piece(m, fields.p, fields.n);
        add_piece(m, text.p, text.n);
    }
}

/* Scanners' marks */

typedef struct marker_t {
    nssmtpd_submission_t *m;
    apr_pool_t *p;
    const nssmtpd_scanned_t *found;
    smtp_span_t whole;
    apr_size_t kept;  /* up to here the message is in the pieces, or dropped */
    int has_subject;
} marker_t;

/* A scanner says what a message made it say: a name that is none, or a value with line ends,
 * is no field. */
static void add_field(marker_t *k, const char *name, const char *value)
{
    const char *end = name + strlen(name), *at = name, *text;

    if (smtp_chars_skip(&at, end, SMTP_CHAR_FTEXT) == 0 || at != end || strpbrk(value, "\r\n")) {
        return;
    }
    text = apr_pstrcat(k->p, name, ": ", value, "\r\n", NULL);
    k->m->dots += *name == '.';
    for (at = text; *at; at++) {
        k->m->is_8bit |= (unsigned char)*at >> 7;
    }
    add_piece(k->m, text, at - text);
}

static int is_removed(const nssmtpd_scanned_t *found, smtp_span_t name)
{
    int i;

    for (i = 0; found->remove && i < found->remove->nelts; i++) {
        if (smtp_span_is(name, APR_ARRAY_IDX(found->remove, i, const char *))) {
            return 1;
        }
    }
    return 0;
}

static void mark_field(void *baton, const smtp_field_t *field)
{
    marker_t *k = baton;
    int is_subject = k->found->subject && smtp_span_is(field->name, "Subject");

    if (!is_subject && !is_removed(k->found, field->name)) {
        return;
    }
    add_piece(k->m, k->whole.p + k->kept, field->start - k->kept);
    k->kept = field->end;
    if (is_subject && !k->has_subject) {
        k->has_subject = 1;
        add_field(k, "Subject", k->found->subject);
    }
}

void nssmtpd_submission_mark(nssmtpd_submission_t *m, apr_pool_t *p,
                             const nssmtpd_scanned_t *found)
{
    marker_t k = { m, p, found, APR_ARRAY_IDX(m->pieces, 0, smtp_span_t), 0, 0 };
    int i;

    m->pieces = apr_array_make(p, 8, sizeof(smtp_span_t));
    m->length = 0;
    for (i = 0; found->add && i < found->add->nelts; i++) {
        const nssmtpd_field_t *field = &APR_ARRAY_IDX(found->add, i, nssmtpd_field_t);

        add_field(&k, field->name, field->value);
    }
    scan_header(p, k.whole, mark_field, &k);
    add_piece(m, k.whole.p + k.kept, k.whole.n - k.kept);
    if (found->subject && !k.has_subject) {
        const apr_array_header_t *behind = m->pieces;

        m->pieces = apr_array_make(p, 8, sizeof(smtp_span_t));
        add_field(&k, "Subject", found->subject);
        apr_array_cat(m->pieces, behind);
    }
}

void nssmtpd_submission_give(const nssmtpd_submission_t *m, nssmtpd_transaction_t *t)
{
    int i;

    t->body = apr_brigade_create(t->r->pool, t->r->connection->bucket_alloc);
    for (i = 0; i < m->pieces->nelts; i++) {
        const smtp_span_t *piece = &APR_ARRAY_IDX(m->pieces, i, smtp_span_t);

        APR_BRIGADE_INSERT_TAIL(t->body, apr_bucket_immortal_create(piece->p, piece->n,
                                                                    t->body->bucket_alloc));
    }
    t->body_length = t->declared_size = m->length;
    t->body_is_8bit = t->body_8bitmime = m->is_8bit;
    t->body_has_dots = m->dots != 0;
}
