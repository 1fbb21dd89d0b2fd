/* rspamd's verdict: its action, scores, symbols, a message for the client, another subject and
 * changes of the header, as its milter would carry them out. The JSON is libjansson's, which
 * bounds its depth; of what is in it only the expected types are taken, and texts only after
 * they were made fit for a header field. Called by rspamd.c.
 */
#include "filters/rspamdresult.h"

#include <apr_strings.h>
#include <http_log.h>
#include <jansson.h>
#include <string.h>

#include "filters/rules.h"

APLOG_USE_MODULE(nssmtpd);

enum {
    FIELDS_MAX = 50,  /* changes of the header in one answer */
    NAME_MAX_LEN = 64,
    VALUE_MAX = 900,  /* octets: a field's line has 998 at most */
    WORDS_MAX = 200   /* octets of a message for the client or the log */
};

/* Its actions. "greylist" asks nothing of us: the module of that name makes it a soft reject
 * when a message is to wait. */
static const struct {
    const char *name;
    nssmtpd_verdict_e verdict;
} actions[] = {
    { "no action", NSSMTPD_VERDICT_CLEAN },
    { "greylist", NSSMTPD_VERDICT_CLEAN },
    { "add header", NSSMTPD_VERDICT_TAG },
    { "rewrite subject", NSSMTPD_VERDICT_TAG },
    { "soft reject", NSSMTPD_VERDICT_DEFER },
    { "reject", NSSMTPD_VERDICT_BAD }
};

/* NONE: no such action. */
static nssmtpd_verdict_e verdict_of(const char *action,
                                    const nssmtpd_rspamdresult_wishes_t *wishes)
{
    apr_size_t i;

    for (i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
        if (strcmp(actions[i].name, action) == 0) {
            return actions[i].verdict;
        }
    }
    return strcmp(action, "quarantine") == 0 ? wishes->quarantine
           : strcmp(action, "discard") == 0  ? wishes->discard
                                             : NSSMTPD_VERDICT_NONE;
}

/* A text on one line of printable ASCII: folds become a blank, RFC 5322 2.2.3. */
static const char *one_line(apr_pool_t *p, const char *text, apr_size_t max)
{
    char *line = apr_palloc(p, max + 1);
    apr_size_t n = 0;

    for (; *text && n < max; text++) {
        if (*text == '\r' || *text == '\n' || *text == '\t' || *text == ' ') {
            if (n && line[n - 1] != ' ') {
                line[n++] = ' ';
            }
            continue;
        }
        line[n++] = smtp_char_is(*text, SMTP_CHAR_TEXT) ? *text : '?';
    }
    while (n && line[n - 1] == ' ') {
        n--;
    }
    line[n] = '\0';
    return line;
}

static const char *text_of(const json_t *object, const char *key, apr_pool_t *p, apr_size_t max)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text && *text ? one_line(p, text, max) : NULL;
}

/* Changes of the header */

static int is_name(const char *name)
{
    const char *at = name;

    smtp_chars_skip(&at, name + strlen(name), SMTP_CHAR_FTEXT);
    return *name && !*at && at - name <= NAME_MAX_LEN;
}

static void leave_out(const nssmtpd_scan_t *scan, const char *name)
{
    ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, scan->job->r,
                  "NS0090: %s: rspamd wants a change of the header that is not made: %s",
                  scan->job->id,
                  ap_escape_logitem(scan->p, apr_pstrndup(scan->p, name, NAME_MAX_LEN)));
}

static void add_field(nssmtpd_scan_t *scan, const char *name, const json_t *value)
{
    const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "value")
                                                               : value);
    nssmtpd_field_t *field;

    if (!text || !is_name(name) || scan->add->nelts >= FIELDS_MAX) {
        leave_out(scan, name);
        return;
    }
    field = apr_array_push(scan->add);
    field->name = apr_pstrdup(scan->p, name);
    field->value = one_line(scan->p, text, VALUE_MAX);
}

/* {"X-A": "text", "X-B": {"value": "text", "order": 1}, "X-C": [either, ..]} */
static void add_fields(nssmtpd_scan_t *scan, json_t *fields)
{
    const char *name;
    json_t *value, *each;
    size_t i;

    json_object_foreach (fields, name, value) {
        if (!json_is_array(value)) {
            add_field(scan, name, value);
            continue;
        }
        json_array_foreach (value, i, each) {
            add_field(scan, name, each);
        }
    }
}

