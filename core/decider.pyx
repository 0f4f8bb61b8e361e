"""Deciding: one request, many, or many packed, each in one hold of the mutex from the first look to the last charge."""

cdef enum:
    GROUP = 16                      # requests whose memory is fetched together
    HEAD_BYTES = 256                # of a record: a light user's is no longer
    BEHIND_US_MAX = 5000000         # an account's time this far ahead of the caller's is worth an alarm


cdef void answer_unknown(answer_t* answer) noexcept nogil:
    answer_begin(answer)
    answer.verdict, answer.rule = ACCOUNT_UNKNOWN, RULE_ACCOUNT


@cython.internal
cdef class Decider(Archive):

    cdef counters_t _decisions
    cdef counters_t _units          # micro
    cdef uint64_t _behind
    cdef uint64_t _replays
    cdef forgotten_t _forgotten
    cdef bounds_t _bounds
    cdef int64_t _capacity

    def __cinit__(self, bytes hash_key not None):
        if not counters_init(&self._decisions, 6) or not counters_init(&self._units, 6):
            raise MemoryError
        self._capacity = MICRO
        self.bound(Bounds())

    def __dealloc__(self):
        free(self._decisions.at)
        free(self._units.at)

    def bound(self, bounds):
        """Set how much one account may have open or remembered, as a quota.types.Bounds; from the next decision on."""
        cdef bounds_t new
        new.hold_us_max = bounds.hold_ms_max * 1000
        new.holds_max, new.request_ids_max, new.prompts_max = bounds.holds_max, bounds.request_ids_max, bounds.prompts_max
        pthread_mutex_lock(&self._mutex)
        self._bounds = new
        pthread_mutex_unlock(&self._mutex)

    @property
    def capacity_micro(self):
        """The platform's capacity: a factor on every concurrency limit, in millionths."""
        return self._capacity

    def set_capacity(self, int64_t micro):
        if not 0 <= micro <= MICRO:
            raise ValueError(micro)
        pthread_mutex_lock(&self._mutex)
        self._capacity = micro
        pthread_mutex_unlock(&self._mutex)

    @cython.final
    cdef void terms(self, terms_t* terms, int catalog) noexcept nogil:
        """What decisions under a catalog are made under. With the mutex held."""
        terms.rules = self._catalogs.in_force[catalog].rules
        terms.version = self._catalogs.in_force[catalog].version
        terms.versions = self._catalogs.versions
        terms.capacity = self._capacity
        terms.bounds = &self._bounds
        terms.forgotten = &self._forgotten
        terms.spares = &self._spares

    @cython.final
    cdef int run(self, request_t* request, int64_t now, answer_t* answer, int* catalog) noexcept nogil:
        """Decide one request and count it. With the mutex held. `catalog` becomes -1 for an unknown account."""
        cdef terms_t terms
        cdef bint behind
        cdef int outcome
        cdef record_t** where = self.seek(request, &outcome)
        catalog[0] = -1
        if outcome == NOT_HERE:
            return NOT_HERE
        if outcome == NOT_KNOWN:
            answer_unknown(answer)
            counters_add(&self._decisions, decision_kind(0, 0, 0, ACCOUNT_UNKNOWN, RULE_ACCOUNT))
            return DECIDED
        where[0].flags |= RECENT
        catalog[0] = where[0].catalog
        behind = where[0].seen_at > now + BEHIND_US_MAX
        if not track_reserve(&self._track):
            return NO_MEMORY
        self.terms(&terms, catalog[0])
        outcome = decide(&terms, where, request, now, answer, True)
        if outcome != DECIDED:
            return outcome
        self._behind += behind
        if answer.replayed:
            self._replays += 1
            answer.ticket = self._track.ticket
        else:
            if answer.verdict == ALLOWED:
                answer.ticket = track_note(&self._track, where[0])
            self.count_decision(where[0], answer)
        return DECIDED

    @cython.final
    cdef void count_decision(self, const record_t* record, const answer_t* answer) noexcept nogil:
        """Count it and what it charged. With the mutex held."""
        cdef int i
        cdef counter_t* counter = counters_add(&self._decisions, decision_kind(
            self._catalogs.in_force[record.catalog].label, record.plan, answer.model, answer.verdict, answer.rule))
        if answer.verdict != ALLOWED:   # a refusal may show what it would have cost
            return
        for i in range(answer.charge_count):
            if counter == NULL or not counter_charge(counter, answer.charges[i].pool, answer.charges[i].micro):
                self.count_units(record, answer.charges[i].pool, CHARGED, answer.charges[i].micro)

    @cython.final
    cdef void count_units(self, const record_t* record, uint16_t pool, way_t way, int64_t micro) noexcept nogil:
        """Count units that an account was charged, or got back, under the plan that it has now. With the mutex held."""
        cdef counter_t* counter
        if micro:
            counter = counters_add(&self._units, units_kind(self._catalogs.in_force[record.catalog].label, record.plan, pool, way))
            if counter != NULL:
                counter.micro += micro

    @cython.final
    cdef int look(self, record_t** where, request_t* request, int64_t now, answer_t* answer, int* catalog) noexcept nogil:
        """What `run` would say of an account, NULL being an unknown one: decided on a copy of the record, so that nothing can change, and not
        counted. With the mutex held."""
        cdef terms_t terms
        cdef record_t* copy
        cdef int outcome
        catalog[0] = -1
        if where == NULL:
            answer_unknown(answer)
            return DECIDED
        copy = record_copy(where[0])
        if copy == NULL:
            return NO_MEMORY
        catalog[0] = copy.catalog
        self.terms(&terms, catalog[0])
        outcome = decide(&terms, &copy, request, now, answer, False)
        free(copy)
        return outcome

    @cython.final
    cdef int run_recalled(self, request_t* request, int64_t now, answer_t* answer, int* catalog) except -1:
        """The same for an account that was demoted: recalled first, as often as it takes."""
        cdef int outcome = NOT_HERE
        while outcome == NOT_HERE:
            self.recall(request.account.at[:request.account.size])
            pthread_mutex_lock(&self._mutex)
            outcome = self.run(request, now, answer, catalog)
            pthread_mutex_unlock(&self._mutex)
        return outcome

    @cython.final
    cdef Decision blank(self, Request request, int64_t now):
        """A decision to be filled in."""
        cdef Decision decision = Decision.__new__(Decision)
        decision._catalogs = self._catalogs
        decision._request = request
        decision._now = now
        return decision

    @cython.final
    cdef object finish(self, Decision decision, int outcome, int past_draw, int catalog):
        """The decision, or the error that stopped it."""
        if outcome != DECIDED:
            return self.error_of(decision._request, outcome, past_draw)
        if catalog >= 0:
            decision._rules = <Rules>self._catalogs.rules[catalog]
        return decision

    @cython.final
    cdef object error_of(self, Request request, int outcome, int past_draw):
        """What an outcome is called in Python."""
        if outcome == CONFLICT:
            return AlreadyExists(f"request_id {request.request_id!r} of account {request.account!r} stands for another request")
        if outcome == HOLD_TOO_LONG:
            return InvalidArgument("hold_ms", request.hold_ms, f"at most {self._bounds.hold_us_max // 1000} (hold_ms_max)")
        if outcome == NO_MEMORY:
            return MemoryError()
        meter, amount = list(request.draws.items())[past_draw] if request.c.draw_count else ("the default meter", 1)
        if outcome == PROMPT_AMOUNT:
            return InvalidArgument(f"draws[{past_draw}].amount", amount, f"0 or 1 of {meter} with a prompt_id: a call is one prompt's")
        if outcome == METER_ABSENT:
            return InvalidArgument(f"draws[{past_draw}].meter", meter, "a meter of the plan that the request was admitted under")
        return InvalidArgument(f"draws[{past_draw}].amount", amount, f"at most 10^12 units; of {meter} this is more")

    @cython.final
    cdef object deliver(self, Decision decision, int outcome, const answer_t* answer, int catalog):
        """The decision with its answer. Raises the error that stopped it."""
        if outcome == DECIDED:
            outcome = decision.take(answer)
        made = self.finish(decision, outcome, answer.past_draw, catalog)
        if outcome != DECIDED:
            raise made
        return made

    cpdef object admit(self, Request request, int64_t now):
        """Decide and, if allowed, charge. Raises AlreadyExists for the id of another request, InvalidArgument for a draw of more than 10^12
        units, or of more than one of what folds into a prompt."""
        cdef Decision decision = self.blank(request, now)
        cdef answer_t answer
        cdef int catalog, outcome
        pthread_mutex_lock(&self._mutex)
        outcome = self.run(&request.c, now, &answer, &catalog)
        pthread_mutex_unlock(&self._mutex)
        if outcome == NOT_HERE:
            outcome = self.run_recalled(&request.c, now, &answer, &catalog)
        return self.deliver(decision, outcome, &answer, catalog)

    cpdef object peek(self, Request request, int64_t now):
        """What admit would say. Changes nothing, and is not counted."""
        cdef Decision decision = self.blank(request, now)
        cdef answer_t answer
        cdef int catalog, outcome
        where = self.lock_find(request._account, False)
        outcome = self.look(where, &request.c, now, &answer, &catalog)
        pthread_mutex_unlock(&self._mutex)
        return self.deliver(decision, outcome, &answer, catalog)

    @cython.final
    cdef void fetch(self, request_t** group, int count) noexcept nogil:
        """Hash a group's accounts and have the processor fetch what they need, step by step: chunks, records' heads, the rest of them."""
        cdef const record_t* records[GROUP]
        cdef int i
        for i in range(count):
            table_prefetch(&self._table, self.account_hash(group[i]))
            PREFETCH(group[i].account.at)
        for i in range(count):
            records[i] = table_probable(&self._table, group[i].hash)
            if records[i] != NULL:
                record_prefetch(records[i], 0, HEAD_BYTES)
        for i in range(count):
            if records[i] != NULL:
                record_prefetch(records[i], HEAD_BYTES, records[i].size)
                if group[i].id.size:
                    side_prefetch(records[i].side)
        for i in range(count):
            if group[i].id.size and records[i] != NULL:
                side_prefetch_queues(records[i].side)

    cpdef list admit_many(self, object requests, int64_t now):
        """Decide each in turn, at one moment. An InvalidArgument among them, or an error that a request meets, is returned in its place."""
        cdef list made = list(requests)
        cdef Py_ssize_t i
        for i in range(len(made)):
            item = made[i]
            if type(item) is Request:
                made[i] = self.blank(<Request>item, now)
            elif not isinstance(item, InvalidArgument):
                raise TypeError(f"requests must be Request objects, not {type(item).__name__}")
        for i in range(0, len(made), GROUP):
            self.admit_group(made, i, min(i + GROUP, len(made)), now)
        return made

    @cython.final
    cdef int admit_group(self, list made, Py_ssize_t start, Py_ssize_t end, int64_t now) except -1:
        """Fill in the blank decisions among made[start:end], in one hold of the mutex."""
        cdef Decision decision
        cdef request_t* group[GROUP]
        cdef Py_ssize_t places[GROUP]
        cdef int outcomes[GROUP]
        cdef int catalogs[GROUP]
        cdef int past[GROUP]
        cdef answer_t answer
        cdef Py_ssize_t place
        cdef int i, count = 0
        for place in range(start, end):
            if type(made[place]) is Decision:
                decision = <Decision>made[place]
                group[count] = &decision._request.c
                places[count] = place
                count += 1
        pthread_mutex_lock(&self._mutex)
        self.fetch(group, count)
        for i in range(count):
            decision = <Decision>made[places[i]]
            outcomes[i] = self.run(group[i], now, &answer, &catalogs[i])
            past[i] = answer.past_draw
            if outcomes[i] == DECIDED:
                outcomes[i] = decision.take(&answer)
        pthread_mutex_unlock(&self._mutex)
        for i in range(count):
            if outcomes[i] == NOT_HERE:
                made[places[i]] = self.admit_or_error((<Decision>made[places[i]])._request, now)
                continue
            finished = self.finish(<Decision>made[places[i]], outcomes[i], past[i], catalogs[i])
            if outcomes[i] == NO_MEMORY:
                raise finished
            if outcomes[i] != DECIDED:
                made[places[i]] = finished
        return 0

    @cython.final
    cdef object admit_or_error(self, Request request, int64_t now):
        try:
            return self.admit(request, now)
        except (AlreadyExists, InvalidArgument) as error:
            return error

    def admit_packed(self, PackedRequests requests not None, int64_t now):
        """Decide each in turn, at one moment, in one hold of the mutex. The verdicts' numbers as bytes; 0 = an error."""
        cdef bytearray verdicts = bytearray(requests.count)
        cdef uint8_t* at = <uint8_t*>PyByteArray_AS_STRING(verdicts)
        cdef request_t* group[GROUP]
        cdef answer_t answer
        cdef Py_ssize_t start = 0
        cdef int i, count, catalog, outcome = DECIDED
        pthread_mutex_lock(&self._mutex)
        while start < requests.count and outcome != NO_MEMORY:
            count = <int>min(<Py_ssize_t>GROUP, requests.count - start)
            for i in range(count):
                group[i] = &requests.at[start + i]
            self.fetch(group, count)
            for i in range(count):
                outcome = self.run(group[i], now, &answer, &catalog)
                if outcome == DECIDED:
                    at[start + i] = <uint8_t>answer.verdict
                elif outcome == NOT_HERE:
                    pthread_mutex_unlock(&self._mutex)
                    at[start + i] = self.verdict_of(group[i], now)
                    pthread_mutex_lock(&self._mutex)
                elif outcome == NO_MEMORY:
                    break
            start += GROUP
        pthread_mutex_unlock(&self._mutex)
        if outcome == NO_MEMORY:
            raise MemoryError
        return bytes(verdicts)

    @cython.final
    cdef int verdict_of(self, request_t* request, int64_t now) except -1:
        """The verdict on a request of an account that was demoted; 0 = an error."""
        cdef answer_t answer
        cdef int catalog, outcome = self.run_recalled(request, now, &answer, &catalog)
        return answer.verdict if outcome == DECIDED else 0
