/* What becomes of a message that a scanner has seen, or could not see: nothing is skipped or
 * fails in silence. The scanners are hostile input too: of their words only printable ASCII
 * gets into replies and header fields. RFC 3463 3.8 (x.7.1), RFC 5322 2.2 (fields).
 */
#include "filters/outcome.h"

#include <apr_strings.h>
#include <http_log.h>
#include <math.h>

#include "smtp/chars.h"

APLOG_USE_MODULE(nssmtpd);

/* Octets of a scanner's words in a reply; of a field's value, RFC 5322 2.1.1. */
enum { WORDS_MAX = 200, VALUE_MAX = 900 };

typedef enum outcome_e {
    PASS,
    MARK,    /* it goes on, marked */
    UNSEEN,  /* it goes on, with a word that it was not looked at */
    DEFER,
    REFUSE,
    DISCARD
} outcome_e;

static const char *const outcome_words[] = { "passes", "passes, marked", "passes, unscanned",
                                             "gets 451", "is refused", "is discarded" };

static const outcome_e outcome_of[] = {
    [NSSMTPD_CONSEQUENCE_ACCEPT] = UNSEEN, [NSSMTPD_CONSEQUENCE_DEFER] = DEFER,
    [NSSMTPD_CONSEQUENCE_REJECT] = REFUSE, [NSSMTPD_CONSEQUENCE_TAG] = MARK,
    [NSSMTPD_CONSEQUENCE_DISCARD] = DISCARD
};

/* Judging */

/* The scanner's verdict, where the administrator's scores do not say otherwise. */
static nssmtpd_verdict_e verdict_of(const nssmtpd_scan_t *scan)
{
    const nssmtpd_scan_conf_t *conf = scan->conf;
    nssmtpd_verdict_e verdict = scan->verdict;

    if (verdict != NSSMTPD_VERDICT_CLEAN && verdict != NSSMTPD_VERDICT_TAG
        && verdict != NSSMTPD_VERDICT_BAD) {
        return verdict;
    }
    if (isnan(scan->score)) { /* below any limit, to a comparison */
        return NSSMTPD_VERDICT_ERROR;
    }
    if (isnan(conf->reject) ? verdict == NSSMTPD_VERDICT_BAD : scan->score >= conf->reject) {
        return NSSMTPD_VERDICT_BAD;
    }
    if (isnan(conf->tag) ? verdict != NSSMTPD_VERDICT_CLEAN : scan->score >= conf->tag) {
        return NSSMTPD_VERDICT_TAG;
    }
    return NSSMTPD_VERDICT_CLEAN;
}

/* Some recipients want no scan of this kind: for their sake nothing is refused, but a message
 * that the others' scanner could not see waits all the same. */
static outcome_e judge(const nssmtpd_line_t *line, const nssmtpd_scan_t *scan,
                       apr_uint32_t must_refuse)
{
    int must = (must_refuse & nssmtpd_scanners_kind(line)) != 0;
    outcome_e outcome;

    switch (verdict_of(scan)) {
    case NSSMTPD_VERDICT_CLEAN:
        return PASS;
    case NSSMTPD_VERDICT_BAD:
        return must ? outcome_of[line->action] : MARK;
    case NSSMTPD_VERDICT_TAG:
        return MARK;
    case NSSMTPD_VERDICT_DEFER:
        return must ? DEFER : UNSEEN;
    case NSSMTPD_VERDICT_TOO_LARGE:
        outcome = outcome_of[line->oversize];
        return outcome == REFUSE && !must ? UNSEEN : outcome;
    default:
        return outcome_of[line->onerror];
    }
}

int nssmtpd_outcome_is_final(const nssmtpd_line_t *line, const nssmtpd_scan_t *scan,
                             apr_uint32_t must_refuse)
{
    return judge(line, scan, must_refuse) >= REFUSE;
}

/* Words */

/* A scanner's words with printable octets only, and not too many of them. */
static char *clean(apr_pool_t *p, const char *words, apr_size_t max)
{
    char *text = apr_pstrndup(p, words, max), *at;

    for (at = text; *at; at++) {
        if (!smtp_char_is(*at, SMTP_CHAR_TEXT)) {
            *at = '?';
        }
    }
    return text;
}

static const smtp_reply_t *reword(apr_pool_t *p, smtp_reply_e id, const char *words)
{
    return words && *words ? smtp_reply_reword(p, id, clean(p, words, WORDS_MAX)) : smtp_reply(id);
}

static const smtp_reply_t *reply_for(const nssmtpd_scan_t *scan, outcome_e outcome)
{
    apr_pool_t *p = scan->job->p;

    if (outcome == DEFER) {
        return scan->verdict == NSSMTPD_VERDICT_DEFER
                   ? reword(p, SMTP_REPLY_SCAN_LATER, scan->why)
                   : smtp_reply(SMTP_REPLY_SCAN_FAULT);
    }
    if (scan->verdict == NSSMTPD_VERDICT_TOO_LARGE) {
        return smtp_reply(SMTP_REPLY_TOO_BIG_TO_SCAN);
    }
    if (scan->conf->scanner->is_spam) {
        return reword(p, SMTP_REPLY_SPAM, scan->why);
    }
    return reword(p, SMTP_REPLY_VIRUS,
                  scan->found ? apr_pstrcat(p, smtp_reply(SMTP_REPLY_VIRUS)->text, ": ",
                                            scan->found, NULL)
                              : NULL);
}

