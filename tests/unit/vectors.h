/* Reads the vectors of tests/dialogues/ for test_dialogues.c; the README there says how one is
 * written. Anything it cannot read is a failure, never skipped. Not part of the module.
 */
#ifndef TESTS_UNIT_VECTORS_H
#define TESTS_UNIT_VECTORS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <apr_file_info.h>
#include <apr_fnmatch.h>
#include <apr_strings.h>
#include <apr_tables.h>

#include "smtp/dialogue.h"

#ifndef DIALOGUES
#define DIALOGUES "tests/dialogues"
#endif

typedef struct text_t {
    char *p;
    size_t n, size;
} text_t;

typedef struct vector_t {
    const char *name, *file;
    int line;
    smtp_offer_t offer;
    int normalize, need_helo, can_tls, need_tls, has_tls, can_auth, auth_in_clear;
    int close;                   /* the smtp_reply_e to close with at the end, or -1 */
    text_t input;
    apr_array_header_t *expect;  /* of char *: lines without the answers */
    apr_array_header_t *answers; /* of smtp_reply_t *: one for each event that is owed one */
} vector_t;

static apr_pool_t *pool;

static void add(text_t *t, const char *p, size_t n)
{
    if (t->n + n + 1 > t->size) {
        t->size = 2 * (t->n + n + 1);
        t->p = realloc(t->p, t->size);
        assert_non_null(t->p);
    }
    if (n) {
        memcpy(t->p + t->n, p, n);
    }
    t->n += n;
    t->p[t->n] = '\0';
}

static void add_string(text_t *t, const char *s)
{
    add(t, s, strlen(s));
}

/* Takes one escape behind its backslash; returns behind it. */
static const char *unescape(text_t *to, const char *at)
{
    unsigned value;
    int n, width = 0;

    if (sscanf(at, "x%2x%n", &value, &width) == 1 && width == 3) {
        add(to, (const char[]){ (char)value }, 1);
        return at + 3;
    }
    if (sscanf(at, "{%d*%*c}%n", &n, &width) == 1 && width > 0) {
        while (n-- > 0) {
            add(to, at + width - 2, 1);
        }
        return at + width;
    }
    add(to, *at == 'r' ? "\r" : *at == 'n' ? "\n" : *at == '0' ? "\0" : at, 1);
    return at + 1;
}

/* A line of the client: CRLF is implied, unless it ends in "\-". */
static void take_input(vector_t *v, const char *at)
{
    while (*at) {
        if (strcmp(at, "\\-") == 0) {
            return;
        }
        if (*at == '\\') {
            at = unescape(&v->input, at + 1);
        }
        else {
            add(&v->input, at++, 1);
        }
    }
    add(&v->input, "\r\n", 2);
}

static const struct {
    const char *name;
    smtp_reply_e reply;
} closes[] = {
    { "timeout", SMTP_REPLY_TIMEOUT },
    { "shutdown", SMTP_REPLY_SHUTDOWN },
    { "connections", SMTP_REPLY_TOO_MANY_CONNECTIONS },
};

static void take_close(vector_t *v, const char *word)
{
    size_t i;

    for (i = 0; i < sizeof(closes) / sizeof(*closes); i++) {
        if (strcmp(word, closes[i].name) == 0) {
            v->close = closes[i].reply;
            return;
        }
    }
    fail_msg("%s:%d: no such close: %s", v->file, v->line, word);
}

static const struct {
    const char *name;
    size_t offset;
} flags[] = {
    { "normalize", offsetof(vector_t, normalize) },
    { "need_helo", offsetof(vector_t, need_helo) },
    { "can_tls", offsetof(vector_t, can_tls) },
    { "need_tls", offsetof(vector_t, need_tls) },
    { "has_tls", offsetof(vector_t, has_tls) },
    { "can_auth", offsetof(vector_t, can_auth) },
    { "auth_in_clear", offsetof(vector_t, auth_in_clear) },
};

static int take_flag(vector_t *v, const char *name, int value)
{
    size_t i;

    for (i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
        if (strcmp(name, flags[i].name) == 0) {
            *(int *)((char *)v + flags[i].offset) = value;
            return 1;
        }
    }
    return 0;
}

static void take_setting(vector_t *v, const char *word)
{
    long long value = -1;
    char name[32];

    if (sscanf(word, "%31[a-z_]=%lld", name, &value) != 2) {
        fail_msg("%s: bad setting \"%s\"", v->file, word);
    }
    if (!strcmp(name, "max_line")) {
        v->offer.max_line = value;
    }
    else if (!strcmp(name, "max_size")) {
        v->offer.max_size = value;
    }
    else if (!strcmp(name, "max_errors")) {
        v->offer.max_errors = value;
    }
    else if (!strcmp(name, "max_rcpts")) {
        v->offer.max_rcpts = value;
    }
    else if (!take_flag(v, name, value)) {
        fail_msg("%s: no such setting \"%s\"", v->file, word);
    }
}

