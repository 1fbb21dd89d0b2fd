/* The two lists of relay permission. Domains match themselves and every sub-domain, the
 * most specific entry first; clients match by address. Called by config.c while httpd
 * starts, by permits.c for each connection and recipient, and by edits.c.
 */
#include "server/lists.h"

#include <apr_strings.h>
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/address.h"

struct nssmtpd_domains_t {
    apr_hash_t *by_name; /* of nssmtpd_domain_t */
};

static nssmtpd_route_t *route_to(apr_pool_t *p, const char *url)
{
    static const char *const none[] = { NULL };
    nssmtpd_route_t *route = apr_pcalloc(p, sizeof(*route));

    route->url = url;
    route->params = none;
    return route;
}

/* Lower case, without a final dot: as recipients' domains come. */
static char *domain_name(apr_pool_t *p, const char *word, apr_size_t n)
{
    char *name = apr_pstrmemdup(p, word, n && word[n - 1] == '.' ? n - 1 : n);

    ap_str_tolower(name);
    return name;
}

const char *nssmtpd_lists_parse_domain(apr_pool_t *p, nssmtpd_domain_t *domain, const char *word)
{
    apr_size_t n = strcspn(word, ":=");

    domain->word = word;
    domain->name = domain_name(p, word, n);
    domain->url = word[n] ? word + n + 1 : "";
    domain->route = NULL;
    if (smtp_address_check_domain((smtp_span_t){ domain->name, strlen(domain->name) }) != SMTP_OK
        || *word == '[') {
        return apr_psprintf(p, "\"%s\" does not begin with a domain name", word);
    }
    if (word[n] && !*domain->url) {
        return apr_psprintf(p, "\"%s\" has no route behind the '%c'", word, word[n]);
    }
    if (*domain->url) {
        domain->route = route_to(p, domain->url);
    }
    return NULL;
}

nssmtpd_domains_t *nssmtpd_lists_index(apr_pool_t *p, const apr_array_header_t *domains)
{
    nssmtpd_domains_t *list = apr_palloc(p, sizeof(*list));
    int i;

    list->by_name = apr_hash_make(p);
    for (i = 0; domains && i < domains->nelts; i++) {
        const nssmtpd_domain_t *domain = &APR_ARRAY_IDX(domains, i, nssmtpd_domain_t);

        apr_hash_set(list->by_name, domain->name, APR_HASH_KEY_STRING, domain);
    }
    return list;
}

const nssmtpd_domain_t *nssmtpd_lists_find(const nssmtpd_domains_t *domains, const char *domain)
{
    while (domain && *domain) {
        const nssmtpd_domain_t *found = apr_hash_get(domains->by_name, domain, APR_HASH_KEY_STRING);

        if (found) {
            return found;
        }
        if ((domain = strchr(domain, '.'))) {
            domain++;
        }
    }
    return NULL;
}

/* Clients */

/* apr_ipsubnet_create() takes "10.1" for a network; here an address is written in full,
 * lest a typing error trusts sixteen million clients. */
static int looks_like_address(const char *word)
{
    return strchr(word, ':') || strspn(word, "0123456789.") == strlen(word);
}

int nssmtpd_lists_is_address(const char *ip)
{
    unsigned char octets[16];

    return inet_pton(strchr(ip, ':') ? AF_INET6 : AF_INET, ip, octets) == 1;
}

static const char *add_subnet(apr_pool_t *p, nssmtpd_client_t *client, const char *ip,
                              const char *mask)
{
    apr_ipsubnet_t *subnet;

    if (!nssmtpd_lists_is_address(ip) || apr_ipsubnet_create(&subnet, ip, mask, p) != APR_SUCCESS) {
        return apr_psprintf(p, "\"%s\" is no address or network", client->word);
    }
    APR_ARRAY_PUSH(client->subnets, apr_ipsubnet_t *) = subnet;
    return NULL;
}

static const char *add_known(apr_pool_t *p, nssmtpd_client_t *client, const char *addresses)
{
    const char *wrong = NULL;
    char *last, *list = apr_pstrdup(p, addresses), *ip = apr_strtok(list, ",", &last);

    for (; ip && !wrong; ip = apr_strtok(NULL, ",", &last)) {
        wrong = add_subnet(p, client, ip, NULL);
    }
    return wrong;
}

