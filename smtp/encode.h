/* The encodings that scripts use on mail: base64 and hex (RFC 4648), and quoted-printable (RFC 2045
 * 6.7), both ways and for all octets. Text goes in and comes out whole: it is no stream. Encoded
 * words of header fields (RFC 2047) are not here.
 */
#ifndef SMTP_ENCODE_H
#define SMTP_ENCODE_H

#include <apr_pools.h>

/* Takes len octets, any of which may be NUL, and sets *out to *outlen octets in p, which are no C
 * string. APR_EINVAL: the text is not of this encoding, and *out is NULL. Encoding always succeeds,
 * and so does decoding quoted-printable. */
typedef apr_status_t smtp_encode_f(apr_pool_t *p, const char *in, apr_size_t len, const char **out,
                                   apr_size_t *outlen);

/* base64   Encoded without line breaks, padded. Blanks and line breaks are skipped when decoding;
 *          other octets, missing padding and anything behind the padding are APR_EINVAL.
 * hex      Encoded in upper case, decoded from both; another octet or an odd number is APR_EINVAL.
 * qprint   Encoded lines have 76 octets at most. CRLF stays; a bare CR or LF is encoded, and so is
 *          a blank at the end of a line or of the text. Decoding keeps what is malformed. */
typedef struct smtp_encoding_t {
    const char *name;
    smtp_encode_f *encode;
    smtp_encode_f *decode;
} smtp_encoding_t;

/* The encodings; a row without a name ends them. */
extern const smtp_encoding_t smtp_encodings[];

/* The encoding of that name, in any case of letters, or NULL. */
const smtp_encoding_t *smtp_encode_find(const char *name);

#endif
