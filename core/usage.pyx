"""Usage: how an account stands, copied out while the mutex is held and made into Python's values after."""


cdef struct standing_t:
    int limit_count
    int concurrency_count
    int hold_count
    state_t states[LIMITS_MAX]
    in_flight_state_t in_flight[CONCURRENCY_MAX]
    admission_t** holds             # copies of the open ones


cdef bint standing_take(standing_t* self, const terms_t* terms, const record_t* record, int64_t now) noexcept nogil:
    """Copy it; false without memory. With the mutex held."""
    cdef const plan_t* plan = rules_plan(terms.rules, record.plan)
    cdef const side_t* side = record.side
    cdef seen_t seen = record_seen(record, &terms.rules.zone, now)
    cdef int i
    self.limit_count = plan.limit_count
    for i in range(plan.limit_count):
        self.states[i] = account_limit_state(&plan.limits[i], record, &seen)
    self.concurrency_count = 0
    for i in range(plan.concurrency_count):
        self.in_flight[self.concurrency_count] = in_flight_state(&plan.concurrency[i], terms.rules, side, terms.capacity, seen.now)
        self.concurrency_count += self.in_flight[self.concurrency_count].limit != UNLIMITED
    self.hold_count = 0
    self.holds = NULL
    if side == NULL or side.holds.count == 0:
        return True
    self.holds = <admission_t**>malloc(side.holds.count * sizeof(admission_t*))
    if self.holds == NULL:
        return False
    for i in range(side.holds.first, side.holds.first + side.holds.count):
        if admission_open(side.holds.at[i], seen.now):
            self.holds[self.hold_count] = admission_copy(side.holds.at[i])
            if self.holds[self.hold_count] == NULL:
                return False
            self.hold_count += 1
    return True


cdef void standing_free(standing_t* self) noexcept nogil:
    cdef int i
    for i in range(self.hold_count):
        free(self.holds[i])
    free(self.holds)


cdef object open_hold_of(const admission_t* hold, Labels labels):
    cdef int i
    charged = {}
    for i in range(hold.moved_count):
        pool = labels.name(admission_moved(hold)[i].pool)
        charged[pool] = charged.get(pool, 0) + admission_moved(hold)[i].micro
    return OpenHold(
        admission_id(hold)[:hold.id_size].decode(),
        "" if hold.model in (MODEL_NONE, MODEL_UNKNOWN_LABEL) else labels.name(hold.model),
        hold.admitted_at // 1000,
        milliseconds_up(hold.until),
        charged,
    )


cdef object usage_of(const standing_t* self, str account, str plan, Rules rules, Catalogs catalogs):
    cdef int i
    return Usage(
        account,
        catalogs.version(rules.number),
        plan,
        tuple([limit_state_of(rules, catalogs.labels, &self.states[i]) for i in range(self.limit_count)]),
        tuple([open_hold_of(self.holds[i], catalogs.labels) for i in range(self.hold_count)]),
        tuple([
            ConcurrencyState(catalogs.labels.name(self.in_flight[i].rule), self.in_flight[i].effective, self.in_flight[i].count)
            for i in range(self.concurrency_count)
        ]),
    )
