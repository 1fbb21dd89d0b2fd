/* Walks a message from part to part (RFC 2046 5.1). The structure is found line by line here
 * and not by GMime's parser, which makes an object of each part: a hostile message of 50 MB
 * has eight million of them. Called by parts.c.
 */
#include "lua/mime.h"

#include <gmime/gmime.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

/* A field's value that is read; more than that is nobody's file name. */
#define VALUE_MAX 8192

/* So much of fields is as much work as a part: GMime compares each parameter with each. */
#define FIELDS_OF_A_PART 512

static void init(void)
{
    g_mime_init();
}

void nssmtpd_mime_begin(nssmtpd_mime_t *mime, smtp_span_t message)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, init); /* not before the first script asks: libgmime survives no unload */
    mime->at = message.p;
    mime->end = message.p + message.n;
    mime->depth = mime->parts = mime->is_outside = 0;
    mime->looked = 0;
    mime->shortest = NSSMTPD_MIME_BOUNDARY;
}

/* Lines */

/* Takes the line at *at, its newline included. */
static smtp_span_t take_line(const char **at, const char *end)
{
    const char *start = *at, *lf = memchr(start, '\n', end - start);

    *at = lf ? lf + 1 : end;
    return (smtp_span_t){ start, *at - start };
}

static int is_space(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '\r' || ch == '\n';
}

static int is_empty(smtp_span_t line)
{
    return line.n == 0 || line.p[0] == '\n'
           || (line.n > 1 && line.p[0] == '\r' && line.p[1] == '\n');
}

/* 1: the line separates the level's parts, 2: it ends them (RFC 2046 5.1.1). */
static int is_delimiter(const nssmtpd_mime_level_t *level, smtp_span_t line)
{
    apr_size_t n = level->n + 2;
    int found = 1;

    if (!level->n || line.n < n || memcmp(line.p + 2, level->boundary, level->n) != 0) {
        return 0;
    }
    if (line.n >= n + 2 && memcmp(line.p + n, "--", 2) == 0) {
        found = 2;
        n += 2;
    }
    while (n < line.n && is_space(line.p[n])) {
        n++;
    }
    return n == line.n ? found : 0;
}

/* The level whose delimiter the line is, or -1; the innermost if there are two. */
static int find_level(const nssmtpd_mime_t *mime, smtp_span_t line, int *found)
{
    int i;

    if (line.n < mime->shortest + 2 || line.p[0] != '-' || line.p[1] != '-') {
        return -1;
    }
    for (i = mime->depth - 1; i >= 0; i--) {
        if ((*found = is_delimiter(&mime->level[i], line))) {
            return i;
        }
    }
    return -1;
}

/* Moves behind the next delimiter, and out of the levels it ends. Returns what stood before
 * it, without the newline, which is the delimiter's. */
static smtp_span_t leave_part(nssmtpd_mime_t *mime)
{
    const char *start = mime->at;
    smtp_span_t line, octets;
    int i, found = 0;

    while (mime->at < mime->end) {
        line = take_line(&mime->at, mime->end);
        i = find_level(mime, line, &found);
        if (i < 0) {
            continue;
        }
        mime->depth = found == 2 ? i : i + 1;
        mime->is_outside = found == 2;
        octets = (smtp_span_t){ start, line.p - start };
        if (octets.n && octets.p[octets.n - 1] == '\n') {
            octets.n -= octets.n > 1 && octets.p[octets.n - 2] == '\r' ? 2 : 1;
        }
        return octets;
    }
    mime->depth = 0;
    mime->is_outside = 1;
    return (smtp_span_t){ start, mime->end - start };
}

/* Fields */

enum { TYPE, DISPOSITION, ENCODING, FIELDS };

typedef struct field_t {
    int is_there;
    apr_size_t n;
    char value[VALUE_MAX + 1];
} field_t;

