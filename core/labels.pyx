"""Labels: small numbers for names that outlive catalog versions (limits, plans, models, rules). Given once, for ever."""


@cython.final
@cython.internal
cdef class Labels:
    cdef dict _numbers
    cdef list _names                # bytes objects, so that C may point at them
    cdef name_t* at                 # the same for C, by number; never moved, its pages are taken as they are filled
    cdef uint16_t recent[256]       # numbers lately looked up, by hash: blobs name the same few over and over

    def __cinit__(self):
        self._numbers = {}
        self._names = []
        self.at = <name_t*>malloc((LABELS_MAX + 1) * sizeof(name_t))
        if self.at == NULL:
            raise MemoryError
        for name in (
            "", "account", "account.subscribed_at", "account.expires_at", "tools", "endpoints", "models", "meters", "unknown", "account.holds",
        ):
            self.number(name)

    def __dealloc__(self):
        free(self.at)

    cdef int number(self, str name) except -1:
        """The number of a name, a new one if it has none."""
        number = self._numbers.get(name)
        if number is None:
            number = len(self._names)
            if number > LABELS_MAX:
                raise FailedPrecondition(f"more than {LABELS_MAX} names of limits, plans and models in one process")
            self._names.append(name.encode())
            self.at[<int>number] = name_in(<bytes>self._names[number])
            self._numbers[name] = number
        return number

    cdef int number_of(self, const uint8_t* at, uint32_t size) except -1:
        """The number of a name as bytes. Raises UnicodeDecodeError."""
        cdef uint16_t* recent = &self.recent[name_hash(at, size) & 255]
        cdef name_t* name = &self.at[recent[0]]
        if name.size != size or memcmp(name.at, at, size) != 0:
            recent[0] = self.number(at[:size].decode())
        return recent[0]

    cdef str name(self, int number):
        return (<bytes>self._names[number]).decode()
