/* Scanners outside of the tree, made of the public header alone: "timer" waits for a descriptor
 * as one with a daemon does, "sleeper" works in its thread. Their verdicts and the time they
 * take are key=value words: scan.t plays all parts with them. Also an example for writing one.
 */
#include <mod_nssmtpd.h>

#include <ap_provider.h>
#include <apr_strings.h>
#include <http_config.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

typedef struct settings_t {
    int milliseconds;
    const char *verdict, *score, *found, *why;
} settings_t;

static const char *configure(nssmtpd_scan_conf_t *conf, server_rec *s, apr_pool_t *pconf,
                             apr_pool_t *ptemp)
{
    settings_t *settings = apr_pcalloc(pconf, sizeof(*settings));
    int i;

    (void)s;
    conf->baton = settings;
    settings->verdict = "clean";
    settings->score = "0";
    for (i = 0; i < conf->params->nelts; i++) {
        const char *word = APR_ARRAY_IDX(conf->params, i, const char *);
        const char *value = strchr(word, '=') + 1;

        switch (*word) {
        case 'm': settings->milliseconds = atoi(value); break;
        case 'v': settings->verdict = value; break;
        case 's': settings->score = value; break;
        case 'f': settings->found = value; break;
        case 'w': settings->why = value; break;
        default: return apr_psprintf(ptemp, "%s is none of its key=value words", word);
        }
    }
    return NULL;
}

static void judge(nssmtpd_scan_t *scan)
{
    static const struct { const char *word; nssmtpd_verdict_e verdict; } rows[] = {
        { "clean", NSSMTPD_VERDICT_CLEAN }, { "bad", NSSMTPD_VERDICT_BAD },
        { "tag", NSSMTPD_VERDICT_TAG }, { "defer", NSSMTPD_VERDICT_DEFER },
        { "large", NSSMTPD_VERDICT_TOO_LARGE }, { "error", NSSMTPD_VERDICT_ERROR },
        { "nothing", NSSMTPD_VERDICT_NONE }
    };
    const settings_t *settings = scan->conf->baton;
    apr_size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (strcmp(rows[i].word, settings->verdict) == 0) {
            scan->verdict = rows[i].verdict;
        }
    }
    scan->score = atof(settings->score);
    scan->threshold = 5;
    scan->found = settings->found;
    scan->why = settings->why;
}

static void start(nssmtpd_scan_t *scan)
{
    const settings_t *settings = scan->conf->baton;
    int ms = settings->milliseconds;
    struct itimerspec at = { .it_value = { ms / 1000, ms % 1000 * 1000000L } };

    if (!ms) {
        judge(scan);
        return;
    }
    scan->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    scan->events = POLLIN;
    timerfd_settime(scan->fd, 0, &at, NULL);
}

static void end(nssmtpd_scan_t *scan)
{
    if (scan->fd >= 0) {
        close(scan->fd);
        scan->fd = -1;
    }
}

/* As one should: it looks up from its work now and then. */
static void run(nssmtpd_scan_t *scan)
{
    const settings_t *settings = scan->conf->baton;
    apr_time_t ready = apr_time_now() + settings->milliseconds * (apr_time_t)1000;

    while (apr_time_now() < ready && apr_time_now() < scan->deadline && !scan->is_unwanted) {
        apr_sleep(5000);
    }
    if (apr_time_now() < ready) {
        scan->verdict = NSSMTPD_VERDICT_ERROR;
        scan->why = scan->is_unwanted ? "unwanted" : "no time left";
        return;
    }
    judge(scan);
}

static const char *version(const nssmtpd_scan_conf_t *conf, apr_pool_t *p, const char **why)
{
    (void)p;
    *why = "it has no name";
    return conf->address;
}

static const nssmtpd_scanner_t timer = { .is_spam = 1, .configure = configure, .start = start,
                                         .step = judge, .end = end, .version = version };
static const nssmtpd_scanner_t sleeper = { .configure = configure, .run = run,
                                           .version = version };

static void register_hooks(apr_pool_t *p)
{
    ap_register_provider(p, NSSMTPD_SCANNER_GROUP, "timer", NSSMTPD_SCANNER_VERSION, &timer);
    ap_register_provider(p, NSSMTPD_SCANNER_GROUP, "sleeper", NSSMTPD_SCANNER_VERSION, &sleeper);
    ap_register_provider(p, NSSMTPD_SCANNER_GROUP, "sleeper2", NSSMTPD_SCANNER_VERSION, &sleeper);
}

AP_DECLARE_MODULE(test_scanner) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, 0
};
