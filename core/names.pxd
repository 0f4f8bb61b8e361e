# cython: cdivision=True
"""Names: what a request calls models, tools, endpoints and meters, looked up in a catalog without a Python object.

A `name_t` is borrowed bytes with the hash of their lower-case form (ASCII only: A-Z fold, every other byte is itself). A
`names_t` is an open-addressed table that maps names to small numbers; it is filled once, when a catalog is loaded, and never
changes. Its keys come from the catalog, not from callers, so the hash needs no secret.
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

cdef enum:
    NAME_ABSENT = -1

cdef struct name_t:
    const uint8_t* at
    uint32_t size
    uint32_t hash

cdef struct name_entry_t:
    name_t name                     # at NULL: empty
    int32_t value

cdef struct names_t:
    uint32_t mask
    bint exact                      # compare bytes as they are; hashes fold all the same
    name_entry_t* entries


cdef inline uint8_t byte_fold(uint8_t c) noexcept nogil:
    return c + 32 if c >= 65 and c <= 90 else c


cdef inline uint32_t name_hash(const uint8_t* at, uint32_t size) noexcept nogil:
    """FNV-1a over the folded bytes."""
    cdef uint32_t h = 2166136261u
    cdef uint32_t i
    for i in range(size):
        h = (h ^ byte_fold(at[i])) * 16777619u
    return h


cdef inline name_t name_of(const uint8_t* at, uint32_t size) noexcept nogil:
    cdef name_t name
    name.at = at
    name.size = size
    name.hash = name_hash(at, size)
    return name


cdef inline bint bytes_match(const uint8_t* a, const uint8_t* b, uint32_t size, bint exact) noexcept nogil:
    cdef uint32_t i
    if memcmp(a, b, size) == 0:     # most callers spell a name as the catalog does
        return True
    if exact:
        return False
    for i in range(size):
        if byte_fold(a[i]) != byte_fold(b[i]):
            return False
    return True


cdef inline bint names_init(names_t* self, uint32_t count, bint exact) noexcept nogil:
    """Make room for `count` names; false without memory."""
    cdef uint32_t size = 4
    while size < 2 * count:
        size *= 2
    self.mask = size - 1
    self.exact = exact
    self.entries = <name_entry_t*>calloc(size, sizeof(name_entry_t))
    return self.entries != NULL


cdef inline name_entry_t* names_find(const names_t* self, name_t name) noexcept nogil:
    """The entry of that name, or the empty one where it would go."""
    cdef uint32_t i = name.hash & self.mask
    cdef name_entry_t* entry
    while True:
        entry = &self.entries[i]
        if entry.name.at == NULL or (
            entry.name.hash == name.hash and entry.name.size == name.size
            and bytes_match(entry.name.at, name.at, name.size, self.exact)
        ):
            return entry
        i = (i + 1) & self.mask


cdef inline void names_add(names_t* self, name_t name, int32_t value) noexcept nogil:
    """Map `name`, whose bytes must outlive the table, to `value`."""
    cdef name_entry_t* entry = names_find(self, name)
    entry.name = name
    entry.value = value


cdef inline int32_t names_get(const names_t* self, name_t name) noexcept nogil:
    """What `name` maps to, or NAME_ABSENT."""
    cdef name_entry_t* entry = names_find(self, name)
    return entry.value if entry.name.at != NULL else NAME_ABSENT


cdef inline void names_free(names_t* self) noexcept nogil:
    free(self.entries)
    self.entries = NULL
