# cython: cdivision=True
"""Asks: a request resolved against one catalog and one account.

A `request_t` is what came in: borrowed names and amounts. An `ask_t` is what it means: which plan, model, tool and meters, which
limits it touches, what it costs each of them at a given moment. Everything that depends on time takes the moment as an argument,
because the search for the wait asks the same of moments to come.
"""
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

from amounts cimport MICRO, ctz, ratio_t
from log cimport entry_t
from names cimport NAME_ABSENT, name_t, names_get
from prompt cimport prompt_open, prompt_t
from record cimport record_log, record_slot_after, record_t
from rules cimport (
    LIMITS_MAX, POOLS_MAX, bit_has, limit_t, members_has, meter_t, model_t, model_weight, plan_t, rules_model, rules_t,
    sooner, weight_memo_t,
)
from side cimport OVERRIDES_MAX, override_t, side_override, side_prompt, side_t
from window cimport NEVER, seen_t, slot_t, window_fit, window_has_room, window_t

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
    CONCURRENCY = 16
    OVERLOADED = 17

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
    RULE_HOLDS = 9

cdef enum:
    DRAWS_MAX = 16

cdef struct draw_t:
    name_t meter
    uint64_t amount

cdef struct flaw_t:                 # what no waiting cures, and the rule that says so
    int verdict
    uint16_t rule

cdef struct resolved_t:             # what the names of a request mean under one version of a catalog
    uint64_t serial                 # of the rules; 0: not resolved yet
    int32_t model                   # NAME_ABSENT: none
    int32_t tool
    int32_t meter                   # of the first draw
    flaw_t flaw                     # first in order of precedence, the plan's pools apart; ALLOWED: none
    const plan_t* plan              # that `limits` is for; NULL: none yet
    uint64_t limits                 # mask of the plan's limits that the request counts against

cdef struct request_t:              # what every decision looks at stands first: two cache lines
    resolved_t resolved             # kept for the next time: a ready request is asked again and again
    uint64_t hashed_by              # serial of the ledger that `hash` is for; 0: none
    uint64_t hash                   # of the account
    name_t account                  # exact bytes; its `hash` is not used
    int64_t hold                    # microseconds; 0: none asked for
    name_t id                       # size 0: none
    int draw_count                  # 0: one of the default meter
    bint has_prompt
    bint records                    # the use already happened: limits do not refuse
    bint explain
    const draw_t* draws             # at most DRAWS_MAX, no meter twice
    name_t model                    # size 0: none
    name_t tool
    name_t endpoint                 # without a slash at the end
    uint64_t id_hash                # of the id, the same in every process
    uint64_t fingerprint            # of all that makes two requests the same, if there is an id
    uint64_t prompt[2]              # hash of the prompt's id, if it has one

cdef struct touched_t:              # a limit that the request draws on
    const limit_t* limit
    const window_t* window          # the limit's, or one with a limit of the account's own
    slot_t* slot                    # NULL: nothing was ever drawn
    entry_t* log
    uint32_t draws                  # mask of those that it counts
    bint refuses                    # at the moment of the decision
    bint skips                      # the prompt has paid for everything that it counts
    int64_t cost                    # micro-units, when it was last priced
    int64_t folded                  # of these, the share of the prompt

cdef struct ask_t:
    const rules_t* rules
    const plan_t* plan
    int plan_index
    seen_t seen
    int32_t model                   # NAME_ABSENT: none
    int32_t tool
    bint weighted                   # some meter drawn is
    bint records                    # limits do not refuse it
    const side_t* side              # the record's, or NULL
    uint32_t folded                 # mask of draws that fold into a prompt
    uint32_t calls                  # of these, the ones with an amount: with any, the request is a call of its prompt
    uint32_t folded_pools           # mask of the pools that those feed
    const prompt_t* prompt          # that it joins; NULL: none, or it begins one
    int64_t prompt_until            # the last moment at which that prompt is open
    int64_t units[POOLS_MAX]        # of folded_pools: what one unit of the prompt costs, when last priced
    int64_t dues[POOLS_MAX]         # of folded_pools: what of it has not been paid
    int draw_count
    const meter_t* meters[DRAWS_MAX]
    int meter_index[DRAWS_MAX]
    uint64_t amounts[DRAWS_MAX]
    int64_t costs[DRAWS_MAX]
    int touched_count
    touched_t touched[LIMITS_MAX]
    window_t own[OVERRIDES_MAX]     # windows with limits of the account's own

# ---- Names ----

cdef inline bint endpoint_open(const rules_t* rules, int32_t tool, name_t endpoint) noexcept nogil:
    cdef bint bound = tool >= 0 and rules.tool_bound[tool]
    cdef int32_t index
    if endpoint.size == 0 or (rules.any_endpoint and not bound):
        return True
    index = names_get(&rules.endpoints, endpoint)
    if index == NAME_ABSENT:
        return False
    return ((rules.tool_endpoints[tool] if bound else rules.open_endpoints) >> index) & 1


cdef inline int32_t draw_meter(const rules_t* rules, const request_t* request, int i) noexcept nogil:
    return names_get(&rules.meters, request.draws[i].meter) if request.draw_count else rules.default_meter


