/* Header fields with their changes: a list in the message's order, each either a piece of
 * the spool or a text of ours. Read from the spool when first asked for. RFC 5322 2.2.
 */
#include "server/fields.h"

#include <apr_strings.h>

#include "smtp/limits.h"

/* RFC 5322 2.1.1, without CRLF. */
#define LINE_MAX_OCTETS 998

typedef struct row_t {
    const char *name;
    const char *text; /* the whole field with its CRLF */
    apr_size_t n;
    apr_size_t value; /* offset in text of what stands behind the colon */
} row_t;

struct nssmtpd_fields_t {
    apr_pool_t *p;
    char *section;            /* the header section as it came */
    apr_size_t section_len;
    apr_size_t fields_len;    /* of it, before the empty line */
    apr_array_header_t *rows; /* of row_t */
    apr_array_header_t *list; /* of nssmtpd_field_t; NULL: rows have changed since */
    apr_size_t added_len;     /* octets of rows that are ours */
    unsigned is_touched : 1;
};

typedef struct nssmtpd_fields_t fields_t;

/* Reading */

static void on_field(void *baton, const smtp_field_t *field)
{
    fields_t *fields = baton;
    row_t *row = &APR_ARRAY_PUSH(fields->rows, row_t);

    row->name = apr_pstrmemdup(fields->p, field->name.p, field->name.n);
    row->text = fields->section + field->start;
    row->n = field->end - field->start;
    row->value = field->value - field->start;
    fields->fields_len = field->end;
}

/* What stands before body in the spool. */
static apr_status_t read_section(nssmtpd_mail_t *mail, fields_t *fields)
{
    apr_bucket_brigade *bb = apr_brigade_create(fields->p, mail->session->c->bucket_alloc);
    apr_status_t rv = nssmtpd_spool_read(mail->spool, bb);
    apr_size_t n = mail->header.body;

    fields->section = apr_palloc(fields->p, n + 1);
    if (rv == APR_SUCCESS) {
        rv = apr_brigade_flatten(bb, fields->section, &n);
    }
    fields->section_len = rv == APR_SUCCESS ? n : 0;
    apr_brigade_destroy(bb);
    return rv;
}

static fields_t *load(nssmtpd_mail_t *mail)
{
    fields_t *fields = mail->fields;
    smtp_header_t header;

    if (fields) {
        return fields;
    }
    mail->fields = fields = apr_pcalloc(mail->t.r->pool, sizeof(*fields));
    fields->p = mail->t.r->pool;
    fields->rows = apr_array_make(fields->p, 16, sizeof(row_t));
    if (mail->spool && mail->header.done && read_section(mail, fields) == APR_SUCCESS) {
        smtp_header_init(&header, on_field, fields);
        smtp_header_feed(&header, fields->section, fields->section_len);
        smtp_header_finish(&header);
    }
    return fields;
}

/* Without the CRLF of its lines and without blanks at its ends. */
static const char *unfold(apr_pool_t *p, const row_t *row)
{
    const char *at = row->text + row->value, *end = row->text + row->n;
    char *value, *out;

    while (at < end && strchr(" \t\r\n", *at)) {
        at++;
    }
    out = value = apr_palloc(p, end - at + 1);
    for (; at < end; at++) {
        if (*at != '\r' && *at != '\n') {
            *out++ = *at ? *at : ' ';
        }
    }
    while (out > value && strchr(" \t", out[-1])) {
        out--;
    }
    *out = '\0';
    return value;
}

const apr_array_header_t *nssmtpd_fields_list(nssmtpd_mail_t *mail)
{
    fields_t *fields = load(mail);
    int i;

    if (!fields->list) {
        fields->list = apr_array_make(fields->p, fields->rows->nelts, sizeof(nssmtpd_field_t));
        for (i = 0; i < fields->rows->nelts; i++) {
            const row_t *row = &APR_ARRAY_IDX(fields->rows, i, row_t);
            nssmtpd_field_t *field = &APR_ARRAY_PUSH(fields->list, nssmtpd_field_t);

            field->name = row->name;
            field->value = unfold(fields->p, row);
        }
    }
    return fields->list;
}

/* Changing */

static const char *check(apr_pool_t *p, const char *name, const char *value)
{
    const char *at = name;

    while (*at > ' ' && *at < 127 && *at != ':') {
        at++;
    }
    if (*at || at == name || at - name > SMTP_FIELD_NAME_MAX) {
        return apr_psprintf(p, "\"%s\" is no name of a header field",
                            ap_escape_logitem(p, apr_pstrndup(p, name, SMTP_FIELD_NAME_MAX)));
    }
    if (value && strpbrk(value, "\r\n")) {
        return "a header field's value has no CR or LF";
    }
    if (value && strlen(value) + (at - name) + 2 > LINE_MAX_OCTETS) {
        return "a header field is longer than 998 octets";
    }
    return NULL;
}

