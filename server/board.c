/* The board of sessions: a row beside each slot, under a count that is odd while its session
 * writes. Who reads copies the row and takes it only if the count was even and still is the
 * same; nobody waits for anybody. A child killed while writing leaves an odd count, which
 * hides the row until the parent reaps it. Called by session.c and by scripts.
 */
#include "server/board.h"

#include <apr_atomic.h>
#include <apr_strings.h>
#include <unistd.h>

#include "server/phase.h"
#include "server/shared.h"
#include "server/state.h"
#include "server/transaction.h"

/* The most octets of a name or address that are shown, and how often a row is read that is
 * being written. */
#define PART_MAX 200
#define TRIES 50

typedef struct row_t {
    apr_uint32_t count;      /* odd: it is being written */
    apr_uint32_t rcpt_count;
    apr_uint64_t id;         /* 0: it shows no session */
    apr_time_t started;
    apr_int64_t bytes;
    unsigned char phase;     /* of nssmtpd_phase_e */
    unsigned char is_tls;
    unsigned short n;        /* of text */
    char text[732];          /* client, helo, user, from, each with its NUL; then of each
                              * recipient its flags and address */
} row_t;

static row_t *rows;          /* NSSMTPD_SLOTS; NULL: no host speaks SMTP */
static apr_uint32_t counter; /* of this child's sessions */

int nssmtpd_board_create(server_rec *s)
{
    int is_new;

    rows = nssmtpd_shared_keep(s, "sessions", NSSMTPD_SLOTS * sizeof(row_t), &is_new);
    return rows ? OK : !OK;
}

static row_t *row_of(const nssmtpd_session_t *session)
{
    return session->slot == NSSMTPD_NO_SLOT ? NULL : &rows[session->slot];
}

/* Writing */