cdef inline flaw_t names_flaw(const rules_t* rules, const request_t* request, const resolved_t* resolved) noexcept nogil:
    """The first flaw of the names themselves, in order of precedence, or ALLOWED."""
    cdef flaw_t flaw
    cdef bint weighted = False, unknown = False
    cdef int32_t meter
    cdef int i
    for i in range(max(request.draw_count, 1)):
        meter = draw_meter(rules, request, i)
        unknown = unknown or meter == NAME_ABSENT
        weighted = weighted or (meter >= 0 and rules.meter_at[meter].weighted)
    flaw.verdict, flaw.rule = ALLOWED, RULE_NONE
    if resolved.tool == NAME_ABSENT and not rules.any_tool:
        flaw.verdict, flaw.rule = TOOL_UNSUPPORTED, RULE_TOOLS
    elif not endpoint_open(rules, resolved.tool, request.endpoint):
        flaw.verdict, flaw.rule = ENDPOINT_UNSUPPORTED, RULE_ENDPOINTS
    elif resolved.model == NAME_ABSENT and not rules.any_model and (request.model.size or weighted):
        flaw.verdict, flaw.rule = MODEL_UNKNOWN, RULE_MODELS
    elif unknown:
        flaw.verdict, flaw.rule = METER_NOT_IN_PLAN, RULE_METERS
    return flaw


cdef inline void request_resolve(request_t* self, const rules_t* rules) noexcept nogil:
    """Look every name up."""
    cdef resolved_t* resolved = &self.resolved
    resolved.model = rules_model(rules, self.model) if self.model.size else NAME_ABSENT
    resolved.tool = names_get(&rules.tools, self.tool) if self.tool.size else NAME_ABSENT
    resolved.meter = draw_meter(rules, self, 0)
    resolved.flaw = names_flaw(rules, self, resolved)
    resolved.plan = NULL
    resolved.serial = rules.serial


cdef inline flaw_t ask_names(ask_t* self, request_t* request) noexcept nogil:
    """What no waiting cures in the names or in the plan's pools; the first in order of precedence, or ALLOWED."""
    cdef const rules_t* rules = self.rules
    cdef flaw_t flaw
    cdef int i
    if request.resolved.serial != rules.serial:
        request_resolve(request, rules)
    self.model = request.resolved.model
    self.tool = request.resolved.tool
    self.records = request.records
    flaw = request.resolved.flaw
    self.draw_count = max(request.draw_count, 1)
    self.weighted = False
    if flaw.verdict != ALLOWED:
        return flaw
    ask_draw(self, 0, request.resolved.meter, request.draws[0].amount if request.draw_count else 1, &flaw)
    for i in range(1, request.draw_count):
        ask_draw(self, i, draw_meter(rules, request, i), request.draws[i].amount, &flaw)
    return flaw


cdef inline void ask_draw(ask_t* self, int i, int32_t meter, uint64_t amount, flaw_t* flaw) noexcept nogil:
    """Take in one draw; the first on a pool that the plan lacks is a flaw."""
    self.meter_index[i] = meter
    self.meters[i] = &self.rules.meter_at[meter]
    self.amounts[i] = amount
    self.weighted = self.weighted or self.meters[i].weighted
    if self.meters[i].pools & ~self.plan.pools and flaw.verdict == ALLOWED:
        flaw.verdict, flaw.rule = METER_NOT_IN_PLAN, self.meters[i].rule


cdef inline void ask_fold(ask_t* self, const request_t* request) noexcept nogil:
    """Which draws fold into the request's prompt, and whether that is open. It has one; all names must have been resolved."""
    cdef int i
    self.folded_pools = 0
    for i in range(self.draw_count):
        if self.meters[i].per_prompt:
            self.folded |= <uint32_t>1 << i
            self.folded_pools |= self.meters[i].pools
            if self.amounts[i]:
                self.calls |= <uint32_t>1 << i
    if self.folded and self.side != NULL:
        self.prompt = side_prompt(self.side, request.prompt)
        if self.prompt != NULL and not prompt_open(self.prompt, self.plan, self.seen.now):
            self.prompt = NULL
        if self.prompt != NULL:
            self.prompt_until = self.prompt.last_call_at + self.plan.prompt_idle


# ---- Moments ----

cdef inline bint ask_has_model(const ask_t* self, int64_t now, int64_t* next) noexcept nogil:
    return self.model < 0 or members_has(&self.rules.models[self.model].members, self.plan_index, now, next)


cdef inline flaw_t ask_lack(const ask_t* self, int64_t now, int64_t* next) noexcept nogil:
    """What the plan lacks at `now` by its dates, of model and meters; ALLOWED if nothing. All names must have been resolved.
    `next` is lowered to when that may change, or what the prompt has paid is void."""
    cdef flaw_t flaw
    cdef int i
    flaw.verdict, flaw.rule = ALLOWED, RULE_NONE
    for i in range(self.draw_count):
        if not members_has(&self.meters[i].members, self.plan_index, now, next) and flaw.verdict == ALLOWED:
            flaw.verdict, flaw.rule = METER_NOT_IN_PLAN, self.meters[i].rule
    if not ask_has_model(self, now, next):
        flaw.verdict, flaw.rule = MODEL_NOT_IN_PLAN, self.rules.models[self.model].rule
    if self.prompt != NULL:
        sooner(next, self.prompt_until + 1, now)
    return flaw


