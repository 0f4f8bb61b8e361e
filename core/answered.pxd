# cython: cdivision=True
"""Answered: what the core says, written as the messages of the data port; byte for byte what protobuf makes of a Decision.

Names are read from labels, rules and versions, which may be let go as soon as the ledger's mutex is: so all of this is written while it
is held.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t

from admission cimport admission_id, admission_moved, admission_t, moved_t
from answer cimport answer_t, ms_up, state_percent, state_t
from ask cimport ALLOWED, MODEL_NONE, MODEL_UNKNOWN_LABEL, request_t
from buffer cimport buffer_t
from in_flight cimport in_flight_state_t
from names cimport name_t
from refusal cimport refusal_write
from rules cimport rules_t, version_t
from settle cimport settled_t
from standing cimport standing_t
from vendor cimport refused_t, vendor_t, vendor_word
from window cimport NEVER
from wire cimport put_close, put_close_text, put_number, put_open, put_present, put_text

cdef struct words_t:                # what the numbers in an answer are called
    const name_t* labels
    const version_t* versions       # by number
    const rules_t* rules            # today's of the account's catalog; NULL: there is no such account
    const rules_t* wording          # those whose words a refusal has; NULL: there are no catalogs


# ---- Parts that several messages have ----

cdef inline void put_moment(buffer_t* out, int field, int64_t moment) noexcept nogil:
    """A moment or duration in milliseconds; nothing for NEVER."""
    if moment != NEVER:
        put_present(out, field, ms_up(moment))


cdef inline void put_charge(buffer_t* out, int field, name_t pool, int64_t micro) noexcept nogil:
    cdef size_t start = put_open(out, field)
    put_text(out, 1, pool)
    put_number(out, 2, micro)
    put_close(out, start)


cdef inline void put_version(buffer_t* out, int field, const version_t* version) noexcept nogil:
    cdef size_t start = put_open(out, field)
    put_text(out, 1, version.catalog)
    put_text(out, 2, version.text)
    put_close(out, start)


cdef inline void put_state(buffer_t* out, int field, const state_t* state, const words_t* words) noexcept nogil:
    cdef size_t start = put_open(out, field)
    put_text(out, 1, words.labels[state.limit.rule])
    put_text(out, 2, words.labels[words.rules.pool_labels[state.limit.pool]])
    put_text(out, 3, state.limit.words)
    put_number(out, 4, state.limit_micro)
    put_number(out, 5, state.used)
    put_number(out, 6, max(<int64_t>0, state.limit_micro - state.used))
    put_number(out, 7, state_percent(state))
    put_moment(out, 8, state.resets_at)
    put_moment(out, 9, state.full_at)
    put_close(out, start)


# ---- AdmitResponse ----

cdef inline void put_vendor(buffer_t* out, int field, const rules_t* wording, const refused_t* refused) noexcept nogil:
    cdef vendor_t vendor
    cdef size_t start = put_open(out, field), text
    vendor_word(&vendor, wording, refused)
    put_text(out, 1, vendor.refusal.code)
    put_number(out, 2, vendor.refusal.http_status)
    text = put_open(out, 3)
    refusal_write(vendor.refusal, &vendor.filling, out)
    put_close_text(out, text)
    put_close(out, start)


cdef inline name_t answer_model(const answer_t* self, const words_t* words, const request_t* request) noexcept nogil:
    """Its canonical name, or what the request calls it where the catalog knows none."""
    return request.model if self.model in (MODEL_NONE, MODEL_UNKNOWN_LABEL) else words.labels[self.model]


cdef inline refused_t answer_refused(const answer_t* self, const words_t* words, const request_t* request) noexcept nogil:
    cdef refused_t refused
    refused.verdict, refused.rule, refused.model = self.verdict, words.labels[self.rule], answer_model(self, words, request)
    refused.limit, refused.frees_at, refused.request = self.limit, self.frees_at, request
    return refused


cdef inline int64_t answer_wait_us(const answer_t* self, const words_t* words, int64_t now) noexcept nogil:
    """How long to wait, or NEVER."""
    if self.hints:
        return words.rules.refusals[self.verdict].retry_after
    return self.wait_until - now if self.wait_until != NEVER else NEVER


cdef inline void answer_write(
    const answer_t* self, const words_t* words, const request_t* request, int64_t now, buffer_t* out
) noexcept nogil:
    """An AdmitResponse. `now` is the caller's, from which the wait counts."""
    cdef refused_t refused
    cdef int i
    put_number(out, 1, self.verdict)
    put_text(out, 2, answer_model(self, words, request))
    put_text(out, 3, words.labels[self.rule])
    for i in range(self.charge_count):
        put_charge(out, 4, words.labels[self.charges[i].pool], self.charges[i].micro)
    put_number(out, 5, self.weight_micro)
    put_moment(out, 6, answer_wait_us(self, words, now))
    put_moment(out, 7, self.wait_until)
    for i in range(self.state_count):
        put_state(out, 8, &self.states[i], words)
    if self.hold_until:
        put_moment(out, 9, self.hold_until)
    if words.rules != NULL:
        put_version(out, 10, &words.versions[self.version])
    if self.verdict != ALLOWED and words.wording != NULL:
        refused = answer_refused(self, words, request)
        put_vendor(out, 11, words.wording, &refused)


