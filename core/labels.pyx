"""Labels: small numbers for names that outlive catalog versions (limits, plans, models, rules). Given once, for ever."""


@cython.final
@cython.internal
cdef class Labels:
    cdef dict _numbers
    cdef list _names                # bytes objects, so that C may point at them

    def __cinit__(self):
        self._numbers = {}
        self._names = []
        for name in ("", "account", "account.subscribed_at", "account.expires_at", "tools", "endpoints", "models", "meters", "unknown"):
            self.number(name)

    cdef int number(self, str name) except -1:
        """The number of a name, a new one if it has none."""
        number = self._numbers.get(name)
        if number is None:
            number = len(self._names)
            if number > LABELS_MAX:
                raise FailedPrecondition(f"more than {LABELS_MAX} names of limits, plans and models in one process")
            self._numbers[name] = number
            self._names.append(name.encode())
        return number

    cdef str name(self, int number):
        return (<bytes>self._names[number]).decode()

    cdef bytes encoded(self, int number):
        return <bytes>self._names[number]