cdef inline int64_t ask_date(const ask_t* self, int64_t now) noexcept nogil:
    """The first date after `now` that changes a weight, a membership, or what the prompt has paid; schedules apart."""
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


cdef inline ratio_t ask_weight_now(const ask_t* self) noexcept nogil:
    """The weight at the moment of the decision, which is mostly that of the decision before."""
    cdef weight_memo_t* memo
    cdef int64_t next = NEVER
    if not self.weighted or self.model < 0 or self.rules.models[self.model].by_tool:
        return ask_weight(self, self.seen.now, NULL)
    memo = self.rules.models[self.model].memo
    if not memo.since <= self.seen.now < memo.until:
        memo.value = ask_weight(self, self.seen.now, &next)
        memo.since, memo.until = self.seen.now, next
    return memo.value


# ---- Limits ----

cdef inline uint64_t ask_limits(const ask_t* self) noexcept nogil:
    """Mask of the plan's limits that the draws count against."""
    cdef uint64_t limits = 0, left
    cdef const limit_t* limit
    cdef int i
    for i in range(self.draw_count):
        limits |= self.plan.by_meter[self.meter_index[i]]
    left = limits
    while left:
        i = ctz(left)
        left &= left - 1
        limit = &self.plan.limits[i]
        if limit.narrowed and not (bit_has(limit.models, self.model) and bit_has(limit.tools, self.tool)):
            limits &= ~(<uint64_t>1 << i)
    return limits


cdef inline uint32_t limit_draws(const ask_t* self, int limit) noexcept nogil:
    """Mask of the draws that it counts."""
    cdef uint32_t draws = 0
    cdef int i
    for i in range(self.draw_count):
        draws |= <uint32_t>((self.plan.by_meter[self.meter_index[i]] >> limit) & 1) << i
    return draws


cdef inline void ask_touch(ask_t* self, const record_t* record, uint64_t limits) noexcept nogil:
    """List the limits of the mask, in plan order, with what the record holds under them. Where there is one draw, and its cost is
    known, each costs that."""
    cdef touched_t* touched = &self.touched[0]
    cdef int i, place = 0
    while limits:
        i = ctz(limits)
        limits &= limits - 1
        touched.limit = &self.plan.limits[i]
        touched.window = &touched.limit.window
        touched.draws = 1 if self.draw_count == 1 else limit_draws(self, i)
        touched.refuses = touched.skips = False
        touched.cost = self.costs[0]
        touched.folded = 0
        touched.slot = record_slot_after(record, touched.limit.key, &place)
        touched.log = record_log(record, touched.slot) if touched.slot != NULL else NULL
        touched += 1
    self.touched_count = <int>(touched - &self.touched[0])
    if self.side != NULL and self.side.override_count:
        ask_override(self)


cdef inline void ask_touch_request(ask_t* self, const record_t* record, request_t* request) noexcept nogil:
    """Likewise for a request, which keeps the mask for the next time."""
    if request.resolved.plan != self.plan:
        request.resolved.limits = ask_limits(self)
        request.resolved.plan = self.plan
    ask_touch(self, record, request.resolved.limits)


cdef inline bint limit_own(const limit_t* limit, const side_t* side, window_t* own) noexcept nogil:
    """Whether the account has a limit of its own in place of this one; `own` is then the window with it."""
    cdef const override_t* found = side_override(side, limit.rule)
    if found == NULL:
        return False
    own[0] = limit.window
    own.limit = found.limit * MICRO
    return True


cdef inline void ask_override(ask_t* self) noexcept nogil:
    """Put the account's own limits in place of the plan's."""
    cdef int j, count = 0
    for j in range(self.touched_count):
        if limit_own(self.touched[j].limit, self.side, &self.own[count]):
            self.touched[j].window = &self.own[count]
            count += 1


cdef inline void ask_find(ask_t* self, const record_t* record) noexcept nogil:
    """Point at the slots of a record that was remade."""
    cdef touched_t* touched
    cdef int j, place = 0
    for j in range(self.touched_count):
        touched = &self.touched[j]
        touched.slot = record_slot_after(record, touched.limit.key, &place)
        touched.log = record_log(record, touched.slot) if touched.slot != NULL else NULL


cdef inline int64_t touched_fit(const touched_t* self, const seen_t* seen, int64_t start) noexcept nogil:
    """The first moment from `start` on at which the limit has room. An amount of 0 asks whether anything is left."""
    if self.skips:
        return start
    return window_fit(self.window, seen, self.slot, self.log, max(self.cost, <int64_t>1), start)


cdef inline bint touched_refuses(const touched_t* self, const seen_t* seen) noexcept nogil:
    """Whether the limit has no room now."""
    return not self.skips and not window_has_room(self.window, seen, self.slot, self.log, max(self.cost, <int64_t>1))
