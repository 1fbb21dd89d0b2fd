/* TLS of sessions, which is mod_ssl's: when it begins, whether it is on, and which virtual
 * host the client asked for. mod_ssl would start at accept; a gate in front of its hook
 * keeps it out until we say so.
 */
#ifndef NSSMTPD_TLS_H
#define NSSMTPD_TLS_H

#include "server/session.h"

/* SmtpdTLS */
enum { NSSMTPD_TLS_OFF, NSSMTPD_TLS_STARTTLS, NSSMTPD_TLS_IMMEDIATE };

/* 1 if SSLEngine is on for the server. While httpd starts. */
int nssmtpd_tls_is_on(const server_rec *s);

/* Puts the gate in front of mod_ssl's pre_connection hook. 0: mod_ssl is not loaded.
 * While httpd starts; may be called again. */
int nssmtpd_tls_install_gate(void);

/* Lets mod_ssl into the connection: from now on its octets are TLS. */
apr_status_t nssmtpd_tls_start(nssmtpd_session_t *session);

/* Goes on with the handshake. APR_SUCCESS: done, and session->conf is the host that the
 * client named; APR_EAGAIN: the client is waited for; else it failed. */
apr_status_t nssmtpd_tls_handshake(nssmtpd_session_t *session);

/* 1 if mod_ssl says that the connection is TLS. */
int nssmtpd_tls_is_active(const nssmtpd_session_t *session);

/* Hooks: the application protocol (ALPN) of an SMTP connection is smtp or none. */
int nssmtpd_tls_protocol_switch(conn_rec *c, request_rec *r, server_rec *s, const char *protocol);
const char *nssmtpd_tls_protocol_get(const conn_rec *c);

#endif