static void begin(row_t *row)
{
    __atomic_store_n(&row->count, row->count | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void end(row_t *row)
{
    __atomic_store_n(&row->count, row->count + 1, __ATOMIC_RELEASE);
}

/* 0: there is no room. Longer parts are cut; so little stands before the first recipient
 * that there always is room for that. */
static int put(row_t *row, const char *part)
{
    apr_size_t n = part ? strlen(part) : 0;

    n = n > PART_MAX ? PART_MAX : n;
    if (row->n + n + 1 > sizeof(row->text)) {
        return 0;
    }
    memcpy(row->text + row->n, part ? part : "", n);
    row->text[row->n + n] = '\0';
    row->n += n + 1;
    return 1;
}

static int put_rcpt(row_t *row, const nssmtpd_rcpt_t *rcpt)
{
    unsigned short n = row->n;

    if (n + sizeof(rcpt->flags) <= sizeof(row->text)) {
        memcpy(row->text + n, &rcpt->flags, sizeof(rcpt->flags));
        row->n += sizeof(rcpt->flags);
        if (put(row, rcpt->address)) {
            return 1;
        }
    }
    row->n = n;
    return 0;
}

/* By what is to be answered, else by what was. */
static nssmtpd_phase_e phase_of(const smtp_dialogue_t *d, nssmtpd_phase_e last)
{
    switch (d->event) {
    case SMTP_EVENT_HELO: return NSSMTPD_PHASE_HELO;
    case SMTP_EVENT_AUTH: return NSSMTPD_PHASE_AUTH;
    case SMTP_EVENT_MAIL: return NSSMTPD_PHASE_MAIL;
    case SMTP_EVENT_RCPT: return NSSMTPD_PHASE_RCPT;
    case SMTP_EVENT_DATA:
    case SMTP_EVENT_END: return NSSMTPD_PHASE_DATA;
    }
    switch (d->state) {
    case SMTP_STATE_NEW: return NSSMTPD_PHASE_CONNECT;
    case SMTP_STATE_READY: return NSSMTPD_PHASE_HELO;
    case SMTP_STATE_MAIL: return NSSMTPD_PHASE_MAIL;
    case SMTP_STATE_REFUSED:
    case SMTP_STATE_RCPT: return NSSMTPD_PHASE_RCPT;
    case SMTP_STATE_DATA: return NSSMTPD_PHASE_DATA;
    default: return last;
    }
}

static void write_all(row_t *row, const nssmtpd_session_t *session)
{
    const nssmtpd_mail_t *mail = session->mail;
    int i;

    row->phase = phase_of(&session->dialogue, row->phase);
    row->is_tls = session->tls == NSSMTPD_SECURE;
    row->bytes = mail && mail->spool ? mail->spool->length : 0;
    row->n = 0;
    put(row, session->c->client_ip);
    put(row, session->dialogue.helo);
    put(row, session->user);
    put(row, mail ? mail->t.from : NULL);
    row->rcpt_count = mail ? mail->t.rcpts->nelts : 0;
    for (i = 0; i < (int)row->rcpt_count; i++) {
        if (!put_rcpt(row, &APR_ARRAY_IDX(mail->t.rcpts, i, nssmtpd_rcpt_t))) {
            break;
        }
    }
}

void nssmtpd_board_open(const nssmtpd_session_t *session)
{
    row_t *row = row_of(session);

    if (!row) {
        return;
    }
    begin(row);
    row->id = (apr_uint64_t)getpid() << 32 | (apr_atomic_inc32(&counter) + 1);
    row->started = apr_time_now();
    row->phase = NSSMTPD_PHASE_CONNECT;
    write_all(row, session);
    end(row);
}

void nssmtpd_board_turn(const nssmtpd_session_t *session)
{
    row_t *row = row_of(session);

    if (row && session->dialogue.event != SMTP_EVENT_MORE) {
        row->phase = phase_of(&session->dialogue, row->phase);
    }
}

void nssmtpd_board_write(const nssmtpd_session_t *session)
{
    row_t *row = row_of(session);

    if (row) {
        begin(row);
        write_all(row, session);
        end(row);
    }
}

void nssmtpd_board_update(const nssmtpd_session_t *session, smtp_event_e event)
{
    row_t *row = row_of(session);

    if (event != SMTP_EVENT_MORE && event != SMTP_EVENT_CONTENT) {
        nssmtpd_board_write(session);
    }
    else if (row && session->dialogue.state == SMTP_STATE_DATA) {
        __atomic_store_n(&row->bytes, session->mail->spool->length, __ATOMIC_RELAXED);
    }
}

static void clear(row_t *row)
{
    begin(row);
    row->id = 0;
    end(row);
}

void nssmtpd_board_close(const nssmtpd_session_t *session)
{
    if (row_of(session)) {
        clear(row_of(session));
    }
}

void nssmtpd_board_reap(pid_t pid)
{
    apr_uint32_t i;

    for (i = 0; rows && i < nssmtpd_state_used(); i++) {
        if (nssmtpd_state_owner(i) == pid) {
            clear(&rows[i]);
        }
    }
}

/* Reading */

/* 1: the copy is what one session has written. */
static int copy(row_t *to, const row_t *from)
{
    int i;

    for (i = 0; i < TRIES; i++) {
        apr_uint32_t count = __atomic_load_n(&from->count, __ATOMIC_ACQUIRE);

        memcpy(to, from, sizeof(*to));
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(count & 1) && __atomic_load_n(&from->count, __ATOMIC_RELAXED) == count) {
            return to->id != 0;
        }
    }
    return 0;
}

static const char *take(apr_pool_t *p, const char **at)
{
    const char *part = *at;

    *at += strlen(part) + 1;
    return apr_pstrdup(p, part);
}

static void show(nssmtpd_session_info_t *info, const row_t *row, apr_pool_t *p)
{
    const char *at = row->text, *last = row->text + row->n;

    info->id = row->id;
    info->phase = nssmtpd_phase_name(row->phase);
    info->rcpt_count = row->rcpt_count;
    info->is_tls = row->is_tls;
    info->started = row->started;
    info->bytes = row->bytes;
    info->client = take(p, &at);
    info->helo = take(p, &at);
    info->user = take(p, &at);
    info->from = take(p, &at);
    info->rcpts = apr_array_make(p, 2, sizeof(nssmtpd_rcpt_t));
    while (at < last) {
        nssmtpd_rcpt_t *rcpt = apr_array_push(info->rcpts);

        memset(rcpt, 0, sizeof(*rcpt));
        memcpy(&rcpt->flags, at, sizeof(rcpt->flags));
        at += sizeof(rcpt->flags);
        rcpt->address = take(p, &at);
    }
}

apr_array_header_t *nssmtpd_sessions(apr_pool_t *p)
{
    apr_array_header_t *sessions = apr_array_make(p, 16, sizeof(nssmtpd_session_info_t));
    apr_uint32_t i, used = rows ? nssmtpd_state_used() : 0;
    row_t row;

    for (i = 0; i < used; i++) {
        pid_t pid = nssmtpd_state_owner(i);

        if (pid && copy(&row, &rows[i])) {
            nssmtpd_session_info_t *info = apr_array_push(sessions);

            info->pid = pid;
            show(info, &row, p);
        }
    }
    return sessions;
}
