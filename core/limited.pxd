# cython: cdivision=True
"""Limited: a decision as Envoy's RateLimitResponse, with what the gateway's client is to read of a refusal.

Fields of the answer to the client, after draft-ietf-httpapi-ratelimit-headers-10, one item for each limit that the call touches:

    ratelimit-policy: "prompts-5h";q=120;w=18000
    ratelimit: "prompts-5h";r=0;t=3600

Use that already happened is never refused: whatever was decided on it, the answer is OK.
"""
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t
from libc.string cimport strlen

from amounts cimport MICRO
from answer cimport ms_up, state_t
from ask cimport ALLOWED
from answered cimport words_t
from buffer cimport buffer_put, buffer_t
from domain cimport DESCRIPTORS_MAX, HEADERS_ALWAYS, HEADERS_NEVER
from refusal cimport put_byte, put_digits
from style cimport put_chars, style_write
from vendor cimport refused_t, vendor_t, vendor_word
from window cimport ANNIVERSARY, BUCKET, CALENDAR, NEVER, window_t
from wire cimport DELIMITED, put_close, put_number, put_open, put_tag, put_text, put_varint

cdef enum:
    ITEMS_MAX = 16                  # limits told in a header
    PATIENCE_SECONDS = 60           # a client told of a longer wait is not to try again by itself
    ITEM_BYTES_MAX = 256            # of a status, or an item in both headers: ids of limits are short

cdef enum code_t:                   # Envoy's RateLimitResponse.Code
    CODE_OK = 1
    CODE_OVER_LIMIT = 2

cdef enum unit_t:                   # Envoy's RateLimitResponse.RateLimit.Unit
    UNIT_UNKNOWN = 0
    UNIT_SECOND = 1
    UNIT_MINUTE = 2
    UNIT_HOUR = 3
    UNIT_DAY = 4
    UNIT_MONTH = 5
    UNIT_YEAR = 6
    UNIT_WEEK = 7

cdef struct limited_t:              # what is to be said
    refused_t refused               # its verdict, and the rest if it is no ALLOWED
    bint records
    int64_t now                     # the caller's
    int64_t wait                    # microseconds; NEVER: waiting does not help
    const state_t* states           # every limit touched
    int state_count
    int style
    int headers
    int count                       # descriptors
    int draws[DESCRIPTORS_MAX]      # of each, as in descriptors_t


cdef inline bint limited_refuses(const limited_t* self) noexcept nogil:
    return self.refused.verdict != ALLOWED and not self.records


# ---- Numbers ----

cdef inline int64_t whole_units(int64_t micro) noexcept nogil:
    return max(<int64_t>0, micro) // MICRO


cdef inline int64_t seconds_up(int64_t duration) noexcept nogil:
    return (duration + 999999) // 1000000


cdef inline int64_t window_seconds(const window_t* window) noexcept nogil:
    """The window's length, 0 where it has no fixed one."""
    return 0 if window.kind == BUCKET or window.months else window.length // 1000000


cdef inline int window_unit(const window_t* window) noexcept nogil:
    cdef int64_t seconds = window_seconds(window)
    if window.kind in (CALENDAR, ANNIVERSARY) and window.months:
        return UNIT_MONTH if window.months == 1 else UNIT_YEAR if window.months == 12 else UNIT_UNKNOWN
    if seconds == 1:
        return UNIT_SECOND
    if seconds == 60:
        return UNIT_MINUTE
    if seconds == 3600:
        return UNIT_HOUR
    if seconds == 86400:
        return UNIT_DAY
    return UNIT_WEEK if seconds == 604800 else UNIT_UNKNOWN


# ---- Statuses ----

cdef inline const state_t* limited_state(const limited_t* self, int draw, bint refuses) noexcept nogil:
    """The limit that a draw's status names: of those that refuse it the one that decided, or the first; else the one with the least left."""
    cdef const state_t* found = NULL
    cdef const state_t* state
    cdef int i
    for i in range(self.state_count):
        state = &self.states[i]
        if not (state.draws >> draw) & 1 or (refuses and not state.refuses):
            continue
        if refuses and state.limit == self.refused.limit:
            return state
        if found == NULL or (not refuses and state.limit_micro - state.used < found.limit_micro - found.used):
            found = state
    return found


cdef inline bint limited_by_draw(const limited_t* self) noexcept nogil:
    """Whether limits refuse, and not a rule that is about the whole call."""
    cdef int i
    for i in range(self.state_count):
        if self.states[i].refuses:
            return True
    return False


