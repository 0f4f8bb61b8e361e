"""Builds `rules_t` from a CatalogSpec. The spec has been validated; what is checked here would corrupt memory if it were wrong."""


@cython.final
@cython.no_gc
cdef class Rules:
    """One version of a catalog, compiled. Made by Ledger.load; immutable."""

    cdef rules_t c
    cdef uint32_t number            # of the version
    cdef readonly str name
    cdef readonly str version
    cdef readonly object spec       # the CatalogSpec
    cdef list plan_names            # in the spec's order
    cdef list _kept                 # bytes objects that the names point into
    cdef list _blocks               # addresses of what was allocated

    def __init__(self):
        raise TypeError("Rules are made by Ledger.load")

    def __dealloc__(self):
        cdef size_t block
        names_free(&self.c.model_names)
        names_free(&self.c.tools)
        names_free(&self.c.endpoints)
        names_free(&self.c.meters)
        for block in self._blocks or ():
            free(<void*>block)

    cdef void* take(self, size_t count, size_t size) except NULL:
        """Zeroed memory that lives as long as the rules; one item more than asked, since NULL is the exception."""
        cdef void* block = calloc(count + 1, size)
        if block == NULL:
            raise MemoryError
        self._blocks.append(<size_t>block)
        return block

    cdef name_t keep(self, str name):
        """The name as C sees it, kept alive."""
        cdef bytes encoded = name.encode()
        self._kept.append(encoded)
        return name_of(<const uint8_t*>PyBytes_AS_STRING(encoded), <uint32_t>len(encoded))

    cdef int fill(self, names_t* table, object names, bint exact) except -1:
        """A table of (name, number) pairs."""
        if not names_init(table, <uint32_t>len(names), exact):
            raise MemoryError
        for name, number in names:
            names_add(table, self.keep(name), number)
        return 0

    cdef uint64_t* bits(self, object indices, int size) except? NULL:
        """A bit set over [0, size), or NULL for None."""
        cdef uint64_t* bits
        cdef int index
        if indices is None:
            return NULL
        bits = <uint64_t*>self.take(size // 64 + 1, sizeof(uint64_t))
        for index in indices:
            if not 0 <= index < size:
                raise ValueError(index)
            bits[index >> 6] |= <uint64_t>1 << (index & 63)
        return bits

    cdef members_t members(self, object specs):
        cdef members_t members
        cdef int i
        members.at = NULL
        members.count = -1
        if specs is not None:
            members.count = <int>len(specs)
            members.at = <member_t*>self.take(members.count, sizeof(member_t))
            for i, spec in enumerate(specs):
                members.at[i].plan = spec.plan
                members.at[i].since = spec.from_us
                members.at[i].until = end_of(spec.until_us)
        return members

    cdef int build(self, object spec, Labels labels) except -1:
        self.build_time(spec)
        self.build_names(spec)
        self.build_labels(spec, labels)
        self.build_models(spec, labels)
        self.build_meters(spec, labels)
        self.build_refusals(spec)
        self.build_plans(spec, labels)
        self.c.answer_bytes_max = answer_bytes(spec, self.version)
        return 0

    cdef int build_time(self, object spec) except -1:
        cdef zone_t* zone = &self.c.zone
        cdef schedule_t* schedule
        cdef int i, j
        zone.count = <int>len(spec.zone)
        zone.since = <int64_t*>self.take(zone.count, sizeof(int64_t))
        zone.offset = <int64_t*>self.take(zone.count, sizeof(int64_t))
        zone.reading = <int64_t*>self.take(zone.count, sizeof(int64_t))
        for i, (since, offset) in enumerate(spec.zone):
            zone.since[i] = since
            zone.offset[i] = offset
            zone.reading[i] = since + (zone.offset[i - 1] if i else 0)
        self.c.schedules = <schedule_t*>self.take(len(spec.schedules), sizeof(schedule_t))
        for i, spans in enumerate(spec.schedules):
            schedule = &self.c.schedules[i]
            schedule.count = <int>len(spans)
            schedule.spans = <span_t*>self.take(schedule.count, sizeof(span_t))
            for j, (start, end) in enumerate(spans):
                schedule.spans[j].start = start
                schedule.spans[j].end = end
        return 0

    cdef int build_names(self, object spec) except -1:
        cdef int i
        self.fill(&self.c.model_names, spec.names, False)
        self.c.any_model = not spec.models
        self.c.pattern_count = <int>len(spec.patterns)
        self.c.patterns = <pattern_t*>self.take(self.c.pattern_count, sizeof(pattern_t))
        for i, (prefix, model) in enumerate(spec.patterns):
            self.c.patterns[i].prefix = self.keep(prefix)
            self.c.patterns[i].model = model
        self.fill(&self.c.tools, [(tool.name, i) for i, tool in enumerate(spec.tools)], False)
        self.fill(&self.c.endpoints, [(path, i) for i, path in enumerate(spec.endpoints)], True)
        self.fill(&self.c.meters, [(meter.name, i) for i, meter in enumerate(spec.meters)], True)
        self.c.any_tool = spec.any_tool
        self.c.any_endpoint = spec.open_endpoints is None
        self.c.open_endpoints = mask_of(spec.open_endpoints or (), 64)
        self.c.tool_bound = <bint*>self.take(len(spec.tools), sizeof(bint))
        self.c.tool_endpoints = <uint64_t*>self.take(len(spec.tools), sizeof(uint64_t))
        for i, tool in enumerate(spec.tools):
            self.c.tool_bound[i] = tool.endpoints is not None
            self.c.tool_endpoints[i] = mask_of(tool.endpoints or (), 64)
        return 0

    cdef int build_labels(self, object spec, Labels labels) except -1:
        self.c.pool_labels = self.labelled(spec.pools, labels)
        self.c.tool_labels = self.labelled([tool.name for tool in spec.tools], labels)
        self.c.tool_count = <int>len(spec.tools)
        self.c.model_of = self.places([labels.number(model.name) for model in spec.models], &self.c.model_of_count)
        return 0

    cdef uint16_t* labelled(self, object names, Labels labels) except NULL:
        cdef uint16_t* at = <uint16_t*>self.take(len(names), sizeof(uint16_t))
        cdef int i
        for i, name in enumerate(names):
            at[i] = labels.number(name)
        return at

    cdef int16_t* places(self, list numbers, uint32_t* count) except NULL:
        """Label -> place in the list, -1 where it has none."""
        cdef int16_t* at
        cdef int i
        count[0] = max(numbers, default=0) + 1
        at = <int16_t*>self.take(count[0], sizeof(int16_t))
        for i in range(<int>count[0]):
            at[i] = -1
        for i, number in enumerate(numbers):
            at[<int>number] = i
        return at

    cdef int build_models(self, object spec, Labels labels) except -1:
        cdef model_t* model
        cdef weight_t* weight
        cdef int i, j
        self.c.models = <model_t*>self.take(len(spec.models), sizeof(model_t))
        for i, it in enumerate(spec.models):
            model = &self.c.models[i]
            model.label = labels.number(it.name)
            model.rule = labels.number("models." + it.name)
            model.members = self.members(it.plans)
            model.weight_count = <int>len(it.weights)
            model.weights = <weight_t*>self.take(model.weight_count, sizeof(weight_t))
            for j, entry in enumerate(it.weights):
                weight = &model.weights[j]
                weight.value.num, weight.value.den = entry.num, entry.den
                weight.schedule = entry.schedule
                weight.tools = self.bits(entry.tools, <int>len(spec.tools))
                weight.since, weight.until = entry.from_us, end_of(entry.until_us)
                model.by_tool = model.by_tool or entry.tools is not None
            model.memo = <weight_memo_t*>self.take(1, sizeof(weight_memo_t))
            model.memo.since = NEVER
        return 0

    cdef int build_meters(self, object spec, Labels labels) except -1:
        cdef meter_t* meter
        cdef int i
        if len(spec.meters) > METERS_MAX:
            raise ValueError(len(spec.meters))
        self.c.meter_at = <meter_t*>self.take(len(spec.meters), sizeof(meter_t))
        self.c.default_meter = spec.default_meter
        for i, it in enumerate(spec.meters):
            meter = &self.c.meter_at[i]
            meter.rule = labels.number("meters." + it.name)
            meter.weighted = it.weighted
            meter.per_prompt = it.per_prompt
            meter.pools = <uint32_t>mask_of(it.pools, POOLS_MAX)
            meter.per_unit.num, meter.per_unit.den = it.num, it.den
            meter.members = self.members(it.plans)
        return 0

    cdef int build_plans(self, object spec, Labels labels) except -1:
        cdef plan_t* plan
        cdef int i, j
        self.plan_names = [it.name for it in spec.plans]
        self.c.plans = <plan_t*>self.take(len(spec.plans), sizeof(plan_t))
        self.c.plan_of = self.places([labels.number(name) for name in self.plan_names], &self.c.plan_of_count)
        for i, it in enumerate(spec.plans):
            plan = &self.c.plans[i]
            plan.label = labels.number(it.name)
            plan.calls_per_prompt = it.calls_per_prompt or NEVER
            plan.prompt_idle = it.prompt_idle_us
            plan.hold_default = it.hold_default_us
            self.build_concurrency(plan, it.concurrency, spec, labels)
            plan.pools = <uint32_t>mask_of(it.pools, POOLS_MAX)
            plan.limit_count = <int>len(it.limits)
            if plan.limit_count > LIMITS_MAX:
                raise ValueError(plan.limit_count)
            plan.limits = <limit_t*>self.take(plan.limit_count, sizeof(limit_t))
            plan.by_meter = <uint64_t*>self.take(len(spec.meters), sizeof(uint64_t))
            for j, limit in enumerate(it.limits):
                self.build_limit(&plan.limits[j], limit, spec, labels)
                for number, meter in enumerate(spec.meters):
                    if limit.pool in meter.pools and (limit.meters is None or number in limit.meters):
                        plan.by_meter[<int>number] |= <uint64_t>1 << j
        return 0

    cdef int build_concurrency(self, plan_t* plan, object specs, object spec, Labels labels) except -1:
        """One concurrency_t for each id; it counts the models of any of its entries."""
        cdef concurrency_t* concurrency
        cdef in_flight_t* entries
        cdef int i, j
        by_id = {}
        for it in specs:
            by_id.setdefault(it.id, []).append(it)
        if len(by_id) > CONCURRENCY_MAX:
            raise ValueError(len(by_id))
        plan.concurrency_count = <int>len(by_id)
        plan.concurrency = <concurrency_t*>self.take(len(by_id), sizeof(concurrency_t))
        for i, (id, alternatives) in enumerate(by_id.items()):
            concurrency = &plan.concurrency[i]
            concurrency.rule = labels.number(id)
            concurrency.entry_count = <int>len(alternatives)
            concurrency.entries = entries = <in_flight_t*>self.take(len(alternatives), sizeof(in_flight_t))
            for j, it in enumerate(alternatives):
                entries[j].schedule, entries[j].limit = it.schedule, it.limit
            counted = [it.models for it in alternatives]
            models = None if None in counted else {model for models in counted for model in models}
            concurrency.models = self.bits(models, <int>len(spec.models))
        return 0

    cdef int build_limit(self, limit_t* limit, object it, object spec, Labels labels) except -1:
        cdef window_t* window = &limit.window
        limit.rule = labels.number(it.id)
        limit.key = <uint32_t>limit.rule << 3 | <uint32_t>it.kind
        limit.pool = it.pool
        limit.narrowed = it.models is not None or it.tools is not None
        limit.models = self.bits(it.models, <int>len(spec.models))
        limit.tools = self.bits(it.tools, <int>len(spec.tools))
        window.kind = it.kind
        window.limit = it.limit_micro
        window.length = it.length_us
        window.months = it.months
        window.step = it.step_us
        window.anchor = it.anchor_us
        window.rate_num, window.rate_den = it.rate_num, it.rate_den
        window.entries_max = it.entries_max
        if it.kind == SLIDING and not ENTRIES_MAX_MIN <= it.entries_max <= ENTRIES_MAX_MAX:
            raise ValueError(it.entries_max)
        limit.words, limit.number, limit.unit = self.keep(it.window), it.number, self.keep(it.unit)
        if it.refusal is not None:
            limit.refusal = <refusal_t*>self.take(1, sizeof(refusal_t))
            self.build_refusal(<refusal_t*>limit.refusal, it.refusal)
        return 0

    cdef int build_refusals(self, object spec) except -1:
        for verdict, it in spec.refusals:
            if not 0 <= verdict < VERDICTS_MAX:
                raise ValueError(verdict)
            self.build_refusal(&self.c.refusals[<int>verdict], it)
        return 0

    cdef int build_refusal(self, refusal_t* refusal, object it) except -1:
        """The message is cut at its placeholders."""
        cdef int i
        texts = PLACEHOLDER.split(it.message)   # text and names of placeholders in turn
        refusal.code, refusal.http_status, refusal.retry_after = self.keep(it.code), it.http_status, it.retry_after_us
        refusal.part_count = <int>len(texts)
        refusal.parts = <part_of_message_t*>self.take(refusal.part_count, sizeof(part_of_message_t))
        for i, text in enumerate(texts):
            if i & 1:
                refusal.parts[i].placeholder = 1 + PLACEHOLDERS.index(text)
            else:
                refusal.parts[i].text = self.keep(text)
        return 0


cdef tuple PLACEHOLDERS = ("number", "unit", "next_flush_time", "model_name", "meter")      # as placeholder_t
cdef object PLACEHOLDER = re.compile(r"\$\{(" + "|".join(PLACEHOLDERS) + r")\}")

cdef enum:
    FIELD_BYTES_MAX = 11            # of a number with its tag; of a text's or a message's tag and length


cdef size_t text_field_bytes(str text) except? 0:
    return FIELD_BYTES_MAX + len(text.encode())


cdef size_t answer_bytes(object spec, str version) except 0:
    """Bytes that an answer which allows never passes: every field, every pool charged, every limit of a plan listed."""
    pools = [text_field_bytes(pool) for pool in spec.pools]
    model = max([text_field_bytes(model.name) for model in spec.models], default=0)
    plans = [sum([text_field_bytes(it.id) + text_field_bytes(it.window) + pools[it.pool] + 7 * FIELD_BYTES_MAX for it in plan.limits])
             for plan in spec.plans]
    charges = sum(pools) + 2 * FIELD_BYTES_MAX * len(pools)
    return 16 * FIELD_BYTES_MAX + model + charges + max(plans) + text_field_bytes(spec.name) + text_field_bytes(version)


cdef extern from *:
    """
    #define FOREVER_US (1LL << 62)  /* quota.catalog.spec.FOREVER_US */
    """
    const int64_t FOREVER_US


cdef int64_t end_of(object until_us) except? 0:
    """A spec's end; its FOREVER_US is no moment at which anything changes."""
    return NEVER if until_us >= FOREVER_US else until_us


cdef uint64_t mask_of(object indices, int size) except? 0:
    cdef uint64_t mask = 0
    cdef int index
    for index in indices:
        if not 0 <= index < size:
            raise ValueError(index)
        mask |= <uint64_t>1 << index
    return mask
