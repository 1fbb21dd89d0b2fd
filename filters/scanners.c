/* SmtpdScanner: its words, what may stand in them, and their defaults. A key that is not in
 * the table is the scanner's own. Called by server/ while httpd starts, and in each child.
 */
#include "filters/scanners.h"

#include <ap_provider.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "filters/builtin.h"

enum {
    DAY = 86400,
    SPAM_SIZE = 2 * 1024 * 1024, /* larger mail is hardly ever spam */
    MAX_SCANS = 10,              /* what clamd does at once by default */
    MAX_MAX_SCANS = 100000
};

#define UNSET_SIZE (-1)

/* The consequences that a key may name. */
typedef struct choice_t {
    const char *wanted;
    struct {
        const char *name;
        nssmtpd_consequence_e value;
    } rows[4];
} choice_t;

static const choice_t actions = { "reject, tag or discard",
                                  { { "reject", NSSMTPD_CONSEQUENCE_REJECT },
                                    { "tag", NSSMTPD_CONSEQUENCE_TAG },
                                    { "discard", NSSMTPD_CONSEQUENCE_DISCARD } } };
static const choice_t sizes = { "accept, defer or reject",
                                { { "accept", NSSMTPD_CONSEQUENCE_ACCEPT },
                                  { "defer", NSSMTPD_CONSEQUENCE_DEFER },
                                  { "reject", NSSMTPD_CONSEQUENCE_REJECT } } };
static const choice_t errors = { "defer or accept",
                                 { { "defer", NSSMTPD_CONSEQUENCE_DEFER },
                                   { "accept", NSSMTPD_CONSEQUENCE_ACCEPT } } };

/* Values: each returns what they must be, or NULL. */

static const char *set_timeout(nssmtpd_line_t *line, void *at, const void *info, const char *value)
{
    char *end;
    apr_int64_t seconds = apr_strtoi64(value, &end, 10);

    (void)line, (void)info;
    if (end == value || *end || seconds < 1 || seconds > DAY) {
        return "seconds from 1 to 86400";
    }
    *(apr_interval_time_t *)at = apr_time_from_sec(seconds);
    return NULL;
}

static const char *set_size(nssmtpd_line_t *line, void *at, const void *info, const char *value)
{
    static const char units[] = "KMG";
    const char *unit;
    char *end;
    apr_off_t size;

    (void)line, (void)info;
    errno = 0;
    size = apr_strtoi64(value, &end, 10);
    if (end > value && *end && (unit = strchr(units, apr_toupper(*end)))) {
        int shift = 10 * (unit - units + 1);

        size = size > APR_INT64_MAX >> shift ? -1 : size << shift;
        end++;
    }
    if (errno || end == value || *end || size < 1) {
        return "a number of octets from 1, with K, M or G behind it or without";
    }
    *(apr_off_t *)at = size;
    return NULL;
}

static const char *set_score(nssmtpd_line_t *line, void *at, const void *info, const char *value)
{
    char *end;
    double score = strtod(value, &end);

    (void)line, (void)info;
    if (end == value || *end || !isfinite(score)) {
        return "a number, such as 7.5";
    }
    *(double *)at = score;
    return NULL;
}

static const char *set_choice(nssmtpd_line_t *line, void *at, const void *info,
                              const char *value)
{
    const choice_t *choice = info;
    int i;

    (void)line;
    for (i = 0; choice->rows[i].name; i++) {
        if (strcasecmp(choice->rows[i].name, value) == 0) {
            *(nssmtpd_consequence_e *)at = choice->rows[i].value;
            return NULL;
        }
    }
    return choice->wanted;
}

static const char *set_text(nssmtpd_line_t *line, void *at, const void *info, const char *value)
{
    (void)line, (void)info;
    *(const char **)at = value;
    return *value ? NULL : "some text";
}

static const char *set_max(nssmtpd_line_t *line, void *at, const void *info, const char *value)
{
    char *end;
    apr_int64_t max = apr_strtoi64(value, &end, 10);

    (void)at, (void)info;
    if (end == value || *end || max < 1 || max > MAX_MAX_SCANS) {
        return "a number from 1 to 100000";
    }
    line->gate->max = (int)max;
    return NULL;
}

#define AT(field) APR_OFFSETOF(nssmtpd_line_t, field)

static const struct {
    const char *name;
    const char *(*set)(nssmtpd_line_t *line, void *at, const void *info, const char *value);
    apr_size_t offset;
    const void *info;
} keys[] = {
    { "timeout", set_timeout, AT(conf.timeout), NULL },
    { "maxsize", set_size, AT(conf.max_size), NULL },
    { "oversize", set_choice, AT(oversize), &sizes },
    { "onerror", set_choice, AT(onerror), &errors },
    { "action", set_choice, AT(action), &actions },
    { "reject", set_score, AT(conf.reject), NULL },
    { "tag", set_score, AT(conf.tag), NULL },
    { "user", set_text, AT(conf.user), NULL },
    { "max", set_max, 0, NULL }
};

