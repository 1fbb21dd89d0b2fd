/* The server's side of an SMTP session (RFC 5321) without any I/O: octets of the
 * client go in, replies are appended to a brigade, and what needs a decision from
 * outside (a recipient, a message) comes out as an event that must be answered
 * before the next one. It owns the order of commands, their syntax and the limits
 * of a session; it knows no relay, no policy, no clock. One thread at a time.
 */
#ifndef SMTP_DIALOGUE_H
#define SMTP_DIALOGUE_H

#include <apr_buckets.h>

#include "smtp/address.h"
#include "smtp/command.h"
#include "smtp/dot.h"
#include "smtp/reply.h"
#include "smtp/sasl.h"

/* How far the session is; exactly one at a time. Bits, for the verbs' masks. */
enum {
    SMTP_STATE_NEW = 0x01,     /* greeted, no EHLO yet */
    SMTP_STATE_READY = 0x02,   /* no transaction */
    SMTP_STATE_MAIL = 0x04,    /* MAIL taken, no RCPT answered yet */
    SMTP_STATE_REFUSED = 0x08, /* only refused recipients so far */
    SMTP_STATE_RCPT = 0x10,    /* at least one recipient accepted */
    SMTP_STATE_DATA = 0x20,    /* message octets are read */
    SMTP_STATE_CLOSED = 0x40,  /* said 221 or 421: nothing is read any more */
    SMTP_STATE_BARRED = 0x80   /* greeted with 554: nothing but QUIT is taken */
};
#define SMTP_STATES_TRANSACTION                                                                    \
    (SMTP_STATE_MAIL | SMTP_STATE_REFUSED | SMTP_STATE_RCPT | SMTP_STATE_DATA)

typedef enum smtp_event_e {
    SMTP_EVENT_MORE,    /* all input was taken; nothing complete is left */
    SMTP_EVENT_COMMAND, /* a command was answered here; d->verb says which */
    SMTP_EVENT_CONTENT, /* d->content holds octets of the message */
    SMTP_EVENT_CLOSE,   /* the session is over: close once the output is written */
    /* from here on smtp_dialogue_answer() is owed */
    SMTP_EVENT_HELO,    /* EHLO or HELO; d->argument is the name */
    SMTP_EVENT_STARTTLS, /* may TLS begin, behind a 220? */
    SMTP_EVENT_AUTH,    /* d->sasl holds user and password, or nobody's */
    SMTP_EVENT_MAIL,    /* d->mail is set */
    SMTP_EVENT_RCPT,    /* d->address is set */
    SMTP_EVENT_DATA,    /* at least one recipient: may the message come? */
    SMTP_EVENT_END      /* the message has ended as the client meant it to */
} smtp_event_e;

typedef enum smtp_body_e { SMTP_BODY_UNSAID, SMTP_BODY_7BIT, SMTP_BODY_8BITMIME } smtp_body_e;

/* What MAIL said. The spans live until the next event. */
typedef struct smtp_mail_t {
    smtp_address_t from;
    apr_int64_t size; /* SIZE=, -1: not said */
    smtp_body_e body; /* BODY= */
} smtp_mail_t;

/* What a virtual host offers and allows. Constant while sessions use it. */
typedef struct smtp_offer_t {
    const char *hostname;
    apr_size_t max_line;  /* octets of a command without CRLF */
    apr_int64_t max_size; /* octets of a message; 0: any */
    int max_errors;       /* refused commands without an accepted mail between */
    int max_rcpts;        /* accepted recipients of a mail */
} smtp_offer_t;

typedef struct smtp_verb_t smtp_verb_t;

typedef struct smtp_dialogue_t {
    const smtp_offer_t *offer;
    apr_bucket_brigade *out;     /* where replies are appended */
    const smtp_verb_t *verb;     /* of the last event; NULL: an unknown word */
    smtp_span_t argument;        /* of the last command, without trailing blanks */
    union {
        smtp_mail_t mail;
        smtp_address_t address;
        smtp_span_t content;
    };
    char *helo;                  /* name that EHLO or HELO gave; NULL before */
    char *line;                  /* a partial command line; NULL when there is none */
    apr_size_t line_len, line_size;
    smtp_dot_t dot;
    smtp_sasl_t sasl;
    int auth_failures;
    int errors, idle_commands, rcpts, rcpt_commands;
    const smtp_reply_t *last;    /* the last reply: to compare with rows of the table only */
    short last_code;             /* of the last reply */
    unsigned char state;
    unsigned char event;         /* that an answer is owed for, or SMTP_EVENT_MORE */
    unsigned extended : 1;       /* EHLO, not HELO */
    unsigned normalize : 1;      /* repair bare LF in message data */
    unsigned need_helo : 1;      /* MAIL before EHLO is refused */
    unsigned can_tls : 1;        /* STARTTLS is offered */
    unsigned need_tls : 1;       /* little else than STARTTLS is taken before TLS */
    unsigned has_tls : 1;        /* TLS is active */
    unsigned can_auth : 1;       /* AUTH is offered, inside TLS */
    unsigned auth_in_clear : 1;  /* and outside of it */
    unsigned authenticated : 1;
    unsigned line_done : 1;      /* line holds a command that was handed out */
} smtp_dialogue_t;

/* Starts a session and greets. out must live as long as the dialogue; its bucket
 * allocator also holds what little the dialogue keeps. The flags normalize, need_..,
 * can_.., has_tls and auth_in_clear are the caller's to set before, in the zeroed
 * structure. reply has another wording of the greeting; NULL: the usual one. A refusal is
 * said as 554 and bars the session (RFC 5321 3.1), or as 421 and closes it. */
void smtp_dialogue_greet(smtp_dialogue_t *d, const smtp_offer_t *offer, apr_bucket_brigade *out,
                         const smtp_reply_t *reply);

/* Takes input from *at on until there is an event. Call until SMTP_EVENT_MORE;
 * the pieces may be cut anywhere. After SMTP_EVENT_CLOSE the input is left. */
smtp_event_e smtp_dialogue_next(smtp_dialogue_t *d, const char **at, const char *end);

/* Answers the event that is owed one; NULL is the usual positive answer. Of a positive one
 * to EHLO the text stands behind our name. Moves the
 * state by the reply's class: a transaction lives exactly while state is one of
 * SMTP_STATES_TRANSACTION. A reply of 421 ends the session. */
void smtp_dialogue_answer(smtp_dialogue_t *d, const smtp_reply_t *reply);

/* TLS has begun, maybe for another host: everything learnt before is forgotten (RFC 3207
 * 4.2) and nothing is said. The caller sets the flags anew before. */
void smtp_dialogue_restart(smtp_dialogue_t *d, const smtp_offer_t *offer);

/* Says reply unasked and ends the session: timeouts, shutdown. */
void smtp_dialogue_close(smtp_dialogue_t *d, smtp_reply_e reply);

/* Ends the session behind what was said. */
#define smtp_dialogue_abort(d) ((void)((d)->state = SMTP_STATE_CLOSED))

/* Gives back what the dialogue keeps. Must be called before out's bucket allocator goes
 * away, which frees nothing of that by itself; may be called twice. */
void smtp_dialogue_end(smtp_dialogue_t *d);

/* 1 if the last event came of the verb called name, in upper case. */
int smtp_dialogue_is_verb(const smtp_dialogue_t *d, const char *name);

/* 1 if the n octets end in a complete QUIT command: the client has said all it
 * wanted to say, so its half of the connection may be closed already. */
int smtp_dialogue_ends_in_quit(const char *data, apr_size_t n);

#endif
