"""Catalogs in force, and the versions that were: what a ledger decides by."""

cdef enum:
    VERSIONS_KEPT = 64              # beside those in force; settlements of older admissions are priced by today's version


@cython.final
@cython.internal
cdef class Catalogs:
    """A catalog has a number for ever, and so has each version of it. What C reads changes only while the ledger's mutex is held."""

    cdef in_force_t in_force[CATALOGS_MAX]
    cdef version_t* versions        # by number
    cdef readonly Labels labels
    cdef readonly dict numbers      # name -> number
    cdef list rules                 # the Rules in force, by number
    cdef list _version_rules        # by number; None: no longer known, or none of this process
    cdef list _version_names        # (catalog, version), by number; their bytes are kept beside
    cdef list _kept
    cdef dict _version_numbers
    cdef size_t answer_bytes_max    # of any rules that ever were in force
    cdef int wording                # number of the catalog that words the refusal of unknown accounts

    def __cinit__(self):
        self.labels = Labels()
        self.numbers = {}
        self.rules = []
        self._version_rules, self._version_names, self._kept, self._version_numbers = [], [], [], {}

    def __dealloc__(self):
        free(self.versions)

    cdef int load(self, Rules rules, pthread_mutex_t* mutex) except -1:
        """Put rules in force, in place of those of their name if there are any."""
        cdef uint32_t number = self.new_version(rules.name, rules.version, rules, mutex)
        cdef int catalog
        cdef in_force_t entry
        catalog = self.numbers.get(rules.name, len(self.rules))
        entry.rules, entry.version = &rules.c, number
        entry.label = self.labels.number(rules.name)
        entry.name = self.labels.at[entry.label]
        rules.number = number
        pthread_mutex_lock(mutex)
        self.in_force[catalog] = entry
        self.answer_bytes_max = max(self.answer_bytes_max, rules.c.answer_bytes_max)
        pthread_mutex_unlock(mutex)
        if catalog == len(self.rules):
            self.rules.append(rules)
            self.numbers[rules.name] = catalog
        else:
            self.rules[catalog] = rules
        self.retire(mutex)
        return 0

    cdef uint32_t new_version(self, str catalog, str version, Rules rules, pthread_mutex_t* mutex) except? 0:
        """A number for a version. `rules` are its own, or those of the same content; None if there are none."""
        cdef Py_ssize_t number = len(self._version_names)
        cdef version_t* grown
        cdef version_t* before = self.versions
        cdef name_t name, text
        self._kept.append((catalog.encode(), version.encode()))
        name, text = name_in(<bytes>self._kept[number][0]), name_in(<bytes>self._kept[number][1])
        grown = <version_t*>malloc((number + 1) * sizeof(version_t))
        if grown == NULL:
            self._kept.pop()
            raise MemoryError
        if number:
            memcpy(grown, before, number * sizeof(version_t))
        grown[number].rules = &rules.c if rules is not None else NULL
        grown[number].catalog, grown[number].text = name, text
        pthread_mutex_lock(mutex)
        self.versions = grown
        pthread_mutex_unlock(mutex)
        free(before)
        self._version_rules.append(rules)
        self._version_names.append((catalog, version))
        self._version_numbers[catalog, version] = number
        return <uint32_t>number

    cdef int retire(self, pthread_mutex_t* mutex) except -1:
        """Let go of the rules of the oldest versions."""
        cdef uint32_t number
        known = [number for number, rules in enumerate(self._version_rules) if rules is not None and rules not in self.rules]
        for number in known[:max(0, len(known) - VERSIONS_KEPT)]:
            pthread_mutex_lock(mutex)
            self.versions[number].rules = NULL
            pthread_mutex_unlock(mutex)
            self._version_rules[number] = None
        return 0

    cdef uint32_t version_number(self, str catalog, str version, pthread_mutex_t* mutex) except? 0:
        """The number of a version that a blob speaks of. One of another process has the rules of the same content, if they are in force."""
        cdef Rules rules = None
        known = self._version_numbers.get((catalog, version))
        if known is not None:
            return known
        if catalog in self.numbers:
            rules = self.rules[self.numbers[catalog]]
            if rules.version.partition("@")[0] != version.partition("@")[0]:
                rules = None
        return self.new_version(catalog, version, rules, mutex)

    cdef int number_of(self, int label) noexcept:
        """The number of the catalog whose name has that label, or -1."""
        cdef int i
        for i in range(<int>len(self.rules)):
            if self.in_force[i].label == label:
                return i
        return -1

    cdef object version(self, uint32_t number):
        """The CatalogVersion of that number."""
        catalog, version = self._version_names[number]
        return CatalogVersion(catalog, version)
