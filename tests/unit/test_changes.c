/* server/changes.c, permits.c and edits.c between processes and threads: children that die while
 * they change a list, restarts, lookups while others change. Shared memory is a mapping of the
 * test's own; the few functions of httpd are stubs. t/lists.t has the same inside httpd.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <apr_general.h>
#include <apr_lib.h>
#include <apr_thread_proc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Names that more than one of them has. */
#include "server/lists.c"
#define list_t changes_list_t
#define table changes_table
#define table_t changes_table_t
#include "server/changes.c"
#undef table
#undef APLOG_USE_MODULE
#define APLOG_USE_MODULE(name) extern module name##_module
#include "server/permits.c"
#include "server/edits.c"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

/* httpd and the rest of the module */

module AP_MODULE_DECLARE_DATA nssmtpd_module;
static void *memory;
static int logged, routes_made;

void *nssmtpd_shared_keep(server_rec *s, const char *name, apr_size_t size, int *is_new)
{
    (void)s, (void)name;
    *is_new = memory == NULL;
    if (!memory) {
        memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    }
    return memory;
}

nssmtpd_config_t *nssmtpd_config(const server_rec *s)
{
    return (nssmtpd_config_t *)s->module_config;
}

const nssmtpd_delivery_t *nssmtpd_delivery_find(apr_pool_t *p, const char *url,
                                                const char **scheme)
{
    static const nssmtpd_delivery_t delivery;

    *scheme = strncmp(url, "discard:", 8) == 0 ? apr_pstrdup(p, "discard") : "smtp";
    return &delivery;
}

const char *nssmtpd_route_at_run_time(server_rec *s, const char *url, nssmtpd_route_t **route)
{
    static nssmtpd_route_t made;

    (void)s;
    routes_made++;
    made.url = "made";
    *route = &made;
    return strcmp(url, "bad") == 0 ? "it is bad" : NULL;
}

void ap_log_error_(const char *file, int line, int index, int level, apr_status_t status,
                   const server_rec *s, const char *format, ...)
{
    (void)file, (void)line, (void)index, (void)status, (void)s, (void)format;
    logged += level <= APLOG_ERR;
}

void ap_str_tolower(char *text)
{
    for (; *text; text++) {
        *text = apr_tolower(*text);
    }
}

/* A host for each test */

typedef struct host_fixture_t {
    apr_pool_t *p;
    server_rec s;
    nssmtpd_config_t conf;
    nssmtpd_route_t relay, route;
} host_fixture_t;

static const struct ap_logconf quiet = { NULL, APLOG_INFO };

/* As after a graceful restart: the configuration is new, the shared memory is not. */
static void configure(host_fixture_t *h, const char *const *words)
{
    memset(&h->s, 0, sizeof(h->s));
    memset(&h->conf, 0, sizeof(h->conf));
    h->s.server_hostname = "mail.test";
    h->s.port = 25;
    h->s.log = quiet;
    h->s.module_config = (struct ap_conf_vector_t *)&h->conf;
    h->conf.engine = 1;
    h->conf.server = &h->s;
    h->conf.relay = &h->relay;
    h->conf.trusted = apr_array_make(h->p, 1, sizeof(nssmtpd_client_t));
    h->conf.domains = apr_array_make(h->p, 1, sizeof(nssmtpd_domain_t));
    for (; *words; words++) {
        nssmtpd_domain_t *domain = apr_array_push(h->conf.domains);

        assert_null(nssmtpd_lists_parse_domain(h->p, domain, *words));
        domain->route = domain->route ? &h->route : NULL;
    }
    h->conf.domain_list = nssmtpd_lists_index(h->p, h->conf.domains);
    assert_int_equal(nssmtpd_changes_create(&h->s), OK);
    assert_int_equal(nssmtpd_permits_init(h->p), APR_SUCCESS);
}

static int set_up(void **state)
{
    static const char *const words[] = { "old.test", "routed.test=smtp://own:25", NULL };
    host_fixture_t *h = calloc(1, sizeof(*h));

    apr_pool_create(&h->p, NULL);
    configure(h, words);
    logged = routes_made = 0;
    *state = h;
    return 0;
}

static int tear_down(void **state)
{
    host_fixture_t *h = *state;

    munmap(memory, sizeof(changes_table_t));
    memory = NULL;
    apr_pool_destroy(h->p);
    free(h);
    return 0;
}

static int takes(host_fixture_t *h, const char *domain)
{
    const nssmtpd_route_t *route;

    return nssmtpd_permits_domain(&h->conf, domain, &route);
}

static const char *joined(host_fixture_t *h)
{
    return apr_array_pstrcat(h->p, nssmtpd_list_get(&h->s, NSSMTPD_LIST_RELAY, h->p), ' ');
}

/* Does something in another process, which must end so. */
static void in_child(host_fixture_t *h, void (*what)(host_fixture_t *), int signal)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        what(h);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), signal);
}

/* Tests */

