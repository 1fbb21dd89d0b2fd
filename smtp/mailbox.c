/* The first mailbox of a list (RFC 5322 3.4). One pass takes the list's first entry apart into
 * what is an address and what is only a name; smtp/address.h then says whether it is one.
 * Called for scripts; message fields themselves are nobody's business here.
 */
#include "smtp/mailbox.h"

#include <string.h>

#include "smtp/address.h"

/* An entry while it is read. Text collects without comments, runs of blanks as one space. */
typedef struct entry_t {
    char text[2 * SMTP_PATH_MAX];
    apr_size_t n;
    unsigned is_too_long : 1;
    unsigned has_at : 1;     /* outside of quotes */
    unsigned in_bracket : 1;
    unsigned was_bracket : 1;
} entry_t;

static void put(entry_t *entry, char ch)
{
    if (entry->n == sizeof(entry->text)) {
        entry->is_too_long = 1;
        return;
    }
    entry->text[entry->n++] = ch;
}

static void put_blank(entry_t *entry)
{
    if (entry->n && entry->text[entry->n - 1] != ' ') {
        put(entry, ' ');
    }
}

/* What opens at *at and ends with close: a quoted string or a literal. 0: it never ends. */
static int take_quoted(entry_t *entry, const char **at, const char *end, char close)
{
    put(entry, *(*at)++);
    for (; *at < end; (*at)++) {
        put(entry, **at);
        if (**at == close) {
            (*at)++;
            return 1;
        }
        if (**at == '\\' && ++*at < end) {
            put(entry, **at);
        }
    }
    return 0;
}

/* RFC 5322 3.2.2: comments nest. */
static int skip_comment(const char **at, const char *end)
{
    apr_size_t depth = 0;

    for (; *at < end; (*at)++) {
        if (**at == '\\') {
            if (++*at == end) {
                return 0;
            }
        }
        else if (**at == '(') {
            depth++;
        }
        else if (**at == ')' && --depth == 0) {
            (*at)++;
            return 1;
        }
    }
    return 0;
}

/* What was read is only a name. */
static void begin_again(entry_t *entry)
{
    entry->n = 0;
    entry->is_too_long = 0;
}

/* A bracket opens or closes. What stood before it is a name, which holds no address. */
static int take_bracket(entry_t *entry, char ch)
{
    if (ch == '>' && entry->in_bracket) {
        entry->was_bracket = 1;
        entry->in_bracket = 0;
        return 1;
    }
    if (ch == '>' || entry->in_bracket || entry->was_bracket || entry->has_at) {
        return 0;
    }
    begin_again(entry);
    entry->in_bracket = 1;
    return 1;
}

/* One character that is no comment and opens no quotes. 0: it cannot stand there. */
static int take(entry_t *entry, char ch)
{
    if (ch == '<' || ch == '>') {
        return take_bracket(entry, ch);
    }
    if (ch == ' ' || ch == '\t' || ch == '\r' || ch == '\n') {
        put_blank(entry);
        return 1;
    }
    if (ch == ':' && !entry->in_bracket) { /* a group's name */
        if (entry->was_bracket || entry->has_at) {
            return 0;
        }
        begin_again(entry);
        return 1;
    }
    entry->has_at |= ch == '@';
    put(entry, ch);
    return !entry->was_bracket;
}

/* 1: the entry is complete, *at stands behind it. */
static int take_entry(entry_t *entry, const char **at, const char *end)
{
    int fine = 1;

    while (fine && *at < end) {
        char ch = **at;

        if (ch == '(') {
            put_blank(entry);
            fine = skip_comment(at, end);
        }
        else if (ch == '"' || ch == '[') {
            fine = !entry->was_bracket && take_quoted(entry, at, end, ch == '"' ? '"' : ']');
        }
        else {
            (*at)++;
            if ((ch == ',' || ch == ';') && !entry->in_bracket) {
                break;
            }
            fine = take(entry, ch);
        }
    }
    return fine && !entry->in_bracket;
}

/* Drops the blanks that RFC 5322 allows around dots and '@'; others separate words, which an
 * address does not have. */
static smtp_span_t close_up(entry_t *entry)
{
    apr_size_t i, n = 0;
    char *text = entry->text;
    int quoted = 0;

    for (i = 0; i < entry->n; i++) {
        if (!quoted && text[i] == ' '
            && (n == 0 || i + 1 == entry->n || strchr(".@,:", text[i + 1])
                || strchr(".@,:", text[n - 1]))) {
            continue;
        }
        if (text[i] == '"') {
            quoted = !quoted;
        }
        else if (text[i] == '\\' && quoted && i + 1 < entry->n) {
            text[n++] = text[i++];
        }
        text[n++] = text[i];
    }
    return (smtp_span_t){ text, n };
}

static int is_empty(const entry_t *entry)
{
    return !entry->was_bracket && (entry->n == 0 || (entry->n == 1 && entry->text[0] == ' '));
}

smtp_parse_e smtp_mailbox_first(smtp_span_t list, char *buf)
{
    const char *at = list.p, *end = list.p + list.n;
    entry_t entry;
    smtp_address_t address;
    smtp_span_t text;

    do { /* RFC 5322 4.4: entries may be empty */
        memset(&entry, 0, sizeof(entry));
        if (!take_entry(&entry, &at, end) || entry.is_too_long) {
            return SMTP_BAD;
        }
    } while (is_empty(&entry) && at < end);

    text = close_up(&entry);
    at = text.p;
    if (text.n == 0 || smtp_address_parse(&address, &at, text.p + text.n) != SMTP_OK
        || at != text.p + text.n || !address.domain.n || address.text.n >= SMTP_PATH_MAX) {
        return SMTP_BAD;
    }
    memcpy(buf, address.text.p, address.text.n);
    buf[address.text.n] = '\0';
    return SMTP_OK;
}
