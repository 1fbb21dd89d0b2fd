/* The engine behind nssmtpd_scan(): all scanners of a message at once. Those with daemons share
 * one poll loop in the calling thread; one that runs in process has a thread of its own while
 * others go on, and the calling thread where it is alone. What a verdict means is outcome.c's.
 */
#include <apr_strings.h>
#include <apr_thread_proc.h>
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "filters/outcome.h"
#include "filters/scanners.h"

/* One scanner name and one message: the lines of the name are tried in turn. */
typedef struct probe_t {
    nssmtpd_scan_t scan;
    const nssmtpd_line_t *line;
    enum { QUEUED, CONNECTING, TALKING, RUNNING, OVER } state;
    int has_slot;
    int bell;              /* rung by the thread; -1: none */
    apr_thread_t *thread;
    apr_time_t began;
    apr_time_t give_up;    /* of the state it is in */
} probe_t;

typedef struct scan_loop_t {
    const nssmtpd_scan_job_t *job;
    apr_array_header_t *probes; /* of probe_t */
    apr_time_t deadline;
    apr_uint32_t must_refuse;
    nssmtpd_scanned_t *result;
    int is_final;          /* somebody has refused it */
} scan_loop_t;

static probe_t *probe_at(const scan_loop_t *loop, int i)
{
    return i < loop->probes->nelts ? &APR_ARRAY_IDX(loop->probes, i, probe_t) : NULL;
}

static void fail(probe_t *probe, const char *why)
{
    probe->scan.verdict = NSSMTPD_VERDICT_ERROR;
    probe->scan.why = why;
}

/* The gate of max= */

static int enter(probe_t *probe)
{
    eventfd_t one;

    if (probe->line->gate->fd >= 0) {
        if (eventfd_read(probe->line->gate->fd, &one) != 0) {
            return errno != EAGAIN;
        }
        probe->has_slot = 1;
    }
    return 1;
}

static void leave(probe_t *probe)
{
    if (probe->has_slot) {
        eventfd_write(probe->line->gate->fd, 1);
        probe->has_slot = 0;
    }
}

/* In process */

static void *APR_THREAD_FUNC run_thread(apr_thread_t *thread, void *data)
{
    probe_t *probe = data;

    (void)thread;
    probe->line->conf.scanner->run(&probe->scan);
    eventfd_write(probe->bell, 1);
    return NULL;
}

static int is_alone(const scan_loop_t *loop, const probe_t *probe)
{
    probe_t *other;
    int i;

    for (i = 0; (other = probe_at(loop, i)); i++) {
        if (other != probe && other->state != OVER) {
            return 0;
        }
    }
    return 1;
}

static void run(scan_loop_t *loop, probe_t *probe)
{
    if (!is_alone(loop, probe)) {
        probe->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (probe->bell >= 0
            && apr_thread_create(&probe->thread, NULL, run_thread, probe, loop->job->p)
                   == APR_SUCCESS) {
            return;
        }
    }
    probe->line->conf.scanner->run(&probe->scan);
}

static void join(probe_t *probe)
{
    apr_status_t rv;

    if (probe->thread) {
        apr_thread_join(&rv, probe->thread);
        probe->thread = NULL;
    }
    if (probe->bell >= 0) {
        close(probe->bell);
        probe->bell = -1;
    }
}

/* States */

static void finish(scan_loop_t *loop, probe_t *probe);

/* Its thread is over, or it had none. */
static void came_back(scan_loop_t *loop, probe_t *probe)
{
    join(probe);
    if (probe->scan.verdict == NSSMTPD_VERDICT_NONE) {
        fail(probe, "it came back without a verdict");
    }
    finish(loop, probe);
}

static apr_time_t earlier(apr_time_t a, apr_time_t b)
{
    return a < b ? a : b;
}

static void launch(scan_loop_t *loop, probe_t *probe)
{
    const nssmtpd_scanner_t *scanner = probe->line->conf.scanner;

    if (scanner->run) {
        probe->state = RUNNING;
        run(loop, probe);
        if (!probe->thread) {
            came_back(loop, probe);
        }
        return;
    }
    probe->state = CONNECTING;
    scanner->start(&probe->scan);
    if (probe->scan.verdict != NSSMTPD_VERDICT_NONE) {
        finish(loop, probe);
    }
}