static void a_list_is_the_configurations_at_first(void **state)
{
    host_fixture_t *h = *state;
    const nssmtpd_route_t *route;

    assert_int_equal(nssmtpd_changes_version(h->conf.changes, NSSMTPD_LIST_RELAY), 0);
    assert_string_equal(joined(h), "old.test routed.test=smtp://own:25");
    assert_int_equal(nssmtpd_permits_domain(&h->conf, "a.routed.test", &route), 1);
    assert_ptr_equal(route, &h->route);
    assert_null(snapshots);
}

static void add_new(host_fixture_t *h)
{
    nssmtpd_list_add(&h->s, NSSMTPD_LIST_RELAY, h->p, "new.test");
}

static void another_process_changes_it(void **state)
{
    host_fixture_t *h = *state;
    const nssmtpd_route_t *route;

    assert_false(takes(h, "new.test"));
    in_child(h, add_new, 0);
    assert_true(takes(h, "new.test"));
    assert_true(takes(h, "old.test"));
    assert_string_equal(joined(h), "old.test routed.test=smtp://own:25 new.test");
    assert_int_equal(nssmtpd_permits_domain(&h->conf, "routed.test", &route), 1);
    assert_ptr_equal(route, &h->route);
    assert_int_equal(routes_made, 0);
}

static const char *edit_and_die(apr_array_header_t *lines, void *baton)
{
    (void)baton;
    APR_ARRAY_PUSH(lines, const char *) = "half.test";
    raise(SIGKILL);
    return NULL;
}

static void die_in_edit(host_fixture_t *h)
{
    apr_array_header_t *none = apr_array_make(h->p, 1, sizeof(char *));

    nssmtpd_changes_edit(h->conf.changes, NSSMTPD_LIST_RELAY, h->p, none, edit_and_die, NULL);
}

static void die_in_write(host_fixture_t *h)
{
    changes_list_t *list = &changes_table->hosts[h->conf.changes].lists[NSSMTPD_LIST_RELAY];

    pthread_mutex_lock(&changes_table->mutex);
    memset(list->octets[(list->version + 1) & 1], 'x', NSSMTPD_CHANGES_MAX);
    list->length[(list->version + 1) & 1] = 17;
    raise(SIGKILL);
}

static void a_child_dies_with_the_mutex(void **state)
{
    host_fixture_t *h = *state;

    in_child(h, die_in_edit, SIGKILL);
    assert_string_equal(joined(h), "old.test routed.test=smtp://own:25");
    add_new(h);
    in_child(h, die_in_edit, SIGKILL);
    in_child(h, die_in_write, SIGKILL);
    assert_true(takes(h, "new.test"));
    assert_string_equal(joined(h), "old.test routed.test=smtp://own:25 new.test");
    assert_null(nssmtpd_list_delete(&h->s, NSSMTPD_LIST_RELAY, h->p, "new.test"));
    assert_false(takes(h, "new.test"));
    assert_true(takes(h, "old.test"));
}

static void changes_survive_a_new_configuration(void **state)
{
    static const char *const words[] = { "other.test", NULL };
    host_fixture_t *h = *state;
    const nssmtpd_route_t *route;

    add_new(h);
    configure(h, words);
    assert_string_equal(joined(h), "old.test routed.test=smtp://own:25 new.test");
    assert_true(takes(h, "new.test"));
    assert_false(takes(h, "other.test"));
    assert_int_equal(nssmtpd_permits_domain(&h->conf, "routed.test", &route), 1);
    assert_string_equal(route->url, "made");

    nssmtpd_changes_pre_mpm(h->p, SB_SHARED); /* as at a restart that is not graceful */
    configure(h, words);
    assert_string_equal(joined(h), "other.test");
    assert_true(takes(h, "other.test"));
    assert_false(takes(h, "new.test"));
}

static int code_of(host_fixture_t *h, const char *domain)
{
    const nssmtpd_route_t *route;
    nssmtpd_transaction_t t = { 0 };
    nssmtpd_rcpt_t rcpt = { 0 };

    assert_true(nssmtpd_permits_domain(&h->conf, domain, &route));
    return route->delivery->rcpt(&t, &rcpt)->code;
}

/* The configuration has lost what an entry needs: its mail is to come again, the others hold, and it
 * is said. */
static void an_entry_that_cannot_be_used(void **state)
{
    static const char *const words[] = { "routed.test=smtp://own:25", NULL };
    host_fixture_t *h = *state;

    assert_null(nssmtpd_list_add(&h->s, NSSMTPD_LIST_RELAY, h->p, "bare.test"));
    configure(h, words);
    h->conf.relay = NULL;
    assert_true(takes(h, "routed.test"));
    assert_int_equal(code_of(h, "bare.test"), 451);
    assert_int_equal(logged, 2); /* bare.test and old.test */
    assert_int_equal(code_of(h, "bare.test"), 451);
    assert_int_equal(logged, 2);
}

