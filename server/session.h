/* One SMTP connection: its dialogue, the mail in hand, and what it waits for. A session
 * belongs to the thread that httpd runs it in; other threads may only do what registry.h
 * says.
 */
#ifndef NSSMTPD_SESSION_H
#define NSSMTPD_SESSION_H

#include <apr_ring.h>

#include "server/config.h"
#include "smtp/dialogue.h"

/* What a session needs before it can go on. */
typedef enum nssmtpd_wait_e {
    NSSMTPD_GO_ON,
    NSSMTPD_WAIT_READ,  /* more octets of the client */
    NSSMTPD_WAIT_WRITE, /* the client to take its replies */
    NSSMTPD_WAIT_PLACE, /* a place among the threads in long work: see registry.h */
    NSSMTPD_LOOK_UP,    /* a look at the clock */
    NSSMTPD_CLOSE       /* nothing: it is over */
} nssmtpd_wait_e;

/* How far TLS is. That it is on is only what mod_ssl says, see tls.h. */
enum {
    NSSMTPD_CLEAR,     /* plaintext */
    NSSMTPD_STARTING,  /* 220 was said: TLS begins when it is written */
    NSSMTPD_HANDSHAKE, /* mod_ssl is in; nothing of the client's was heard yet */
    NSSMTPD_SECURE     /* the handshake is done */
};

typedef struct nssmtpd_session_t nssmtpd_session_t;
typedef struct nssmtpd_mail_t nssmtpd_mail_t;

struct nssmtpd_session_t {
    APR_RING_ENTRY(nssmtpd_session_t) link;  /* in the registry */
    nssmtpd_session_t *ahead, *behind;       /* in the registry's queue for a place */
    struct nssmtpd_places_t *places;         /* which it has one of, or waits for; registry's */
    conn_rec *c;
    apr_socket_t *socket;
    const nssmtpd_config_t *conf;
    nssmtpd_mail_t *mail;        /* exactly while the dialogue has a transaction */
    apr_bucket_brigade *in;      /* read, not yet taken */
    apr_size_t in_taken;         /* of its first bucket */
    char *buffer;                /* what in's octets may lie in; NULL: none taken */
    apr_bucket_brigade *out;     /* replies, not yet passed on */
    apr_time_t deadline;         /* of what is waited for; 0: none set */
    apr_time_t unsaid;           /* since when work goes on while replies lie in out; 0: not */
    apr_time_t since;            /* when it began to wait for its client */
    apr_time_t queued;           /* since when it waits for a place; 0: it does not */
    int bell;                    /* descriptor that tells it of a place; -1: none */
    int parked;                  /* its socket's own, while bell stands there; -1: it does not */
    apr_off_t turn;              /* what it cost since a thread took it up, or it gave way */
    short patience;              /* stays its thread may make for it; below 0: commands until
                                  * it may again */
    short stays;                 /* that it made at a stretch */
    int slot;                    /* in the shared table */
    char *user;                  /* authenticated; NULL: nobody */
    apr_uint32_t flags;          /* of NSSMTPD_FLAG_..; LOCAL: trusted with any recipient */
    apr_pool_t *scratch;         /* of a command outside of a mail; NULL: nothing is in it */
    apr_uint32_t clients_version; /* of the list of trusted clients, when it was looked at */
    unsigned listed : 1;         /* its client was on it */
    unsigned sends_well : 1;     /* its last message came quickly, and was taken */
    unsigned greeted : 1;
    unsigned tls : 2;            /* NSSMTPD_CLEAR .. */
    unsigned wrong_protocol : 1; /* ALPN has chosen something else than smtp */
    unsigned by_filters : 1;     /* input came, or comes, through more than the core's filter */
    unsigned told : 1;           /* that the child stops, as soon as no mail is in hand */
    unsigned drained : 1;        /* the last read took all there was */
    unsigned wants_write : 1;    /* it waits for the client to take its replies */
    /* Two that other threads write, so they share no word with the rest. */
    apr_uint32_t place;          /* registry's: none, wished for or had */
    apr_uint32_t waiting;        /* registry's: for its client; atomic */
    unsigned idle : 1;           /* registry's: waiting without a mail in hand */
    unsigned eof : 1;            /* the client has closed its half */
    unsigned had_mail : 1;       /* a MAIL command was logged */
    unsigned over : 1;           /* ended and logged */
    smtp_dialogue_t dialogue;
};

/* Makes the session of a new connection, in c->pool; the first run greets or refuses. */
nssmtpd_session_t *nssmtpd_session_create(conn_rec *c, apr_socket_t *socket,
                                          const nssmtpd_config_t *conf);

/* Lets the dialogue know what the session's flags say, after a script has had them. */
void nssmtpd_session_apply_flags(nssmtpd_session_t *session);

/* A pool for what a command outside of a mail needs, empty at each call; it is gone when
 * the session waits. */
apr_pool_t *nssmtpd_session_scratch(nssmtpd_session_t *session);

/* Goes on with the session until it must wait. */
nssmtpd_wait_e nssmtpd_session_run(nssmtpd_session_t *session);

/* Ends the session: gives up a mail in hand, logs. May be called again. */
void nssmtpd_session_end(nssmtpd_session_t *session);

/* 1 if a reply would be heard: the session is open and not in a TLS handshake. */
#define nssmtpd_session_can_speak(session)                                                        \
    ((session)->dialogue.state != SMTP_STATE_CLOSED && (session)->tls != NSSMTPD_STARTING          \
     && (session)->tls != NSSMTPD_HANDSHAKE)

/* 1 while a mail is in hand, that a restart lets finish. */
#define nssmtpd_session_has_mail(session) \
    ((session)->dialogue.state & SMTP_STATES_TRANSACTION)

#endif
