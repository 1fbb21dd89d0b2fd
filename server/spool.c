/* Message octets in memory or in an unlinked temporary file: nothing is left behind
 * whatever happens to the process. Each octet is copied once, from the buffer it was read
 * into. Called by transaction.c.
 */
#include "server/spool.h"

#include <apr_mmap.h>
#include <apr_strings.h>
#include <string.h>

nssmtpd_spool_t *nssmtpd_spool_create(apr_pool_t *p, apr_bucket_alloc_t *ba,
                                      const char *directory, apr_size_t memory_max)
{
    nssmtpd_spool_t *spool = apr_pcalloc(p, sizeof(*spool));

    spool->p = p;
    spool->directory = directory;
    spool->memory_max = memory_max;
    spool->memory = apr_brigade_create(p, ba);
    return spool;
}

static apr_status_t open_file(nssmtpd_spool_t *spool)
{
    char *path = apr_pstrcat(spool->p, spool->directory, "/nssmtpd.XXXXXX", NULL);
    apr_status_t rv = apr_file_mktemp(&spool->file, path,
                                      APR_FOPEN_CREATE | APR_FOPEN_READ | APR_FOPEN_WRITE
                                          | APR_FOPEN_EXCL | APR_FOPEN_BINARY,
                                      spool->p);

    if (rv == APR_SUCCESS) {
        rv = apr_file_remove(path, spool->p);
    }
    return rv;
}

/* Moves what is in memory behind what is in the file: many buckets with one call, since a file
 * system takes large pieces at less cost. */
static apr_status_t spill(nssmtpd_spool_t *spool)
{
    enum { PIECES = 64 };
    struct iovec pieces[PIECES];
    apr_size_t n = 0;
    apr_bucket *b;
    apr_status_t rv = spool->file ? APR_SUCCESS : open_file(spool);

    for (b = APR_BRIGADE_FIRST(spool->memory);
         rv == APR_SUCCESS && b != APR_BRIGADE_SENTINEL(spool->memory); b = APR_BUCKET_NEXT(b)) {
        const char *data;

        rv = apr_bucket_read(b, &data, &pieces[n].iov_len, APR_BLOCK_READ);
        pieces[n++].iov_base = (char *)data;
        if (rv == APR_SUCCESS
            && (n == PIECES || APR_BUCKET_NEXT(b) == APR_BRIGADE_SENTINEL(spool->memory))) {
            rv = apr_file_writev_full(spool->file, pieces, n, NULL);
            n = 0;
        }
    }
    if (rv == APR_SUCCESS) {
        spool->file_len += spool->memory_len;
        spool->memory_len = 0;
        apr_brigade_cleanup(spool->memory);
    }
    return rv;
}

static int has_8bit(const char *data, apr_size_t n)
{
    apr_uint64_t word, all = 0;

    for (; n >= sizeof(word); data += sizeof(word), n -= sizeof(word)) {
        memcpy(&word, data, sizeof(word));
        all |= word;
    }
    for (; n; n--) {
        all |= (unsigned char)*data++;
    }
    return (all & APR_UINT64_C(0x8080808080808080)) != 0;
}

apr_status_t nssmtpd_spool_write(nssmtpd_spool_t *spool, const char *data, apr_size_t n)
{
    apr_status_t rv;

    if (!spool->is_8bit) {
        spool->is_8bit = has_8bit(data, n);
    }
    if (spool->memory_len + n > spool->memory_max && (rv = spill(spool)) != APR_SUCCESS) {
        return rv;
    }
    spool->length += n;
    if (n > spool->memory_max) {
        rv = apr_file_write_full(spool->file, data, n, NULL);
        spool->file_len += n;
        return rv;
    }
    spool->memory_len += n;
    return apr_brigade_write(spool->memory, NULL, NULL, data, n);
}

apr_status_t nssmtpd_spool_read(nssmtpd_spool_t *spool, apr_bucket_brigade *bb)
{
    apr_bucket *b, *copy;
    apr_status_t rv;

    if (spool->file_len) {
        apr_brigade_insert_file(bb, spool->file, 0, spool->file_len, spool->p);
    }
    for (b = APR_BRIGADE_FIRST(spool->memory); b != APR_BRIGADE_SENTINEL(spool->memory);
         b = APR_BUCKET_NEXT(b)) {
        if ((rv = apr_bucket_copy(b, &copy)) != APR_SUCCESS) {
            return rv;
        }
        APR_BRIGADE_INSERT_TAIL(bb, copy);
    }
    return APR_SUCCESS;
}

void nssmtpd_spool_pass_by(nssmtpd_spool_t *spool, apr_size_t n)
{
    apr_brigade_cleanup(spool->memory);
    spool->memory_len = 0;
    spool->length += n;
}

apr_status_t nssmtpd_spool_map(nssmtpd_spool_t *spool, smtp_span_t *octets)
{
    apr_mmap_t *map;
    apr_status_t rv;
    char *data;

    if (!spool->file) {
        rv = apr_brigade_pflatten(spool->memory, &data, &octets->n, spool->p);
        octets->p = data;
        return rv;
    }
    rv = spool->memory_len ? spill(spool) : APR_SUCCESS;
    if (rv == APR_SUCCESS) {
        rv = apr_mmap_create(&map, spool->file, 0, spool->file_len, APR_MMAP_READ, spool->p);
    }
    if (rv == APR_SUCCESS) {
        *octets = (smtp_span_t){ map->mm, spool->file_len };
    }
    return rv;
}

void nssmtpd_spool_close(nssmtpd_spool_t *spool)
{
    apr_brigade_cleanup(spool->memory);
    spool->memory_len = 0;
    if (spool->file) {
        apr_file_close(spool->file);
        spool->file = NULL;
    }
}