static void routes_are_shown_without_passwords(void **state)
{
    static const struct {
        const char *word, *url;
    } rows[] = {
        { "x.test", "" },
        { "x.test:host", "smtp://host:25" },
        { "x.test:host:2525", "smtp://host:2525" },
        { "x.test:[::1]", "smtp://[::1]:25" },
        { "x.test=[::1]:26", "smtp://[::1]:26" },
        { "x.test=smtps://host", "smtps://host" },
        { "x.test=plain://user:se@cret@host:587", "plain://user@host:587" },
        { "x.test=discard:", "discard:" }
    };
    host_fixture_t *h = *state;
    size_t i;

    for (i = 0; i < ROWS(rows); i++) {
        assert_null(nssmtpd_list_set(&h->s, NSSMTPD_LIST_RELAY, h->p,
                                     apr_array_make(h->p, 1, sizeof(char *))));
        assert_null(nssmtpd_list_route(&h->s, h->p, "u@x.test"));
        assert_null(nssmtpd_list_add(&h->s, NSSMTPD_LIST_RELAY, h->p, rows[i].word));
        assert_string_equal(nssmtpd_list_route(&h->s, h->p, "u@sub.X.test"), rows[i].url);
        assert_string_equal(joined(h), rows[i].word);
    }
    assert_non_null(strstr(nssmtpd_list_add(&h->s, NSSMTPD_LIST_RELAY, h->p, "y.test=bad"),
                           "y.test: it is bad"));
}

/* Lookups in threads while the list changes under them: what always was in it never is
 * missing, and keeps its route. */

typedef struct readers_t {
    host_fixture_t *h;
    int stop, wrong, lookups; /* atomic */
} readers_t;

static void *APR_THREAD_FUNC look_up(apr_thread_t *thread, void *baton)
{
    readers_t *readers = baton;

    (void)thread;
    while (!__atomic_load_n(&readers->stop, __ATOMIC_RELAXED)) {
        const nssmtpd_route_t *route;

        __atomic_fetch_add(&readers->lookups, 1, __ATOMIC_RELAXED);
        if (!nssmtpd_permits_domain(&readers->h->conf, "a.b.routed.test", &route)
            || route != &readers->h->route) {
            __atomic_fetch_add(&readers->wrong, 1, __ATOMIC_RELAXED);
        }
    }
    return NULL;
}

static void lookups_while_it_changes(void **state)
{
    enum { THREADS = 4, CHANGES = 400 };
    host_fixture_t *h = *state;
    readers_t readers = { .h = h };
    apr_thread_t *threads[THREADS];
    apr_status_t rv;
    int i;

    for (i = 0; i < THREADS; i++) {
        assert_int_equal(apr_thread_create(&threads[i], NULL, look_up, &readers, h->p),
                         APR_SUCCESS);
    }
    for (i = 0; i < CHANGES; i++) {
        apr_pool_t *p;

        apr_pool_create_unmanaged(&p);
        assert_null(nssmtpd_list_add(&h->s, NSSMTPD_LIST_RELAY, p,
                                     apr_psprintf(p, "d%d.test", i % 50)));
        apr_pool_destroy(p);
    }
    __atomic_store_n(&readers.stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < THREADS; i++) {
        apr_thread_join(&rv, threads[i]);
    }
    assert_true(readers.lookups > 0);
    assert_int_equal(readers.wrong, 0);
    assert_int_equal(nssmtpd_list_get(&h->s, NSSMTPD_LIST_RELAY, h->p)->nelts, 52);
}

/* Two processes change at once: none of their changes is lost. */
static void add_many(host_fixture_t *h, const char *name)
{
    int i;

    for (i = 0; i < 50; i++) {
        nssmtpd_list_add(&h->s, NSSMTPD_LIST_LOCALS, h->p, apr_psprintf(h->p, name, i));
    }
}

static void two_processes_change_at_once(void **state)
{
    host_fixture_t *h = *state;
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        add_many(h, "10.0.0.%d");
        _exit(0);
    }
    add_many(h, "10.1.0.%d");
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(nssmtpd_list_get(&h->s, NSSMTPD_LIST_LOCALS, h->p)->nelts, 100);
    assert_true(nssmtpd_list_trusts(&h->s, h->p, "10.0.0.49"));
    assert_true(nssmtpd_list_trusts(&h->s, h->p, "10.1.0.49"));
    assert_false(nssmtpd_list_trusts(&h->s, h->p, "10.0.0.50"));
    assert_false(nssmtpd_list_trusts(&h->s, h->p, "localhost"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_list_is_the_configurations_at_first),
        TEST(another_process_changes_it),
        TEST(a_child_dies_with_the_mutex),
        TEST(changes_survive_a_new_configuration),
        TEST(an_entry_that_cannot_be_used),
        TEST(routes_are_shown_without_passwords),
        TEST(lookups_while_it_changes),
        TEST(two_processes_change_at_once)
    };

    apr_initialize();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
