# cython: cdivision=True
"""Rules: one version of a catalog as the core decides by it. Built once (rules.pyx), then never changed, so that whoever holds a
version may read it without a lock; a new version is a new object. (A model's weight of the moment is noted for the next decision, under the
ledger's mutex.)

Names are resolved to indices, sets to bit masks (pools 32, meters and endpoints 64) or bit sets (models, tools), moments to
microseconds. A `label` is the ledger's number for a name that outlives any catalog version: of a limit, a plan, a rule, a model.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t

from amounts cimport ratio_t
from names cimport NAME_ABSENT, bytes_match, name_t, names_get, names_t
from refusal cimport refusal_t
from window cimport window_t
from zone cimport schedule_holds, schedule_next, schedule_t, zone_t

cdef enum:
    POOLS_MAX = 32
    METERS_MAX = 64
    LIMITS_MAX = 64                 # of one plan
    CONCURRENCY_MAX = 64            # of one plan
    PROMPT_POOLS_MAX = 4            # fed by meters that are per_prompt
    LABELS_MAX = 65535
    CATALOGS_MAX = 2047
    VERDICTS_MAX = 32               # numbers of verdicts are below

cdef struct member_t:
    int plan
    int64_t since
    int64_t until                   # excluded

cdef struct members_t:              # the plans that have a model or a meter
    int count                       # -1: every plan, always
    member_t* at

cdef struct weight_t:
    ratio_t value
    int schedule                    # -1: always
    const uint64_t* tools           # bit set, NULL: any
    int64_t since
    int64_t until

cdef struct weight_memo_t:          # the weight last found, and while it holds
    int64_t since                   # above `until`: none yet
    int64_t until
    ratio_t value

cdef struct model_t:
    uint16_t label                  # of its name
    uint16_t rule                   # of "models.NAME"
    int weight_count
    weight_t* weights               # the first that matches holds
    bint by_tool                    # some of them only for some tools
    weight_memo_t* memo             # the one thing that changes: whoever decides holds the ledger's mutex
    members_t members

cdef struct meter_t:
    uint16_t rule                   # of "meters.NAME"
    bint weighted
    bint per_prompt                 # calls of one prompt cost one unit together
    uint32_t pools                  # mask
    ratio_t per_unit
    members_t members

cdef struct pattern_t:              # a name's beginning
    name_t prefix
    int32_t model

cdef struct limit_t:
    window_t window
    uint32_t key                    # label of its id * 8 + kind: which slot of a record is its own
    uint16_t rule                   # label of its id
    int pool
    const uint64_t* models          # bit set, NULL: all, also none
    const uint64_t* tools
    bint narrowed                   # it has `models` or `tools`
    name_t words                    # the window in words
    int64_t number                  # of the window, for vendor messages: 5
    name_t unit                     # likewise, a whole word: hour
    const refusal_t* refusal        # the limit's own; NULL: the catalog's

cdef struct in_flight_t:            # one alternative of a concurrency limit
    int schedule                    # -1: always
    int64_t limit

cdef struct concurrency_t:          # at most so many open holds of the models it counts
    uint16_t rule                   # label of its id
    int entry_count
    const in_flight_t* entries      # the first whose schedule holds is in force
    const uint64_t* models          # bit set, NULL: all, also none

cdef struct plan_t:
    uint16_t label
    int64_t calls_per_prompt        # NEVER: no bound
    int64_t prompt_idle             # microseconds after which a prompt ends
    int64_t hold_default            # microseconds; 0: none
    int concurrency_count
    concurrency_t* concurrency
    uint32_t pools                  # mask of those in the plan
    int limit_count
    limit_t* limits
    uint64_t* by_meter              # per meter, mask of the limits that its draws count against

cdef struct rules_t:
    uint64_t serial                 # of this version, unique in the process, above 0
    zone_t zone
    schedule_t* schedules
    bint any_model                  # the catalog lists none: every name is a model, of weight 1, in every plan
    names_t model_names             # exact names and aliases
    int pattern_count
    pattern_t* patterns             # the longest first
    names_t tools
    bint any_tool
    uint64_t* tool_endpoints        # per tool, mask of where it may be used
    names_t endpoints
    uint64_t open_endpoints         # mask for a tool that the catalog does not list
    bint any_endpoint               # also one not listed here, for tools not bound to some
    bint* tool_bound                # per tool: it has endpoints of its own
    names_t meters
    int default_meter
    const uint16_t* pool_labels
    const uint16_t* tool_labels
    int tool_count
    model_t* models
    int16_t* model_of               # a model's label -> index, -1 absent
    uint32_t model_of_count
    meter_t* meter_at
    plan_t* plans
    int16_t* plan_of                # likewise
    uint32_t plan_of_count
    refusal_t refusals[VERDICTS_MAX]    # by verdict
    size_t answer_bytes_max         # of an AdmitResponse that allows, without names that the request brings along


cdef struct version_t:              # of a catalog, by number; what was decided under it may be asked for later
    const rules_t* rules            # NULL: no longer known
    name_t catalog
    name_t text

cdef struct in_force_t:             # a catalog that decides, by its own number
    const rules_t* rules
    uint32_t version
    uint16_t label                  # of the name
    name_t name


cdef inline bint bit_has(const uint64_t* bits, int32_t index) noexcept nogil:
    """Whether a set holds an index; NULL is the set of all, and of none at all too."""
    if bits == NULL:
        return True
    return index >= 0 and (bits[index >> 6] >> (index & 63)) & 1


cdef inline const plan_t* rules_plan(const rules_t* self, uint16_t label) noexcept nogil:
    if label >= self.plan_of_count or self.plan_of[label] < 0:
        return NULL
    return &self.plans[self.plan_of[label]]


cdef inline int32_t rules_model_of(const rules_t* self, uint16_t label) noexcept nogil:
    """The model of that label, or NAME_ABSENT."""
    return self.model_of[label] if label < self.model_of_count else NAME_ABSENT


cdef inline int32_t rules_tool_of(const rules_t* self, uint16_t label) noexcept nogil:
    cdef int i
    for i in range(self.tool_count):
        if self.tool_labels[i] == label:
            return i
    return NAME_ABSENT


cdef inline const limit_t* plan_limit(const plan_t* self, uint32_t key) noexcept nogil:
    """The plan's limit of that id and kind, or NULL."""
    cdef int i
    for i in range(self.limit_count):
        if self.limits[i].key == key:
            return &self.limits[i]
    return NULL