/* The words of a line */

static const char *set_key(apr_pool_t *p, nssmtpd_line_t *line, const char *word,
                           const char *value)
{
    const char *wanted;
    apr_size_t i, n = value - word;

    for (i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        if (strlen(keys[i].name) == n && strncasecmp(keys[i].name, word, n) == 0) {
            wanted = keys[i].set(line, (char *)line + keys[i].offset, keys[i].info, value + 1);
            return wanted ? apr_psprintf(p, "%s: %s= must be %s, not \"%s\"", line->conf.name,
                                         keys[i].name, wanted, value + 1)
                          : NULL;
        }
    }
    *(const char **)apr_array_push((apr_array_header_t *)line->conf.params) = word;
    return NULL;
}

static nssmtpd_line_t *make_line(apr_pool_t *p, const char *name)
{
    nssmtpd_line_t *line = apr_pcalloc(p, sizeof(*line));

    line->conf.name = name;
    line->conf.max_size = UNSET_SIZE;
    line->conf.reject = line->conf.tag = NAN;
    line->conf.params = apr_array_make(p, 2, sizeof(const char *));
    line->action = line->oversize = line->onerror = NSSMTPD_CONSEQUENCE_UNSET;
    line->gate = apr_pcalloc(p, sizeof(*line->gate));
    line->gate->max = MAX_SCANS;
    line->gate->fd = -1;
    return line;
}

const char *nssmtpd_scanners_add(apr_pool_t *p, nssmtpd_scanners_t **scanners, int argc,
                                 char *const argv[])
{
    nssmtpd_line_t *line;
    const char *wrong = NULL, *value;
    int i;

    if (argc < 1 || strchr(argv[0], '=')) {
        return "needs the name of a scanner, such as clamd, then its address and key=value words";
    }
    line = make_line(p, argv[0]);
    for (i = 1; i < argc && !wrong; i++) {
        value = strchr(argv[i], '=');
        if (value && value > argv[i]) {
            wrong = set_key(p, line, argv[i], value);
        }
        else if (i == 1 && *argv[i]) {
            line->conf.address = argv[i];
        }
        else {
            wrong = apr_psprintf(p, "%s: \"%s\" is not a key=value word; an address stands right "
                                 "behind the name", line->conf.name, argv[i]);
        }
    }
    if (!*scanners) {
        *scanners = apr_pcalloc(p, sizeof(**scanners));
        (*scanners)->lines = apr_array_make(p, 2, sizeof(nssmtpd_line_t *));
    }
    APR_ARRAY_PUSH((*scanners)->lines, nssmtpd_line_t *) = line;
    return wrong;
}

/* Made ready */

static const char *find_scanner(nssmtpd_line_t *line, apr_pool_t *ptemp)
{
    const char *name = line->conf.name;
    apr_array_header_t *known;
    const char *names = "";
    int i;

    line->conf.scanner = ap_lookup_provider(NSSMTPD_SCANNER_GROUP, name, NSSMTPD_SCANNER_VERSION);
    if (line->conf.scanner) {
        return NULL;
    }
    if (strcasecmp(name, "clamav") == 0) {
        return "is in a module of its own; add LoadModule nssmtpd_clamav_module, or use clamd";
    }
    known = ap_list_provider_names(ptemp, NSSMTPD_SCANNER_GROUP, NSSMTPD_SCANNER_VERSION);
    for (i = 0; i < known->nelts; i++) {
        names = apr_pstrcat(ptemp, names, *names ? ", " : "",
                            APR_ARRAY_IDX(known, i, ap_list_provider_names_t).provider_name, NULL);
    }
    return apr_psprintf(ptemp, "is no scanner; there are %s, and clamav with LoadModule "
                        "nssmtpd_clamav_module", names);
}

static const char *check_spam_keys(nssmtpd_line_t *line)
{
    const nssmtpd_scan_conf_t *conf = &line->conf;

    if (!conf->scanner->is_spam && (!isnan(conf->reject) || !isnan(conf->tag) || conf->user)) {
        return "looks for viruses; reject=, tag= and user= are for spam scanners";
    }
    if (conf->tag > conf->reject) {
        return "tag= is larger than reject=, so nothing would ever be tagged";
    }
    return NULL;
}

