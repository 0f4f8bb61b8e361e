# cython: cdivision=True
"""Wire: protobuf's wire format, read without a Python object and written as protobuf itself writes.

Reading accepts the bytes that protobuf's own parser (upb) accepts, and no others: unknown fields and known ones of another wire type are
skipped, groups too, down to a depth of 100; varints may be longer than they need be; text must be UTF-8. What is wrong makes the reader
bad for good and ends it, so whoever reads asks once, when there are no fields left.

Writing leaves out what proto3 leaves out: numbers that are 0 and text that is empty. All field numbers are below 16, so each tag is
one byte. A message inside another is written after one byte for its length; a longer one is moved up when it is complete.
"""
from libc.stdint cimport INT32_MAX, UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from buffer cimport buffer_put, buffer_reserve, buffer_t
from names cimport name_t

cdef enum wire_type_t:
    VARINT = 0
    FIXED_64 = 1
    DELIMITED = 2
    GROUP = 3
    GROUP_END = 4
    FIXED_32 = 5

cdef enum:
    DEPTH_MAX = 100                 # messages and groups inside one another
    VARINT_BYTES_MAX = 10
    SHORT_BYTES_MAX = 5             # of tags and sizes

cdef extern from *:
    """
    #define WIRE_HIGH_BITS 0x8080808080808080ULL    /* of eight bytes */
    """
    const uint64_t WIRE_HIGH_BITS

cdef struct wire_t:
    const uint8_t* at
    const uint8_t* end
    bint bad


cdef inline wire_t wire_of(const uint8_t* at, size_t size) noexcept nogil:
    cdef wire_t wire
    wire.at, wire.end, wire.bad = at, at + size, False
    return wire


cdef inline uint64_t wire_fail(wire_t* self) noexcept nogil:
    self.bad = True
    self.at = self.end
    return 0


# ---- Reading ----

cdef inline uint64_t wire_varint_long(wire_t* self, int bytes_max) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(bytes_max):
        if self.at + i >= self.end:
            break
        value |= <uint64_t>(self.at[i] & 127) << (7 * i)
        if self.at[i] < 128:
            self.at += i + 1
            return value
    return wire_fail(self)


cdef inline uint64_t wire_varint(wire_t* self) noexcept nogil:
    """What passes 64 bits is cut off."""
    if self.at < self.end and self.at[0] < 128:
        self.at += 1
        return self.at[-1]
    return wire_varint_long(self, VARINT_BYTES_MAX)


cdef inline uint64_t wire_short(wire_t* self, uint64_t most) noexcept nogil:
    cdef uint64_t value
    if self.at < self.end and self.at[0] < 128:
        self.at += 1
        return self.at[-1]
    value = wire_varint_long(self, SHORT_BYTES_MAX)
    return value if value <= most else wire_fail(self)


cdef inline uint32_t wire_tag(wire_t* self) noexcept nogil:
    """The next field's tag, its number and wire type; 0 where there is none, or the rest is no field."""
    cdef uint32_t tag
    if self.at == self.end:
        return 0
    tag = <uint32_t>wire_short(self, UINT32_MAX)
    if tag >> 3 == 0:
        wire_fail(self)
        return 0
    return tag


cdef inline wire_t wire_span(wire_t* self) noexcept nogil:
    """A delimited field's bytes."""
    cdef uint64_t size = wire_short(self, INT32_MAX)
    cdef const uint8_t* at = self.at
    if size > <uint64_t>(self.end - self.at):
        size = wire_fail(self)
        at = self.end
    else:
        self.at += size
    return wire_of(at, size)


