/* Changing the lists of relay permission at run time: what a word of a script means and
 * whether it may stand in the list. All that a child could fail on later is looked at here,
 * before anything changes; a host's name is looked up here, so that all children agree on its
 * addresses. Declared in mod_nssmtpd.h, called by scripts in any thread that may block.
 */
#include <httpd.h>

#include <apr_hash.h>
#include <apr_strings.h>
#include <http_log.h>

#include "server/changes.h"
#include "server/permits.h"

APLOG_USE_MODULE(nssmtpd);

/* Octets of one word. */
#define WORD_MAX 1000

/* A change on its way. */
typedef struct edit_t {
    apr_pool_t *p;
    nssmtpd_list_e list;
    const char *word;                /* to delete */
    const apr_array_header_t *words; /* to set, as lines */
    const char *line;                /* to add */
} edit_t;

/* Words */

static const char *check_word(apr_pool_t *p, const char *word)
{
    const char *c = word;

    while ((unsigned char)*c >= ' ' && *c != 0x7f) {
        c++;
    }
    if (*c || c == word) {
        return "an entry is empty or has a control character in it";
    }
    return c - word > WORD_MAX
               ? apr_psprintf(p, "an entry has more than %d octets", WORD_MAX)
               : NULL;
}

static const char *check_domain(const nssmtpd_config_t *conf, apr_pool_t *p, const char *word)
{
    nssmtpd_domain_t domain;
    const char *wrong = nssmtpd_lists_parse_domain(p, &domain, word);

    if (!wrong && domain.route) {
        wrong = nssmtpd_permits_route(conf, &domain, &domain.route);
        return wrong ? apr_psprintf(p, "%s: %s", domain.name, wrong) : NULL;
    }
    if (!wrong && !conf->relay) {
        return apr_psprintf(p, "%s has no route, and there is no SmtpdRelay to take its mail",
                            domain.name);
    }
    return wrong;
}

/* The word as it stands in the list. */
static const char *make_line(server_rec *s, nssmtpd_list_e list, apr_pool_t *p, const char *word,
                             const char **line)
{
    const char *wrong = check_word(p, word);
    nssmtpd_client_t client;

    *line = word;
    if (!wrong && list == NSSMTPD_LIST_RELAY) {
        wrong = check_domain(nssmtpd_config(s), p, word);
    }
    else if (!wrong && !(wrong = nssmtpd_lists_parse_client(p, &client, word))) {
        *line = client.text;
    }
    return wrong;
}

/* Of equal entries the last counts, and none stands twice. */
static apr_array_header_t *without_doubles(apr_pool_t *p, nssmtpd_list_e list,
                                           const apr_array_header_t *lines)
{
    apr_array_header_t *once = apr_array_make(p, lines->nelts + 1, sizeof(char *));
    apr_hash_t *last = apr_hash_make(p);
    const char **keys = apr_palloc(p, (lines->nelts + 1) * sizeof(*keys));
    int i;

    for (i = 0; i < lines->nelts; i++) {
        keys[i] = nssmtpd_lists_key(p, list, APR_ARRAY_IDX(lines, i, const char *));
        apr_hash_set(last, keys[i], APR_HASH_KEY_STRING, keys[i]);
    }
    for (i = 0; i < lines->nelts; i++) {
        if (apr_hash_get(last, keys[i], APR_HASH_KEY_STRING) == keys[i]) {
            APR_ARRAY_PUSH(once, const char *) = APR_ARRAY_IDX(lines, i, const char *);
        }
    }
    return once;
}

/* What the configuration says, in the same form. */
static apr_array_header_t *configured(const nssmtpd_config_t *conf, nssmtpd_list_e list,
                                      apr_pool_t *p)
{
    int is_relay = list == NSSMTPD_LIST_RELAY, i;
    const apr_array_header_t *from = is_relay ? conf->domains : conf->trusted;
    apr_array_header_t *lines = apr_array_make(p, 16, sizeof(char *));

    for (i = 0; from && i < from->nelts; i++) {
        APR_ARRAY_PUSH(lines, const char *) =
            is_relay ? APR_ARRAY_IDX(from, i, nssmtpd_domain_t).word
                     : APR_ARRAY_IDX(from, i, nssmtpd_client_t).text;
    }
    return without_doubles(p, list, lines);
}

