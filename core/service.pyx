"""The service: messages of the data port in, messages out, without a Python object and without the GIL.

What is served here, the handlers of the server would answer with the same bytes. All else is handed to them, before anything is decided: what has
to be refused in words, accounts that have to be fetched from a store, and what there is no memory for.
"""

cdef enum verb_t:                   # as SERVED_METHODS
    ADMIT = 0
    ADMIT_BATCH = 1
    PEEK = 2
    SETTLE = 3
    RENEW = 4
    GET_USAGE = 5
    SHOULD_RATE_LIMIT = 6

cdef enum:
    LIMITED_BYTES_MAX = 2 * (DESCRIPTORS_MAX + ITEMS_MAX) * ITEM_BYTES_MAX      # of a RateLimitResponse that allows

SERVED_METHODS = ("Admit", "AdmitBatch", "Peek", "Settle", "Renew", "GetUsage", "ShouldRateLimit")


@cython.final
@cython.auto_pickle(False)
cdef class Service:
    """Serves a ledger's data port. A batch has at most `batch_items_max` items. Envoy's descriptors mean nothing until `set_domains`."""

    cdef Ledger _ledger
    cdef size_t _batch_items_max
    cdef uint64_t _domains          # address of the domains_t in force
    cdef list _kept                 # every Domains that ever was: somebody may be reading

    def __cinit__(self, Ledger ledger not None, size_t batch_items_max):
        self._ledger = ledger
        self._batch_items_max = batch_items_max
        self._kept = []
        self.set_domains(Domains(()))

    def set_domains(self, Domains domains not None):
        """Read descriptors under these domains from now on."""
        self._kept.append(domains)
        atomic_write(&self._domains, <uint64_t>&domains.c)

    cdef int serve(
        self, int method, const uint8_t* at, size_t size, int64_t now, buffer_t* out, uint64_t* ticket, size_t* rest
    ) noexcept nogil:
        """Answer a request message: SERVED, with the response appended to `out`, which may leave once `ticket` is durable (0: at once); or HANDED.
        What is handed starts at `rest`: not 0 where the first items of a batch were decided, and their results are in `out`."""
        cdef size_t start = out.size
        cdef wire_t wire = wire_of(at, size)
        cdef int served = HANDED
        ticket[0] = rest[0] = 0
        if out.failed:
            return HANDED
        if method == ADMIT:
            served = self.admit(wire, now, out, ticket)
        elif method == ADMIT_BATCH:
            served = self.admit_batch(wire, now, out, ticket, rest)
        elif method == PEEK:
            served = self.peek(wire, now, out)
        elif method == SETTLE:
            served = self.settle(wire, now, out, ticket)
        elif method == RENEW:
            served = self.renew(wire, now, out, ticket)
        elif method == GET_USAGE:
            served = self.get_usage(wire, now, out)
        elif method == SHOULD_RATE_LIMIT:
            served = self.should_rate_limit(wire, now, out, ticket)
        if rest[0] == 0 and (served == HANDED or out.failed):
            out.size, out.failed = start, False
            ticket[0] = 0
            return HANDED
        return served

    # ---- Admit, AdmitBatch, Peek ----

    cdef int admit(self, wire_t wire, int64_t now, buffer_t* out, uint64_t* ticket) noexcept nogil:
        cdef asked_t asked
        cdef int outcome
        if not asked_admit(&asked, wire, DEPTH_MAX):
            return HANDED
        asked_complete(&asked)
        pthread_mutex_lock(&self._ledger._mutex)
        outcome = self.admit_into(&asked.request, now, out, ticket)
        pthread_mutex_unlock(&self._ledger._mutex)
        return SERVED if outcome == DECIDED else HANDED

    cdef void admit_all(self, asking_t* askings, int count, int64_t now, buffer_t* out) noexcept nogil:
        """Answer each of at most GROUP messages of Admit as `serve` would, in one hold of the mutex."""
        cdef asked_t asked[GROUP]
        cdef request_t* group[GROUP]
        cdef asking_t* places[GROUP]
        cdef int i, read = 0
        for i in range(count):
            askings[i].served = HANDED
            if asked_admit(&asked[read], wire_of(askings[i].at, askings[i].size), DEPTH_MAX):
                asked_complete(&asked[read])
                group[read], places[read] = &asked[read].request, &askings[i]
                read += 1
        pthread_mutex_lock(&self._ledger._mutex)
        self._ledger.fetch(group, read)
        for i in range(read):
            self.admit_asking(places[i], group[i], now, out)
        pthread_mutex_unlock(&self._ledger._mutex)

    cdef void admit_asking(self, asking_t* asking, request_t* request, int64_t now, buffer_t* out) noexcept nogil:
        asking.start, asking.ticket = out.size, 0
        if buffer_reserve(out, PREFIX_BYTES) == NULL:
            return
        out.size += PREFIX_BYTES
        if self.admit_into(request, now, out, &asking.ticket) == DECIDED:
            asking.end, asking.served = out.size, SERVED
        else:
            out.size, out.failed = asking.start, False

    cdef int admit_into(self, request_t* request, int64_t now, buffer_t* out, uint64_t* ticket) noexcept nogil:
        """Decide and write the answer; `ticket` is raised to its own. With the mutex held. Room for an answer that allows is there before anything
        is charged; what else might lack room leaves nothing behind, or is the same when it is asked for again."""
        cdef answer_t answer
        cdef int catalog, outcome
        if buffer_reserve(out, self._ledger._catalogs.answer_bytes_max + TEXT_BYTES_MAX) == NULL:
            return NO_MEMORY
        outcome = self._ledger.run(request, now, &answer, &catalog)
        if outcome != DECIDED:
            return outcome
        self.write(&answer, catalog, request, now, out)
        ticket[0] = max(ticket[0], answer.ticket)
        return DECIDED if not out.failed else NO_MEMORY

    cdef void write(self, const answer_t* answer, int catalog, const request_t* request, int64_t now, buffer_t* out) noexcept nogil:
        cdef words_t words
        self.words(&words, catalog)
        answer_write(answer, &words, request, now, out)

    cdef void words(self, words_t* words, int catalog) noexcept nogil:
        """What numbers are called under a catalog, -1 being that of an unknown account, for as long as the mutex is held."""
        words.labels = self._ledger._catalogs.labels.at
        words.versions = self._ledger._catalogs.versions
        words.rules = words.wording = NULL
        if catalog >= 0:
            words.rules = words.wording = self._ledger._catalogs.in_force[catalog].rules
        else:
            words.wording = self._ledger._catalogs.in_force[self._ledger._catalogs.wording].rules

    cdef int admit_batch(self, wire_t wire, int64_t now, buffer_t* out, uint64_t* ticket, size_t* rest) noexcept nogil:
        """The message is read twice: whole, so that nothing is decided of one that has to be refused, and again in groups."""
        cdef const uint8_t* start = wire.at
        cdef asked_t asked[GROUP]
        cdef request_t* group[GROUP]
        cdef size_t places[GROUP]       # where each item's field begins
        cdef int count = GROUP, decided
        if not batch_fits(wire, self._batch_items_max, DEPTH_MAX):
            return HANDED
        while count == GROUP:
            count = 0
            while count < GROUP:
                places[count] = wire.at - start
                if not asked_item(&asked[count], &wire, DEPTH_MAX):
                    break
                asked_complete(&asked[count])
                group[count] = &asked[count].request
                count += 1
            pthread_mutex_lock(&self._ledger._mutex)
            decided = self.admit_group(group, count, now, out, ticket)
            pthread_mutex_unlock(&self._ledger._mutex)
            if decided < count:
                rest[0] = places[decided]
                return HANDED
        return SERVED

    cdef int admit_group(self, request_t** group, int count, int64_t now, buffer_t* out, uint64_t* ticket) noexcept nogil:
        """Decide each in turn and write the results; how many, up to the first that cannot be answered here. With the mutex held."""
        cdef size_t start, result, response
        cdef int i
        self._ledger.fetch(group, count)
        for i in range(count):
            start = out.size
            result = put_open(out, 1)
            response = put_open(out, 1)
            if self.admit_into(group[i], now, out, ticket) != DECIDED:
                out.size, out.failed = start, False
                return i
            put_close(out, response)
            put_close(out, result)
        return count

    cdef int peek(self, wire_t wire, int64_t now, buffer_t* out) noexcept nogil:
        cdef asked_t asked
        cdef answer_t answer
        cdef record_t** where
        cdef int outcome, catalog
        if not asked_admit(&asked, wire, DEPTH_MAX):
            return HANDED
        asked_complete(&asked)
        pthread_mutex_lock(&self._ledger._mutex)
        where = self._ledger.seek(&asked.request, &outcome)
        if outcome != NOT_HERE:
            outcome = self._ledger.look(where, &asked.request, now, &answer, &catalog)
        if outcome == DECIDED:
            self.write(&answer, catalog, &asked.request, now, out)
        pthread_mutex_unlock(&self._ledger._mutex)
        return SERVED if outcome == DECIDED else HANDED

    # ---- Settle, Renew, GetUsage ----

    cdef int settle(self, wire_t wire, int64_t now, buffer_t* out, uint64_t* ticket) noexcept nogil:
        cdef asked_t asked
        cdef settled_t settled
        cdef record_t** where
        cdef uint64_t content
        cdef int outcome
        if not asked_settle(&asked, wire, DEPTH_MAX):
            return HANDED
        content = settlement_fingerprint(asked.mode == CANCEL, asked.draws, asked.request.draw_count)
        pthread_mutex_lock(&self._ledger._mutex)
        where = self._ledger.seek(&asked.request, &outcome)
        if where != NULL:
            outcome = self._ledger.settle_at(where, &asked.request, asked.mode == CANCEL, content, now, &settled)
        if outcome == DECIDED:
            settled_write(&settled, self._ledger._catalogs.labels.at, out)
        ticket[0] = self._ledger._track.ticket
        pthread_mutex_unlock(&self._ledger._mutex)
        return SERVED if outcome == DECIDED else HANDED

    cdef int renew(self, wire_t wire, int64_t now, buffer_t* out, uint64_t* ticket) noexcept nogil:
        cdef asked_t asked
        cdef record_t** where
        cdef int64_t hold, hold_until
        cdef int outcome
        if not asked_renew(&asked, wire, DEPTH_MAX):
            return HANDED
        hold = asked.hold_ms * 1000
        pthread_mutex_lock(&self._ledger._mutex)
        where = self._ledger.seek(&asked.request, &outcome)
        if hold > self._ledger._bounds.hold_us_max:
            outcome = HOLD_TOO_LONG
        elif where != NULL:
            outcome = self._ledger.renew_at(where[0], &asked.request, hold, now, &hold_until)
        if outcome == DECIDED:
            renewed_write(hold_until, out)
        ticket[0] = self._ledger._track.ticket
        pthread_mutex_unlock(&self._ledger._mutex)
        return SERVED if outcome == DECIDED else HANDED

    cdef int get_usage(self, wire_t wire, int64_t now, buffer_t* out) noexcept nogil:
        cdef asked_t asked
        cdef record_t** where
        cdef int outcome
        if not asked_usage(&asked, wire, DEPTH_MAX):
            return HANDED
        pthread_mutex_lock(&self._ledger._mutex)
        where = self._ledger.seek(&asked.request, &outcome)
        if where != NULL:
            outcome = self.usage_into(where[0], asked.request.account, now, out)
        pthread_mutex_unlock(&self._ledger._mutex)
        return SERVED if outcome == DECIDED else HANDED

    cdef int usage_into(self, const record_t* record, name_t account, int64_t now, buffer_t* out) noexcept nogil:
        cdef standing_t standing
        cdef terms_t terms
        cdef words_t words
        cdef bint taken
        self._ledger.terms(&terms, record.catalog)
        self.words(&words, record.catalog)
        taken = standing_take(&standing, &terms, record, now)
        if taken:
            standing_write(&standing, &words, terms.version, record.plan, account, out)
        standing_free(&standing)
        return DECIDED if taken else NO_MEMORY

    # ---- ShouldRateLimit ----

    cdef int should_rate_limit(self, wire_t wire, int64_t now, buffer_t* out, uint64_t* ticket) noexcept nogil:
        """Descriptors that charge are an Admit, those that charge nothing and open no hold a Peek."""
        cdef descriptors_t descriptors
        cdef asked_t* asked = &descriptors.asked
        cdef answer_t answer
        cdef record_t** where
        cdef int outcome, catalog
        if not descriptors_read(&descriptors, <const domains_t*>atomic_read(&self._domains), wire, DEPTH_MAX):
            return HANDED
        asked_complete(asked)
        if buffer_reserve(out, LIMITED_BYTES_MAX) == NULL:
            return HANDED
        pthread_mutex_lock(&self._ledger._mutex)
        if descriptors.records:
            outcome = self.record(&asked.request, now, &answer, &catalog)
        elif descriptors.checks and not descriptors.holds:
            where = self._ledger.seek(&asked.request, &outcome)
            if outcome != NOT_HERE:
                outcome = self._ledger.look(where, &asked.request, now, &answer, &catalog)
        else:
            outcome = self._ledger.run(&asked.request, now, &answer, &catalog)
        if outcome == DECIDED:
            self.write_limited(&answer, catalog, &descriptors, now, out)
            ticket[0] = answer.ticket
        pthread_mutex_unlock(&self._ledger._mutex)
        return SERVED if outcome == DECIDED else HANDED

    cdef int record(self, request_t* request, int64_t now, answer_t* answer, int* catalog) noexcept nogil:
        """Charge what already happened. An id that stands for an admission settles that; and what has happened keeps no place in flight, also
        where the plan opens a hold for every id. With the mutex held."""
        cdef settled_t settled
        cdef record_t** where
        cdef int draw_count = request.draw_count
        cdef int outcome = self._ledger.run(request, now, answer, catalog)
        cdef bint settles = outcome == CONFLICT
        if not settles and (outcome != DECIDED or answer.hold_until == 0):
            return outcome
        where = self._ledger.seek(request, &outcome)
        if not settles:
            request.draw_count = 0      # it stays as it was charged
        outcome = self._ledger.settle_at(
            where, request, False, settlement_fingerprint(False, request.draws, request.draw_count), now, &settled)
        request.draw_count = draw_count
        if settles:
            answer_begin(answer)
            answer.verdict = ALLOWED
        answer.ticket = self._ledger._track.ticket
        return outcome

    cdef void write_limited(
        self, const answer_t* answer, int catalog, const descriptors_t* descriptors, int64_t now, buffer_t* out
    ) noexcept nogil:
        cdef words_t words
        cdef limited_t limited
        self.words(&words, catalog)
        limited.refused = answer_refused(answer, &words, &descriptors.asked.request)
        limited.wait = answer_wait_us(answer, &words, now)
        limited.states, limited.state_count = answer.states, answer.state_count
        limited.records, limited.now = descriptors.records, now
        limited.style, limited.headers = descriptors.style, descriptors.domain.headers
        limited.count = descriptors.count
        memcpy(limited.draws, descriptors.draws, sizeof(descriptors.draws))
        limited_write(&limited, &words, out)

    def answer(self, int method, bytes message not None, int64_t now):
        """(whether it is served, the response, its ticket, where the rest begins): `serve` for callers in Python."""
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(message)
        cdef size_t size = len(message), rest
        cdef buffer_t out
        cdef uint64_t ticket
        cdef int served
        if not 0 <= method < len(SERVED_METHODS):
            raise ValueError(method)
        buffer_init(&out)
        with nogil:
            served = self.serve(method, at, size, now, &out, &ticket, &rest)
        try:
            return served == SERVED, out.at[:out.size], ticket, rest
        finally:
            buffer_free(&out)


cdef int service_serve(
    void* service, int method, const uint8_t* at, size_t size, int64_t now, buffer_t* out, uint64_t* ticket, size_t* rest
) noexcept nogil:
    """`serve` for a front, which knows a service by its address."""
    return (<Service>service).serve(method, at, size, now, out, ticket, rest)


cdef void service_serve_all(void* service, asking_t* askings, int count, int64_t now, buffer_t* out) noexcept nogil:
    (<Service>service).admit_all(askings, count, now, out)