static const char *resolve(apr_pool_t *p, nssmtpd_client_t *client)
{
    const char *wrong = NULL, *separator = "\t";
    apr_sockaddr_t *addr;
    char *ip;

    if (apr_sockaddr_info_get(&addr, client->word, APR_UNSPEC, 0, 0, p) != APR_SUCCESS) {
        return apr_psprintf(p, "\"%s\" is no address, no network, and no host that can be "
                               "resolved now", client->word);
    }
    for (; addr && !wrong; addr = addr->next) {
        if (apr_sockaddr_ip_get(&ip, addr) == APR_SUCCESS
            && !(wrong = add_subnet(p, client, ip, NULL))) {
            client->text = apr_pstrcat(p, client->text, separator, ip, NULL);
            separator = ",";
        }
    }
    return wrong;
}

const char *nssmtpd_lists_parse_client(apr_pool_t *p, nssmtpd_client_t *client, const char *word)
{
    const char *tab = strchr(word, '\t');
    char *ip = tab ? apr_pstrmemdup(p, word, tab - word) : apr_pstrdup(p, word);
    char *mask = strchr(ip, '/');

    client->text = word;
    client->word = tab ? ip : word;
    client->subnets = apr_array_make(p, 1, sizeof(apr_ipsubnet_t *));
    if (tab) {
        client->is_name = 1;
        return add_known(p, client, tab + 1);
    }
    if (mask) {
        *mask++ = '\0';
    }
    client->is_name = !looks_like_address(ip);
    if (client->is_name) {
        return mask ? apr_psprintf(p, "\"%s\" is no network", word) : resolve(p, client);
    }
    return add_subnet(p, client, ip, mask);
}

static int has_address(const nssmtpd_client_t *client, apr_sockaddr_t *addr)
{
    int i;

    for (i = 0; i < client->subnets->nelts; i++) {
        if (apr_ipsubnet_test(APR_ARRAY_IDX(client->subnets, i, apr_ipsubnet_t *), addr)) {
            return 1;
        }
    }
    return 0;
}

int nssmtpd_lists_has_client(const apr_array_header_t *clients, apr_sockaddr_t *addr)
{
    int i;

    for (i = 0; i < clients->nelts; i++) {
        if (has_address(&APR_ARRAY_IDX(clients, i, nssmtpd_client_t), addr)) {
            return 1;
        }
    }
    return 0;
}

/* Keys */

/* A mask as octets; without one it is all of them. 0: it is none. */
static int parse_mask(unsigned char *mask, const char *text, int size)
{
    int i, bits = 8 * size;

    if (text && strchr(text, '.')) {
        return size == 4 && inet_pton(AF_INET, text, mask) == 1;
    }
    if (text && (strspn(text, "0123456789") != strlen(text) || (bits = atoi(text)) > 8 * size)) {
        return 0;
    }
    for (i = 0; i < size; i++, bits -= 8) {
        mask[i] = bits >= 8 ? 0xff : bits <= 0 ? 0 : (unsigned char)(0xff << (8 - bits));
    }
    return 1;
}

/* The octets that count of an address or network, and which those are; or NULL. */
static const char *network_key(apr_pool_t *p, const char *word)
{
    unsigned char ip[16], mask[16];
    char *address = apr_pstrdup(p, word), *slash = strchr(address, '/'), *key;
    int i, is_v6 = strchr(address, ':') != NULL, size = is_v6 ? 16 : 4;

    if (slash) {
        *slash++ = '\0';
    }
    if (inet_pton(is_v6 ? AF_INET6 : AF_INET, address, ip) != 1
        || !parse_mask(mask, slash, size)) {
        return NULL;
    }
    key = apr_palloc(p, 4 * size + 1);
    for (i = 0; i < size; i++) {
        apr_snprintf(key + 4 * i, 5, "%02x%02x", ip[i] & mask[i], mask[i]);
    }
    return key;
}

const char *nssmtpd_lists_key(apr_pool_t *p, nssmtpd_list_e list, const char *word)
{
    const char *key;

    if (list == NSSMTPD_LIST_RELAY) {
        return domain_name(p, word, strcspn(word, ":="));
    }
    key = network_key(p, word);
    return key ? key : domain_name(p, word, strcspn(word, "\t"));
}
