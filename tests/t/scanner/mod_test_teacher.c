/* A web page that asks a scanner for its version and teaches it: it finds the scanner by its name
 * among httpd's providers, as scripts' functions do by the lines of SmtpdScanner. The request's
 * header says which and what: X-Scanner, X-Address, X-Keys (words), X-Rcpt, X-Verb (version, spam or
 * ham); its body is the message. The answer is a line: "ok" and the version, or "no" and why.
 */
#include <mod_nssmtpd.h>

#include <ap_provider.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_protocol.h>

enum { MESSAGE_MAX = 65536 };

static const char *given(request_rec *r, const char *name)
{
    const char *value = apr_table_get(r->headers_in, name);

    return value ? value : "";
}

static apr_array_header_t *words(apr_pool_t *p, const char *text)
{
    apr_array_header_t *all = apr_array_make(p, 2, sizeof(const char *));
    char *rest, *word = apr_strtok(apr_pstrdup(p, text), " ", &rest);

    for (; word; word = apr_strtok(NULL, " ", &rest)) {
        APR_ARRAY_PUSH(all, const char *) = word;
    }
    return all;
}

static smtp_span_t body_of(request_rec *r)
{
    char *body = apr_palloc(r->pool, MESSAGE_MAX);
    apr_size_t n = 0;
    long got;

    if (ap_setup_client_block(r, REQUEST_CHUNKED_DECHUNK) == OK && ap_should_client_block(r)) {
        while (n < MESSAGE_MAX && (got = ap_get_client_block(r, body + n, MESSAGE_MAX - n)) > 0) {
            n += got;
        }
    }
    return (smtp_span_t){ body, n };
}

static const char *learn(request_rec *r, const nssmtpd_scan_conf_t *conf, int is_spam)
{
    nssmtpd_rcpt_t rcpt = { .address = given(r, "X-Rcpt"), .local = given(r, "X-Rcpt"),
                            .domain = "" };
    apr_array_header_t *rcpts = apr_array_make(r->pool, 1, sizeof(rcpt));
    nssmtpd_scan_job_t job = { .p = r->pool, .s = r->server, .r = r, .message = body_of(r),
                               .id = "teacher", .from = "", .helo = "", .client = "", .user = "",
                               .rcpts = rcpts };

    if (*rcpt.address) {
        APR_ARRAY_PUSH(rcpts, nssmtpd_rcpt_t) = rcpt;
    }
    return conf->scanner->train(conf, &job, is_spam);
}

static int handler(request_rec *r)
{
    nssmtpd_scan_conf_t conf = { .name = given(r, "X-Scanner"), .address = given(r, "X-Address"),
                                 .timeout = apr_time_from_sec(5), .user = "%u",
                                 .params = words(r->pool, given(r, "X-Keys")) };
    const char *why, *version = "", *verb = given(r, "X-Verb");

    if (strcmp(r->handler, "teacher") != 0) {
        return DECLINED;
    }
    conf.scanner = ap_lookup_provider(NSSMTPD_SCANNER_GROUP, conf.name, NSSMTPD_SCANNER_VERSION);
    if (!conf.scanner) {
        return HTTP_NOT_FOUND;
    }
    why = conf.scanner->configure(&conf, r->server, r->pool, r->pool);
    if (!why && strcmp(verb, "version") == 0) {
        version = conf.scanner->version(&conf, r->pool, &why);
    }
    else if (!why) {
        why = learn(r, &conf, strcmp(verb, "spam") == 0);
    }
    ap_rputs(why ? "no " : "ok ", r);
    ap_rputs(why ? why : version, r);
    return OK;
}

static void register_hooks(apr_pool_t *p)
{
    (void)p;
    ap_hook_handler(handler, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(test_teacher) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, 0
};