static void append(field_t *field, smtp_span_t text)
{
    apr_size_t i;

    for (i = 0; i < text.n && field->n < VALUE_MAX; i++) {
        if (text.p[i] != '\r' && text.p[i] != '\n') {
            field->value[field->n++] = text.p[i] ? text.p[i] : ' ';
        }
    }
    field->value[field->n] = '\0';
}

/* The first of a name counts. Returns where its further lines go, or NULL. */
static field_t *take_field(field_t *fields, smtp_span_t line)
{
    static const char *const names[FIELDS] = { "Content-Type", "Content-Disposition",
                                               "Content-Transfer-Encoding" };
    int i;

    for (i = 0; i < FIELDS; i++) {
        apr_size_t n = strlen(names[i]);

        if (line.n > n && strncasecmp(line.p, names[i], n) == 0) {
            while (n < line.n && (line.p[n] == ' ' || line.p[n] == '\t')) {
                n++;
            }
            if (n < line.n && line.p[n] == ':' && !fields[i].is_there) {
                fields[i].is_there = 1;
                append(&fields[i], (smtp_span_t){ line.p + n + 1, line.n - n - 1 });
                return &fields[i];
            }
        }
    }
    return NULL;
}

/* Takes the fields and the empty line. A delimiter ends them too, and stays. */
static void take_fields(nssmtpd_mime_t *mime, field_t *fields)
{
    field_t *open = NULL;
    int i, found;

    for (i = 0; i < FIELDS; i++) {
        fields[i].is_there = 0;
        fields[i].n = 0;
        fields[i].value[0] = '\0';
    }
    while (mime->at < mime->end) {
        const char *start = mime->at;
        smtp_span_t line = take_line(&mime->at, mime->end);

        if (is_empty(line)) {
            return;
        }
        if (find_level(mime, line, &found) >= 0) {
            mime->at = start;
            return;
        }
        if (line.p[0] != ' ' && line.p[0] != '\t') {
            open = take_field(fields, line);
        }
        else if (open) {
            append(open, line);
        }
    }
}

/* What they say */

static void set_text(char *to, apr_size_t size, const char *from)
{
    apr_size_t n = from ? strlen(from) : 0;

    n = n < size ? n : size - 1;
    memcpy(to, from ? from : "", n);
    to[n] = '\0';
}

static void set_name(const field_t *field, GMimeContentType *type, nssmtpd_part_t *part)
{
    GMimeContentDisposition *disposition = NULL;
    const char *name = NULL;

    if (field->is_there) {
        disposition = g_mime_content_disposition_parse(NULL, field->value);
        name = g_mime_content_disposition_get_parameter(disposition, "filename");
    }
    set_text(part->name, sizeof(part->name),
             name ? name : g_mime_content_type_get_parameter(type, "name"));
    if (disposition) {
        g_object_unref(disposition);
    }
}

static int is_plain(const nssmtpd_part_t *part)
{
    return part->encoding != GMIME_CONTENT_ENCODING_BASE64
           && part->encoding != GMIME_CONTENT_ENCODING_QUOTEDPRINTABLE;
}

static int is_digest(const nssmtpd_mime_t *mime)
{
    return mime->depth && mime->level[mime->depth - 1].is_digest;
}

/* Into a multipart or a message. 0: it is a part like others. */
static int enter(nssmtpd_mime_t *mime, const nssmtpd_part_t *part, const char *boundary)
{
    nssmtpd_mime_level_t *level = &mime->level[mime->depth];
    int is_message = strcmp(part->type, "message/rfc822") == 0;

    if (mime->depth == NSSMTPD_MIME_DEPTH || !is_plain(part)
        || (is_message && mime->looked >= NSSMTPD_MIME_LOOKED)) {
        return 0;
    }
    if (!is_message && (strncmp(part->type, "multipart/", 10) != 0 || !boundary || !*boundary
                        || strlen(boundary) >= sizeof(level->boundary))) {
        return 0;
    }
    level->n = is_message ? 0 : strlen(boundary);
    level->is_digest = strcmp(part->type, "multipart/digest") == 0;
    memcpy(level->boundary, is_message ? "" : boundary, level->n);
    if (level->n && level->n < mime->shortest) {
        mime->shortest = level->n;
    }
    mime->depth++;
    mime->is_outside = !is_message;
    return 1;
}

