"""Requests: what a gateway asks, checked and laid out once, so that a ready one costs nothing to decide on again."""

ACCOUNT_BYTES_MAX = ID_BYTES_MAX
NAME_BYTES_MAX = TEXT_BYTES_MAX
AMOUNT_MAX = UNITS_MAX
HOLD_MS_MAX = HOLD_MAX_MS


cdef bytes text_bytes(str field, object value, int size_min, int size_max):
    """A text field as UTF-8, its length in bytes checked."""
    if not isinstance(value, str):
        raise InvalidArgument(field, value, "a string")
    try:
        encoded = (<str>value).encode()
    except UnicodeEncodeError:
        raise InvalidArgument(field, value, "text that has a UTF-8 form") from None
    if not size_min <= len(encoded) <= size_max:
        raise InvalidArgument(field, value, f"{size_min} to {size_max} bytes of UTF-8, this is {len(encoded)}")
    return encoded


cdef int check_whole(str field, object value, int64_t least, int64_t most) except -1:
    """A whole number within its range."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidArgument(field, value, f"a whole number from {least} to {most}")
    return 0


cdef name_t name_in(bytes encoded):
    return name_of(<const uint8_t*>PyBytes_AS_STRING(encoded), <uint32_t>PyBytes_GET_SIZE(encoded))


@cython.final
@cython.no_gc
cdef class Request:
    """May this pass, and what does it cost?

    `account` has 1 to 256 bytes of UTF-8; `model`, `tool` and `endpoint` at most 256, empty where the gateway has none. `draws` maps
    meters to whole amounts of 0 to 10^9 (0 asks whether anything is left), at most 16; none means one of the catalog's default
    meter. With `Mode.RECORD` the use already happened: limits do not refuse it. A `request_id` makes a retry an answer instead of a second
    charge, and lets it be settled; `hold_ms` (at most 3,600,000, 0 = the plan's default) opens a hold, which needs one. The calls of a
    `prompt_id` cost one prompt together. `client` tells devices apart. All of these have at most 256 bytes. With `explain` the answer
    lists every limit touched. Raises InvalidArgument. Immutable.
    """

    cdef request_t c
    cdef bytes _account
    cdef bytes _model
    cdef bytes _tool
    cdef bytes _endpoint
    cdef bytes _request_id
    cdef bytes _prompt_id
    cdef bytes _client
    cdef tuple _meters              # bytes objects that the draws point into

    def __init__(
        self,
        account,
        *,
        model="",
        tool="",
        endpoint="",
        mode=Mode.ENFORCE,
        draws=None,
        request_id="",
        prompt_id="",
        hold_ms=0,
        client="",
        explain=False,
    ):
        if self.c.draws != NULL or self._account is not None:
            raise TypeError("a Request is immutable")
        self._account = text_bytes("account", account, 1, ACCOUNT_BYTES_MAX)
        self._model = text_bytes("model", model, 0, NAME_BYTES_MAX)
        self._tool = text_bytes("tool", tool, 0, NAME_BYTES_MAX)
        self._endpoint = text_bytes("endpoint", endpoint, 0, NAME_BYTES_MAX)
        self._request_id = text_bytes("request_id", request_id, 0, NAME_BYTES_MAX)
        self._prompt_id = text_bytes("prompt_id", prompt_id, 0, NAME_BYTES_MAX)
        self._client = text_bytes("client", client, 0, NAME_BYTES_MAX)
        if mode not in (Mode.ENFORCE, Mode.RECORD):
            raise InvalidArgument("mode", mode, "ENFORCE or RECORD")
        check_whole("hold_ms", hold_ms, 0, HOLD_MS_MAX)
        if hold_ms and not request_id:
            raise InvalidArgument("hold_ms", hold_ms, "0 without a request_id: a hold is settled and renewed by it")
        self.c.account = name_in(self._account)
        self.c.model = name_in(self._model)
        self.c.tool = name_in(self._tool)
        self.c.endpoint = name_in(self._endpoint)
        self.c.explain = bool(explain)
        self.c.records = mode == Mode.RECORD
        self.c.hold = hold_ms * 1000
        self.set_draws(dict(draws or {}))
        self.c.id = name_in(self._request_id)
        request_complete(&self.c, name_in(self._prompt_id), name_in(self._client))

    cdef int set_draws(self, dict draws) except -1:
        cdef draw_t* at
        cdef int i
        if len(draws) > DRAWS_MAX:
            raise InvalidArgument("draws", f"{len(draws)} draws", f"at most {DRAWS_MAX}")
        for i, (meter, amount) in enumerate(draws.items()):
            check_whole(f"draws[{i}].amount", amount, 0, AMOUNT_MAX)
        self._meters = tuple([text_bytes(f"draws[{i}].meter", meter, 1, NAME_BYTES_MAX) for i, meter in enumerate(draws)])
        if draws:
            at = <draw_t*>calloc(len(draws), sizeof(draw_t))
            if at == NULL:
                raise MemoryError
            self.c.draws = at
            self.c.draw_count = <int>len(draws)
            for i, amount in enumerate(draws.values()):
                at[i].meter = name_in(self._meters[i])
                at[i].amount = amount
        return 0

    def __dealloc__(self):
        free(<void*>self.c.draws)

    def __repr__(self):
        return f"Request({self.account!r}, model={self.model!r}, tool={self.tool!r}, endpoint={self.endpoint!r}, draws={self.draws!r})"

    @property
    def account(self):
        return self._account.decode()

    @property
    def model(self):
        return self._model.decode()

    @property
    def tool(self):
        return self._tool.decode()

    @property
    def endpoint(self):
        return self.c.endpoint.at[:self.c.endpoint.size].decode()

    @property
    def mode(self):
        return Mode.RECORD if self.c.records else Mode.ENFORCE

    @property
    def request_id(self):
        return self._request_id.decode()

    @property
    def prompt_id(self):
        return self._prompt_id.decode()

    @property
    def hold_ms(self):
        return self.c.hold // 1000

    @property
    def client(self):
        return self._client.decode()

    @property
    def draws(self):
        cdef int i
        return {self._meters[i].decode(): self.c.draws[i].amount for i in range(self.c.draw_count)}

    @property
    def explain(self):
        return bool(self.c.explain)


cdef size_t packed_size(const request_t* request) noexcept:
    """Bytes that a request's draws and names take, in whole words."""
    cdef size_t size = request.account.size + request.model.size + request.tool.size + request.endpoint.size + request.id.size
    cdef int i
    for i in range(request.draw_count):
        size += request.draws[i].meter.size
    return padded(<uint32_t>size) + request.draw_count * sizeof(draw_t)


cdef uint8_t* pack_name(name_t* name, uint8_t* at) noexcept:
    """Copy a name's bytes to `at` and let it point there; where the next one goes."""
    memcpy(at, name.at, name.size)
    name.at = at
    return at + name.size


@cython.final
cdef class PackedRequests:
    """Requests laid out one after the other in one buffer, names and all, for Ledger.admit_packed."""

    cdef request_t* at
    cdef uint8_t* _names
    cdef readonly Py_ssize_t count

    def __init__(self, requests):
        cdef size_t size = 0
        cdef uint8_t* end
        cdef Py_ssize_t i
        if self.at != NULL:
            raise TypeError("PackedRequests are immutable")
        requests = tuple(requests)
        self.count = len(requests)
        for i in range(self.count):
            size += packed_size(&(<Request?>requests[i]).c)
        self.at = <request_t*>calloc(self.count + 1, sizeof(request_t))
        self._names = <uint8_t*>malloc(size + 1)
        if self.at == NULL or self._names == NULL:
            raise MemoryError
        end = self._names
        for i in range(self.count):
            self.at[i] = (<Request>requests[i]).c
            self.pack(&self.at[i], end)
            end += packed_size(&self.at[i])

    cdef void pack(self, request_t* request, uint8_t* at) noexcept:
        cdef draw_t* draws = <draw_t*>at
        cdef int i
        at += request.draw_count * sizeof(draw_t)
        at = pack_name(&request.account, at)
        at = pack_name(&request.model, at)
        at = pack_name(&request.tool, at)
        at = pack_name(&request.endpoint, at)
        at = pack_name(&request.id, at)
        for i in range(request.draw_count):
            draws[i] = request.draws[i]
            at = pack_name(&draws[i].meter, at)
        request.draws = draws

    def __dealloc__(self):
        free(self.at)
        free(self._names)
