/* The shared table of connections. A slot belongs to the process whose pid stands in it;
 * taking one is a compare-and-swap, giving it back a store. Counting walks the slots ever
 * used, which costs 20 microseconds at 20,000 connections, and only strangers are counted.
 */
#include "server/state.h"

#include <ap_mpm.h>
#include <apr_atomic.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "server/shared.h"

#define SLOTS NSSMTPD_SLOTS

typedef struct slot_t {
    apr_uint32_t pid; /* 0: free */
    apr_uint32_t host;
    unsigned char ip[16];
} slot_t;

/* Addresses with wrong passwords, found by a hash; a collision takes the place. */
#define DELAYS 4096
#define DELAY_FIRST apr_time_from_msec(500)
#define DELAY_DOUBLINGS 9
#define DELAY_MEMORY apr_time_from_sec(600)

typedef struct delay_t {
    unsigned char ip[16];
    apr_uint32_t failures;
    apr_time_t last;
} delay_t;

typedef struct table_t {
    delay_t delays[DELAYS];
    apr_uint32_t init_done; /* generation + 1 */
    apr_uint32_t init_pid;  /* who runs /smtp/init; 0: nobody */
    apr_uint32_t used; /* slots at and above were never taken */
    slot_t slots[SLOTS];
} table_t;

static table_t *table;         /* mapped before any child, the same in all */
static apr_uint32_t next_slot; /* where this child looks for a free one first */

int nssmtpd_state_create(server_rec *s)
{
    int is_new;

    table = nssmtpd_shared_keep(s, "connections", sizeof(table_t), &is_new);
    return table ? OK : !OK;
}

/* A host has one IPv4 address, but a whole /64 of IPv6. */
static void copy_ip(unsigned char *ip, const apr_sockaddr_t *addr)
{
    memset(ip, 0, 16);
    if (addr->ipaddr_len == 4) {
        memcpy(ip, addr->ipaddr_ptr, 4);
    }
    else if (addr->ipaddr_len == 16) {
        const unsigned char *bytes = addr->ipaddr_ptr;
        int is_mapped = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)addr->ipaddr_ptr);

        memcpy(ip, is_mapped ? bytes + 12 : bytes, is_mapped ? 4 : 8);
    }
}

static int take(apr_uint32_t pid)
{
    apr_uint32_t i, n, used;

    for (i = 0; i < SLOTS; i++) {
        n = (next_slot + i) % SLOTS;
        if (apr_atomic_cas32(&table->slots[n].pid, pid, 0) == 0) {
            next_slot = n; /* a race only costs a few steps of the next search */
            while ((used = apr_atomic_read32(&table->used)) <= n) {
                apr_atomic_cas32(&table->used, n + 1, used);
            }
            return n;
        }
    }
    return NSSMTPD_NO_SLOT;
}

static int within_limits(const slot_t *own, apr_int64_t total, apr_int64_t per_address)
{
    apr_uint32_t i, used = apr_atomic_read32(&table->used);
    apr_int64_t all = 0, same = 0;

    for (i = 0; i < used; i++) {
        const slot_t *slot = &table->slots[i];

        if (slot->pid && slot->host == own->host) {
            all++;
            same += memcmp(slot->ip, own->ip, sizeof(own->ip)) == 0;
        }
    }
    return (!total || all <= total) && (!per_address || same <= per_address);
}

int nssmtpd_state_open(const apr_sockaddr_t *addr, apr_uint32_t host, apr_int64_t total,
                       apr_int64_t per_address)
{
    int n = take(getpid());
    slot_t *slot;

    if (n == NSSMTPD_NO_SLOT) {
        return n;
    }
    slot = &table->slots[n];
    copy_ip(slot->ip, addr);
    slot->host = host;
    if ((total || per_address) && !within_limits(slot, total, per_address)) {
        nssmtpd_state_close(n);
        return NSSMTPD_NO_SLOT;
    }
    return n;
}

void nssmtpd_state_close(int n)
{
    if (n != NSSMTPD_NO_SLOT) {
        apr_atomic_cas32(&table->slots[n].pid, 0, getpid());
        next_slot = n;
    }
}

apr_uint32_t nssmtpd_state_used(void)
{
    return table ? apr_atomic_read32(&table->used) : 0;
}

pid_t nssmtpd_state_owner(int n)
{
    return (pid_t)apr_atomic_read32(&table->slots[n].pid);
}

/* Two children that write at once may lose one failure of an address: no harm. */
static delay_t *delay_of(const apr_sockaddr_t *addr, unsigned char *ip)
{
    apr_uint32_t hash = 2166136261u;
    int i;

    copy_ip(ip, addr);
    for (i = 0; i < 16; i++) {
        hash = (hash ^ ip[i]) * 16777619u;
    }
    return &table->delays[hash % DELAYS];
}

void nssmtpd_state_delay(const apr_sockaddr_t *addr, apr_time_t now)
{
    unsigned char ip[16];
    delay_t *delay = delay_of(addr, ip);

    if (memcmp(delay->ip, ip, sizeof(ip)) != 0 || now - delay->last > DELAY_MEMORY) {
        memcpy(delay->ip, ip, sizeof(ip));
        delay->failures = 0;
    }
    delay->failures++;
    delay->last = now;
}

int nssmtpd_state_is_delayed(const apr_sockaddr_t *addr, apr_time_t now)
{
    unsigned char ip[16];
    const delay_t *delay = delay_of(addr, ip);
    apr_uint32_t doublings = delay->failures < DELAY_DOUBLINGS ? delay->failures : DELAY_DOUBLINGS;

    return delay->failures && memcmp(delay->ip, ip, sizeof(ip)) == 0
           && now - delay->last < DELAY_FIRST << (doublings - 1);
}

void nssmtpd_state_forgive(const apr_sockaddr_t *addr)
{
    unsigned char ip[16];
    delay_t *delay = delay_of(addr, ip);

    if (memcmp(delay->ip, ip, sizeof(ip)) == 0) {
        delay->failures = 0;
    }
}

int nssmtpd_state_is_initialized(int generation)
{
    return apr_atomic_read32(&table->init_done) == (apr_uint32_t)generation + 1;
}

int nssmtpd_state_begin_init(void)
{
    apr_uint32_t owner = apr_atomic_read32(&table->init_pid);

    if (owner && (kill((pid_t)owner, 0) == 0 || errno != ESRCH)) {
        return 0;
    }
    return apr_atomic_cas32(&table->init_pid, getpid(), owner) == owner;
}

void nssmtpd_state_end_init(int generation)
{
    apr_atomic_set32(&table->init_done, (apr_uint32_t)generation + 1);
    apr_atomic_set32(&table->init_pid, 0);
}

void nssmtpd_state_reap(pid_t pid)
{
    apr_uint32_t i;

    for (i = 0; table && i < apr_atomic_read32(&table->used); i++) {
        apr_atomic_cas32(&table->slots[i].pid, 0, pid);
    }
}
