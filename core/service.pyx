@cython.final
cdef class Service:
    cdef Ledger ledger
    def __init__(self, Ledger ledger not None, int batch_items_max):
        self.ledger = ledger

cdef int service_serve(
    void* service, int method, const uint8_t* at, size_t size, int64_t now, buffer_t* out, uint64_t* ticket, size_t* rest
) noexcept nogil:
    buffer_put(out, <const uint8_t*>"\x08\x01", 2)
    return SERVED