/* Nothing is left of what another line's scanner said. */
static void clear(nssmtpd_scan_t *scan, const nssmtpd_line_t *line)
{
    *scan = (nssmtpd_scan_t){ .job = scan->job, .conf = &line->conf, .p = scan->p, .fd = -1 };
}

/* Begins with a line. Where another one could do it instead, queueing and connecting may take
 * a quarter of its time only. */
static void begin(scan_loop_t *loop, probe_t *probe)
{
    const nssmtpd_scan_conf_t *conf = &probe->line->conf;
    nssmtpd_scan_t *scan = &probe->scan;

    probe->began = apr_time_now();
    clear(scan, probe->line);
    scan->deadline = earlier(probe->began + conf->timeout, loop->deadline);
    probe->give_up = probe->line->spare
                         ? probe->began + (scan->deadline - probe->began) / 4
                         : scan->deadline;
    probe->state = QUEUED;
    if (conf->max_size && (apr_off_t)loop->job->message.n > conf->max_size) {
        scan->verdict = NSSMTPD_VERDICT_TOO_LARGE;
        scan->why = apr_psprintf(loop->job->p, "%" APR_SIZE_T_FMT " octets, maxsize=%"
                                 APR_OFF_T_FMT, loop->job->message.n, conf->max_size);
        finish(loop, probe);
    }
    else if (enter(probe)) {
        launch(loop, probe);
    }
}

static void end(probe_t *probe)
{
    probe->scan.is_unwanted = 1;
    join(probe);
    if (probe->line->conf.scanner->end && probe->state != QUEUED) {
        probe->line->conf.scanner->end(&probe->scan);
    }
    leave(probe);
    probe->state = OVER;
}

/* The probe has a verdict: its line's, or that of a spare line. */
static void finish(scan_loop_t *loop, probe_t *probe)
{
    nssmtpd_scan_t *scan = &probe->scan;

    end(probe);
    if (scan->verdict == NSSMTPD_VERDICT_ERROR && probe->line->spare && !loop->is_final
        && apr_time_now() < loop->deadline) {
        nssmtpd_outcome_tell_failover(probe->line, scan);
        probe->line = probe->line->spare;
        begin(loop, probe);
        return;
    }
    nssmtpd_outcome_add(probe->line, scan, loop->must_refuse, apr_time_now() - probe->began,
                        loop->result);
    loop->is_final |= nssmtpd_outcome_is_final(probe->line, scan, loop->must_refuse);
}

/* The loop */

static struct pollfd wish_of(const probe_t *probe)
{
    switch (probe->state) {
    case QUEUED:
        return (struct pollfd){ .fd = probe->line->gate->fd, .events = POLLIN };
    case RUNNING:
        return (struct pollfd){ .fd = probe->bell, .events = POLLIN };
    case OVER:
        return (struct pollfd){ .fd = -1 };
    default:
        return (struct pollfd){ .fd = probe->scan.fd, .events = probe->scan.events };
    }
}

static void step(scan_loop_t *loop, probe_t *probe)
{
    switch (probe->state) {
    case QUEUED:
        if (enter(probe)) {
            launch(loop, probe);
        }
        return;
    case CONNECTING:
        probe->state = TALKING;
        probe->give_up = probe->scan.deadline;
        break;
    case RUNNING:
        came_back(loop, probe);
        return;
    default:
        break;
    }
    probe->line->conf.scanner->step(&probe->scan);
    if (probe->scan.verdict != NSSMTPD_VERDICT_NONE) {
        finish(loop, probe);
    }
}

static void time_out(scan_loop_t *loop, probe_t *probe)
{
    static const char *const words[] = {
        [QUEUED] = "no place came free in time: max= scans at once",
        [CONNECTING] = "cannot be connected to in time",
        [TALKING] = "no answer in time"
    };
    const char *address = probe->line->conf.address;

    fail(probe, apr_pstrcat(loop->job->p, address ? address : "", address ? ": " : "",
                            words[probe->state], NULL));
    finish(loop, probe);
}

