# cython: cdivision=True
"""Asked: the messages of the data port, read into what the core decides on. All that they name stays where it is, in the message.

Only what is in range is read: anything that a Request (request.pyx) or a handler would refuse is left to those who have the words for it, and
so is what is no message at all.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp

from ask cimport DRAWS_MAX, draw_t, request_t
from fingerprint cimport request_fingerprint, request_id_hash
from names cimport name_of, name_t
from prompt cimport prompt_hash
from wire cimport DELIMITED, DEPTH_MAX, VARINT, wire_skip, wire_span, wire_t, wire_tag, wire_text, wire_varint

cdef enum:
    TEXT_BYTES_MAX = 256
    UNITS_MAX = 1000000000          # of one draw
    HOLD_MAX_MS = 3600000

cdef enum request_mode_t:           # as quota.types.Mode
    ENFORCE = 0
    RECORD = 1

cdef enum settle_outcome_t:         # as quota.types.Outcome
    COMMIT = 1
    CANCEL = 2

cdef struct asked_t:
    request_t request
    name_t prompt_id
    name_t client
    int64_t mode                    # as the message has it: of an AdmitRequest, or a SettleRequest's outcome
    int64_t hold_ms                 # likewise
    draw_t draws[DRAWS_MAX]         # the request's


cdef inline void request_complete(request_t* self, name_t prompt_id, name_t client) noexcept nogil:
    """Work out what follows from the fields: the endpoint without a slash at its end, and the hashes of ids and content."""
    if self.endpoint.size > 1 and self.endpoint.at[self.endpoint.size - 1] == 47:
        self.endpoint.size -= 1
    self.model = name_of(self.model.at, self.model.size)
    self.tool = name_of(self.tool.at, self.tool.size)
    self.endpoint = name_of(self.endpoint.at, self.endpoint.size)
    self.resolved.serial = self.hashed_by = 0
    self.has_prompt = prompt_id.size > 0
    if self.has_prompt:
        prompt_hash(prompt_id, self.prompt)
    if self.id.size:
        self.id_hash = request_id_hash(self.id)
        self.fingerprint = request_fingerprint(self, prompt_id, client)


cdef inline void asked_clear(asked_t* self) noexcept nogil:
    cdef request_t* request = &self.request
    request.account.size = request.model.size = request.tool.size = request.endpoint.size = request.id.size = 0
    self.prompt_id.size = self.client.size = 0
    self.mode = self.hold_ms = 0
    request.explain = False
    request.draw_count = 0
    request.draws = self.draws


# ---- Draws ----

cdef inline bint asked_draw(asked_t* self, wire_t wire, int depth) noexcept nogil:
    """Read one draw, behind those there are; false if it is out of range, or no message."""
    cdef request_t* request = &self.request
    cdef draw_t* draw = &self.draws[request.draw_count]
    cdef uint32_t tag
    cdef int i
    if request.draw_count == DRAWS_MAX:
        return False
    draw.meter.size = 0
    draw.amount = 0
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            break
        if tag == (1 << 3 | DELIMITED):
            draw.meter = wire_text(&wire)
        elif tag == (2 << 3 | VARINT):
            draw.amount = wire_varint(&wire)
        else:
            wire_skip(&wire, tag, depth)
    if wire.bad or not 1 <= draw.meter.size <= TEXT_BYTES_MAX or draw.amount > UNITS_MAX:
        return False
    for i in range(request.draw_count):
        if self.draws[i].meter.size == draw.meter.size and memcmp(self.draws[i].meter.at, draw.meter.at, draw.meter.size) == 0:
            return False
    request.draw_count += 1
    return True


cdef inline void asked_hash_draws(asked_t* self) noexcept nogil:
    cdef int i
    for i in range(self.request.draw_count):
        self.draws[i].meter = name_of(self.draws[i].meter.at, self.draws[i].meter.size)


# ---- AdmitRequest ----

cdef inline bint asked_fits(const asked_t* self) noexcept nogil:
    """Whether a Request may be made of it; the draws have been checked."""
    cdef const request_t* request = &self.request
    return (
        1 <= request.account.size <= TEXT_BYTES_MAX
        and request.model.size <= TEXT_BYTES_MAX and request.tool.size <= TEXT_BYTES_MAX and request.endpoint.size <= TEXT_BYTES_MAX
        and request.id.size <= TEXT_BYTES_MAX and self.prompt_id.size <= TEXT_BYTES_MAX and self.client.size <= TEXT_BYTES_MAX
        and self.mode in (ENFORCE, RECORD)
        and 0 <= self.hold_ms <= HOLD_MAX_MS and (self.hold_ms == 0 or request.id.size > 0)
    )


cdef inline bint asked_admit(asked_t* self, wire_t wire, int depth) noexcept nogil:
    """Read an AdmitRequest; false if it is out of range, or no message. It is not ready yet: `asked_complete` makes it so."""
    cdef request_t* request = &self.request
    cdef uint32_t tag
    asked_clear(self)
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            break
        if tag == (1 << 3 | DELIMITED):
            request.account = wire_text(&wire)
        elif tag == (2 << 3 | DELIMITED):
            request.model = wire_text(&wire)
        elif tag == (3 << 3 | DELIMITED):
            request.tool = wire_text(&wire)
        elif tag == (4 << 3 | DELIMITED):
            request.endpoint = wire_text(&wire)
        elif tag == (5 << 3 | VARINT):
            self.mode = <int>wire_varint(&wire)
        elif tag == (6 << 3 | DELIMITED):
            if not asked_draw(self, wire_span(&wire), depth - 1):
                return False
        elif tag == (7 << 3 | DELIMITED):
            request.id = wire_text(&wire)
        elif tag == (8 << 3 | DELIMITED):
            self.prompt_id = wire_text(&wire)
        elif tag == (9 << 3 | VARINT):
            self.hold_ms = <int64_t>wire_varint(&wire)
        elif tag == (10 << 3 | DELIMITED):
            self.client = wire_text(&wire)
        elif tag == (11 << 3 | VARINT):
            request.explain = wire_varint(&wire) != 0
        else:
            wire_skip(&wire, tag, depth)
    return not wire.bad and asked_fits(self)


cdef inline void asked_complete(asked_t* self) noexcept nogil:
    """Make it ready to be decided on."""
    self.request.records = self.mode == RECORD
    self.request.hold = self.hold_ms * 1000
    asked_hash_draws(self)
    request_complete(&self.request, self.prompt_id, self.client)


# ---- The others: they name an account, and all but one an admission ----

cdef inline bint asked_named(const asked_t* self, bint by_id) noexcept nogil:
    cdef const request_t* request = &self.request
    return 1 <= request.account.size <= TEXT_BYTES_MAX and (not by_id or 1 <= request.id.size <= TEXT_BYTES_MAX)


cdef inline bint asked_settle(asked_t* self, wire_t wire, int depth) noexcept nogil:
    """Read a SettleRequest and make it ready; false if it is out of range, or no message."""
    cdef request_t* request = &self.request
    cdef uint32_t tag
    asked_clear(self)
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            break
        if tag == (1 << 3 | DELIMITED):
            request.account = wire_text(&wire)
        elif tag == (2 << 3 | DELIMITED):
            request.id = wire_text(&wire)
        elif tag == (3 << 3 | VARINT):
            self.mode = <int>wire_varint(&wire)
        elif tag == (4 << 3 | DELIMITED):
            if not asked_draw(self, wire_span(&wire), depth - 1):
                return False
        else:
            wire_skip(&wire, tag, depth)
    if wire.bad or not asked_named(self, True) or self.mode not in (COMMIT, CANCEL) or (self.mode == CANCEL and request.draw_count):
        return False
    asked_hash_draws(self)
    request.id_hash = request_id_hash(request.id)
    request.hashed_by = 0
    return True


cdef inline bint asked_renew(asked_t* self, wire_t wire, int depth) noexcept nogil:
    """Read a RenewRequest and make it ready; false if it is out of range, or no message. How long a hold may be, the ledger says."""
    cdef request_t* request = &self.request
    cdef uint32_t tag
    asked_clear(self)
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            break
        if tag == (1 << 3 | DELIMITED):
            request.account = wire_text(&wire)
        elif tag == (2 << 3 | DELIMITED):
            request.id = wire_text(&wire)
        elif tag == (3 << 3 | VARINT):
            self.hold_ms = <int64_t>wire_varint(&wire)
        else:
            wire_skip(&wire, tag, depth)
    if wire.bad or not asked_named(self, True) or not 1 <= self.hold_ms <= HOLD_MAX_MS:
        return False
    request.id_hash = request_id_hash(request.id)
    request.hashed_by = 0
    return True


cdef inline bint asked_usage(asked_t* self, wire_t wire, int depth) noexcept nogil:
    """Read a GetUsageRequest and make it ready; false if it is out of range, or no message."""
    cdef uint32_t tag
    asked_clear(self)
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            break
        if tag == (1 << 3 | DELIMITED):
            self.request.account = wire_text(&wire)
        else:
            wire_skip(&wire, tag, depth)
    self.request.hashed_by = 0
    return not wire.bad and asked_named(self, False)


# ---- Batches ----

cdef inline bint batch_next(wire_t* self, wire_t* item, int depth) noexcept nogil:
    """Go on to the next item of an AdmitBatchRequest; false where there is none, or the rest is no message. With it `self` stands behind the
    item."""
    cdef uint32_t tag
    while True:
        tag = wire_tag(self)
        if tag == 0:
            return False
        if tag == (1 << 3 | DELIMITED):
            item[0] = wire_span(self)
            return not self.bad
        wire_skip(self, tag, depth)


cdef inline bint asked_item(asked_t* self, wire_t* batch, int depth) noexcept nogil:
    """Read the next item of an AdmitBatchRequest; false where there is none, or one that is out of range."""
    cdef wire_t item
    return batch_next(batch, &item, depth) and asked_admit(self, item, depth - 1)


cdef inline bint batch_fits(wire_t self, size_t items_max, int depth) noexcept nogil:
    """Whether it is a message of not too many items, and each of them is in range."""
    cdef asked_t asked
    cdef wire_t item
    cdef size_t count = 0
    while batch_next(&self, &item, depth):
        count += 1
        if count > items_max or not asked_admit(&asked, item, depth - 1):
            return False
    return not self.bad
