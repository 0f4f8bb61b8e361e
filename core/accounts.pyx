"""Accounts: who is there, under which catalog and plan, found by a name.

The base of the ledger. One C mutex guards it all, whichever thread comes and whether it holds the GIL or not. While it is held nothing
is awaited, and no Python object is made.
"""

cdef uint64_t SERIALS = 0           # given out to rules and ledgers, never twice in a process


cdef uint64_t next_serial():
    global SERIALS
    SERIALS += 1
    return SERIALS


cdef bytes id_sought(str account):
    """An id to look up. Text without a UTF-8 form is nobody's: it becomes bytes that no record has."""
    return account.encode("utf-8", "surrogatepass")


@cython.internal
cdef class Accounts:
    """Accounts and catalogs. `hash_key` is 16 secret random bytes."""

    cdef pthread_mutex_t _mutex
    cdef table_t _table
    cdef track_t _track
    cdef uint64_t _serial
    cdef uint64_t _key_0
    cdef uint64_t _key_1
    cdef uint64_t _deleted          # tombstones in the table
    cdef uint64_t _demoted          # stubs in it
    cdef Catalogs _catalogs
    cdef dict _accounts_by_plan     # (catalog number, plan label) -> count

    def __cinit__(self, bytes hash_key not None):
        if len(hash_key) != 16:
            raise ValueError("hash_key must have 16 bytes")
        self._key_0 = int.from_bytes(hash_key[:8], "little")
        self._key_1 = int.from_bytes(hash_key[8:], "little")
        self._serial = next_serial()
        pthread_mutex_init(&self._mutex, NULL)
        if not table_init(&self._table):
            raise MemoryError
        self._catalogs = Catalogs()
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
                            record_free(tables[j].at[i].records[slot])
                chunks_free(tables[j])
        track_free(&self._track)
        pthread_mutex_destroy(&self._mutex)

    # ---- Catalogs ----

    def load(self, spec, str version not None):
        """Put a catalog in force, in place of the one of its name if there is one.

        Raises FailedPrecondition if a plan that accounts are on would vanish; the old version then stays.
        """
        return self.load_all([(spec, version)])[0]

    def load_all(self, catalogs):
        """Put several (spec, version) in force, whose names differ: all, or, where one cannot be, none. The Rules.

        They are built before the mutex is asked for; decisions wait for the exchange of some pointers.
        """
        cdef Rules rules
        cdef list built = [self.build(spec, version) for spec, version in catalogs]
        new = len([rules for rules in built if rules.name not in self._catalogs.numbers])
        if len(self._catalogs.rules) + new > CATALOGS_MAX:
            raise FailedPrecondition(f"more than {CATALOGS_MAX} catalogs in one process")
        for rules in built:
            self.refuse_orphans(rules.spec)
        for rules in built:
            self._catalogs.load(rules, &self._mutex)
        return tuple(built)

    @cython.final
    cdef Rules build(self, spec, str version):
        cdef Rules rules = Rules.__new__(Rules)
        rules.name, rules.version, rules.spec = spec.name, version, spec
        rules._kept, rules._blocks = [], []
        rules.c.serial = next_serial()
        rules.build(spec, self._catalogs.labels)
        self._catalogs.labels.number(rules.name)  # room for it is found now, or not at all
        return rules

    @cython.final
    cdef int refuse_orphans(self, object spec) except -1:
        labels = self._catalogs.labels
        number = self._catalogs.numbers.get(spec.name)
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

    @cython.final
    cdef uint64_t hash_of(self, const uint8_t* id, uint32_t size) noexcept nogil:
        return siphash(self._key_0, self._key_1, id, size)

    @cython.final
    cdef uint64_t account_hash(self, request_t* request) noexcept nogil:
        """The hash of a request's account, kept with the request for the next time."""
        if request.hashed_by != self._serial:
            request.hash = self.hash_of(request.account.at, request.account.size)
            request.hashed_by = self._serial
        return request.hash

    @cython.final
    cdef record_t** find(self, bytes id) noexcept:
        """Where an account is, or NULL. With the mutex held."""
        cdef record_t** where = self.find_any(id)
        return where if where != NULL and not where[0].flags & DELETED else NULL

    @cython.final
    cdef record_t** find_any(self, bytes id) noexcept:
        """Likewise, tombstones too."""
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(id)
        return table_find(&self._table, at, <uint32_t>len(id), self.hash_of(at, <uint32_t>len(id)))

    @cython.final
    cdef record_t** seek(self, request_t* request, int* outcome) noexcept nogil:
        """Where a request's account is, or NULL, and then why: NOT_KNOWN, or NOT_HERE if it was demoted. With the mutex held."""
        cdef record_t** where = table_find(
            &self._table, request.account.at, request.account.size, self.account_hash(request))
        outcome[0] = DECIDED
        if where == NULL or where[0].flags & DELETED:
            outcome[0] = NOT_KNOWN
        elif where[0].flags & DEMOTED:
            outcome[0] = NOT_HERE
        return where if outcome[0] == DECIDED else NULL

    @cython.final
    cdef record_t** lock_find(self, bytes id, bint any) except? NULL:
        """Take the mutex and find an account, recalled if it was demoted; NULL if there is none. With `any`, tombstones too. The mutex is
        held on return, unless it raises."""
        cdef record_t** where
        while True:
            pthread_mutex_lock(&self._mutex)
            where = self.find_any(id) if any else self.find(id)
            if where == NULL or not where[0].flags & DEMOTED:
                return where
            pthread_mutex_unlock(&self._mutex)
            self.recall(id)

    cdef int recall(self, bytes id) except -1:
        """Bring a demoted account back; the archive does."""
        raise NotImplementedError

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
        where = self.lock_find(id, True)
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

    @cython.final
    cdef int read_overrides(self, object overrides, override_t* own) except -1:
        cdef int count = 0
        if len(overrides) > OVERRIDES_MAX:
            raise ValueError(len(overrides))
        for limit_id, units in overrides:
            own[count].rule, own[count].limit = self._catalogs.labels.number(limit_id), units
            count += 1
        return count

    @cython.final
    cdef int count_plan(self, object plan, int by) except -1:
        if plan is not None:
            self._accounts_by_plan[plan] = self._accounts_by_plan.get(plan, 0) + by
        return 0

    @cython.final
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
        where = self.lock_find(id, purge)
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
