/* The texts of changed lists. A list has two buffers, and its version says by its last bit
 * which of them holds: a child killed while it writes into the other one leaves the version
 * before. The mutex is robust: who gets it from a dead child finds nothing half done. Called
 * by permits.c, which reads, and edits.c, which writes.
 */
#include "server/changes.h"

#include <apr_atomic.h>
#include <apr_strings.h>
#include <errno.h>
#include <http_log.h>
#include <pthread.h>

#include "server/config.h"
#include "server/shared.h"

APLOG_USE_MODULE(nssmtpd);

#define HOSTS 64
#define LISTS 2

typedef struct list_t {
    apr_uint32_t version; /* 0: as configured; else the text is in octets[version & 1] */
    apr_uint32_t length[2];
    char octets[2][NSSMTPD_CHANGES_MAX];
} list_t;

typedef struct host_t {
    char name[320]; /* "": free */
    list_t lists[LISTS];
} host_t;

typedef struct table_t {
    pthread_mutex_t mutex;
    host_t hosts[HOSTS];
} table_t;

static table_t *table; /* mapped before any child, the same in all */

/* Places */

static int make_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    int rc = pthread_mutexattr_init(&attributes);

    rc = rc ? rc : pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    rc = rc ? rc : pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    return rc ? rc : pthread_mutex_init(mutex, &attributes);
}

/* What stays the same of a host while its configuration is edited. */
static void name_host(char *name, apr_size_t size, const server_rec *s)
{
    const server_addr_rec *addr = s->addrs;

    apr_snprintf(name, size, "%s:%u %s", s->server_hostname, addr ? addr->host_port : s->port,
                 addr ? addr->virthost : "");
}

static int place_of(const server_rec *s)
{
    char name[sizeof(table->hosts->name)];
    int i;

    name_host(name, sizeof(name), s);
    for (i = 0; i < HOSTS; i++) {
        char *own = table->hosts[i].name;

        if (!*own) {
            apr_cpystrn(own, name, sizeof(name));
        }
        if (strcmp(own, name) == 0) {
            return i;
        }
    }
    ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                 "NS0060: more than %d SMTP hosts: scripts cannot change the lists of %s", HOSTS,
                 name);
    return NSSMTPD_NO_PLACE;
}

int nssmtpd_changes_create(server_rec *main_server)
{
    server_rec *s;
    int is_new, rc = 0;

    table = nssmtpd_shared_keep(main_server, "changed lists", sizeof(table_t), &is_new);
    if (table && is_new) {
        rc = make_mutex(&table->mutex);
    }
    if (rc) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, rc, main_server,
                     "NS0061: cannot make a mutex that all children share");
    }
    if (!table || rc) {
        return !OK;
    }
    for (s = main_server; s; s = s->next) {
        if (nssmtpd_config(s)->engine == 1) {
            nssmtpd_config(s)->changes = place_of(s);
        }
    }
    return OK;
}

/* httpd runs the hook whenever it makes a new scoreboard, so not at a graceful restart.
 * There are no children then. */
int nssmtpd_changes_pre_mpm(apr_pool_t *p, ap_scoreboard_e type)
{
    int i, list;

    (void)p, (void)type;
    for (i = 0; table && i < HOSTS; i++) {
        for (list = 0; list < LISTS; list++) {
            apr_atomic_set32(&table->hosts[i].lists[list].version, 0);
        }
    }
    return OK;
}

/* Texts */

static int take_mutex(void)
{
    int rc = pthread_mutex_lock(&table->mutex);

    return rc == EOWNERDEAD ? pthread_mutex_consistent(&table->mutex) : rc;
}

apr_uint32_t nssmtpd_changes_version(int place, nssmtpd_list_e list)
{
    return place == NSSMTPD_NO_PLACE ? 0
                                     : apr_atomic_read32(&table->hosts[place].lists[list].version);
}

static apr_array_header_t *split(apr_pool_t *p, char *text)
{
    apr_array_header_t *lines = apr_array_make(p, 16, sizeof(char *));
    char *last, *line = apr_strtok(text, "\n", &last);

    for (; line; line = apr_strtok(NULL, "\n", &last)) {
        APR_ARRAY_PUSH(lines, const char *) = line;
    }
    return lines;
}

/* With the mutex. */
static apr_array_header_t *read_lines(const list_t *list, apr_pool_t *p)
{
    int n = list->version & 1;

    return split(p, apr_pstrmemdup(p, list->octets[n], list->length[n]));
}

static const char *write_lines(list_t *list, apr_pool_t *p, const apr_array_header_t *lines)
{
    apr_uint32_t next = list->version + 1 ? list->version + 1 : 2;
    char *text = apr_array_pstrcat(p, lines, '\n');
    apr_size_t length = strlen(text);

    if (length > NSSMTPD_CHANGES_MAX) {
        return apr_psprintf(p, "the list would have %" APR_SIZE_T_FMT " octets, and %d is the "
                               "most that fits", length, NSSMTPD_CHANGES_MAX);
    }
    memcpy(list->octets[next & 1], text, length);
    list->length[next & 1] = (apr_uint32_t)length;
    apr_atomic_xchg32(&list->version, next);
    return NULL;
}

apr_array_header_t *nssmtpd_changes_read(int place, nssmtpd_list_e which, apr_pool_t *p,
                                         apr_uint32_t *version)
{
    list_t *list = &table->hosts[place].lists[which];
    apr_array_header_t *lines = NULL;

    if (take_mutex() == 0) {
        *version = list->version;
        lines = read_lines(list, p);
        pthread_mutex_unlock(&table->mutex);
    }
    return lines;
}

const char *nssmtpd_changes_edit(int place, nssmtpd_list_e which, apr_pool_t *p,
                                 const apr_array_header_t *configured,
                                 nssmtpd_changes_edit_t *edit, void *baton)
{
    const char *wrong;
    apr_array_header_t *lines;
    list_t *list;

    if (place == NSSMTPD_NO_PLACE) {
        return apr_psprintf(p, "the lists of this host cannot be changed: there are more than %d "
                               "SMTP hosts", HOSTS);
    }
    if (take_mutex() != 0) {
        return "the lists cannot be changed: their mutex is lost; restart httpd";
    }
    list = &table->hosts[place].lists[which];
    lines = list->version ? read_lines(list, p) : apr_array_copy(p, configured);
    if (!(wrong = edit(lines, baton))) {
        wrong = write_lines(list, p, lines);
    }
    pthread_mutex_unlock(&table->mutex);
    return wrong;
}
