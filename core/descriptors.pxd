# cython: cdivision=True
"""Descriptors: a RateLimitRequest of Envoy's, read under its domain into what the core decides on.

    draws       each descriptor draws its meter by its amount; the same meter twice adds up, and one that draws 0 checks
    fields      account, model and the rest are the call's: every descriptor names the account, and none contradicts another

Like asked.pxd it reads only what is in range: what has to be refused in words is left to those who have them. Names stay in the message.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from asked cimport TEXT_BYTES_MAX, UNITS_MAX, asked_clear, asked_fits, asked_t, RECORD
from domain cimport (
    DESCRIPTORS_MAX, FIELDS, FIELD_ACCOUNT, FIELD_CLIENT, FIELD_ENDPOINT, FIELD_METER, FIELD_MODEL, FIELD_PATH, FIELD_PROMPT_ID, FIELD_REQUEST_ID,
    FIELD_STYLE, FIELD_TOOL, FIELD_UNKNOWN, STYLE_UNKNOWN, domain_field, domain_style, domain_t, domains_find, domains_t, marker_is,
    names_equal,
)
from names cimport name_t
from wire cimport DELIMITED, VARINT, wire_skip, wire_span, wire_t, wire_tag, wire_text, wire_varint

cdef struct descriptors_t:
    asked_t asked
    const domain_t* domain
    name_t fields[FIELDS]           # of the call; the last, the meter, of the descriptor that is being read
    uint64_t amount                 # of descriptors that have none of their own
    bint records                    # it has happened
    bint holds
    bint checks                     # nothing is to be charged
    int style
    int count
    int draws[DESCRIPTORS_MAX]      # per descriptor, the draw that it is part of


# ---- One descriptor ----

cdef inline bint descriptors_tell(descriptors_t* self, int field, name_t value) noexcept nogil:
    """Note what a field is; false if it is something else already. An empty value tells nothing."""
    if value.size == 0:
        return True
    if self.fields[field].size:
        return names_equal(self.fields[field], value)
    self.fields[field] = value
    return True


cdef inline bint descriptors_entry(descriptors_t* self, wire_t wire, int depth, bint* named) noexcept nogil:
    """Read one entry; false if it contradicts another, or is no message. `named` becomes true if it names the account."""
    cdef name_t key, value
    cdef uint32_t tag
    cdef int field
    key.size = value.size = 0
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            break
        if tag == (1 << 3 | DELIMITED):
            key = wire_text(&wire)
        elif tag == (2 << 3 | DELIMITED):
            value = wire_text(&wire)
        else:
            wire_skip(&wire, tag, depth)
    if wire.bad:
        return False
    self.records |= marker_is(&self.domain.record, key, value)
    self.holds |= marker_is(&self.domain.hold, key, value)
    field = domain_field(self.domain, key)
    if field == FIELD_UNKNOWN:
        return True
    named[0] |= field == FIELD_ACCOUNT and value.size > 0
    return descriptors_tell(self, field, value)


cdef inline bint descriptors_addend(uint64_t* amount, wire_t wire, int depth) noexcept nogil:
    """Read a UInt64Value; false if it is no message. What it does not say stays as it is."""
    cdef uint32_t tag
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            return not wire.bad
        if tag == (1 << 3 | VARINT):
            amount[0] = wire_varint(&wire)
        else:
            wire_skip(&wire, tag, depth)


cdef inline bint descriptors_draw(descriptors_t* self, name_t meter, uint64_t amount) noexcept nogil:
    """Draw so much of a meter; false if that is too much."""
    cdef asked_t* asked = &self.asked
    cdef int i = 0
    if meter.size > TEXT_BYTES_MAX or amount > UNITS_MAX:
        return False
    while i < asked.request.draw_count and not names_equal(asked.draws[i].meter, meter):
        i += 1
    if i == asked.request.draw_count:
        asked.draws[i].meter, asked.draws[i].amount = meter, 0
        asked.request.draw_count += 1
    asked.draws[i].amount += amount
    self.draws[self.count] = i
    self.count += 1
    self.checks = self.checks and amount == 0
    return asked.draws[i].amount <= UNITS_MAX


cdef inline bint descriptors_next(descriptors_t* self, wire_t wire, int depth) noexcept nogil:
    """Read one descriptor, behind those there are."""
    cdef uint64_t own = 0
    cdef bint has_own = False, named = False
    cdef uint32_t tag
    if self.count == DESCRIPTORS_MAX:
        return False
    self.fields[FIELD_METER].size = 0
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            break
        if tag == (1 << 3 | DELIMITED):
            if not descriptors_entry(self, wire_span(&wire), depth - 1, &named):
                return False
        elif tag == (3 << 3 | DELIMITED):
            has_own = True
            if not descriptors_addend(&own, wire_span(&wire), depth - 1):
                return False
        else:
            wire_skip(&wire, tag, depth)
    if wire.bad or not named:
        return False
    return descriptors_draw(
        self, self.fields[FIELD_METER] if self.fields[FIELD_METER].size else self.domain.meter, own if has_own else self.amount)


# ---- The call ----

cdef inline bint descriptors_head(descriptors_t* self, const domains_t* domains, wire_t wire, int depth) noexcept nogil:
    """Find what the descriptors are read under: their domain, and the amount of those that have none."""
    cdef name_t domain
    cdef uint32_t tag
    domain.size = 0
    self.amount = 0
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            break
        if tag == (1 << 3 | DELIMITED):
            domain = wire_text(&wire)
        elif tag == (3 << 3 | VARINT):
            self.amount = <uint32_t>wire_varint(&wire)
        else:
            wire_skip(&wire, tag, depth)
    if self.amount == 0:
        self.amount = 1
    self.domain = domains_find(domains, domain)
    return not wire.bad and self.domain != NULL


cdef inline bint descriptors_fit(descriptors_t* self) noexcept nogil:
    """Lay out the request; false if it is out of range. The default meter is the catalog's business: only one unit of it can be asked for."""
    cdef asked_t* asked = &self.asked
    cdef int i
    asked.request.account, asked.request.model = self.fields[FIELD_ACCOUNT], self.fields[FIELD_MODEL]
    asked.request.tool, asked.request.endpoint = self.fields[FIELD_TOOL], self.fields[FIELD_ENDPOINT]
    asked.request.id, asked.prompt_id = self.fields[FIELD_REQUEST_ID], self.fields[FIELD_PROMPT_ID]
    asked.client = self.fields[FIELD_CLIENT]
    asked.request.explain = True
    if self.records:
        asked.mode = RECORD
    if self.holds:
        asked.hold_ms = self.domain.hold_ms
    self.style = domain_style(self.domain, self.fields[FIELD_STYLE], self.fields[FIELD_PATH])
    for i in range(asked.request.draw_count):
        if asked.draws[i].meter.size == 0:
            if self.count != 1 or asked.draws[i].amount != 1:
                return False
            asked.request.draw_count = 0
    return self.count > 0 and self.style != STYLE_UNKNOWN and not (self.records and self.holds) and asked_fits(asked)


cdef inline bint descriptors_read(descriptors_t* self, const domains_t* domains, wire_t wire, int depth) noexcept nogil:
    """Read a RateLimitRequest; false if it is out of range, or no message. `asked_complete` makes its request ready. It is read twice, since the
    domain may stand behind the descriptors."""
    cdef uint32_t tag
    cdef int i
    if not descriptors_head(self, domains, wire, depth):
        return False
    asked_clear(&self.asked)
    for i in range(FIELDS):
        self.fields[i].size = 0
    self.records = self.holds = False
    self.checks = True
    self.count = 0
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            return descriptors_fit(self)
        if tag != (2 << 3 | DELIMITED):
            wire_skip(&wire, tag, depth)
        elif not descriptors_next(self, wire_span(&wire), depth - 1):
            return False
