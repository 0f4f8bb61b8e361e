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
    cdef const rules_t* _catalogs[CATALOGS_MAX]
    cdef uint16_t _catalog_labels[CATALOGS_MAX]
    cdef Labels _labels
    cdef list _rules                # the Rules in force, by number of catalog
    cdef dict _catalog_numbers      # name -> number
    cdef int _wording               # number of the catalog that words the refusal of unknown accounts
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
        self._labels = Labels()
        self._rules = []
        self._catalog_numbers = {}
        self._accounts_by_plan = {}

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
                            free(tables[j].at[i].records[slot])
                chunks_free(tables[j])
        free(self._counters.at)
        pthread_mutex_destroy(&self._mutex)

    # ---- Catalogs ----

    def load(self, spec, str version not None):
        """Put a catalog in force, in place of the one of its name if there is one.

        Raises FailedPrecondition if a plan that accounts are on would vanish; the old version then stays.
        """
        cdef Rules rules = Rules.__new__(Rules)
        cdef int number
        rules.name, rules.version, rules.spec = spec.name, version, spec
        rules.refusals = dict(spec.refusals)
        rules._kept, rules._blocks = [], []
        rules.c.serial = next_serial()
        rules.build(spec, self._labels)
        label = self._labels.number(spec.name)
        number = self._catalog_numbers.get(spec.name, len(self._rules))
        if number == CATALOGS_MAX:
            raise FailedPrecondition(f"more than {CATALOGS_MAX} catalogs in one process")
        self.refuse_orphans(number, spec)
        pthread_mutex_lock(&self._mutex)
        self._catalogs[number] = &rules.c
        pthread_mutex_unlock(&self._mutex)
        self._catalog_labels[number] = label
        if number == len(self._rules):
            self._rules.append(rules)
            self._catalog_numbers[spec.name] = number
        else:
            self._rules[number] = rules
        return rules

    cdef int refuse_orphans(self, int number, object spec) except -1:
        names = {plan.name for plan in spec.plans}
        orphans = {
            self._labels.name(label): count
            for (catalog, label), count in self._accounts_by_plan.items()
            if catalog == number and count and self._labels.name(label) not in names
        }
        if orphans:
            listed = ", ".join(f"{count} on {name}" for name, count in sorted(orphans.items()))
            raise FailedPrecondition(f"catalog {spec.name}: accounts are on plans that the new version lacks: {listed}")
        return 0

    def word_unknown_by(self, str catalog not None):
        """Let that catalog word the refusal of accounts that do not exist; at first it is the one loaded first."""
        self._wording = self._catalog_numbers[catalog]

    def rules(self):
        """The Rules in force, in order of their first load."""
        return tuple(self._rules)

    def accounts_by_plan(self):
        """(catalog name, plan name) -> number of accounts, those above 0."""
        return {
            (self._rules[number].name, self._labels.name(label)): count
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
        """With the mutex held."""
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(id)
        return table_find(&self._table, at, <uint32_t>len(id), self.hash_of(at, <uint32_t>len(id)))

    def put(self, str account not None, str catalog not None, str plan not None, int64_t subscribed_at, int period, int64_t expires_at):
        """Add an account, or change one and keep what it has drawn. `expires_at` 0 means no end. The catalog and plan must exist."""
        cdef bytes id = text_bytes("id", account, 1, ACCOUNT_BYTES_MAX)
        cdef int number = self._catalog_numbers[catalog]
        cdef uint16_t label = self._labels.number(plan)
        cdef record_t** where
        cdef record_t* record
        cdef uint64_t hash = self.hash_of(<const uint8_t*>PyBytes_AS_STRING(id), <uint32_t>len(id))
        cdef bint stored = True
        cdef int catalog_before = -1, plan_before = -1
        if rules_plan(self._catalogs[number], label) == NULL:
            raise KeyError(plan)
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
        if where != NULL:
            record = where[0]
            catalog_before, plan_before = record.catalog, record.plan
        else:
            record = record_new(<const uint8_t*>PyBytes_AS_STRING(id), <uint16_t>len(id), hash, 0)
            stored = record != NULL and table_add(&self._table, record)
        if stored:
            record.catalog, record.plan, record.period = number, label, period
            record.subscribed_at = subscribed_at
            record.expires_at = expires_at if expires_at else NEVER
        pthread_mutex_unlock(&self._mutex)
        if not stored:
            free(record)
            raise MemoryError
        self.count_plan((catalog_before, plan_before) if catalog_before >= 0 else None, -1)
        self.count_plan((number, label), 1)

    cdef int count_plan(self, object plan, int by) except -1:
        if plan is not None:
            self._accounts_by_plan[plan] = self._accounts_by_plan.get(plan, 0) + by
        return 0

    cdef tuple account_row(self, const account_t* account):
        return (
            account.id[:account.id_size].decode(),
            (<Rules>self._rules[account.catalog]).name,
            self._labels.name(account.plan),
            account.subscribed_at,
            account.period,
            0 if account.expires_at == NEVER else account.expires_at,
        )

    def get(self, str account not None):
        """(id, catalog, plan, subscribed_at, period, expires_at), or None."""
        cdef bytes id = id_sought(account)
        cdef account_t found
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
        if where != NULL:
            account_copy(&found, where[0])
        pthread_mutex_unlock(&self._mutex)
        return self.account_row(&found) if where != NULL else None

    def delete(self, str account not None):
        """Forget an account and all it has drawn; whether it was there."""
        cdef bytes id = id_sought(account)
        cdef record_t** where
        cdef record_t* record
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
        record = where[0] if where != NULL else NULL
        if where != NULL:
            table_remove(&self._table, where)
        pthread_mutex_unlock(&self._mutex)
        if record == NULL:
            return False
        self.count_plan((record.catalog, record.plan), -1)
        free(record)
        return True

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
        return self._table.count

    # ---- Decisions ----

    cdef int run(self, request_t* request, int64_t now, answer_t* answer, int* catalog) noexcept nogil:
        """Decide one request and count it. With the mutex held. `catalog` becomes -1 for an unknown account."""
        cdef record_t** where = table_find(
            &self._table, request.account.at, request.account.size, self.account_hash(request))
        cdef int outcome
        if where == NULL:
            answer_unknown(answer)
            catalog[0] = -1
            counters_add(&self._counters, counter_kind(0, 0, 0, ACCOUNT_UNKNOWN, RULE_ACCOUNT))
            return DECIDED
        catalog[0] = where[0].catalog
        if where[0].seen_at > now + BEHIND_US_MAX:
            self._behind += 1
        outcome = decide(self._catalogs[catalog[0]], where, request, now, answer)
        if outcome == DECIDED:
            self.count(where[0], request, answer)
        return outcome

    cdef void count(self, const record_t* record, const request_t* request, const answer_t* answer) noexcept nogil:
        cdef uint16_t model = MODEL_NONE
        if answer.model >= 0:
            model = self._catalogs[record.catalog].models[answer.model].label
        elif request.model.size:
            model = MODEL_UNKNOWN_LABEL
        counters_add(&self._counters, counter_kind(
            self._catalog_labels[record.catalog], record.plan, model, answer.verdict, answer.rule))

    cdef Decision blank(self, Request request, int64_t now):
        """A decision to be filled in."""
        cdef Decision decision = Decision.__new__(Decision)
        decision._labels = self._labels
        decision._request = request
        decision._now = now
        return decision

    cdef object finish(self, Decision decision, int outcome, int past_draw, int catalog):
        """The decision, or the InvalidArgument that stopped it."""
        if outcome != DECIDED:
            if outcome == NO_MEMORY:
                raise MemoryError
            return self.past_range(decision._request, past_draw)
        if catalog >= 0:
            decision._rules = <Rules>self._rules[catalog]
            decision._wording = decision._rules
        elif self._rules:
            decision._wording = <Rules>self._rules[self._wording]
        return decision

    cdef object deliver(self, Decision decision, int outcome, const answer_t* answer, int catalog):
        """The decision with its answer. Raises the InvalidArgument that stopped it."""
        if outcome == DECIDED:
            outcome = decision.take(answer)
        made = self.finish(decision, outcome, answer.past_draw, catalog)
        if outcome != DECIDED:
            raise made
        return made

    cdef object past_range(self, Request request, int draw):
        meter, amount = list(request.draws.items())[draw] if request.c.draw_count else ("the default meter", 1)
        return InvalidArgument(f"draws[{draw}].amount", amount, f"at most 10^12 units; of {meter} this is more")

    cpdef object admit(self, Request request, int64_t now):
        """Decide and, if allowed, charge. Raises InvalidArgument for a draw of more than 10^12 units."""
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
        cdef int catalog = -1, outcome = DECIDED
        cdef record_t* copy = NULL
        pthread_mutex_lock(&self._mutex)
        where = self.find(request._account)
        if where == NULL:
            answer_unknown(&answer)
        else:
            catalog = where[0].catalog
            copy = record_copy(where[0])
            outcome = decide(self._catalogs[catalog], &copy, &request.c, now, &answer) if copy != NULL else NO_MEMORY
        pthread_mutex_unlock(&self._mutex)
        free(copy)
        return self.deliver(decision, outcome, &answer, catalog)

    cdef void fetch(self, request_t** group, int count) noexcept nogil:
        """Hash a group's accounts and have the processor fetch what they need, step by step: chunks, records' heads, the rest of them."""
        cdef const record_t* records[GROUP]
        cdef int i
        for i in range(count):
            table_prefetch(&self._table, self.account_hash(group[i]))
        for i in range(count):
            records[i] = table_probable(&self._table, group[i].hash)
            if records[i] != NULL:
                record_prefetch(records[i], 0, HEAD_BYTES)
        for i in range(count):
            if records[i] != NULL:
                record_prefetch(records[i], HEAD_BYTES, records[i].size)

    cpdef list admit_many(self, object requests, int64_t now):
        """Decide each in turn, at one moment. An InvalidArgument among them, or one that a request meets, is returned in its place."""
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
            if outcomes[i] != DECIDED:
                made[places[i]] = finished
        return 0

    def admit_packed(self, PackedRequests requests not None, int64_t now):
        """Decide each in turn, at one moment, in one hold of the mutex. The verdicts' numbers as bytes; 0 = past the range."""
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

    def usage(self, str account not None, int64_t now):
        """Every limit of the account's plan as it stands; None if there is no such account."""
        cdef bytes id = id_sought(account)
        cdef seen_t seen
        cdef state_t states[LIMITS_MAX]
        cdef const plan_t* plan
        cdef const limit_t* limit
        cdef slot_t* slot
        cdef Rules rules
        cdef int i
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
        if where == NULL:
            pthread_mutex_unlock(&self._mutex)
            return None
        record = where[0]
        rules = <Rules>self._rules[record.catalog]
        plan = rules_plan(&rules.c, record.plan)
        seen.zone = &rules.c.zone
        seen.now = max(now, record.seen_at)
        seen.subscribed_at = record.subscribed_at
        for i in range(plan.limit_count):
            limit = &plan.limits[i]
            slot = record_slot(record, limit.key)
            states[i] = limit_state(limit, &seen, slot, record_log(record, slot) if slot != NULL else NULL)
        pthread_mutex_unlock(&self._mutex)
        return Usage(
            account,
            CatalogVersion(rules.name, rules.version),
            self._labels.name(plan.label),
            tuple([limit_state_of(rules, &states[i]) for i in range(plan.limit_count)]),
        )

    # ---- Blobs ----

    def encode(self, str account not None, uint64_t tag):
        """The account's record as a blob that bears `tag`; None if there is no such account."""
        cdef bytes id = id_sought(account)
        cdef record_t* copy = NULL
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
        if where != NULL:
            copy = record_copy(where[0])
        pthread_mutex_unlock(&self._mutex)
        if where == NULL:
            return None
        if copy == NULL:
            raise MemoryError
        try:
            return encode_record(copy, self._labels, self._rules[copy.catalog].name, tag)
        finally:
            free(copy)

    def decode(self, str account not None, bytes blob not None):
        """Put the account as the blob has it, in place of the one of that id. Raises CorruptRecord; nothing is changed then."""
        cdef bytes id = text_bytes("account", account, 1, ACCOUNT_BYTES_MAX)
        cdef uint64_t hash = self.hash_of(<const uint8_t*>PyBytes_AS_STRING(id), <uint32_t>len(id))
        cdef record_t* record = decode_record(id, hash, blob, self._labels, self._catalog_numbers)
        cdef record_t* before = NULL
        cdef bint stored = True
        after = (record.catalog, record.plan)
        if rules_plan(self._catalogs[record.catalog], record.plan) == NULL:
            free(record)
            raise CorruptRecord(f"record of {account!r}: its catalog has no plan {self._labels.name(after[1])!r}")
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
        if where != NULL:
            before = where[0]
            where[0] = record
        else:
            stored = table_add(&self._table, record)
        pthread_mutex_unlock(&self._mutex)
        if not stored:
            free(record)
            raise MemoryError
        self.count_plan((before.catalog, before.plan) if before != NULL else None, -1)
        self.count_plan(after, 1)
        free(before)

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
        for i in range((<uint64_t>1) << copy.bits):
            kind = copy.at[i].kind
            if kind:
                rows.append((
                    self._labels.name(kind >> 53), self._labels.name(kind >> 37 & 0xffff), self._labels.name(kind >> 21 & 0xffff),
                    kind & 31, self._labels.name(kind >> 5 & 0xffff), copy.at[i].count,
                ))
        free(copy.at)
        return rows

    @property
    def behind_count(self):
        """Decisions whose account had been seen more than 5 s after the caller's time: a clock went back."""
        return self._behind
