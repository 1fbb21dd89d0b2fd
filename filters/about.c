/* What is asked of scanners outside of a mail: who they are, and to learn. Called by scripts'
 * functions, in threads that may wait.
 */
#include <apr_strings.h>

#include "filters/scanners.h"

const char *nssmtpd_scan_version(server_rec *s, apr_uint32_t kind, apr_pool_t *p,
                                 const char **why)
{
    const nssmtpd_line_t *line;
    const char *all = NULL, *reason = NULL;
    int i;

    *why = "no scanner of that kind is configured (SmtpdScanner)";
    for (i = 0; (line = nssmtpd_scanners_line(s, i)); i++) {
        const char *version = NULL;

        if (!(nssmtpd_scanners_kind(line) & kind)) {
            continue;
        }
        reason = "it has no version";
        if (line->conf.scanner->version) {
            version = line->conf.scanner->version(&line->conf, p, &reason);
        }
        if (version) {
            all = all ? apr_pstrcat(p, all, "\n", version, NULL) : version;
        }
        else {
            *why = apr_pstrcat(p, line->conf.name, ": ", reason, NULL);
        }
    }
    return all;
}

/* The lines of one name are one scanner: it learns once. */
static const char *train(const nssmtpd_line_t *line, const nssmtpd_scan_job_t *job, int is_spam)
{
    const char *wrong = NULL;

    for (; line; line = line->spare) {
        wrong = line->conf.scanner->train(&line->conf, job, is_spam);
        if (!wrong) {
            return NULL;
        }
        wrong = apr_pstrcat(job->p, line->conf.name, ": ", wrong, NULL);
    }
    return wrong;
}

const char *nssmtpd_scan_train(const nssmtpd_scan_job_t *job, int is_spam)
{
    const nssmtpd_line_t *line;
    const char *wrong = NULL, *why;
    int i, trained = 0;

    for (i = 0; (line = nssmtpd_scanners_line(job->s, i)); i++) {
        if (line->conf.scanner->train && !line->is_spare) {
            trained = 1;
            why = train(line, job, is_spam);
            wrong = why ? why : wrong;
        }
    }
    return trained ? wrong : "no scanner that can learn is configured (SmtpdScanner)";
}
