/* Not written yet. */
#include "mod_nssmtpd.h"
#define W __attribute__((weak))
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
