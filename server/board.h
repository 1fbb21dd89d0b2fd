/* What every session of all children is about, in shared memory beside the slots of
 * state.h: for whoever asks what goes on. A session's own thread writes, anybody reads.
 */
#ifndef NSSMTPD_BOARD_H
#define NSSMTPD_BOARD_H

#include "server/session.h"

/* Finds the shared memory. In the parent; OK or not. */
int nssmtpd_board_create(server_rec *s);

/* Shows a session from now on. One without a slot is never shown. */
void nssmtpd_board_open(const nssmtpd_session_t *session);

/* It is about to answer its dialogue's event: shows in which phase that is. */
void nssmtpd_board_turn(const nssmtpd_session_t *session);

/* Shows all of it. */
void nssmtpd_board_write(const nssmtpd_session_t *session);

/* The event is answered: shows what may have changed. */
void nssmtpd_board_update(const nssmtpd_session_t *session, smtp_event_e event);

/* Takes it off, before it gives its slot back. */
void nssmtpd_board_close(const nssmtpd_session_t *session);

/* Takes off all sessions of a child that is gone, before its slots are reaped. In the
 * parent. */
void nssmtpd_board_reap(pid_t pid);

#endif