/* Header fields */

static void add_field(apr_pool_t *p, nssmtpd_scanned_t *result, const char *name,
                      const char *value)
{
    nssmtpd_field_t *field = apr_array_push(result->add);

    field->name = name;
    field->value = clean(p, value, VALUE_MAX);
}

static void remove_field(nssmtpd_scanned_t *result, const char *name)
{
    APR_ARRAY_PUSH(result->remove, const char *) = name;
}

static void add_virus_status(const nssmtpd_scan_t *scan, apr_pool_t *p, nssmtpd_scanned_t *result)
{
    const char *value = "clean";

    if (scan->verdict != NSSMTPD_VERDICT_CLEAN) {
        value = apr_pstrcat(p, "infected; name=", scan->found ? scan->found : "unknown", NULL);
    }
    add_field(p, result, "X-Smtpd-Virus-Status",
              apr_pstrcat(p, value, "; scanner=", scan->conf->name, NULL));
}

static void add_spam_status(const nssmtpd_scan_t *scan, int is_spam, apr_pool_t *p,
                            nssmtpd_scanned_t *result)
{
    add_field(p, result, "X-Spam-Status",
              apr_psprintf(p, "%s, score=%.1f required=%.1f scanner=%s tests=%s",
                           is_spam ? "Yes" : "No", scan->score, scan->threshold, scan->conf->name,
                           scan->found ? scan->found : ""));
}

/* Nobody outside is to learn our daemons' addresses: why is in the log. */
static void add_scan_status(const nssmtpd_scan_t *scan, apr_pool_t *p, nssmtpd_scanned_t *result)
{
    const char *what = scan->verdict == NSSMTPD_VERDICT_TOO_LARGE ? "skipped, too large"
                       : scan->verdict == NSSMTPD_VERDICT_DEFER   ? "deferral not kept"
                                                                  : "failed";

    add_field(p, result, "X-Smtpd-Scan-Status",
              apr_psprintf(p, "%s; scanner=%s", what, scan->conf->name));
}

/* What the scanner itself wants of the header. */
static void take_wishes(const nssmtpd_scan_t *scan, apr_pool_t *p, nssmtpd_scanned_t *result)
{
    int i;

    for (i = 0; scan->remove && i < scan->remove->nelts; i++) {
        remove_field(result, apr_pstrdup(p, APR_ARRAY_IDX(scan->remove, i, const char *)));
    }
    for (i = 0; scan->add && i < scan->add->nelts; i++) {
        const nssmtpd_field_t *field = &APR_ARRAY_IDX(scan->add, i, nssmtpd_field_t);

        APR_ARRAY_PUSH(result->add, nssmtpd_field_t) = *field;
    }
    result->subject = scan->subject ? scan->subject : result->subject;
    result->signature = scan->signature ? scan->signature : result->signature;
}

void nssmtpd_outcome_begin(const nssmtpd_scan_job_t *job, apr_uint32_t wanted,
                           nssmtpd_scanned_t *result)
{
    *result = (nssmtpd_scanned_t){ 0 };
    result->add = apr_array_make(job->p, 4, sizeof(nssmtpd_field_t));
    result->remove = apr_array_make(job->p, 6, sizeof(const char *));
    remove_field(result, "X-Smtpd-Scan-Status");
    if (wanted & NSSMTPD_FLAG_VIRUSCHECK) {
        remove_field(result, "X-Smtpd-Virus-Status");
    }
    if (wanted & NSSMTPD_FLAG_SPAMCHECK) {
        remove_field(result, "X-Spam-Flag");
        remove_field(result, "X-Spam-Score");
        remove_field(result, "X-Spam-Status");
    }
}

/* Each verdict */

static int milliseconds(apr_interval_time_t took)
{
    return (int)apr_time_as_msec(took);
}

