"""The ledger: every account's record, the catalogs in force, and the only door to both.

One C mutex guards it. A decision is one hold of that mutex, from the first look to the last charge, whichever thread it comes from
and whether that thread holds the GIL or not. Nothing is awaited, allocated in Python or called back while it is held.
"""

cdef uint64_t SERIALS = 0           # given out to rules and ledgers, never twice in a process

cdef enum:
    GROUP = 16                      # requests whose memory is fetched together
    HEAD_BYTES = 256                # of a record: a light user's is no longer
    BEHIND_US_MAX = 5000000         # an account's time this far ahead of the caller's is worth an alarm

cdef uint64_t next_serial():
    global SERIALS
    SERIALS += 1
    return SERIALS


cdef bytes id_sought(str account):
    """An id to look up. Text without a UTF-8 form is nobody's: it becomes bytes that no record has."""
    return account.encode("utf-8", "surrogatepass")


cdef void answer_unknown(answer_t* answer) noexcept nogil:
    answer_begin(answer)
    answer.verdict, answer.rule = ACCOUNT_UNKNOWN, RULE_ACCOUNT


@cython.final
cdef class Ledger:
    """Accounts and catalogs. Times are int microseconds since the epoch; `hash_key` is 16 secret random bytes."""

    cdef pthread_mutex_t _mutex
    cdef table_t _table
    cdef counters_t _counters
    cdef uint64_t _serial
    cdef uint64_t _key_0
    cdef uint64_t _key_1
    cdef uint64_t _behind
    cdef uint64_t _replays
    cdef forgotten_t _forgotten
    cdef spares_t _spares
    cdef track_t _track
    cdef uint64_t _deleted          # tombstones in the table
    cdef bounds_t _bounds
    cdef int64_t _capacity
    cdef Catalogs _catalogs
    cdef dict _accounts_by_plan     # (catalog number, plan label) -> count

    def __cinit__(self, bytes hash_key not None):
        if len(hash_key) != 16:
            raise ValueError("hash_key must have 16 bytes")
        self._key_0 = int.from_bytes(hash_key[:8], "little")
        self._key_1 = int.from_bytes(hash_key[8:], "little")
        self._serial = next_serial()
        pthread_mutex_init(&self._mutex, NULL)
        if not table_init(&self._table) or not counters_init(&self._counters, 6):
            raise MemoryError
        self._catalogs = Catalogs()
        self._accounts_by_plan = {}
        self._capacity = MICRO
        self.bound(Bounds())

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

    cdef void terms(self, terms_t* terms, int catalog) noexcept nogil:
        """What decisions under a catalog are made under. With the mutex held."""
        terms.rules = self._catalogs.in_force[catalog].rules
        terms.version = self._catalogs.in_force[catalog].version
        terms.versions = self._catalogs.versions
        terms.capacity = self._capacity
        terms.bounds = &self._bounds
        terms.forgotten = &self._forgotten
        terms.spares = &self._spares

    def __dealloc__(self):
        cdef chunks_t* tables[2]
        cdef uint64_t i
        cdef int j, slot
        tables[0], tables[1] = &self._table.new, &self._table.old
        for j in range(2):
            if tables[j].block != NULL:
                for i in range((<uint64_t>1) << tables[j].bits):
                    for slot in range(CHUNK_RECORDS):
                        if tables[j].at[i].tags[slot]:
                            record_free(tables[j].at[i].records[slot])
                chunks_free(tables[j])
        free(self._counters.at)
        track_free(&self._track)
        for j in range(self._spares.count):
            free(self._spares.at[j])
        pthread_mutex_destroy(&self._mutex)

    # ---- Catalogs ----

    def load(self, spec, str version not None):
        """Put a catalog in force, in place of the one of its name if there is one.

        Raises FailedPrecondition if a plan that accounts are on would vanish; the old version then stays.
        """
        cdef Rules rules = Rules.__new__(Rules)
        rules.name, rules.version, rules.spec = spec.name, version, spec
        rules.refusals = dict(spec.refusals)
        rules._kept, rules._blocks = [], []
        rules.c.serial = next_serial()
        rules.build(spec, self._catalogs.labels)
        number = self._catalogs.numbers.get(spec.name, len(self._catalogs.rules))
        if number == CATALOGS_MAX:
            raise FailedPrecondition(f"more than {CATALOGS_MAX} catalogs in one process")
        self.refuse_orphans(number, spec)
        self._catalogs.load(rules, &self._mutex)
        return rules

    cdef int refuse_orphans(self, int number, object spec) except -1:
        labels = self._catalogs.labels
        names = {plan.name for plan in spec.plans}
        orphans = {
            labels.name(label): count
            for (catalog, label), count in self._accounts_by_plan.items()
            if catalog == number and count and labels.name(label) not in names
        }
        if orphans:
            listed = ", ".join(f"{count} on {name}" for name, count in sorted(orphans.items()))
            raise FailedPrecondition(f"catalog {spec.name}: accounts are on plans that the new version lacks: {listed}")
        return 0

    def word_unknown_by(self, str catalog not None):
        """Let that catalog word the refusal of accounts that do not exist; at first it is the one loaded first."""
        self._catalogs.wording = self._catalogs.numbers[catalog]

    def rules(self):
        """The Rules in force, in order of their first load."""
        return tuple(self._catalogs.rules)

    def accounts_by_plan(self):
        """(catalog name, plan name) -> number of accounts, those above 0."""
        labels = self._catalogs.labels
        return {
            (self._catalogs.rules[number].name, labels.name(label)): count
            for (number, label), count in self._accounts_by_plan.items()
            if count
        }

    # ---- Accounts ----

    cdef uint64_t hash_of(self, const uint8_t* id, uint32_t size) noexcept nogil:
        return siphash(self._key_0, self._key_1, id, size)

    cdef uint64_t account_hash(self, request_t* request) noexcept nogil:
        """The hash of a request's account, kept with the request for the next time."""
        if request.hashed_by != self._serial:
            request.hash = self.hash_of(request.account.at, request.account.size)
            request.hashed_by = self._serial
        return request.hash

    cdef record_t** find(self, bytes id) noexcept:
        """Where an account is, or NULL. With the mutex held."""
        cdef record_t** where = self.find_any(id)
        return where if where != NULL and not where[0].flags & DELETED else NULL

    cdef record_t** find_any(self, bytes id) noexcept:
        """Likewise, tombstones too."""
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(id)
        return table_find(&self._table, at, <uint32_t>len(id), self.hash_of(at, <uint32_t>len(id)))

    def put(
        self, str account not None, str catalog not None, str plan not None, int64_t subscribed_at, int period, int64_t expires_at,
        overrides=(),
    ):
        """Add an account, or change one and keep what it has drawn. `expires_at` 0 means no end. `overrides` are pairs of a limit's id
        and whole units, at most 16, and replace all there were. The catalog and plan must exist."""
        cdef bytes id = text_bytes("id", account, 1, ACCOUNT_BYTES_MAX)
        cdef int number = self._catalogs.numbers[catalog]
        cdef uint16_t label = self._catalogs.labels.number(plan)
        cdef record_t** where
        cdef record_t* record
        cdef uint64_t hash = self.hash_of(<const uint8_t*>PyBytes_AS_STRING(id), <uint32_t>len(id))
        cdef override_t own[OVERRIDES_MAX]
        cdef int own_count = self.read_overrides(overrides, own)
        cdef bint stored = True
        cdef int catalog_before = -1, plan_before = -1
        if rules_plan(self._catalogs.in_force[number].rules, label) == NULL:
            raise KeyError(plan)
        pthread_mutex_lock(&self._mutex)
        where = self.find_any(id)
        if where != NULL:
            record = where[0]
            if not record.flags & DELETED:
                catalog_before, plan_before = record.catalog, record.plan
        else:
            record = record_new(<const uint8_t*>PyBytes_AS_STRING(id), <uint16_t>len(id), hash, 0)
            stored = record != NULL and table_add(&self._table, record)
        if stored and track_reserve(&self._track) and record_override(record, own, own_count):
            self._deleted -= record.flags & DELETED != 0
            record.flags &= ~DELETED
            track_note(&self._track, record)
            record.catalog, record.plan, record.period = number, label, period
            record.subscribed_at = subscribed_at
            record.expires_at = expires_at if expires_at else NEVER
        elif stored:
            stored = False
            if where == NULL:
                table_remove(&self._table, self.find_any(id))
        pthread_mutex_unlock(&self._mutex)
        if not stored:
            if where == NULL:
                record_free(record)
            raise MemoryError
        self.count_plan((catalog_before, plan_before) if catalog_before >= 0 else None, -1)
        self.count_plan((number, label), 1)

    cdef int read_overrides(self, object overrides, override_t* own) except -1:
        cdef int count = 0
        if len(overrides) > OVERRIDES_MAX:
            raise ValueError(len(overrides))
        for limit_id, units in overrides:
            own[count].rule, own[count].limit = self._catalogs.labels.number(limit_id), units
            count += 1
        return count

    cdef int count_plan(self, object plan, int by) except -1:
        if plan is not None:
            self._accounts_by_plan[plan] = self._accounts_by_plan.get(plan, 0) + by
        return 0

    cdef tuple account_row(self, const account_t* account):
        cdef int i
        labels = self._catalogs.labels
        return (
            account.id[:account.id_size].decode(),
            (<Rules>self._catalogs.rules[account.catalog]).name,
            labels.name(account.plan),
            account.subscribed_at,
            account.period,
            0 if account.expires_at == NEVER else account.expires_at,
            tuple([(labels.name(account.overrides[i].rule), account.overrides[i].limit) for i in range(account.override_count)]),
        )

    def get(self, str account not None):
        """(id, catalog, plan, subscribed_at, period, expires_at, pairs of limit id and units), or None."""
        cdef bytes id = id_sought(account)
        cdef account_t found
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
        if where != NULL:
            account_copy(&found, where[0])
        pthread_mutex_unlock(&self._mutex)
        return self.account_row(&found) if where != NULL else None

    def delete(self, str account not None, int64_t now, bint purge):
        """Delete an account; whether it was there. Without `purge` a tombstone stays: what was drawn is found again if the account is put."""
        cdef bytes id = id_sought(account)
        cdef record_t** where
        cdef record_t* record
        cdef bint done = True
        pthread_mutex_lock(&self._mutex)
        where = self.find_any(id) if purge else self.find(id)
        if where == NULL:
            pthread_mutex_unlock(&self._mutex)
            return False
        record = where[0]
        catalog, plan, deleted = record.catalog, record.plan, record.flags & DELETED != 0
        if not purge:
            done = track_reserve(&self._track)
            if done:
                record.seen_at = max(record.seen_at, now)
                record.flags |= DELETED
                self._deleted += 1
                track_note(&self._track, record)
        else:
            done = track_purge_reserve(&self._track)
            if done:
                self._deleted -= deleted
                table_remove(&self._table, where)
                track_purge(&self._track, record)
        pthread_mutex_unlock(&self._mutex)
        if not done:
            raise MemoryError
        if not deleted:
            self.count_plan((catalog, plan), -1)
        return not deleted

    def page(self, uint64_t start, int count):
        """About `count` accounts in the table's own order, from the place `start` (0 = the beginning) on, and the place after them.

        None in place of the latter is the end.
        """
        cdef gathered_t gathered
        cdef uint64_t end
        cdef size_t i
        gathered.at = NULL
        gathered.count = gathered.room = 0
        try:
            pthread_mutex_lock(&self._mutex)
            end = gather(&gathered, &self._table.new, start, count)
            if end and self._table.old.bits:
                end = min(end, gather(&gathered, &self._table.old, start, count))
            pthread_mutex_unlock(&self._mutex)
            if end == 0:
                raise MemoryError
            rows = {(gathered.at[i].hash, self.account_row(&gathered.at[i])) for i in range(gathered.count) if gathered.at[i].hash <= end}
        finally:
            free(gathered.at)
        found = sorted(rows)
        if len(found) > count:
            end = found[count - 1][0]
            found = [row for row in found if row[0] <= end]     # two accounts of one hash stay together
        return [account for _, account in found], None if end == UINT64_MAX else end + 1

    @property
    def account_count(self):
        return self._table.count - self._deleted

    # ---- Decisions ----

    cdef int run(self, request_t* request, int64_t now, answer_t* answer, int* catalog) noexcept nogil:
        """Decide one request and count it. With the mutex held. `catalog` becomes -1 for an unknown account."""
        cdef record_t** where = table_find(
            &self._table, request.account.at, request.account.size, self.account_hash(request))
        cdef terms_t terms
        cdef int outcome
        if where == NULL or where[0].flags & DELETED:
            answer_unknown(answer)
            catalog[0] = -1
            counters_add(&self._counters, counter_kind(0, 0, 0, ACCOUNT_UNKNOWN, RULE_ACCOUNT))
            return DECIDED
        catalog[0] = where[0].catalog
        if where[0].seen_at > now + BEHIND_US_MAX:
            self._behind += 1
        if not track_reserve(&self._track):
            return NO_MEMORY
        self.terms(&terms, catalog[0])
        outcome = decide(&terms, where, request, now, answer, True)
        if outcome != DECIDED:
            return outcome
        if answer.replayed:
            self._replays += 1
            answer.ticket = self._track.ticket
        else:
            if answer.verdict == ALLOWED:
                answer.ticket = track_note(&self._track, where[0])
            counters_add(&self._counters, counter_kind(
                self._catalogs.in_force[catalog[0]].label, where[0].plan, answer.model, answer.verdict, answer.rule))
        return DECIDED

    cdef Decision blank(self, Request request, int64_t now):
        """A decision to be filled in."""
        cdef Decision decision = Decision.__new__(Decision)
        decision._catalogs = self._catalogs
        decision._request = request
        decision._now = now
        return decision

    cdef object finish(self, Decision decision, int outcome, int past_draw, int catalog):
        """The decision, or the error that stopped it."""
        if outcome != DECIDED:
            return self.error_of(decision._request, outcome, past_draw)
        if catalog >= 0:
            decision._rules = <Rules>self._catalogs.rules[catalog]
        return decision

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
        return self.deliver(decision, outcome, &answer, catalog)

    cpdef object peek(self, Request request, int64_t now):
        """What admit would say. Decides on a copy of the record, so that nothing can change, and is not counted."""
        cdef Decision decision = self.blank(request, now)
        cdef answer_t answer
        cdef terms_t terms
        cdef int catalog = -1, outcome = DECIDED
        cdef record_t* copy = NULL
        pthread_mutex_lock(&self._mutex)
        where = self.find(request._account)
        if where == NULL:
            answer_unknown(&answer)
        else:
            catalog = where[0].catalog
            self.terms(&terms, catalog)
            copy = record_copy(where[0])
            outcome = decide(&terms, &copy, &request.c, now, &answer, False) if copy != NULL else NO_MEMORY
        pthread_mutex_unlock(&self._mutex)
        free(copy)
        return self.deliver(decision, outcome, &answer, catalog)

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
            finished = self.finish(<Decision>made[places[i]], outcomes[i], past[i], catalogs[i])
            if outcomes[i] == NO_MEMORY:
                raise finished
            if outcomes[i] != DECIDED:
                made[places[i]] = finished
        return 0

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
                elif outcome == NO_MEMORY:
                    break
            start += GROUP
        pthread_mutex_unlock(&self._mutex)
        if outcome == NO_MEMORY:
            raise MemoryError
        return bytes(verdicts)

    # ---- Beside decisions ----

    def settle(self, str account not None, str request_id not None, object outcome, object draws, int64_t now):
        """Close an admission. Returns a Settlement. Raises NotFound, AlreadyExists, InvalidArgument; nothing is changed then."""
        cdef Request request = Request(account, request_id=request_id, draws=draws)
        cdef terms_t terms
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
        pthread_mutex_lock(&self._mutex)
        where = self.find(request._account)
        if where != NULL and not track_reserve(&self._track):
            result = NO_MEMORY
        elif where != NULL:
            self.terms(&terms, where[0].catalog)
            result = settle(&terms, where, &request.c, cancels, content, now, &settled)
            if result == DECIDED:
                track_note(&self._track, where[0])
        pthread_mutex_unlock(&self._mutex)
        if result == NOT_KNOWN:
            raise self.not_known(request, where != NULL)
        if result == CONFLICT:
            raise AlreadyExists(f"request {request_id!r} of account {account!r} was settled before, with another outcome or other draws")
        if result != DECIDED:
            raise self.error_of(request, result, settled.past_draw)
        return self.settlement_of(&settled)

    cdef object settlement_of(self, const settled_t* settled):
        cdef int i
        labels = self._catalogs.labels
        return Settlement(
            {labels.name(settled.pools[i].pool): settled.pools[i].charged for i in range(settled.pool_count) if settled.pools[i].charged},
            {labels.name(settled.pools[i].pool): settled.pools[i].refunded for i in range(settled.pool_count) if settled.pools[i].refunded},
            bool(settled.late),
        )

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
        pthread_mutex_lock(&self._mutex)
        where = self.find(request._account)
        if where != NULL and not track_reserve(&self._track):
            result = NO_MEMORY
        elif where != NULL:
            result = renew(where[0], &request.c, hold, now, &self._spares, &hold_until)
            if result == DECIDED:
                track_note(&self._track, where[0])
        pthread_mutex_unlock(&self._mutex)
        if result == HOLD_ENDED:
            raise FailedPrecondition(f"the hold of request {request_id!r} of account {account!r} has ended, or none was opened")
        if result != DECIDED:
            raise self.not_known(request, where != NULL) if result == NOT_KNOWN else MemoryError()
        return milliseconds_up(hold_until)

    def adjust(self, str account not None, str pool not None, str limit_id not None, int64_t micro, int64_t now):
        """Take (above 0) or give back (below 0) by hand, under the limits of the account's plan that `pool` or `limit_id` names, the other
        empty. Returns an Adjustment; None if there is no such account."""
        cdef bytes id = id_sought(account)
        cdef terms_t terms
        cdef adjusted_t adjusted
        cdef Rules rules
        cdef int i, outcome
        cdef uint16_t pool_label = self._catalogs.labels.number(pool), rule = self._catalogs.labels.number(limit_id)
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
        if where == NULL:
            pthread_mutex_unlock(&self._mutex)
            return None
        self.terms(&terms, where[0].catalog)
        outcome = NO_MEMORY
        if track_reserve(&self._track):
            outcome = adjust(&terms, where, pool_label, rule, micro, now, &adjusted)
            track_note(&self._track, where[0])
        rules = <Rules>self._catalogs.rules[where[0].catalog]
        pthread_mutex_unlock(&self._mutex)
        if outcome == NO_MEMORY:
            raise MemoryError
        states = tuple([limit_state_of(rules, &adjusted.states[i]) for i in range(adjusted.count)])
        return Adjustment({states[i].id: adjusted.moved[i] for i in range(adjusted.count)}, states)

    def usage(self, str account not None, int64_t now):
        """How the account stands, as a Usage; None if there is no such account."""
        cdef bytes id = id_sought(account)
        cdef terms_t terms
        cdef standing_t standing
        cdef Rules rules
        cdef int plan
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
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

    # ---- Blobs ----

    def encode(self, str account not None, uint64_t tag):
        """The account's record as a blob that bears `tag`; None if there is no such account."""
        cdef bytes id = id_sought(account)
        cdef uint8_t* at = NULL
        cdef uint64_t size = 0
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
        if where != NULL:
            at = encode_record(where[0], self._catalogs, tag, &size)
        pthread_mutex_unlock(&self._mutex)
        if where == NULL:
            return None
        if at == NULL:
            raise MemoryError
        try:
            return at[:size]
        finally:
            free(at)

    def decode(self, str account not None, bytes blob not None):
        """Put the account as the blob has it, in place of the one of that id. Raises CorruptRecord; nothing is changed then."""
        cdef bytes id = text_bytes("account", account, 1, ACCOUNT_BYTES_MAX)
        self.place(name_in(id), <const uint8_t*>PyBytes_AS_STRING(blob), len(blob))

    cdef int place(self, name_t id, const uint8_t* at, uint64_t size) except -1:
        """Put an account as a blob has it, tracked or not."""
        cdef uint64_t hash = self.hash_of(id.at, id.size)
        cdef record_t* record = decode_record(id, hash, at, size, self._catalogs, &self._mutex)
        cdef record_t* before = NULL
        cdef record_t** where
        cdef bint stored
        if rules_plan(self._catalogs.in_force[record.catalog].rules, record.plan) == NULL:
            plan = self._catalogs.labels.name(record.plan)
            record_free(record)
            raise corrupt(id, f"its catalog has no plan {plan!r}")
        pthread_mutex_lock(&self._mutex)
        where = table_find(&self._table, id.at, id.size, hash)
        stored = track_reserve(&self._track)
        if stored and where != NULL:
            before = where[0]
            record.flags |= before.flags & CHANGED
            where[0] = record
        elif stored:
            stored = table_add(&self._table, record)
        if stored:
            track_note(&self._track, record)
        pthread_mutex_unlock(&self._mutex)
        if not stored:
            record_free(record)
            raise MemoryError
        self.count_record(record, 1)
        if before != NULL:
            self.count_record(before, -1)
        record_free(before)
        return 0

    cdef int count_record(self, const record_t* record, int by) except -1:
        """Count an account, or a tombstone, in or out."""
        if record.flags & DELETED:
            self._deleted += by
        else:
            self.count_plan((record.catalog, record.plan), by)
        return 0

    # ---- Tracking: for a store ----

    def track(self):
        """Note changes from now on."""
        self._track.on = True

    @property
    def ticket(self):
        """Number of the latest change."""
        return self._track.ticket

    def take(self, uint64_t bytes_max):
        """The accounts changed since they were last taken, packed, about `bytes_max` of them at most; and the ticket up to which every change
        is in what was taken so far. Packed: u16 size, id, u32 size, blob; a blob of size 0 says that the account is gone."""
        cdef packed_t packed
        cdef uint64_t covered = 0
        cdef bint more = True
        packed.at, packed.size, packed.room = NULL, 0, 0
        with nogil:
            while more:             # some at a time: decisions go on in between
                pthread_mutex_lock(&self._mutex)
                more = take_some(&packed, &self._track, &self._table, self._catalogs, bytes_max, &covered)
                pthread_mutex_unlock(&self._mutex)
        try:
            if packed.failed:
                raise MemoryError
            return packed.at[:packed.size], covered
        finally:
            free(packed.at)

    def restore(self, bytes packed not None):
        """Put every account of a packed row, later ones in place of earlier; how many. Raises CorruptRecord; those before it are put."""
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(packed)
        cdef reader_t reader
        cdef reader_t blob
        cdef name_t id
        cdef Py_ssize_t count = 0
        reader.at, reader.end, reader.bad = at, at + len(packed), False
        while reader.at < reader.end:
            id = unpack_id(&reader)
            blob = unpack_blob(&reader)
            if reader.bad or not 0 < id.size <= ID_BYTES_MAX:
                raise CorruptRecord(f"packed records: damaged at byte {reader.at - at} of {len(packed)}")
            if blob.at == blob.end:
                self.delete(text_of(id), 0, True)
            else:
                self.place(id, blob.at, blob.end - blob.at)
            count += 1
        return count

    # ---- Figures ----

    def check(self):
        """Assert what must always hold of the table and of every record. For tests: nobody else may use the ledger meanwhile."""
        check_table(&self._table)

    def decisions(self):
        """(catalog, plan, model, verdict number, rule, count) of every kind of decision made; Peek is not counted."""
        cdef counters_t copy
        cdef uint64_t i, kind
        pthread_mutex_lock(&self._mutex)
        copied = counters_copy(&copy, &self._counters)
        pthread_mutex_unlock(&self._mutex)
        if not copied:
            raise MemoryError
        rows = []
        labels = self._catalogs.labels
        for i in range((<uint64_t>1) << copy.bits):
            kind = copy.at[i].kind
            if kind:
                rows.append((
                    labels.name(kind >> 53), labels.name(kind >> 37 & 0xffff), labels.name(kind >> 21 & 0xffff),
                    kind & 31, labels.name(kind >> 5 & 0xffff), copy.at[i].count,
                ))
        free(copy.at)
        return rows

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