/* {"X-A": 0}: which of that name, and 0 is all. We only know all; but nobody takes away what
 * shows a message's way, RFC 5321 4.4. */
static void remove_fields(nssmtpd_scan_t *scan, json_t *fields)
{
    const char *name;
    json_t *which;

    json_object_foreach (fields, name, which) {
        if (!is_name(name) || strcasecmp(name, "Received") == 0
            || scan->remove->nelts >= FIELDS_MAX) {
            leave_out(scan, name);
            continue;
        }
        APR_ARRAY_PUSH(scan->remove, const char *) = apr_pstrdup(scan->p, name);
    }
}

/* The result */

static const char *symbols_of(json_t *symbols, apr_pool_t *p)
{
    nssmtpd_rules_t rules = { .n = 0 };
    const char *name;
    json_t *symbol;

    json_object_foreach (symbols, name, symbol) {
        nssmtpd_rules_add(&rules, name, strlen(name));
    }
    return nssmtpd_rules_text(&rules, p);
}

/* A rule may ask for discard or quarantine beside the action. */
static nssmtpd_verdict_e decide(const json_t *root, const json_t *milter,
                                const nssmtpd_rspamdresult_wishes_t *wishes)
{
    const char *action = json_string_value(json_object_get(root, "action"));
    const char *wish = json_string_value(json_object_get(milter, "reject"));
    nssmtpd_verdict_e verdict = action ? verdict_of(action, wishes) : NSSMTPD_VERDICT_NONE;

    if (wish && verdict != NSSMTPD_VERDICT_NONE
        && (strcmp(wish, "discard") == 0 || strcmp(wish, "quarantine") == 0)) {
        return verdict_of(wish, wishes);
    }
    return verdict;
}

static const char *fill(nssmtpd_scan_t *scan, json_t *root,
                        const nssmtpd_rspamdresult_wishes_t *wishes)
{
    json_t *milter = json_object_get(root, "milter"), *score = json_object_get(root, "score");
    nssmtpd_verdict_e verdict = decide(root, milter, wishes);

    if (!json_is_number(score) || !json_is_string(json_object_get(root, "action"))) {
        return "the answer has no action and score";
    }
    if (verdict == NSSMTPD_VERDICT_NONE) {
        return apr_pstrcat(scan->p, "the answer has an unknown action: ",
                           text_of(root, "action", scan->p, WORDS_MAX), NULL);
    }
    scan->verdict = verdict;
    scan->score = json_number_value(score);
    scan->threshold = json_number_value(json_object_get(root, "required_score"));
    scan->found = symbols_of(json_object_get(root, "symbols"), scan->p);
    scan->why = text_of(json_object_get(root, "messages"), "smtp_message", scan->p, WORDS_MAX);
    scan->subject = text_of(root, "subject", scan->p, VALUE_MAX);
    scan->add = apr_array_make(scan->p, 4, sizeof(nssmtpd_field_t));
    scan->remove = apr_array_make(scan->p, 4, sizeof(const char *));
    add_fields(scan, json_object_get(milter, "add_headers"));
    remove_fields(scan, json_object_get(milter, "remove_headers"));
    return NULL;
}

const char *nssmtpd_rspamdresult_read(nssmtpd_scan_t *scan, smtp_span_t json,
                                      const nssmtpd_rspamdresult_wishes_t *wishes)
{
    json_error_t error;
    json_t *root = json_loadb(json.p, json.n, 0, &error);
    const char *wrong;

    if (!json_is_object(root)) {
        wrong = root ? "the answer is no JSON object"
                     : apr_psprintf(scan->p, "the answer is no JSON: %s, octet %d",
                                    one_line(scan->p, error.text, WORDS_MAX), error.position);
    }
    else {
        wrong = fill(scan, root, wishes);
    }
    json_decref(root);
    return wrong;
}

const char *nssmtpd_rspamdresult_error(apr_pool_t *p, smtp_span_t json)
{
    json_t *root = json_loadb(json.p, json.n, 0, NULL);
    const char *text = text_of(root, "error", p, WORDS_MAX);

    json_decref(root);
    return text ? text : "";
}
