"""Domains as Python tells them: a server's `envoy_domains`, laid out for the service."""


@cython.final
cdef class Domains:
    """What descriptors mean, by domain. `domains` are quota.server.domains.Domain objects, checked where they were read. Immutable."""

    cdef domains_t c
    cdef list _kept                 # bytes that C points into

    def __cinit__(self, domains):
        cdef int i
        self._kept = []
        domains = tuple(domains)
        self.c.at = <domain_t*>self.room(len(domains) * sizeof(domain_t))
        self.c.count = <int>len(domains)
        for i, domain in enumerate(domains):
            self.lay(&self.c.at[i], domain)

    cdef void* room(self, size_t size):
        """Zeroed memory that lives as long as this."""
        block = bytearray(size)
        self._kept.append(block)
        return PyByteArray_AS_STRING(block)

    cdef name_t keep(self, str text):
        encoded = text.encode()
        self._kept.append(encoded)
        return name_in(encoded)

    cdef int lay(self, domain_t* at, object domain) except -1:
        cdef int i
        at.name, at.meter = self.keep(domain.name), self.keep(domain.meter)
        at.keys = <key_t*>self.room(len(domain.entries) * sizeof(key_t))
        at.key_count = <int>len(domain.entries)
        for i, (key, field) in enumerate(domain.entries.items()):
            at.keys[i].key, at.keys[i].field = self.keep(key), field
        if domain.record is not None:
            at.record.key, at.record.value = self.keep(domain.record.entry), self.keep(domain.record.value)
        if domain.hold is not None:
            at.hold.key, at.hold.value = self.keep(domain.hold.entry), self.keep(domain.hold.value)
        at.hold_ms, at.headers = domain.hold_ms, domain.headers
        styles = sorted(domain.styles.items(), key=lambda item: -len(item[0].encode()))
        at.prefixes = <prefix_t*>self.room(len(styles) * sizeof(prefix_t))
        at.prefix_count = <int>len(styles)
        for i, (path, style) in enumerate(styles):
            at.prefixes[i].path, at.prefixes[i].style = self.keep(path), style
        return 0