static row_t make_row(fields_t *fields, const char *name, const char *value)
{
    row_t row = { apr_pstrdup(fields->p, name), NULL, 0, strlen(name) + 1 };

    row.text = apr_pstrcat(fields->p, name, ": ", value, "\r\n", NULL);
    row.n = strlen(row.text);
    return row;
}

/* RFC 5322 3.6 lets the order of most fields be anything; the top needs no empty line. */
static const char *insert(fields_t *fields, const char *name, const char *value)
{
    row_t *rows;

    if (fields->added_len + strlen(name) + strlen(value) > SMTP_HEADER_MAX) {
        return "too much was added to the header";
    }
    APR_ARRAY_PUSH(fields->rows, row_t) = (row_t){ 0 };
    rows = (row_t *)fields->rows->elts;
    memmove(rows + 1, rows, (fields->rows->nelts - 1) * sizeof(*rows));
    rows[0] = make_row(fields, name, value);
    fields->added_len += rows[0].n;
    return NULL;
}

static void touch(fields_t *fields)
{
    fields->is_touched = 1;
    fields->list = NULL;
}

/* What a field of ours brings to the wire. */
static void note(nssmtpd_mail_t *mail, const char *name, const char *value)
{
    mail->is_rewritten |= *name == '.';
    while (*value && (unsigned char)*value < 0x80) {
        value++;
    }
    mail->spool->is_8bit |= *value != '\0';
}

/* Drops all fields of that name but the first `spared`; returns how many stay. */
static int drop(fields_t *fields, const char *name, int spared)
{
    row_t *rows = (row_t *)fields->rows->elts;
    int i, kept = 0, same = 0;

    for (i = 0; i < fields->rows->nelts; i++) {
        if (strcasecmp(rows[i].name, name) == 0 && same++ >= spared) {
            continue;
        }
        rows[kept++] = rows[i];
    }
    fields->rows->nelts = kept;
    return same < spared ? same : spared;
}

const char *nssmtpd_fields_add(nssmtpd_mail_t *mail, const char *name, const char *value)
{
    fields_t *fields = load(mail);
    const char *wrong = check(fields->p, name, value);

    if (!wrong) {
        touch(fields);
        note(mail, name, value);
        wrong = insert(fields, name, value);
    }
    return wrong;
}

const char *nssmtpd_fields_set(nssmtpd_mail_t *mail, const char *name, const char *value)
{
    fields_t *fields = load(mail);
    const char *wrong = check(fields->p, name, value);
    int i;

    if (wrong) {
        return wrong;
    }
    touch(fields);
    note(mail, name, value);
    if (drop(fields, name, 1) == 0) {
        return insert(fields, name, value);
    }
    for (i = 0; i < fields->rows->nelts; i++) {
        row_t *row = &APR_ARRAY_IDX(fields->rows, i, row_t);

        if (strcasecmp(row->name, name) == 0) {
            *row = make_row(fields, row->name, value);
        }
    }
    return NULL;
}

const char *nssmtpd_fields_delete(nssmtpd_mail_t *mail, const char *name)
{
    fields_t *fields = load(mail);
    const char *wrong = check(fields->p, name, NULL);

    if (!wrong) {
        touch(fields);
        drop(fields, name, 0);
    }
    return wrong;
}

/* The message */

static void append(apr_bucket_brigade *bb, const char *data, apr_size_t n, apr_pool_t *p)
{
    if (n) {
        APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_pool_create(data, n, p, bb->bucket_alloc));
    }
}

/* Drops the first n octets of bb. */
static apr_status_t skip(apr_bucket_brigade *bb, apr_off_t n)
{
    apr_bucket *after;
    apr_status_t rv = apr_brigade_partition(bb, n, &after);

    while (rv == APR_SUCCESS && APR_BRIGADE_FIRST(bb) != after) {
        apr_bucket_delete(APR_BRIGADE_FIRST(bb));
    }
    return rv;
}

apr_status_t nssmtpd_fields_message(nssmtpd_mail_t *mail, apr_bucket_brigade *bb, apr_off_t *body,
                                    apr_off_t *size)
{
    fields_t *fields = mail->fields;
    apr_bucket_brigade *rest;
    apr_status_t rv;
    int i;

    *body = mail->header.body;
    *size = mail->spool->length;
    if (!fields || !fields->is_touched) {
        return nssmtpd_spool_read(mail->spool, bb);
    }
    rest = apr_brigade_create(mail->t.r->pool, bb->bucket_alloc);
    rv = nssmtpd_spool_read(mail->spool, rest);
    if (rv == APR_SUCCESS) {
        rv = skip(rest, fields->section_len);
    }
    *body = 0;
    for (i = 0; i < fields->rows->nelts; i++) {
        const row_t *row = &APR_ARRAY_IDX(fields->rows, i, row_t);

        append(bb, row->text, row->n, fields->p);
        *body += row->n;
    }
    append(bb, fields->section + fields->fields_len, fields->section_len - fields->fields_len,
           fields->p);
    *body += fields->section_len - fields->fields_len;
    *size = mail->spool->length - fields->section_len + *body;
    APR_BRIGADE_CONCAT(bb, rest);
    return rv;
}
