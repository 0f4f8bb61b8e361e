# cython: cdivision=True
"""Asks: a request resolved against one catalog and one account.

A `request_t` is what came in: borrowed names and amounts. An `ask_t` is what it means: which plan, model, tool and meters, which
limits it touches, what it costs each of them at a given moment. Everything that depends on time takes the moment as an argument,
because the search for the wait asks the same of moments to come.
"""
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from amounts cimport amount_add, amount_cost, ctz, ratio_t
from log cimport entry_t
from names cimport NAME_ABSENT, name_t, names_get
from record cimport record_log, record_slot_after, record_t
from rules cimport (
    LIMITS_MAX, bit_has, limit_t, members_has, meter_t, model_t, model_weight, plan_t, rules_model, rules_t,
    sooner,
)
from window cimport NEVER, seen_t, slot_t, window_fit

cdef enum verdict_t:                # as quota.types.Verdict; the order is the order of precedence
    ALLOWED = 1
    ACCOUNT_UNKNOWN = 2
    ACCOUNT_INACTIVE = 3
    SUBSCRIPTION_EXPIRED = 6
    TOOL_UNSUPPORTED = 7
    ENDPOINT_UNSUPPORTED = 8
    MODEL_UNKNOWN = 9
    MODEL_NOT_IN_PLAN = 10
    METER_NOT_IN_PLAN = 11
    AMOUNT_TOO_LARGE = 13
    LIMIT_EXHAUSTED = 14
    BURST = 15

cdef enum rule_t:                   # labels of rules that every catalog has, interned first and in this order
    RULE_NONE = 0
    RULE_ACCOUNT = 1
    RULE_SUBSCRIBED_AT = 2
    RULE_EXPIRES_AT = 3
    RULE_TOOLS = 4
    RULE_ENDPOINTS = 5
    RULE_MODELS = 6
    RULE_METERS = 7
    MODEL_NONE = 0
    MODEL_UNKNOWN_LABEL = 8         # for a model the catalog does not know

cdef enum:
    DRAWS_MAX = 16

cdef struct draw_t:
    name_t meter
    uint64_t amount

cdef struct request_t:
    name_t account                  # exact bytes; its `hash` is not used
    name_t model                    # size 0: none
    name_t tool
    name_t endpoint                 # without a slash at the end
    bint explain
    int draw_count                  # 0: one of the default meter
    const draw_t* draws             # at most DRAWS_MAX, no meter twice

cdef struct touched_t:              # a limit that the request draws on
    const limit_t* limit
    slot_t* slot                    # NULL: nothing was ever drawn
    entry_t* log
    uint32_t draws                  # mask of those that it counts
    bint refuses                    # at the moment of the decision
    int64_t cost                    # micro-units, at the weight it was last priced at

cdef struct ask_t:
    const rules_t* rules
    const plan_t* plan
    int plan_index
    seen_t seen
    int32_t model                   # NAME_ABSENT: none
    int32_t tool
    bint weighted                   # some meter drawn is
    int draw_count
    const meter_t* meters[DRAWS_MAX]
    int meter_index[DRAWS_MAX]
    uint64_t amounts[DRAWS_MAX]
    int64_t costs[DRAWS_MAX]
    int touched_count
    touched_t touched[LIMITS_MAX]

cdef struct flaw_t:                 # what no waiting cures, and the rule that says so
    int verdict
    uint16_t rule


# ---- Names ----

cdef inline bint ask_endpoint(const ask_t* self, name_t endpoint) noexcept nogil:
    cdef const rules_t* rules = self.rules
    cdef bint bound = self.tool >= 0 and rules.tool_bound[self.tool]
    cdef int32_t index
    if endpoint.size == 0 or (rules.any_endpoint and not bound):
        return True
    index = names_get(&rules.endpoints, endpoint)
    if index == NAME_ABSENT:
        return False
    return ((rules.tool_endpoints[self.tool] if bound else rules.open_endpoints) >> index) & 1


cdef inline flaw_t ask_names(ask_t* self, const request_t* request) noexcept nogil:
    """Resolve every name. The first flaw in order of precedence, or ALLOWED. Names after a flaw may be unresolved."""
    cdef const rules_t* rules = self.rules
    cdef flaw_t flaw
    cdef int i
    cdef int32_t index
    self.model = self.tool = NAME_ABSENT
    if request.model.size:
        self.model = rules_model(rules, request.model)
    if request.tool.size:
        self.tool = names_get(&rules.tools, request.tool)
    if self.tool == NAME_ABSENT and not rules.any_tool:
        flaw.verdict, flaw.rule = TOOL_UNSUPPORTED, RULE_TOOLS
        return flaw
    if not ask_endpoint(self, request.endpoint):
        flaw.verdict, flaw.rule = ENDPOINT_UNSUPPORTED, RULE_ENDPOINTS
        return flaw
    flaw.verdict, flaw.rule = ALLOWED, RULE_NONE
    self.weighted = False
    self.draw_count = max(request.draw_count, 1)
    for i in range(self.draw_count):
        index = names_get(&rules.meters, request.draws[i].meter) if request.draw_count else rules.default_meter
        if index == NAME_ABSENT:
            flaw.verdict, flaw.rule = METER_NOT_IN_PLAN, RULE_METERS
            continue
        self.meter_index[i] = index
        self.meters[i] = &rules.meter_at[index]
        self.amounts[i] = request.draws[i].amount if request.draw_count else 1
        self.weighted = self.weighted or self.meters[i].weighted
        if self.meters[i].pools & ~self.plan.pools and flaw.verdict == ALLOWED:
            flaw.verdict, flaw.rule = METER_NOT_IN_PLAN, self.meters[i].rule
    if self.model == NAME_ABSENT and not rules.any_model and (request.model.size or self.weighted):
        flaw.verdict, flaw.rule = MODEL_UNKNOWN, RULE_MODELS
    return flaw


