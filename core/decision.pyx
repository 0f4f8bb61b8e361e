"""Decisions: an answer as Python sees it. Names, texts and enums are made only when they are asked for."""


cdef object milliseconds_up(int64_t moment):
    """A moment or duration, at or above 0, in whole milliseconds, rounded up; None for NEVER."""
    return None if moment == NEVER else ms_up(moment)


cdef object limit_state_of(Rules rules, Labels labels, const state_t* state):
    cdef int64_t limit = state.limit_micro
    return LimitState(
        labels.name(state.limit.rule),
        labels.name(rules.c.pool_labels[state.limit.pool]),
        text_of(state.limit.words),
        limit,
        state.used,
        max(0, limit - state.used),
        state_percent(state),
        milliseconds_up(state.resets_at),
        milliseconds_up(state.full_at),
    )


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Decision:
    """The answer to one request. Amounts in micro-units (1 unit = 1,000,000), times in Unix milliseconds."""

    cdef Rules _rules               # today's; None: the account is unknown
    cdef Catalogs _catalogs
    cdef Request _request
    cdef int _verdict
    cdef uint16_t _model
    cdef uint16_t _rule
    cdef uint32_t _version
    cdef bint _hints
    cdef const limit_t* _limit
    cdef int64_t _now               # the caller's
    cdef int64_t _wait_until
    cdef int64_t _frees_at
    cdef int64_t _hold_until
    cdef readonly int64_t weight_micro
    cdef readonly uint64_t ticket   # of the ledger's change that the answer stands on; 0: none
    cdef int _charge_count
    cdef int _state_count
    cdef charge_t _charge           # the usual one
    cdef charge_t* _charges         # all, if there are more
    cdef state_t* _states

    def __init__(self):
        raise TypeError("Decisions are made by a Ledger")

    def __dealloc__(self):
        free(self._charges)
        free(self._states)

    cdef int take(self, const answer_t* answer) noexcept nogil:
        """Copy what the answer holds: DECIDED, or NO_MEMORY."""
        self._verdict = answer.verdict
        self._model = answer.model
        self._rule = answer.rule
        self._version = answer.version
        self._hints = answer.hints
        self._limit = answer.limit
        self._hold_until = answer.hold_until
        self.ticket = answer.ticket
        self._wait_until = answer.wait_until
        self._frees_at = answer.frees_at
        self.weight_micro = answer.weight_micro
        if answer.charge_count == 1:
            self._charge = answer.charges[0]
        elif answer.charge_count > 1:
            self._charges = <charge_t*>malloc(answer.charge_count * sizeof(charge_t))
            if self._charges == NULL:
                return NO_MEMORY
            memcpy(self._charges, answer.charges, answer.charge_count * sizeof(charge_t))
        self._charge_count = answer.charge_count
        if answer.state_count:
            self._states = <state_t*>malloc(answer.state_count * sizeof(state_t))
            if self._states == NULL:
                return NO_MEMORY
            memcpy(self._states, answer.states, answer.state_count * sizeof(state_t))
        self._state_count = answer.state_count
        return DECIDED

    @property
    def verdict(self):
        return VERDICTS[self._verdict]

    @property
    def allowed(self):
        return self._verdict == ALLOWED

    @property
    def model(self):
        """Canonical name; as it was asked for where the catalog does not know it, or the account is unknown."""
        return self._request.model if self._model in (MODEL_NONE, MODEL_UNKNOWN_LABEL) else self._catalogs.labels.name(self._model)

    @property
    def rule(self):
        """What decided: a limit's id, or the place in the catalog or the account; empty when allowed."""
        return self._catalogs.labels.name(self._rule)

    @property
    def charged(self):
        """Pool to micro-units, those above 0."""
        cdef int i
        if self._charge_count == 0:
            return {}
        if self._charge_count == 1:
            return {self._catalogs.labels.name(self._charge.pool): self._charge.micro}
        return {self._catalogs.labels.name(self._charges[i].pool): self._charges[i].micro for i in range(self._charge_count)}

    @property
    def retry_after_ms(self):
        """The first moment at which this request would be admitted, counted from now; None if retrying will not help. Where places in
        flight are all that lacks, a hint."""
        if self._hints:
            return milliseconds_up(self._rules.c.refusals[self._verdict].retry_after)
        return milliseconds_up(self._wait_until - self._now if self._wait_until != NEVER else NEVER)

    @property
    def resets_at_ms(self):
        """The same moment, as a time."""
        return milliseconds_up(self._wait_until)

    @property
    def hold_expires_at_ms(self):
        """When the hold closes by itself; None if none was opened."""
        return milliseconds_up(self._hold_until) if self._hold_until else None

    @property
    def limits(self):
        """Every limit that refuses; with `explain` every one touched."""
        cdef int i
        return tuple([limit_state_of(self._rules, self._catalogs.labels, &self._states[i]) for i in range(self._state_count)])

    @property
    def catalog(self):
        """What decided; None for an unknown account."""
        return None if self._rules is None else self._catalogs.version(self._version)

    def limited(self, int style, int headers, list draws not None):
        """A RateLimitResponse of Envoy's with a status for each of `draws`, which say by number what a descriptor draws. `style` and `headers` as
        in quota.server.domains. For the answer to a request that explains."""
        cdef limited_t limited
        cdef words_t words
        cdef buffer_t out
        cdef int i
        if len(draws) > DESCRIPTORS_MAX or not 0 <= style < STYLES:
            raise ValueError
        self.fill(&words, &limited.refused)
        limited.records, limited.now = self._request.c.records, self._now
        limited.wait = self._wait_until - self._now if self._wait_until != NEVER else NEVER
        if self._hints:
            limited.wait = self._rules.c.refusals[self._verdict].retry_after
        limited.states, limited.state_count = self._states, self._state_count
        limited.style, limited.headers, limited.count = style, headers, <int>len(draws)
        for i in range(limited.count):
            limited.draws[i] = draws[i]
        buffer_init(&out)
        limited_write(&limited, &words, &out)
        try:
            if out.failed:
                raise MemoryError
            return out.at[:out.size]
        finally:
            buffer_free(&out)

    cdef void fill(self, words_t* words, refused_t* refused):
        """What a refusal is worded by, and what of it is told."""
        cdef Rules rules = self._rules
        words.labels, words.versions = self._catalogs.labels.at, self._catalogs.versions
        words.rules = &rules.c if rules is not None else NULL
        if rules is None and self._catalogs.rules:
            rules = self._catalogs.rules[self._catalogs.wording]
        words.wording = &rules.c if rules is not None else NULL
        refused.verdict, refused.limit, refused.frees_at, refused.request = self._verdict, self._limit, self._frees_at, &self._request.c
        refused.rule, refused.model = self._catalogs.labels.at[self._rule], self._request.c.model
        if self._model not in (MODEL_NONE, MODEL_UNKNOWN_LABEL):
            refused.model = self._catalogs.labels.at[self._model]

    @property
    def vendor(self):
        """The refusal in the vendor's words; None when allowed."""
        cdef words_t words
        cdef refused_t refused
        cdef vendor_t vendor
        cdef buffer_t text
        if self._verdict == ALLOWED or not self._catalogs.rules:
            return None
        self.fill(&words, &refused)
        vendor_word(&vendor, words.wording, &refused)
        buffer_init(&text)
        refusal_write(vendor.refusal, &vendor.filling, &text)
        try:
            if text.failed:
                raise MemoryError
            return VendorRefusal(text_of(vendor.refusal.code), vendor.refusal.http_status, text.at[:text.size].decode())
        finally:
            buffer_free(&text)

    def __repr__(self):
        return f"<Decision {VERDICTS[self._verdict].name} {self.rule} charged={self.charged} retry_after_ms={self.retry_after_ms}>"
