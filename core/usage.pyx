"""Usage: how an account stands, as Python's values."""


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