# ---- Moments ----

cdef inline bint ask_has_model(const ask_t* self, int64_t now, int64_t* next) noexcept nogil:
    return self.model < 0 or members_has(&self.rules.models[self.model].members, self.plan_index, now, next)


cdef inline flaw_t ask_lack(const ask_t* self, int64_t now, int64_t* next) noexcept nogil:
    """What the plan lacks at `now` by its dates, of model and meters; ALLOWED if nothing. All names must have been resolved."""
    cdef flaw_t flaw
    cdef int i
    flaw.verdict, flaw.rule = ALLOWED, RULE_NONE
    for i in range(self.draw_count):
        if not members_has(&self.meters[i].members, self.plan_index, now, next) and flaw.verdict == ALLOWED:
            flaw.verdict, flaw.rule = METER_NOT_IN_PLAN, self.meters[i].rule
    if not ask_has_model(self, now, next):
        flaw.verdict, flaw.rule = MODEL_NOT_IN_PLAN, self.rules.models[self.model].rule
    return flaw


cdef inline int64_t ask_date(const ask_t* self, int64_t now) noexcept nogil:
    """The first date after `now` that changes a weight or a membership; schedules apart."""
    cdef int64_t next = NEVER
    cdef const model_t* model
    cdef int i
    ask_lack(self, now, &next)
    if self.weighted and self.model >= 0:
        model = &self.rules.models[self.model]
        for i in range(model.weight_count):
            sooner(&next, model.weights[i].since, now)
            sooner(&next, model.weights[i].until, now)
    return next


cdef inline ratio_t ask_weight(const ask_t* self, int64_t now, int64_t* next) noexcept nogil:
    cdef ratio_t one
    if self.weighted and self.model >= 0:
        return model_weight(self.rules, &self.rules.models[self.model], self.tool, now, next)
    one.num = one.den = 1
    return one


cdef inline int ask_price(ask_t* self, ratio_t weight) noexcept nogil:
    """Cost every draw and every touched limit at `weight`. The first draw past its range, or -1; it then costs INT64_MAX."""
    cdef ratio_t one
    cdef touched_t* touched
    cdef int i, j, past = -1
    one.num = one.den = 1
    for i in range(self.draw_count):
        self.costs[i] = amount_cost(self.amounts[i], self.meters[i].per_unit, weight if self.meters[i].weighted else one)
        if self.costs[i] < 0:
            self.costs[i] = INT64_MAX
            past = i if past < 0 else past
    for j in range(self.touched_count):
        touched = &self.touched[j]
        touched.cost = self.costs[0]
        if self.draw_count > 1:
            touched.cost = 0
            for i in range(self.draw_count):
                if (touched.draws >> i) & 1:
                    touched.cost = amount_add(touched.cost, self.costs[i])
    return past


# ---- Limits ----

cdef inline void ask_touch(ask_t* self, const record_t* record) noexcept nogil:
    """Find the limits that the draws count against, in plan order, and what the record holds under them."""
    cdef const limit_t* limit
    cdef touched_t* touched
    cdef uint64_t limits = 0
    cdef int i, j
    self.touched_count = 0
    for i in range(self.draw_count):
        limits |= self.plan.by_meter[self.meter_index[i]]
    while limits:
        j = ctz(limits)
        limits &= limits - 1
        limit = &self.plan.limits[j]
        if limit.narrowed and not (bit_has(limit.models, self.model) and bit_has(limit.tools, self.tool)):
            continue
        touched = &self.touched[self.touched_count]
        touched.limit = limit
        touched.draws = 0
        for i in range(self.draw_count):
            touched.draws |= <uint32_t>((self.plan.by_meter[self.meter_index[i]] >> j) & 1) << i
        self.touched_count += 1
    ask_find(self, record)


cdef inline void ask_find(ask_t* self, const record_t* record) noexcept nogil:
    """Point at the slots of `record`; again after it was remade."""
    cdef touched_t* touched
    cdef int j, place = 0
    for j in range(self.touched_count):
        touched = &self.touched[j]
        touched.slot = record_slot_after(record, touched.limit.key, &place)
        touched.log = record_log(record, touched.slot) if touched.slot != NULL else NULL


cdef inline int64_t touched_fit(const touched_t* self, const seen_t* seen, int64_t start) noexcept nogil:
    """The first moment from `start` on at which the limit has room. An amount of 0 asks whether anything is left."""
    return window_fit(&self.limit.window, seen, self.slot, self.log, max(self.cost, <int64_t>1), start)
