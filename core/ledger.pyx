"""The ledger: every account's record, the catalogs in force, and the only door to both.

What it can do is told in four chapters, each a class on top of the one before: Accounts, Archive, Decider, and here what moves
or shows usage beside decisions.
"""


@cython.final
cdef class Ledger(Decider):
    """Accounts and catalogs. Times are int microseconds since the epoch; `hash_key` is 16 secret random bytes."""

    def settle(self, str account not None, str request_id not None, object outcome, object draws, int64_t now):
        """Close an admission. Returns a Settlement. Raises NotFound, AlreadyExists, InvalidArgument; nothing is changed then."""
        cdef Request request = Request(account, request_id=request_id, draws=draws)
        cdef settled_t settled
        cdef int result = NOT_KNOWN
        cdef bint cancels = outcome == Outcome.CANCEL
        if outcome not in (Outcome.COMMIT, Outcome.CANCEL):
            raise InvalidArgument("outcome", outcome, "COMMIT or CANCEL")
        if cancels and draws:
            raise InvalidArgument("draws", draws, "none with CANCEL")
        if not request_id:
            raise InvalidArgument("request_id", request_id, f"1 to {NAME_BYTES_MAX} bytes of UTF-8")
        content = settlement_fingerprint(cancels, request.c.draws, request.c.draw_count)
        where = self.lock_find(request._account, False)
        if where != NULL:
            result = self.settle_at(where, &request.c, cancels, content, now, &settled)
        pthread_mutex_unlock(&self._mutex)
        if result == NOT_KNOWN:
            raise self.not_known(request, where != NULL)
        if result == CONFLICT:
            raise AlreadyExists(f"request {request_id!r} of account {account!r} was settled before, with another outcome or other draws")
        if result != DECIDED:
            raise self.error_of(request, result, settled.past_draw)
        return self.settlement_of(&settled)

    @cython.final
    cdef int settle_at(
        self, record_t** where, const request_t* request, bint cancels, uint64_t content, int64_t now, settled_t* settled
    ) noexcept nogil:
        """Settle and note the change. With the mutex held."""
        cdef terms_t terms
        cdef int i, outcome
        if not track_reserve(&self._track):
            return NO_MEMORY
        self.terms(&terms, where[0].catalog)
        outcome = settle(&terms, where, request, cancels, content, now, settled)
        if outcome == DECIDED:
            track_note(&self._track, where[0])
            for i in range(0 if settled.replayed else settled.pool_count):
                self.count_units(where[0], settled.pools[i].pool, CHARGED, settled.pools[i].charged)
                self.count_units(where[0], settled.pools[i].pool, REFUNDED, settled.pools[i].refunded)
        return outcome

    @cython.final
    cdef object settlement_of(self, const settled_t* settled):
        cdef int i
        labels = self._catalogs.labels
        return Settlement(
            {labels.name(settled.pools[i].pool): settled.pools[i].charged for i in range(settled.pool_count) if settled.pools[i].charged},
            {labels.name(settled.pools[i].pool): settled.pools[i].refunded for i in range(settled.pool_count) if settled.pools[i].refunded},
            bool(settled.late),
        )

    @cython.final
    cdef object not_known(self, Request request, bint account):
        if not account:
            return NotFound(f"no account {request.account!r}")
        return NotFound(f"no request {request.request_id!r} of account {request.account!r} is remembered")

    def renew(self, str account not None, str request_id not None, object hold_ms, int64_t now):
        """Keep a hold open; when it now closes by itself, in milliseconds. Raises NotFound, FailedPrecondition, InvalidArgument."""
        cdef Request request = Request(account, request_id=request_id)
        cdef int64_t hold_until = 0
        cdef int result = NOT_KNOWN
        if not request_id:
            raise InvalidArgument("request_id", request_id, f"1 to {NAME_BYTES_MAX} bytes of UTF-8")
        check_whole("hold_ms", hold_ms, 1, self._bounds.hold_us_max // 1000)
        cdef int64_t hold = hold_ms * 1000
        where = self.lock_find(request._account, False)
        if where != NULL:
            result = self.renew_at(where[0], &request.c, hold, now, &hold_until)
        pthread_mutex_unlock(&self._mutex)
        if result == HOLD_ENDED:
            raise FailedPrecondition(f"the hold of request {request_id!r} of account {account!r} has ended, or none was opened")
        if result != DECIDED:
            raise self.not_known(request, where != NULL) if result == NOT_KNOWN else MemoryError()
        return milliseconds_up(hold_until)

    @cython.final
    cdef int renew_at(self, record_t* record, const request_t* request, int64_t hold, int64_t now, int64_t* hold_until) noexcept nogil:
        """Renew and note the change. With the mutex held."""
        cdef int outcome
        if not track_reserve(&self._track):
            return NO_MEMORY
        outcome = renew(record, request, hold, now, &self._spares, hold_until)
        if outcome == DECIDED:
            track_note(&self._track, record)
        return outcome

    def adjust(self, str account not None, str pool not None, str limit_id not None, int64_t micro, int64_t now):
        """Take (above 0) or give back (below 0) by hand, under the limits of the account's plan that `pool` or `limit_id` names, the other
        empty. Returns an Adjustment; None if there is no such account."""
        cdef bytes id = id_sought(account)
        cdef terms_t terms
        cdef adjusted_t adjusted
        cdef Rules rules
        cdef int i, outcome
        cdef uint16_t pool_label = self._catalogs.labels.number(pool), rule = self._catalogs.labels.number(limit_id)
        where = self.lock_find(id, False)
        if where == NULL:
            pthread_mutex_unlock(&self._mutex)
            return None
        self.terms(&terms, where[0].catalog)
        outcome = NO_MEMORY
        if track_reserve(&self._track):
            outcome = adjust(&terms, where, pool_label, rule, micro, now, &adjusted)
            track_note(&self._track, where[0])
        if outcome == DECIDED:
            self.count_adjusted(&terms, where[0], &adjusted)
        rules = <Rules>self._catalogs.rules[where[0].catalog]
        pthread_mutex_unlock(&self._mutex)
        if outcome == NO_MEMORY:
            raise MemoryError
        states = tuple([limit_state_of(rules, self._catalogs.labels, &adjusted.states[i]) for i in range(adjusted.count)])
        return Adjustment({states[i].id: adjusted.moved[i] for i in range(adjusted.count)}, states)

    @cython.final
    cdef void count_adjusted(self, const terms_t* terms, const record_t* record, const adjusted_t* adjusted) noexcept nogil:
        """Count what an adjustment moved in its pool: the most that it moved under one limit, as a settlement does."""
        cdef int64_t charged = 0, refunded = 0
        cdef int i
        for i in range(adjusted.count):
            charged, refunded = max(charged, adjusted.moved[i]), max(refunded, -adjusted.moved[i])
        if adjusted.count:
            self.count_units(record, terms.rules.pool_labels[adjusted.states[0].limit.pool], CHARGED, charged)
            self.count_units(record, terms.rules.pool_labels[adjusted.states[0].limit.pool], REFUNDED, refunded)

    def usage(self, str account not None, int64_t now):
        """How the account stands, as a Usage; None if there is no such account."""
        cdef bytes id = id_sought(account)
        cdef terms_t terms
        cdef standing_t standing
        cdef Rules rules
        cdef int plan
        where = self.lock_find(id, False)
        if where == NULL:
            pthread_mutex_unlock(&self._mutex)
            return None
        self.terms(&terms, where[0].catalog)
        plan = where[0].plan
        rules = <Rules>self._catalogs.rules[where[0].catalog]
        taken = standing_take(&standing, &terms, where[0], now)
        pthread_mutex_unlock(&self._mutex)
        try:
            if not taken:
                raise MemoryError
            return usage_of(&standing, account, self._catalogs.labels.name(plan), rules, self._catalogs)
        finally:
            standing_free(&standing)

    # ---- Figures ----

    def check(self):
        """Assert what must always hold of the table and of every record. For tests: nobody else may use the ledger meanwhile."""
        check_table(&self._table)

    def decisions(self):
        """(catalog, plan, model, verdict number, rule, count) of every kind of decision made; Peek is not counted."""
        labels = self._catalogs.labels
        return [
            (labels.name(kind >> 53), labels.name(kind >> 37 & 0xffff), labels.name(kind >> 21 & 0xffff), kind & 31,
                labels.name(kind >> 5 & 0xffff), count)
            for kind, count, _, _ in self.counts(&self._decisions)
        ]

    def units(self):
        """(catalog, plan, pool, whether they were given back, micro-units) of all that was moved. A plan is what the account had then."""
        labels = self._catalogs.labels
        moved = {}
        for kind, _, pool, micro in self.counts(&self._decisions):
            if pool:
                key = kind >> 53, kind >> 37 & 0xffff, pool, CHARGED
                moved[key] = moved.get(key, 0) + micro
        for kind, _, _, micro in self.counts(&self._units):
            key = kind >> 53, kind >> 37 & 0xffff, kind >> 21 & 0xffff, kind & 31
            moved[key] = moved.get(key, 0) + micro
        return [
            (labels.name(catalog), labels.name(plan), labels.name(pool), way == REFUNDED, micro)
            for (catalog, plan, pool, way), micro in moved.items()
        ]

    @cython.final
    cdef list counts(self, const counters_t* counters):
        """(kind, count, pool, micro-units) of every counter."""
        cdef counters_t copy
        cdef counter_t* counter
        cdef uint64_t i
        pthread_mutex_lock(&self._mutex)
        copied = counters_copy(&copy, counters)
        pthread_mutex_unlock(&self._mutex)
        if not copied:
            raise MemoryError
        rows = []
        for i in range((<uint64_t>1) << copy.bits):
            counter = &copy.at[i]
            if counter.kind:
                micro = (<object><uint64_t>(counter.micro >> 64) << 64) | <object><uint64_t>counter.micro
                rows.append((counter.kind, counter.count, counter.pool, micro))
        free(copy.at)
        return rows

    def census(self, int64_t now):
        """(holds that are open, prompts that may go on, request ids remembered), counted one by one over all accounts: some 10 ms a million,
        without the GIL, and with the mutex for few at a time."""
        cdef census_t census
        cdef uint64_t start = 0
        census.holds = census.prompts = census.request_ids = 0
        with nogil:
            while True:
                pthread_mutex_lock(&self._mutex)
                start = self.census_some(&census, start, now)
                pthread_mutex_unlock(&self._mutex)
                if start == 0:
                    break
        return census.holds, census.prompts, census.request_ids

    @cython.final
    cdef uint64_t census_some(self, census_t* census, uint64_t start, int64_t now) noexcept nogil:
        """Count the accounts whose hash is `start` or above, some of them; from where to go on, 0: that was all. With the mutex held."""
        cdef uint64_t end = census_end(&self._table.new, start)
        census_take(census, &self._table.new, &self._catalogs.in_force[0], start, end, now)
        if self._table.old.bits:
            census_take(census, &self._table.old, &self._catalogs.in_force[0], start, end, now)
        return end + 1

    @property
    def replay_count(self):
        """Admissions that were answered again, by their id."""
        return self._replays

    @property
    def forgotten_ids_count(self):
        """Request ids forgotten before their time, for want of room."""
        return self._forgotten.ids

    @property
    def forgotten_prompts_count(self):
        """Open prompts forgotten for want of room."""
        return self._forgotten.prompts

    @property
    def behind_count(self):
        """Decisions whose account had been seen more than 5 s after the caller's time: a clock went back."""
        return self._behind
