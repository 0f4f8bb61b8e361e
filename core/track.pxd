# cython: cdivision=True
"""Tracking: which accounts have changed since they were last written down.

Every change has a ticket, ascending. An account that changes is marked once, with the ticket of its first change since it was last taken;
taking it clears the mark. Marks stand in the order of their tickets, so with the first mark left at ticket T everything before T has
been taken. An account is marked by its hash, since its record may move; records of one hash are taken together.

Room for a mark is reserved before the change, because a change that nobody writes down would be lost without a trace.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memmove

from record cimport CHANGED, record_free, record_t

cdef struct mark_t:
    uint64_t hash
    uint64_t ticket                 # of the first change since it was last taken

cdef struct track_t:
    bint on
    uint64_t ticket                 # of the latest change
    mark_t* marks
    size_t first
    size_t count
    size_t room
    record_t** purged               # accounts that are gone, until that is taken; owned
    size_t purged_count
    size_t purged_room


cdef inline bint track_reserve(track_t* self) noexcept nogil:
    """Room for one mark more; false without memory."""
    cdef mark_t* grown
    if not self.on or self.first + self.count < self.room:
        return True
    if self.first > self.room // 2:
        memmove(self.marks, self.marks + self.first, self.count * sizeof(mark_t))
        self.first = 0
        return True
    grown = <mark_t*>realloc(self.marks, (2 * self.room + 64) * sizeof(mark_t))
    if grown == NULL:
        return False
    self.marks, self.room = grown, 2 * self.room + 64
    return True


cdef inline uint64_t track_note(track_t* self, record_t* record) noexcept nogil:
    """A change of the account; its ticket, 0 while nothing is tracked. Room has been reserved."""
    if not self.on:
        return 0
    self.ticket += 1
    if not record.flags & CHANGED:
        record.flags |= CHANGED
        self.marks[self.first + self.count].hash = record.hash
        self.marks[self.first + self.count].ticket = self.ticket
        self.count += 1
    return self.ticket


cdef inline bint track_purge_reserve(track_t* self) noexcept nogil:
    """Room for one purged account more; false without memory."""
    cdef record_t** grown
    if not self.on or self.purged_count < self.purged_room:
        return True
    grown = <record_t**>realloc(self.purged, (2 * self.purged_room + 16) * sizeof(record_t*))
    if grown == NULL:
        return False
    self.purged, self.purged_room = grown, 2 * self.purged_room + 16
    return True


cdef inline void track_purge(track_t* self, record_t* record) noexcept nogil:
    """The account is gone: its record, the caller's until now, is kept to say so, or freed while nothing is tracked."""
    if not self.on:
        record_free(record)
        return
    self.purged[self.purged_count] = record
    self.purged_count += 1
    self.ticket += 1


cdef inline void track_free(track_t* self) noexcept nogil:
    cdef size_t i
    for i in range(self.purged_count):
        record_free(self.purged[i])
    free(self.purged)
    free(self.marks)
