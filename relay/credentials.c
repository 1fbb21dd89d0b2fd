/* Where relay passwords come from: the environment, a file, or a program's first line. Kept
 * out of the configuration, which more people may read. Called by route.c.
 */
#include "relay/credentials.h"

#include <apr_env.h>
#include <apr_file_io.h>
#include <apr_strings.h>
#include <apr_thread_proc.h>
#include <http_config.h>
#include <http_log.h>

APLOG_USE_MODULE(nssmtpd);

#define LINE_MAX_OCTETS 4096

const char *nssmtpd_credentials_split(char *text, const char **user, const char **password)
{
    char *colon = strchr(text, ':');

    if (!colon || colon == text || !colon[1]) {
        return "credentials must be user:password";
    }
    *colon = '\0';
    *user = text;
    *password = colon + 1;
    return NULL;
}

static const char *first_line(apr_pool_t *p, apr_file_t *file, char **line)
{
    char *text = apr_pcalloc(p, LINE_MAX_OCTETS);

    if (apr_file_gets(text, LINE_MAX_OCTETS, file) != APR_SUCCESS) {
        return "has no first line";
    }
    text[strcspn(text, "\r\n")] = '\0';
    *line = text;
    return NULL;
}

static const char *from_file(apr_pool_t *p, server_rec *s, const char *path, char **line)
{
    apr_file_t *file;
    apr_finfo_t info;
    const char *wrong;
    apr_status_t rv = apr_file_open(&file, path, APR_FOPEN_READ, APR_FPROT_OS_DEFAULT, p);
    char reason[120];

    if (rv != APR_SUCCESS) {
        return apr_psprintf(p, "cannot be read: %s", apr_strerror(rv, reason, sizeof(reason)));
    }
    if (apr_file_info_get(&info, APR_FINFO_PROT, file) == APR_SUCCESS
        && (info.protection & APR_FPROT_WREAD)) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                     "NS0053: SmtpdRelayCredentials: %s can be read by everybody; chmod 600 it",
                     path);
    }
    wrong = first_line(p, file, line);
    apr_file_close(file);
    return wrong;
}

static const char *from_program(apr_pool_t *p, const char *path, char **line)
{
    const char *argv[] = { path, NULL };
    apr_procattr_t *attr;
    apr_proc_t proc;
    const char *wrong;
    int code = 0;

    if (apr_procattr_create(&attr, p) != APR_SUCCESS
        || apr_procattr_io_set(attr, APR_NO_PIPE, APR_FULL_BLOCK, APR_NO_PIPE) != APR_SUCCESS
        || apr_procattr_cmdtype_set(attr, APR_PROGRAM_ENV) != APR_SUCCESS
        || apr_procattr_error_check_set(attr, 1) != APR_SUCCESS
        || apr_proc_create(&proc, path, argv, NULL, attr, p) != APR_SUCCESS) {
        return "cannot be run";
    }
    wrong = first_line(p, proc.out, line);
    apr_file_close(proc.out);
    apr_proc_wait(&proc, &code, NULL, APR_WAIT);
    return code != 0 ? "ended with an error" : wrong;
}

const char *nssmtpd_credentials_read(apr_pool_t *p, server_rec *s, const char *source,
                                     const char **user, const char **password)
{
    const char *value = strchr(source, ':') + 1, *wrong;
    char *line = NULL;

    if (strncasecmp(source, "env:", 4) == 0) {
        wrong = apr_env_get(&line, value, p) == APR_SUCCESS ? NULL : "is not set";
    }
    else if (strncasecmp(source, "file:", 5) == 0) {
        wrong = from_file(p, s, ap_server_root_relative(p, value), &line);
    }
    else {
        wrong = from_program(p, ap_server_root_relative(p, value), &line);
    }
    if (!wrong) {
        wrong = nssmtpd_credentials_split(apr_pstrdup(p, line), user, password);
    }
    return wrong ? apr_psprintf(p, "SmtpdRelayCredentials %s: %s", source, wrong) : NULL;
}