static const smtp_reply_t *read_answer(const char *text)
{
    smtp_reply_t *reply = apr_pcalloc(pool, sizeof(*reply));
    apr_size_t n;

    if (strcmp(text, "ok") == 0) {
        return NULL;
    }
    reply->code = atoi(text);
    text += strlen(text) > 4 ? 4 : strlen(text);
    n = smtp_reply_find_enhanced(text, reply->code);
    reply->enhanced = apr_pstrmemdup(pool, text, n);
    reply->text = apr_pstrdup(pool, text + n + (text[n] == ' '));
    return reply;
}

static void expect(vector_t *v, const char *line)
{
    APR_ARRAY_PUSH(v->expect, const char *) = line;
}

static void take_event(vector_t *v, char *line)
{
    char *answer = strstr(line, " -> ");

    if (answer) {
        *answer = '\0';
        answer += 4;
    }
    expect(v, line);
    if (strncmp(line, "E: close", 8) != 0) {
        APR_ARRAY_PUSH(v->answers, const smtp_reply_t *) = answer ? read_answer(answer) : NULL;
    }
}

static vector_t *start_vector(apr_array_header_t *vectors, const char *file, int line, char *name)
{
    vector_t *v = apr_array_push(vectors);

    memset(v, 0, sizeof(*v));
    v->file = file;
    v->line = line;
    v->name = name;
    v->offer = (smtp_offer_t){ "mx.example.com", 512, 1000000, 20, 100 };
    v->need_helo = 1;
    v->close = -1;
    v->expect = apr_array_make(pool, 16, sizeof(char *));
    v->answers = apr_array_make(pool, 8, sizeof(smtp_reply_t *));
    return v;
}

static void take_line(vector_t *v, char *line)
{
    char *last, *word;

    if (strncmp(line, "C: ", 3) == 0) {
        take_input(v, line + 3);
    }
    else if (strncmp(line, "S: ", 3) == 0 || strncmp(line, "M: ", 3) == 0) {
        expect(v, line);
    }
    else if (strncmp(line, "E: ", 3) == 0) {
        take_event(v, line);
    }
    else if (strncmp(line, "X: ", 3) == 0) {
        take_close(v, line + 3);
    }
    else if (strncmp(line, "@ ", 2) == 0) {
        for (word = apr_strtok(line + 2, " ", &last); word; word = apr_strtok(NULL, " ", &last)) {
            take_setting(v, word);
        }
    }
    else if (*line && *line != '#') {
        fail_msg("%s: cannot read \"%s\"", v->file, line);
    }
}

static void read_vectors(apr_array_header_t *vectors, const char *path)
{
    FILE *f = fopen(path, "r");
    char buf[8192];
    vector_t *v = NULL;
    int n;

    assert_non_null(f);
    for (n = 1; fgets(buf, sizeof(buf), f); n++) {
        char *line = apr_pstrdup(pool, buf);

        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "== ", 3) == 0) {
            v = start_vector(vectors, path, n, line + 3);
        }
        else if (v) {
            take_line(v, line);
        }
        else if (*line && *line != '#') {
            fail_msg("%s:%d: no \"== name\" before this line", path, n);
        }
    }
    fclose(f);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void read_directory(apr_array_header_t *vectors)
{
    apr_array_header_t *names = apr_array_make(pool, 16, sizeof(char *));
    apr_finfo_t entry;
    apr_dir_t *dir;
    int i;

    if (apr_dir_open(&dir, DIALOGUES, pool) != APR_SUCCESS) {
        fprintf(stderr, "test_dialogues: no directory %s here\n", DIALOGUES);
        exit(1);
    }
    while (apr_dir_read(&entry, APR_FINFO_NAME, dir) == APR_SUCCESS) {
        if (apr_fnmatch("*.txt", entry.name, 0) == APR_SUCCESS) {
            APR_ARRAY_PUSH(names, char *) = apr_pstrcat(pool, DIALOGUES "/", entry.name, NULL);
        }
    }
    apr_dir_close(dir);
    qsort(names->elts, names->nelts, sizeof(char *), by_name);
    for (i = 0; i < names->nelts; i++) {
        read_vectors(vectors, APR_ARRAY_IDX(names, i, char *));
    }
}

#endif