cdef inline void put_duration(buffer_t* out, int field, int64_t duration) noexcept nogil:
    cdef int64_t ms = ms_up(duration)
    cdef size_t start = put_open(out, field)
    put_number(out, 1, ms // 1000)
    put_number(out, 2, ms % 1000 * 1000000)
    put_close(out, start)


cdef inline void put_current_limit(buffer_t* out, int field, const state_t* state, const words_t* words) noexcept nogil:
    cdef size_t start = put_open(out, field)
    put_number(out, 1, min(whole_units(state.limit_micro), <int64_t>UINT32_MAX))
    put_number(out, 2, window_unit(&state.limit.window))
    put_text(out, 3, words.labels[state.limit.rule])
    put_close(out, start)


cdef inline void put_status(buffer_t* out, int field, const limited_t* limited, int draw, const words_t* words) noexcept nogil:
    cdef bint by_draw = limited_refuses(limited) and limited_by_draw(limited)
    cdef const state_t* state = limited_state(limited, draw, True) if by_draw else NULL
    cdef bint refuses = limited_refuses(limited) and (state != NULL or not by_draw)
    cdef size_t start = put_open(out, field)
    if state == NULL:
        state = limited_state(limited, draw, False)
    put_number(out, 1, CODE_OVER_LIMIT if refuses else CODE_OK)
    if state != NULL:
        put_current_limit(out, 2, state, words)
        put_number(out, 3, min(whole_units(state.limit_micro - state.used), <int64_t>UINT32_MAX))
    if refuses and limited.wait != NEVER:
        put_duration(out, 4, limited.wait)
    elif not refuses and state != NULL and state.resets_at != NEVER:
        put_duration(out, 4, max(<int64_t>0, state.resets_at - limited.now))
    put_close(out, start)


# ---- Headers ----

cdef inline size_t put_header(buffer_t* out, const char* name, size_t* start) noexcept nogil:
    """Begin a header; where its value starts. Both that and `start` are to be closed, the value first."""
    start[0] = put_open(out, 3)
    put_tag(out, 1, DELIMITED)
    put_varint(out, strlen(name))
    buffer_put(out, name, strlen(name))
    return put_open(out, 2)


cdef inline void put_header_text(buffer_t* out, const char* name, const char* text) noexcept nogil:
    cdef size_t start
    cdef size_t value = put_header(out, name, &start)
    put_chars(out, text)
    put_close(out, value)
    put_close(out, start)


cdef inline void put_parameter(buffer_t* out, const char* name, int64_t value) noexcept nogil:
    put_chars(out, name)
    put_digits(out, value, 0)


cdef inline void put_item(buffer_t* out, const state_t* state, const words_t* words, bint first) noexcept nogil:
    """A limit's id as a string of a structured field, which is ASCII."""
    cdef const uint8_t* at = words.labels[state.limit.rule].at
    cdef uint32_t i
    put_chars(out, b'"' if first else b', "')
    for i in range(words.labels[state.limit.rule].size):
        if at[i] == 34 or at[i] == 92:
            put_byte(out, 92)
        put_byte(out, at[i] if 32 <= at[i] < 127 else 95)
    put_byte(out, 34)


cdef inline void put_limits(buffer_t* out, const limited_t* limited, const words_t* words) noexcept nogil:
    cdef int i, count = min(<int>ITEMS_MAX, limited.state_count)
    cdef const state_t* state
    cdef int64_t seconds
    cdef size_t start, value
    if count == 0:
        return
    value = put_header(out, b"ratelimit-policy", &start)
    for i in range(count):
        state = &limited.states[i]
        put_item(out, state, words, i == 0)
        put_parameter(out, b";q=", whole_units(state.limit_micro))
        seconds = window_seconds(&state.limit.window)
        if seconds:
            put_parameter(out, b";w=", seconds)
    put_close(out, value)
    put_close(out, start)
    value = put_header(out, b"ratelimit", &start)
    for i in range(count):
        state = &limited.states[i]
        put_item(out, state, words, i == 0)
        put_parameter(out, b";r=", whole_units(state.limit_micro - state.used))
        if state.resets_at != NEVER:
            put_parameter(out, b";t=", seconds_up(max(<int64_t>0, state.resets_at - limited.now)))
    put_close(out, value)
    put_close(out, start)


cdef inline void put_wait(buffer_t* out, int64_t wait) noexcept nogil:
    cdef size_t start, value
    if wait != NEVER:
        value = put_header(out, b"retry-after", &start)
        put_digits(out, seconds_up(wait), 0)
        put_close(out, value)
        put_close(out, start)
    if wait == NEVER or seconds_up(wait) > PATIENCE_SECONDS:
        put_header_text(out, b"x-should-retry", b"false")


# ---- RateLimitResponse ----

cdef inline void limited_write(const limited_t* self, const words_t* words, buffer_t* out) noexcept nogil:
    """A RateLimitResponse."""
    cdef bint refuses = limited_refuses(self)
    cdef vendor_t vendor
    cdef size_t start
    cdef int i
    put_number(out, 1, CODE_OVER_LIMIT if refuses else CODE_OK)
    for i in range(self.count):
        put_status(out, 2, self, self.draws[i], words)
    if refuses:
        put_header_text(out, b"content-type", b"application/json")
        put_wait(out, self.wait)
    if self.headers == HEADERS_ALWAYS or (refuses and self.headers != HEADERS_NEVER):
        put_limits(out, self, words)
    if refuses and words.wording != NULL:
        vendor_word(&vendor, words.wording, &self.refused)
        start = put_open(out, 5)
        style_write(self.style, self.refused.verdict, &vendor, out)
        put_close(out, start)