cdef inline int32_t rules_model(const rules_t* self, name_t name) noexcept nogil:
    """Exact name, then alias (one table), then the longest pattern; NAME_ABSENT if none."""
    cdef int32_t model = names_get(&self.model_names, name)
    cdef int i
    if model != NAME_ABSENT:
        return model
    for i in range(self.pattern_count):
        if self.patterns[i].prefix.size <= name.size and bytes_match(
            self.patterns[i].prefix.at, name.at, self.patterns[i].prefix.size, False
        ):
            return self.patterns[i].model
    return NAME_ABSENT


# ---- What changes with time: memberships and weights. `next`, if given, is lowered to when the answer may change. ----

cdef inline void sooner(int64_t* next, int64_t moment, int64_t now) noexcept nogil:
    if next != NULL and now < moment < next[0]:
        next[0] = moment


cdef inline bint members_has(const members_t* self, int plan, int64_t now, int64_t* next) noexcept nogil:
    cdef bint has = self.count < 0
    cdef int i
    for i in range(self.count):
        if self.at[i].plan == plan:
            has = has or (self.at[i].since <= now < self.at[i].until)
            sooner(next, self.at[i].since, now)
            sooner(next, self.at[i].until, now)
    return has


cdef inline ratio_t model_weight(const rules_t* rules, const model_t* self, int32_t tool, int64_t now, int64_t* next) noexcept nogil:
    """The first entry that matches time, tool and dates; 1 if none does."""
    cdef ratio_t value
    cdef weight_t* weight
    cdef int i
    value.num = value.den = 1
    for i in range(self.weight_count):
        weight = &self.weights[i]
        if not bit_has(weight.tools, tool):
            continue
        sooner(next, weight.since, now)
        if now < weight.since or now >= weight.until:
            continue
        sooner(next, weight.until, now)
        if next != NULL and weight.schedule >= 0:
            sooner(next, schedule_next(&rules.schedules[weight.schedule], &rules.zone, now), now)
        if weight.schedule < 0 or schedule_holds(&rules.schedules[weight.schedule], &rules.zone, now):
            return weight.value
    return value
