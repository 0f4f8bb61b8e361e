# cython: cdivision=True
"""Health: the messages of grpc.health.v1.Health/Check."""
from libc.stdint cimport uint32_t, uint8_t

from buffer cimport buffer_t
from names cimport name_t
from wire cimport DELIMITED, DEPTH_MAX, put_number, wire_of, wire_skip, wire_t, wire_tag, wire_text


cdef inline bint health_read(const uint8_t* at, size_t size, name_t* service) noexcept nogil:
    """Which service a HealthCheckRequest asks about, empty for the whole server; false if it is no message."""
    cdef wire_t wire = wire_of(at, size)
    cdef uint32_t tag
    service.at, service.size = at, 0
    while True:
        tag = wire_tag(&wire)
        if tag == 0:
            return not wire.bad
        if tag == (1 << 3 | DELIMITED):
            service[0] = wire_text(&wire)
        else:
            wire_skip(&wire, tag, DEPTH_MAX)


cdef inline void health_write(int status, buffer_t* out) noexcept nogil:
    """A HealthCheckResponse."""
    put_number(out, 1, status)