static const char *set_defaults(nssmtpd_line_t *line, server_rec *s, apr_pool_t *ptemp)
{
    apr_interval_time_t all = nssmtpd_timeout(s, NSSMTPD_TIMEOUT_SCAN);
    int is_spam = line->conf.scanner->is_spam;

    if (!line->conf.timeout) {
        line->conf.timeout = all;
    }
    if (line->conf.timeout > all) {
        return apr_psprintf(ptemp, "timeout=%d is longer than all scans may take; raise "
                            "SmtpdTimeout scan=%d", (int)apr_time_sec(line->conf.timeout),
                            (int)apr_time_sec(all));
    }
    if (line->conf.max_size == UNSET_SIZE) {
        line->conf.max_size = is_spam ? SPAM_SIZE : nssmtpd_max_message_size(s);
    }
    if (line->oversize == NSSMTPD_CONSEQUENCE_UNSET) {
        line->oversize = is_spam ? NSSMTPD_CONSEQUENCE_ACCEPT : NSSMTPD_CONSEQUENCE_DEFER;
    }
    if (line->onerror == NSSMTPD_CONSEQUENCE_UNSET) {
        line->onerror = NSSMTPD_CONSEQUENCE_DEFER;
    }
    if (line->action == NSSMTPD_CONSEQUENCE_UNSET) {
        line->action = NSSMTPD_CONSEQUENCE_REJECT;
    }
    return NULL;
}

static const char *configure(nssmtpd_line_t *line, server_rec *s, apr_pool_t *pconf,
                             apr_pool_t *ptemp)
{
    const char *wrong = find_scanner(line, ptemp);

    if (!wrong) {
        wrong = check_spam_keys(line);
    }
    if (!wrong) {
        wrong = set_defaults(line, s, ptemp);
    }
    if (!wrong) {
        wrong = line->conf.scanner->configure(&line->conf, s, pconf, ptemp);
    }
    return wrong ? apr_pstrcat(ptemp, line->conf.name, ": ", wrong, NULL) : NULL;
}

/* Behind the last one before it that has its name. */
static void link_spare(const apr_array_header_t *lines, nssmtpd_line_t *line)
{
    int i = lines->nelts;

    while (--i >= 0) {
        nssmtpd_line_t *before = APR_ARRAY_IDX(lines, i, nssmtpd_line_t *);

        if (strcasecmp(before->conf.name, line->conf.name) == 0) {
            before->spare = line;
            line->is_spare = 1;
            return;
        }
    }
}

const char *nssmtpd_scanners_configure(nssmtpd_scanners_t **scanners, server_rec *s,
                                       apr_pool_t *pconf, apr_pool_t *ptemp)
{
    const apr_array_header_t *given = (*scanners)->lines;
    const char *wrong = NULL;
    int i;

    /* Lines of an outer server are each host's own: defaults and names belong to a host. */
    *scanners = apr_pcalloc(pconf, sizeof(**scanners));
    (*scanners)->lines = apr_array_make(pconf, given->nelts, sizeof(nssmtpd_line_t *));
    for (i = 0; i < given->nelts && !wrong; i++) {
        nssmtpd_line_t *line = apr_pmemdup(pconf, APR_ARRAY_IDX(given, i, nssmtpd_line_t *),
                                           sizeof(*line));

        wrong = configure(line, s, pconf, ptemp);
        link_spare((*scanners)->lines, line);
        APR_ARRAY_PUSH((*scanners)->lines, nssmtpd_line_t *) = line;
    }
    return wrong;
}

/* While it runs */

apr_uint32_t nssmtpd_scanners_kind(const nssmtpd_line_t *line)
{
    return line->conf.scanner->is_spam ? NSSMTPD_FLAG_SPAMCHECK : NSSMTPD_FLAG_VIRUSCHECK;
}

const nssmtpd_line_t *nssmtpd_scanners_line(const server_rec *s, int i)
{
    const nssmtpd_scanners_t *scanners = nssmtpd_scanners(s);

    return scanners && i < scanners->lines->nelts
               ? APR_ARRAY_IDX(scanners->lines, i, nssmtpd_line_t *)
               : NULL;
}

apr_uint32_t nssmtpd_scan_kinds(const server_rec *s)
{
    const nssmtpd_line_t *line;
    apr_uint32_t kinds = 0;
    int i;

    for (i = 0; (line = nssmtpd_scanners_line(s, i)); i++) {
        kinds |= nssmtpd_scanners_kind(line);
    }
    return kinds;
}

/* Not before: a semaphore that children share would lose what a killed one holds. */
void nssmtpd_scanners_child_init(apr_pool_t *pchild, server_rec *s)
{
    const nssmtpd_line_t *line;
    int i;

    (void)pchild;
    for (; s; s = s->next) {
        for (i = 0; (line = nssmtpd_scanners_line(s, i)); i++) {
            if (line->gate->fd < 0) {
                line->gate->fd = eventfd(line->gate->max, EFD_SEMAPHORE | EFD_NONBLOCK
                                                              | EFD_CLOEXEC);
            }
        }
    }
}
