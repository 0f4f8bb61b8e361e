# cython: cdivision=True
"""Domains: what the entries of Envoy's descriptors mean, as an operator has said it. Built once (domain.pyx), then never changed.

A domain maps keys to fields of a request. Two keys more may be named whose entry, with a value of its own, tells what kind of call it is: use that
already happened, or the beginning of something that ends later.
"""
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp

from names cimport name_t

cdef enum:
    DESCRIPTORS_MAX = 16            # of one call: each may draw a meter of its own

cdef enum:                          # fields, as quota.server.domains.FIELDS
    FIELD_ACCOUNT = 0
    FIELD_MODEL = 1
    FIELD_TOOL = 2
    FIELD_ENDPOINT = 3
    FIELD_CLIENT = 4
    FIELD_REQUEST_ID = 5
    FIELD_PROMPT_ID = 6
    FIELD_PATH = 7
    FIELD_STYLE = 8
    FIELD_METER = 9
    FIELDS = 10
    FIELD_UNKNOWN = -1

cdef enum:                          # styles, as quota.server.domains.Style
    STYLE_VENDOR = 0
    STYLE_ANTHROPIC = 1
    STYLE_OPENAI = 2
    STYLES = 3
    STYLE_UNKNOWN = -1

cdef enum:                          # who is told of limits in headers, as quota.server.domains.Headers
    HEADERS_NEVER = 0
    HEADERS_REFUSED = 1
    HEADERS_ALWAYS = 2

cdef struct key_t:
    name_t key
    int field

cdef struct marker_t:               # an entry that says something by being there; no key: never
    name_t key
    name_t value

cdef struct prefix_t:
    name_t path
    int style

cdef struct domain_t:
    name_t name
    int key_count
    key_t* keys
    name_t meter                    # where no entry names one; empty: the catalog's default
    marker_t record
    marker_t hold
    int64_t hold_ms
    int prefix_count
    prefix_t* prefixes              # the longest first
    int headers

cdef struct domains_t:
    int count
    domain_t* at


cdef inline bint names_equal(name_t a, name_t b) noexcept nogil:
    return a.size == b.size and memcmp(a.at, b.at, a.size) == 0


cdef inline const domain_t* domains_find(const domains_t* self, name_t name) noexcept nogil:
    cdef int i
    for i in range(self.count):
        if names_equal(self.at[i].name, name):
            return &self.at[i]
    return NULL


cdef inline int domain_field(const domain_t* self, name_t key) noexcept nogil:
    cdef int i
    for i in range(self.key_count):
        if names_equal(self.keys[i].key, key):
            return self.keys[i].field
    return FIELD_UNKNOWN


cdef inline bint marker_is(const marker_t* self, name_t key, name_t value) noexcept nogil:
    return self.key.size > 0 and names_equal(self.key, key) and names_equal(self.value, value)


cdef inline int style_named(name_t name) noexcept nogil:
    if name.size == 6 and memcmp(name.at, <const char*>b"vendor", 6) == 0:
        return STYLE_VENDOR
    if name.size == 9 and memcmp(name.at, <const char*>b"anthropic", 9) == 0:
        return STYLE_ANTHROPIC
    if name.size == 6 and memcmp(name.at, <const char*>b"openai", 6) == 0:
        return STYLE_OPENAI
    return STYLE_UNKNOWN


cdef inline int domain_style(const domain_t* self, name_t style, name_t path) noexcept nogil:
    """The style that is named, or else the path's; STYLE_UNKNOWN for a name that is none."""
    cdef int i
    if style.size:
        return style_named(style)
    for i in range(self.prefix_count):
        if self.prefixes[i].path.size <= path.size and memcmp(self.prefixes[i].path.at, path.at, self.prefixes[i].path.size) == 0:
            return self.prefixes[i].style
    return STYLE_VENDOR
