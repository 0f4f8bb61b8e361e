# cython: cdivision=True
"""Styles: a refusal as the clients of one vendor or another expect to read it, in JSON.

    vendor      {"error":{"code","message"}}
    anthropic   {"type":"error","error":{"type","message"}}
    openai      {"error":{"message","type","param","code"}}

The words are the vendor's own (vendor.pxd); the style tells how they are wrapped. An error's type follows from the HTTP status that the vendor gives.
"""
from libc.stdint cimport uint8_t
from libc.string cimport strlen

from ask cimport LIMIT_EXHAUSTED
from buffer cimport buffer_put, buffer_reserve, buffer_t
from domain cimport STYLE_ANTHROPIC, STYLE_OPENAI
from names cimport name_t
from refusal cimport refusal_write
from vendor cimport vendor_t

cdef extern from *:
    """
    static const char HEX[] = "0123456789abcdef";
    """
    const char* HEX


cdef inline void put_chars(buffer_t* out, const char* text) noexcept nogil:
    buffer_put(out, text, strlen(text))


# ---- JSON ----

cdef inline int json_more(uint8_t byte) noexcept nogil:
    """How many bytes longer a byte becomes in a JSON string."""
    return 5 if byte < 32 else 1 if byte == 34 or byte == 92 else 0


cdef inline void json_escape(buffer_t* out, size_t start) noexcept nogil:
    """Make what stands in the buffer from `start` on the inside of a JSON string: from its end, so that nothing is written over unread."""
    cdef size_t i, to, more = 0
    cdef uint8_t byte
    if out.failed:
        return
    for i in range(start, out.size):
        more += json_more(out.at[i])
    if more == 0 or buffer_reserve(out, more) == NULL:
        return
    i = out.size
    out.size += more
    to = out.size
    while i > start:
        i -= 1
        byte = out.at[i]
        to -= 1
        if json_more(byte) == 0:
            out.at[to] = byte
        elif byte >= 32:
            out.at[to] = byte
            to -= 1
            out.at[to] = 92
        else:
            out.at[to], out.at[to - 1] = HEX[byte & 15], HEX[byte >> 4]
            out.at[to - 2] = out.at[to - 3] = 48
            out.at[to - 4], out.at[to - 5] = 117, 92
            to -= 5


cdef inline void put_json(buffer_t* out, name_t text) noexcept nogil:
    cdef size_t start
    put_chars(out, b'"')
    start = out.size
    buffer_put(out, text.at, text.size)
    json_escape(out, start)
    put_chars(out, b'"')


cdef inline void put_message(buffer_t* out, const vendor_t* vendor) noexcept nogil:
    cdef size_t start
    put_chars(out, b'"')
    start = out.size
    refusal_write(vendor.refusal, &vendor.filling, out)
    json_escape(out, start)
    put_chars(out, b'"')


# ---- What errors are called ----

cdef inline const char* anthropic_type(int http_status) noexcept nogil:
    if http_status == 401:
        return b"authentication_error"
    if http_status == 402:
        return b"billing_error"
    if http_status == 403:
        return b"permission_error"
    if http_status == 404:
        return b"not_found_error"
    if http_status == 413:
        return b"request_too_large"
    if http_status == 429:
        return b"rate_limit_error"
    if http_status == 503 or http_status == 529:
        return b"overloaded_error"
    return b"api_error" if http_status >= 500 else b"invalid_request_error"


cdef inline const char* openai_type(int http_status, int verdict) noexcept nogil:
    if http_status == 401:
        return b"authentication_error"
    if http_status == 403:
        return b"permission_error"
    if http_status == 429:
        return b"insufficient_quota" if verdict == LIMIT_EXHAUSTED else b"rate_limit_error"
    return b"server_error" if http_status >= 500 else b"invalid_request_error"


# ---- The body ----

cdef inline void style_write(int style, int verdict, const vendor_t* vendor, buffer_t* out) noexcept nogil:
    """The refusal in that style."""
    cdef int http_status = vendor.refusal.http_status
    if style == STYLE_ANTHROPIC:
        put_chars(out, b'{"type":"error","error":{"type":"')
        put_chars(out, anthropic_type(http_status))
        put_chars(out, b'","message":')
        put_message(out, vendor)
    elif style == STYLE_OPENAI:
        put_chars(out, b'{"error":{"message":')
        put_message(out, vendor)
        put_chars(out, b',"type":"')
        put_chars(out, openai_type(http_status, verdict))
        put_chars(out, b'","param":null,"code":')
        put_json(out, vendor.refusal.code)
    else:
        put_chars(out, b'{"error":{"code":')
        put_json(out, vendor.refusal.code)
        put_chars(out, b',"message":')
        put_message(out, vendor)
    put_chars(out, b"}}")
