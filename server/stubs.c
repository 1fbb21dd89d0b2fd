/* Not written yet. */
#include "mod_nssmtpd.h"
#define W __attribute__((weak))
W nssmtpd_call_t *nssmtpd_call(void) { return NULL; }
W const char *nssmtpd_call_set_reply(nssmtpd_call_t *c, const char *t, apr_size_t n) { (void)c, (void)t, (void)n; return "stub"; }
W const char *nssmtpd_call_set_from(nssmtpd_call_t *c, const char *a) { (void)c, (void)a; return "stub"; }
W const char *nssmtpd_call_add_rcpt(nssmtpd_call_t *c, const char *a, apr_uint32_t f, smtp_span_t d) { (void)c, (void)a, (void)f, (void)d; return "stub"; }
W const char *nssmtpd_call_delete_rcpt(nssmtpd_call_t *c, int i) { (void)c, (void)i; return "stub"; }
W const char *nssmtpd_call_set_rcpt_flags(nssmtpd_call_t *c, int i, apr_uint32_t f) { (void)c, (void)i, (void)f; return "stub"; }
W apr_uint32_t nssmtpd_call_flags(const nssmtpd_call_t *c) { (void)c; return 0; }
W const char *nssmtpd_call_set_flags(nssmtpd_call_t *c, apr_uint32_t f) { (void)c, (void)f; return "stub"; }
W const apr_array_header_t *nssmtpd_call_fields(nssmtpd_call_t *c) { return apr_array_make(c->r->pool, 1, sizeof(nssmtpd_field_t)); }
W const char *nssmtpd_call_add_field(nssmtpd_call_t *c, const char *n, const char *v) { (void)c, (void)n, (void)v; return "stub"; }
W const char *nssmtpd_call_set_field(nssmtpd_call_t *c, const char *n, const char *v) { (void)c, (void)n, (void)v; return "stub"; }
W const char *nssmtpd_call_delete_field(nssmtpd_call_t *c, const char *n) { (void)c, (void)n; return "stub"; }
W const char *nssmtpd_call_message(nssmtpd_call_t *c, apr_bucket_brigade *bb, apr_off_t *b, apr_off_t *s) { (void)c, (void)bb, (void)b, (void)s; return "stub"; }
W const char *nssmtpd_send(request_rec *r, server_rec *s, nssmtpd_send_t *x) { (void)r, (void)s, (void)x; return "stub"; }
W const char *nssmtpd_list_add(server_rec *s, nssmtpd_list_e l, apr_pool_t *p, const char *w) { (void)s, (void)l, (void)p, (void)w; return "stub"; }
W const char *nssmtpd_list_delete(server_rec *s, nssmtpd_list_e l, apr_pool_t *p, const char *w) { (void)s, (void)l, (void)p, (void)w; return "stub"; }
W const char *nssmtpd_list_set(server_rec *s, nssmtpd_list_e l, apr_pool_t *p, const apr_array_header_t *w) { (void)s, (void)l, (void)p, (void)w; return "stub"; }
W apr_array_header_t *nssmtpd_list_get(server_rec *s, nssmtpd_list_e l, apr_pool_t *p) { (void)s, (void)l; return apr_array_make(p, 1, sizeof(char *)); }
W const char *nssmtpd_list_route(server_rec *s, apr_pool_t *p, const char *a) { (void)s, (void)p, (void)a; return NULL; }
W int nssmtpd_list_trusts(server_rec *s, apr_pool_t *p, const char *ip) { (void)s, (void)p, (void)ip; return 0; }
W apr_array_header_t *nssmtpd_sessions(apr_pool_t *p) { return apr_array_make(p, 1, sizeof(nssmtpd_session_info_t)); }
W void nssmtpd_count(nssmtpd_counter_e c, apr_uint64_t n) { (void)c, (void)n; }
W apr_uint64_t nssmtpd_counter(nssmtpd_counter_e c) { (void)c; return 0; }
W const char *nssmtpd_counter_name(nssmtpd_counter_e c) { (void)c; return ""; }
W int nssmtpd_domain_takes_mail(const server_rec *s, apr_pool_t *p, const char *d, const char **why) { (void)s, (void)p, (void)d; *why = "stub"; return -1; }