/* Edits, with the list to ourselves */

/* Takes the entry out that is known by the same key: there is one at most. */
static int take_out(apr_array_header_t *lines, const edit_t *edit, const char *word)
{
    const char *key = nssmtpd_lists_key(edit->p, edit->list, word);
    int i, kept = 0, n = lines->nelts;

    for (i = 0; i < n; i++) {
        const char *line = APR_ARRAY_IDX(lines, i, const char *);

        if (strcmp(nssmtpd_lists_key(edit->p, edit->list, line), key) != 0) {
            APR_ARRAY_IDX(lines, kept++, const char *) = line;
        }
    }
    lines->nelts = kept;
    return kept < n;
}

static const char *add_line(apr_array_header_t *lines, void *baton)
{
    const edit_t *edit = baton;

    take_out(lines, edit, edit->line);
    APR_ARRAY_PUSH(lines, const char *) = edit->line;
    return NULL;
}

static const char *delete_word(apr_array_header_t *lines, void *baton)
{
    const edit_t *edit = baton;

    return take_out(lines, edit, edit->word)
               ? NULL
               : apr_psprintf(edit->p, "\"%s\" is not in the list", edit->word);
}

static const char *set_lines(apr_array_header_t *lines, void *baton)
{
    const edit_t *edit = baton;

    apr_array_clear(lines);
    apr_array_cat(lines, edit->words);
    return NULL;
}

static const char *run(server_rec *s, edit_t *edit, nssmtpd_changes_edit_t *how, const char *what)
{
    const nssmtpd_config_t *conf = nssmtpd_config(s);
    const char *wrong = nssmtpd_changes_edit(conf->changes, edit->list, edit->p,
                                             configured(conf, edit->list, edit->p), how, edit);

    if (!wrong) {
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, s, "NS0063: a script %s the %s of %s", what,
                     edit->list == NSSMTPD_LIST_RELAY ? "relay domains" : "trusted clients",
                     conf->offer.hostname);
    }
    return wrong;
}

/* The interface */

const char *nssmtpd_list_add(server_rec *s, nssmtpd_list_e list, apr_pool_t *p, const char *word)
{
    edit_t edit = { .p = p, .list = list };
    const char *wrong = make_line(s, list, p, word, &edit.line);

    return wrong ? wrong : run(s, &edit, add_line, "added to");
}

const char *nssmtpd_list_delete(server_rec *s, nssmtpd_list_e list, apr_pool_t *p,
                                const char *word)
{
    edit_t edit = { .p = p, .list = list, .word = word };
    const char *wrong = check_word(p, word);

    return wrong ? wrong : run(s, &edit, delete_word, "deleted from");
}

const char *nssmtpd_list_set(server_rec *s, nssmtpd_list_e list, apr_pool_t *p,
                             const apr_array_header_t *words)
{
    edit_t edit = { .p = p, .list = list };
    apr_array_header_t *lines = apr_array_make(p, words->nelts + 1, sizeof(char *));
    const char *wrong = NULL;
    int i;

    for (i = 0; i < words->nelts && !wrong; i++) {
        wrong = make_line(s, list, p, APR_ARRAY_IDX(words, i, const char *),
                          apr_array_push(lines));
    }
    edit.words = without_doubles(p, list, lines);
    return wrong ? wrong : run(s, &edit, set_lines, "replaced");
}

apr_array_header_t *nssmtpd_list_get(server_rec *s, nssmtpd_list_e list, apr_pool_t *p)
{
    const nssmtpd_config_t *conf = nssmtpd_config(s);
    apr_array_header_t *lines = NULL, *words = apr_array_make(p, 16, sizeof(char *));
    apr_uint32_t version;
    int i;

    if (nssmtpd_changes_version(conf->changes, list)) {
        lines = nssmtpd_changes_read(conf->changes, list, p, &version);
    }
    if (!lines) {
        lines = configured(conf, list, p);
    }
    for (i = 0; i < lines->nelts; i++) {
        const char *line = APR_ARRAY_IDX(lines, i, const char *);

        APR_ARRAY_PUSH(words, const char *) = apr_pstrmemdup(p, line, strcspn(line, "\t"));
    }
    return words;
}