/* Understands the fields; 1: the cursor is inside of what they announce. */
static int begin_part(nssmtpd_mime_t *mime, nssmtpd_part_t *part)
{
    field_t fields[FIELDS];
    GMimeContentType *type;
    char *text;
    int entered;

    take_fields(mime, fields);
    mime->parts += (fields[TYPE].n + fields[DISPOSITION].n) / FIELDS_OF_A_PART;
    if (!fields[TYPE].is_there) {
        append(&fields[TYPE], is_digest(mime) ? (smtp_span_t){ "message/rfc822", 14 }
                                              : (smtp_span_t){ "text/plain", 10 });
    }
    type = g_mime_content_type_parse(NULL, fields[TYPE].value);
    text = g_mime_content_type_get_mime_type(type);
    set_text(part->type, sizeof(part->type), text);
    g_free(text);
    for (text = part->type; *text; text++) {
        *text = g_ascii_tolower(*text);
    }
    part->encoding = g_mime_content_encoding_from_string(g_strstrip(fields[ENCODING].value));
    set_name(&fields[DISPOSITION], type, part);
    entered = enter(mime, part, g_mime_content_type_get_parameter(type, "boundary"));
    g_object_unref(type);
    return entered;
}

/* The octets of a message in a message, which the cursor is at the beginning of: to where its
 * surroundings end it. */
static smtp_span_t look_ahead(const nssmtpd_mime_t *mime)
{
    const char *at = mime->at, *start = at;
    int found;

    while (at < mime->end) {
        smtp_span_t line = take_line(&at, mime->end);

        if (find_level(mime, line, &found) >= 0) {
            apr_size_t n = line.p - start;

            if (n && start[n - 1] == '\n') {
                n -= n > 1 && start[n - 2] == '\r' ? 2 : 1;
            }
            return (smtp_span_t){ start, n };
        }
    }
    return (smtp_span_t){ start, mime->end - start };
}

/* All that is left, as it is. */
static int take_rest(nssmtpd_mime_t *mime, nssmtpd_part_t *part)
{
    strcpy(part->type, "multipart/mixed");
    part->name[0] = '\0';
    part->encoding = GMIME_CONTENT_ENCODING_DEFAULT;
    part->octets = (smtp_span_t){ mime->at, mime->end - mime->at };
    mime->at = mime->end;
    mime->depth = 0;
    mime->is_outside = 1;
    return 1;
}

int nssmtpd_mime_next(nssmtpd_mime_t *mime, nssmtpd_part_t *part)
{
    for (;;) {
        if (mime->is_outside) {
            leave_part(mime);
            if (mime->is_outside && mime->at == mime->end) {
                return 0;
            }
            continue;
        }
        if (mime->parts++ >= NSSMTPD_MIME_PARTS) {
            return take_rest(mime, part);
        }
        if (!begin_part(mime, part)) {
            part->octets = leave_part(mime);
            return 1;
        }
        if (!mime->level[mime->depth - 1].n) {
            part->octets = look_ahead(mime);
            mime->looked += part->octets.n;
            return 1;
        }
    }
}

apr_size_t nssmtpd_mime_decode(const nssmtpd_part_t *part, char *buf)
{
    char piece[4096 + 64];
    GMimeEncoding state;
    apr_size_t n = 0, taken = 0, made;

    if (is_plain(part)) {
        if (buf) {
            memcpy(buf, part->octets.p, part->octets.n);
        }
        return part->octets.n;
    }
    g_mime_encoding_init_decode(&state, part->encoding);
    while (taken < part->octets.n) {
        apr_size_t step = part->octets.n - taken < 4096 ? part->octets.n - taken : 4096;

        made = g_mime_encoding_step(&state, part->octets.p + taken, step, piece);
        if (buf) {
            memcpy(buf + n, piece, made);
        }
        n += made;
        taken += step;
    }
    return n;
}
