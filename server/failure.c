/* How a phase's handler fails, and how one learns of it: mod_lua's answers tell little, the Lua
 * binding and mod_lua's lines in the error log tell the rest. What the client hears then is
 * script.c's, which calls this.
 */
#include "server/failure.h"

#include <apr_strings.h>
#include <http_log.h>

#include "server/memo.h"
#include "server/phase.h"
#include "server/transaction.h"

APLOG_USE_MODULE(nssmtpd);

void nssmtpd_call_fail(nssmtpd_call_t *call, const char *reason)
{
    nssmtpd_script_t *script = (nssmtpd_script_t *)call;

    script->failed = reason ? apr_pstrdup(call->r->pool, reason) : "no reason is known";
}

void nssmtpd_call_miss(nssmtpd_call_t *call)
{
    ((nssmtpd_script_t *)call)->is_missing = 1;
}

void nssmtpd_failure_log(nssmtpd_script_t *script, const char *reason)
{
    request_rec *r = script->call.r;
    const char *id = script->call.t ? script->call.t->id : r->useragent_ip;

    nssmtpd_count(NSSMTPD_COUNT_SCRIPT_FAILED, 1);
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "NS0057: %s: %s has failed: %s%s", id, r->uri,
                  reason, strstr(reason, "not enough memory") ? " (SmtpdScriptMemory)" : "");
}

/* The file that a line of mod_lua's is about, between two pieces of it. */
static const char *file_in(const char *text, const char *before, const char *behind, apr_pool_t *p)
{
    const char *start = strstr(text, before), *end;

    if (!start) {
        return NULL;
    }
    start += strlen(before);
    end = strstr(start, behind);
    return end ? apr_pstrmemdup(p, start, end - start) : NULL;
}

/* 1 if the line was made of a format that has the words in it. Its text may be anybody's: scripts
 * log what clients say. */
static int is_made_of(const ap_errorlog_info *info, const char *words)
{
    return info->format && strstr(info->format, words);
}

/* mod_lua answers 500 for a script that does not load and for one that has no function of
 * the phase's name; only its log line tells them apart. */
void nssmtpd_failure_watch_log(const ap_errorlog_info *info, const char *text)
{
    nssmtpd_script_t *script = nssmtpd_script_current();
    const char *file;

    if (!script) {
        return;
    }
    if (is_made_of(info, "AH02331")
        && (file = file_in(text, "' in ", " (not", script->call.r->pool))) {
        script->is_missing = 1;
        if (nssmtpd_phase_state(script->session, script->call.phase).is_plain) {
            nssmtpd_memo_set_missing(script->session->conf->memo, script->call.phase, file);
        }
    }
    else if (is_made_of(info, "Error loading %s: %s")
             && (file = file_in(text, "Error loading ", ": ", script->call.r->pool))) {
        script->is_broken = 1;
        nssmtpd_memo_set_broken(script->session->conf->memo, script->call.phase, file,
                                script->call.r);
    }
}

const char *nssmtpd_failure_of(nssmtpd_script_t *script, int rc, int *is_silent)
{
    request_rec *r = script->call.r;

    *is_silent = script->is_missing && !script->is_broken;
    if (*is_silent) {
        return NULL;
    }
    if (script->is_broken) {
        return "the script cannot be loaded; the line before says why";
    }
    if (script->failed) {
        return script->failed;
    }
    if (script->is_declined) { /* a script may say so, apache2.DECLINED */
        *is_silent = strcmp(r->handler, "lua-map-handler") == 0;
        return *is_silent ? NULL
                          : apr_psprintf(r->pool, "nothing serves its handler %s", r->handler);
    }
    if (rc < HTTP_BAD_REQUEST && r->status < HTTP_BAD_REQUEST) {
        return NULL;
    }
    return apr_psprintf(r->pool, "it ended with status %d",
                        rc >= HTTP_BAD_REQUEST ? rc : r->status);
}