# ---- SettleResponse, RenewResponse ----

cdef inline void settled_write(const settled_t* self, const name_t* labels, buffer_t* out) noexcept nogil:
    cdef int i
    for i in range(self.pool_count):
        if self.pools[i].charged:
            put_charge(out, 1, labels[self.pools[i].pool], self.pools[i].charged)
    for i in range(self.pool_count):
        if self.pools[i].refunded:
            put_charge(out, 2, labels[self.pools[i].pool], self.pools[i].refunded)
    put_number(out, 3, self.late)


cdef inline void renewed_write(int64_t hold_until, buffer_t* out) noexcept nogil:
    put_number(out, 1, ms_up(hold_until))


# ---- Usage ----

cdef inline void put_hold(buffer_t* out, int field, const admission_t* hold, const words_t* words) noexcept nogil:
    cdef size_t start = put_open(out, field)
    cdef const moved_t* moved = admission_moved(hold)
    cdef int64_t micro
    cdef bint told
    cdef name_t id
    cdef int i, j
    id.at, id.size = admission_id(hold), hold.id_size
    put_text(out, 1, id)
    if hold.model not in (MODEL_NONE, MODEL_UNKNOWN_LABEL):
        put_text(out, 2, words.labels[hold.model])
    put_number(out, 3, hold.admitted_at // 1000)
    put_number(out, 4, ms_up(hold.until))
    for i in range(hold.moved_count):       # a pool's own part and its share of a prompt are one charge
        micro, told = 0, False
        for j in range(hold.moved_count):
            if moved[j].pool == moved[i].pool:
                micro += moved[j].micro
                told = told or j < i
        if not told:
            put_charge(out, 5, words.labels[moved[i].pool], micro)
    put_close(out, start)


cdef inline void put_in_flight(buffer_t* out, int field, const in_flight_state_t* state, const words_t* words) noexcept nogil:
    cdef size_t start = put_open(out, field)
    put_text(out, 1, words.labels[state.rule])
    put_number(out, 2, state.effective)
    put_number(out, 3, state.count)
    put_close(out, start)


cdef inline void standing_write(
    const standing_t* self, const words_t* words, uint32_t version, uint16_t plan, name_t account, buffer_t* out
) noexcept nogil:
    """A Usage. `version` is that of the rules in `words`, `plan` a label."""
    cdef int i
    put_text(out, 1, account)
    put_version(out, 2, &words.versions[version])
    put_text(out, 3, words.labels[plan])
    for i in range(self.limit_count):
        put_state(out, 4, &self.states[i], words)
    for i in range(self.hold_count):
        put_hold(out, 5, self.holds[i], words)
    for i in range(self.concurrency_count):
        put_in_flight(out, 6, &self.in_flight[i], words)