/* It could not be looked at. */
static void add_unseen(const nssmtpd_scan_t *scan, outcome_e outcome, apr_interval_time_t took,
                       nssmtpd_scanned_t *result)
{
    const nssmtpd_scan_job_t *job = scan->job;
    const char *why = clean(job->p, scan->why ? scan->why : "it did not say why", WORDS_MAX);
    int is_size = scan->verdict == NSSMTPD_VERDICT_TOO_LARGE;

    if (scan->verdict == NSSMTPD_VERDICT_DEFER) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, job->r,
                      "NS0106: %s: SmtpdScanner %s: wants it later: %s; the message %s", job->id,
                      scan->conf->name, why, outcome_words[outcome]);
    }
    else if (is_size) {
        nssmtpd_count(NSSMTPD_COUNT_SCAN_SKIPPED, 1);
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, job->r,
                      "NS0081: %s: SmtpdScanner %s: too large: %s; the message %s", job->id,
                      scan->conf->name, why, outcome_words[outcome]);
    }
    else {
        nssmtpd_count(NSSMTPD_COUNT_SCAN_FAILED, 1);
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, job->r,
                      "NS0080: %s: SmtpdScanner %s: %s (%d ms); the message %s", job->id,
                      scan->conf->name, why, milliseconds(took), outcome_words[outcome]);
    }
    if (outcome == UNSEEN) {
        add_scan_status(scan, job->p, result);
        result->failed = apr_pstrcat(job->p, result->failed ? result->failed : "",
                                     result->failed ? "; " : "", scan->conf->name, ": ", why,
                                     NULL);
    }
}

static void tell_bad(const nssmtpd_scan_t *scan, outcome_e outcome, apr_interval_time_t took)
{
    const nssmtpd_scan_job_t *job = scan->job;
    const char *found = clean(job->p, scan->found ? scan->found : "unknown", WORDS_MAX);
    const char *what = scan->conf->scanner->is_spam
                           ? apr_psprintf(job->p, "spam, %.1f of %.1f, %s", scan->score,
                                          scan->threshold, found)
                           : apr_pstrcat(job->p, "virus ", found, NULL);

    if (outcome == DISCARD) { /* a mail that is gone must be found in the log */
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, job->r,
                      "NS0083: %s: discarded: SmtpdScanner %s: %s; from <%s>, %d recipients",
                      job->id, scan->conf->name, what, job->from,
                      job->rcpts ? job->rcpts->nelts : 0);
        return;
    }
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, job->r,
                  "NS0082: %s: SmtpdScanner %s: %s (%d ms); the message %s", job->id,
                  scan->conf->name, what, milliseconds(took), outcome_words[outcome]);
}

/* The fields of spam scanners are there for clean mail too: filters behind us sort by them. */
static void add_seen(const nssmtpd_scan_t *scan, outcome_e outcome, nssmtpd_scanned_t *result)
{
    apr_pool_t *p = scan->job->p;
    int is_bad = outcome != PASS;

    if (!scan->conf->scanner->is_spam) {
        add_virus_status(scan, p, result);
        if (is_bad && !result->virus) {
            result->virus = clean(p, scan->found ? scan->found : "unknown", WORDS_MAX);
        }
        return;
    }
    result->is_spam |= is_bad;
    if (!result->has_score || scan->score > result->score) {
        result->score = scan->score;
        result->has_score = 1;
    }
    add_spam_status(scan, is_bad, p, result);
    take_wishes(scan, p, result);
}

/* A deferral stands until somebody refuses or discards; the first of those is the last word. */
static void settle(const nssmtpd_scan_t *scan, outcome_e outcome, nssmtpd_scanned_t *result)
{
    if (outcome == DISCARD) {
        result->is_discarded = 1;
        result->reply = NULL;
    }
    else if (outcome == REFUSE || (outcome == DEFER && !result->reply)) {
        result->reply = reply_for(scan, outcome);
    }
}

void nssmtpd_outcome_add(const nssmtpd_line_t *line, const nssmtpd_scan_t *scan,
                         apr_uint32_t must_refuse, apr_interval_time_t took,
                         nssmtpd_scanned_t *result)
{
    outcome_e outcome = judge(line, scan, must_refuse);
    nssmtpd_verdict_e verdict = verdict_of(scan);
    int is_seen = verdict == NSSMTPD_VERDICT_CLEAN || verdict == NSSMTPD_VERDICT_BAD
                  || verdict == NSSMTPD_VERDICT_TAG;

    if (!is_seen) {
        add_unseen(scan, outcome, took, result);
    }
    else {
        add_seen(scan, outcome, result);
        if (outcome != PASS) {
            tell_bad(scan, outcome, took);
        }
    }
    settle(scan, outcome, result);
}

void nssmtpd_outcome_end(const nssmtpd_scan_job_t *job, nssmtpd_scanned_t *result)
{
    if (result->has_score) {
        add_field(job->p, result, "X-Spam-Score", apr_psprintf(job->p, "%.1f", result->score));
    }
    if (result->is_spam) {
        add_field(job->p, result, "X-Spam-Flag", "YES");
    }
    nssmtpd_count(NSSMTPD_COUNT_SPAM, result->is_spam != 0);
    nssmtpd_count(NSSMTPD_COUNT_VIRUS, result->virus != NULL);
}

void nssmtpd_outcome_tell_failover(const nssmtpd_line_t *line, const nssmtpd_scan_t *scan)
{
    ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, scan->job->r,
                  "NS0107: %s: SmtpdScanner %s: %s; the next line of that name is tried",
                  scan->job->id, line->conf.name, scan->why ? scan->why : "it did not say why");
}