cdef inline int utf8_size(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Bytes of the character that begins here with a byte above 127, or 0 where none does: neither overlong, nor a surrogate, nor past U+10FFFF."""
    cdef uint8_t first = at[0]
    cdef int size = 2 if first < 0xe0 else 3 if first < 0xf0 else 4
    cdef int i
    if first < 0xc2 or first > 0xf4 or end - at < size:
        return 0
    for i in range(1, size):
        if at[i] & 0xc0 != 0x80:
            return 0
    if (first == 0xe0 and at[1] < 0xa0) or (first == 0xed and at[1] > 0x9f) or (first == 0xf0 and at[1] < 0x90):
        return 0
    return 0 if first == 0xf4 and at[1] > 0x8f else size


cdef inline bint utf8_valid(const uint8_t* at, const uint8_t* end) noexcept nogil:
    cdef uint64_t word
    cdef int size
    while at < end:
        if end - at >= 8:
            memcpy(&word, at, 8)
            if word & WIRE_HIGH_BITS == 0:
                at += 8
                continue
        size = 1 if at[0] < 128 else utf8_size(at, end)
        if size == 0:
            return False
        at += size
    return True


cdef inline name_t wire_text(wire_t* self) noexcept nogil:
    """A text field, pointing into the message; its hash is not set."""
    cdef wire_t span = wire_span(self)
    cdef name_t text
    if not utf8_valid(span.at, span.end):
        wire_fail(self)
    text.at, text.size, text.hash = span.at, <uint32_t>(span.end - span.at), 0
    return text


cdef inline void wire_pass(wire_t* self, size_t size) noexcept nogil:
    if <size_t>(self.end - self.at) < size:
        wire_fail(self)
    else:
        self.at += size


cdef inline void wire_skip_group(wire_t* self, uint32_t number, int depth) noexcept nogil:
    """Skip to the end of the group of that number, with the groups in it; `depth` more may be open at once, this one included."""
    cdef uint32_t open[DEPTH_MAX]
    cdef uint32_t tag
    cdef int count = 0
    while True:
        if number:
            if count == depth:
                wire_fail(self)
                return
            open[count] = number
            count += 1
            number = 0
        tag = wire_tag(self)
        if tag == 0:
            wire_fail(self)         # it ends within the group
            return
        if tag & 7 == GROUP:
            number = tag >> 3
        elif tag & 7 != GROUP_END:
            wire_skip(self, tag, 0)
        elif tag >> 3 != open[count - 1]:
            wire_fail(self)
            return
        else:
            count -= 1
            if count == 0:
                return


cdef inline void wire_skip(wire_t* self, uint32_t tag, int depth) noexcept nogil:
    """Skip the field whose tag was read, in a message that leaves `depth` of the depth there may be."""
    cdef int kind = tag & 7
    if kind == VARINT:
        wire_varint(self)
    elif kind == DELIMITED:
        wire_span(self)
    elif kind == FIXED_64:
        wire_pass(self, 8)
    elif kind == FIXED_32:
        wire_pass(self, 4)
    elif kind == GROUP:
        wire_skip_group(self, tag >> 3, depth)
    else:
        wire_fail(self)


# ---- Writing ----

cdef inline void put_varint(buffer_t* out, uint64_t value) noexcept nogil:
    cdef uint8_t* at = buffer_reserve(out, VARINT_BYTES_MAX)
    cdef uint8_t* start = at
    if at == NULL:
        return
    while value >= 128:
        at[0] = <uint8_t>(value | 128)
        value >>= 7
        at += 1
    at[0] = <uint8_t>value
    out.size += at + 1 - start


cdef inline void put_tag(buffer_t* out, int field, int kind) noexcept nogil:
    cdef uint8_t* at = buffer_reserve(out, 1)
    if at != NULL:
        at[0] = <uint8_t>(field << 3 | kind)
        out.size += 1


cdef inline void put_present(buffer_t* out, int field, int64_t value) noexcept nogil:
    """A number, also where it is 0: of an optional field."""
    put_tag(out, field, VARINT)
    put_varint(out, <uint64_t>value)


cdef inline void put_number(buffer_t* out, int field, int64_t value) noexcept nogil:
    if value:
        put_present(out, field, value)


cdef inline void put_text(buffer_t* out, int field, name_t text) noexcept nogil:
    if text.size:
        put_tag(out, field, DELIMITED)
        put_varint(out, text.size)
        buffer_put(out, text.at, text.size)


cdef inline size_t put_open(buffer_t* out, int field) noexcept nogil:
    """Begin a delimited field; where its content starts, for put_close."""
    put_tag(out, field, DELIMITED)
    put_varint(out, 0)
    return out.size


cdef inline void put_close(buffer_t* out, size_t start) noexcept nogil:
    """Complete the field whose content starts there: put its length in front."""
    cdef size_t size = out.size - start
    cdef size_t left = size, more = 0
    while left >= 128:
        left >>= 7
        more += 1
    if buffer_reserve(out, more) == NULL:
        return
    if out.failed:
        return
    if more:
        memmove(out.at + start + more, out.at + start, size)
    out.size = start - 1
    put_varint(out, size)
    out.size = start + more + size


cdef inline void put_close_text(buffer_t* out, size_t start) noexcept nogil:
    """Likewise for text, which is left out if it is empty."""
    if out.size == start and not out.failed:
        out.size = start - 2
    else:
        put_close(out, start)
