/* For tests of server/names.c: name servers of tests/t/lib/FakeDNS.pm on loopback, one that answers
 * by the test's zone, one that fails, and a port where there is none. No other server is asked.
 */
#ifndef NAMES_FIXTURE_H
#define NAMES_FIXTURE_H

#include <apr_file_io.h>
#include <apr_general.h>
#include <apr_thread_proc.h>

#include "server/names.c"
#include "server/resolver.c"

#define ROWS(table) (sizeof(table) / sizeof *(table))
#define NO NSSMTPD_NAMES_NO
#define YES NSSMTPD_NAMES_YES
#define UNKNOWN NSSMTPD_NAMES_UNKNOWN

#define PLENTY apr_time_from_sec(5)    /* nothing may need it */
#define SHORT apr_time_from_msec(300)
#define TOO_LONG apr_time_from_sec(3) /* SHORT and what a busy machine adds */

static apr_pool_t *pool;
static const apr_array_header_t *good, *broken, *closed;

static const apr_array_header_t *servers_at(apr_port_t port)
{
    apr_array_header_t *servers = apr_array_make(pool, 2, sizeof(const char *));

    assert_null(nssmtpd_names_parse_server(pool, servers,
                                           apr_psprintf(pool, "127.0.0.1:%d", port)));
    return servers;
}

/* Starts a server, which serves until its input is closed: at the latest when this process ends. */
static const apr_array_header_t *start_server(const char *text)
{
    static const char *const args[] = { "perl", "-Itests/t/lib", "tests/t/lib/FakeDNS.pm", NULL };
    apr_procattr_t *attr;
    apr_proc_t *proc = apr_palloc(pool, sizeof(*proc));
    char line[32];

    assert_int_equal(apr_procattr_create(&attr, pool), APR_SUCCESS);
    assert_int_equal(apr_procattr_io_set(attr, APR_FULL_BLOCK, APR_FULL_BLOCK, APR_NO_PIPE),
                     APR_SUCCESS);
    assert_int_equal(apr_procattr_cmdtype_set(attr, APR_PROGRAM_PATH), APR_SUCCESS);
    assert_int_equal(apr_proc_create(proc, "perl", args, NULL, attr, pool), APR_SUCCESS);
    apr_pool_note_subprocess(pool, proc, APR_KILL_AFTER_TIMEOUT);
    assert_int_equal(apr_file_puts(text, proc->in), APR_SUCCESS);
    assert_int_equal(apr_file_puts("\n", proc->in), APR_SUCCESS);
    assert_int_equal(apr_file_gets(line, sizeof(line), proc->out), APR_SUCCESS);
    return servers_at(atoi(line));
}

/* A port that nobody listens on: bound for UDP, closed again. */
static const apr_array_header_t *find_closed(void)
{
    apr_sockaddr_t *sa;
    apr_socket_t *s;

    assert_int_equal(apr_sockaddr_info_get(&sa, "127.0.0.1", APR_INET, 0, 0, pool), APR_SUCCESS);
    assert_int_equal(apr_socket_create(&s, APR_INET, SOCK_DGRAM, 0, pool), APR_SUCCESS);
    assert_int_equal(apr_socket_bind(s, sa), APR_SUCCESS);
    assert_int_equal(apr_socket_addr_get(&sa, APR_LOCAL, s), APR_SUCCESS);
    apr_socket_close(s);
    return servers_at(sa->port);
}

static void start_servers(const char *zone, const char *broken_zone)
{
    apr_initialize();
    apr_pool_create(&pool, NULL);
    good = start_server(zone);
    broken = start_server(broken_zone);
    closed = find_closed();
}

static int tear_down(void **state)
{
    (void)state;
    apr_pool_destroy(pool);
    apr_terminate();
    return 0;
}

#endif