/* How long to wait: -1 for ever, since a thread has its own clock. */
static int patience(const scan_loop_t *loop, apr_time_t now)
{
    apr_interval_time_t least = -1;
    probe_t *probe;
    int i;

    for (i = 0; (probe = probe_at(loop, i)); i++) {
        if (probe->state != OVER && probe->state != RUNNING
            && (least < 0 || probe->give_up - now < least)) {
            least = probe->give_up > now ? probe->give_up - now : 0;
        }
    }
    return least < 0 ? -1 : (int)apr_time_as_msec(least) + 1;
}

static int is_done(const scan_loop_t *loop)
{
    return loop->is_final || is_alone(loop, NULL);
}

/* A thread has its own clock. */
static int is_late(const probe_t *probe)
{
    return probe->state != OVER && probe->state != RUNNING && probe->give_up <= apr_time_now();
}

/* Waits for any, and serves all that are ready or late. */
static void turn(scan_loop_t *loop, struct pollfd *fds)
{
    probe_t *probe;
    int i;

    for (i = 0; (probe = probe_at(loop, i)); i++) {
        fds[i] = wish_of(probe);
    }
    if (poll(fds, i, patience(loop, apr_time_now())) < 0) {
        return; /* a signal; nothing is known to be ready */
    }
    for (i = 0; (probe = probe_at(loop, i)) && !loop->is_final; i++) {
        if (fds[i].revents && !(probe->state == QUEUED && is_late(probe))) {
            step(loop, probe);
        }
        if (is_late(probe) && !loop->is_final) { /* although octets may come, one by one */
            time_out(loop, probe);
        }
    }
}

static apr_status_t drop_pool(void *pool)
{
    apr_pool_destroy(pool);
    return APR_SUCCESS;
}

/* A scan in a thread of its own may not allocate from the job's pool. */
static apr_pool_t *pool_for(const scan_loop_t *loop, const nssmtpd_line_t *line)
{
    apr_pool_t *p = loop->job->p;

    if (line->conf.scanner->run && apr_pool_create(&p, NULL) == APR_SUCCESS) {
        apr_pool_cleanup_register(loop->job->p, p, drop_pool, apr_pool_cleanup_null);
    }
    return p;
}

/* Daemons first: they work while we do. */
static void begin_all(scan_loop_t *loop)
{
    probe_t *probe;
    int i, in_process;

    for (in_process = 0; in_process <= 1; in_process++) {
        for (i = 0; (probe = probe_at(loop, i)) && !loop->is_final; i++) {
            if ((probe->line->conf.scanner->run != NULL) == in_process) {
                begin(loop, probe);
            }
        }
    }
}

static void add_probes(scan_loop_t *loop, apr_uint32_t wanted)
{
    const nssmtpd_line_t *line;
    int i;

    for (i = 0; (line = nssmtpd_scanners_line(loop->job->s, i)); i++) {
        if (!line->is_spare && (nssmtpd_scanners_kind(line) & wanted)) {
            probe_t *probe = apr_array_push(loop->probes);

            probe->line = line;
            probe->scan.job = loop->job;
            probe->scan.p = pool_for(loop, line);
            probe->scan.fd = probe->bell = -1;
        }
    }
}

void nssmtpd_scan(const nssmtpd_scan_job_t *job, apr_uint32_t wanted, apr_uint32_t must_refuse,
                  nssmtpd_scanned_t *result)
{
    scan_loop_t loop = { .job = job, .must_refuse = must_refuse, .result = result };
    struct pollfd *fds;
    probe_t *probe;
    int i;

    nssmtpd_outcome_begin(job, wanted, result);
    loop.deadline = apr_time_now() + nssmtpd_timeout(job->s, NSSMTPD_TIMEOUT_SCAN);
    loop.probes = apr_array_make(job->p, 4, sizeof(probe_t));
    add_probes(&loop, wanted);
    fds = apr_pcalloc(job->p, loop.probes->nelts * sizeof(*fds));
    begin_all(&loop);
    while (!is_done(&loop)) {
        turn(&loop, fds);
    }
    for (i = 0; (probe = probe_at(&loop, i)); i++) {
        if (probe->state != OVER) {
            end(probe);
        }
    }
    nssmtpd_outcome_end(job, result);
    if (loop.probes->nelts) {
        nssmtpd_count(NSSMTPD_COUNT_SCANNED, 1);
    }
}
