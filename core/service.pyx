"""The service: messages of the data port in, messages out, without a Python object and without the GIL.

What is served here, the handlers of the server would answer with the same bytes. All else is handed to them, before anything is decided: what has
to be refused in words, accounts that have to be fetched from a store, and what there is no memory for.
"""

cdef enum verb_t:                   # as SERVED_METHODS
    ADMIT = 0
    ADMIT_BATCH = 1
    PEEK = 2
    SETTLE = 3
    RENEW = 4
    GET_USAGE = 5

SERVED_METHODS = ("Admit", "AdmitBatch", "Peek", "Settle", "Renew", "GetUsage")


@cython.final
@cython.auto_pickle(False)
cdef class Service:
    """Serves a ledger's data port. A batch has at most `batch_items_max` items."""

    cdef Ledger _ledger
    cdef size_t _batch_items_max

    def __init__(self, Ledger ledger not None, size_t batch_items_max):
        self._ledger = ledger
        self._batch_items_max = batch_items_max

    cdef int serve(
        self, int method, const uint8_t* at, size_t size, int64_t now, buffer_t* out, uint64_t* ticket, size_t* rest
    ) noexcept nogil:
        """Answer a request message: SERVED, with the response appended to `out`, which may leave once `ticket` is durable (0: at once); or HANDED.
        What is handed starts at `rest`: not 0 where the first items of a batch were decided, and their results are in `out`."""
        cdef size_t start = out.size
        cdef wire_t wire = wire_of(at, size)
        cdef int served = HANDED
        ticket[0] = rest[0] = 0
        if method == ADMIT:
            served = self.admit(wire, now, out, ticket)
        if rest[0] == 0 and (served == HANDED or out.failed):
            out.size = start
            return HANDED
        return served

    cdef int admit(self, wire_t wire, int64_t now, buffer_t* out, uint64_t* ticket) noexcept nogil:
        cdef asked_t asked
        cdef answer_t answer
        cdef int outcome
        if not asked_admit(&asked, wire, DEPTH_MAX):
            return HANDED
        asked_complete(&asked)
        pthread_mutex_lock(&self._ledger._mutex)
        outcome = self._ledger.admit_into(&asked.request, now, &answer, out)
        pthread_mutex_unlock(&self._ledger._mutex)
        ticket[0] = answer.ticket
        return SERVED if outcome == DECIDED else HANDED

    def answer(self, int method, bytes message not None, int64_t now):
        """(whether it is served, the response, its ticket, where the rest begins): `serve` for callers in Python."""
        cdef buffer_t out
        cdef uint64_t ticket
        cdef size_t rest
        cdef int served
        if not 0 <= method < len(SERVED_METHODS):
            raise ValueError(method)
        buffer_init(&out)
        served = self.serve(method, <const uint8_t*>PyBytes_AS_STRING(message), len(message), now, &out, &ticket, &rest)
        try:
            return served == SERVED, out.at[:out.size], ticket, rest
        finally:
            buffer_free(&out)


cdef int service_serve(
    void* service, int method, const uint8_t* at, size_t size, int64_t now, buffer_t* out, uint64_t* ticket, size_t* rest
) noexcept nogil:
    """`serve` for a front, which knows a service by its address."""
    return (<Service>service).serve(method, at, size, now, out, ticket, rest)
