/* State that all children share: one slot for every open SMTP connection. It counts for
 * SmtpdMaxConnections and survives restarts; what a killed child held is taken back by
 * the parent. No locks: a child can die anywhere.
 */
#ifndef NSSMTPD_STATE_H
#define NSSMTPD_STATE_H

#include <apr_network_io.h>
#include <httpd.h>

#define NSSMTPD_NO_SLOT (-1)

/* Enough for any ulimit -n; memory that no connection used is never touched. */
#define NSSMTPD_SLOTS 65536

/* Finds the shared memory. In the parent; OK or not. */
int nssmtpd_state_create(server_rec *s);

/* Takes a slot for a connection from addr to the host identified by host (any number that
 * stays the same over restarts). total and per_address are limits, 0 is none. Returns the
 * slot, or NSSMTPD_NO_SLOT: a limit is reached. */
int nssmtpd_state_open(const apr_sockaddr_t *addr, apr_uint32_t host, apr_int64_t total,
                       apr_int64_t per_address);

/* Gives a slot back; NSSMTPD_NO_SLOT is allowed. */
void nssmtpd_state_close(int slot);

/* Slots from this number on were never taken. */
apr_uint32_t nssmtpd_state_used(void);

/* Whose process a slot is; 0: it is free. */
pid_t nssmtpd_state_owner(int slot);

/* Wrong passwords from an address: each doubles the time until the next try is looked at.
 * The table forgets an address after ten quiet minutes, or when it is full. */
void nssmtpd_state_delay(const apr_sockaddr_t *addr, apr_time_t now);
int nssmtpd_state_is_delayed(const apr_sockaddr_t *addr, apr_time_t now);
void nssmtpd_state_forgive(const apr_sockaddr_t *addr);

/* Which child runs /smtp/init. Begin: 1 if it is this one, maybe instead of one that has
 * died in it; end: it has been run for the generation. */
int nssmtpd_state_is_initialized(int generation);
int nssmtpd_state_begin_init(void);
void nssmtpd_state_end_init(int generation);

/* Gives back all slots of a child that is gone. In the parent. */
void nssmtpd_state_reap(pid_t pid);

#endif
