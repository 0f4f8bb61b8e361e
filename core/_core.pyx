# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""quota._core: windows, records, rules and decisions.

One extension, many files: what is C alone is in header-only .pxd files, what Python sees in the .pyx files included here. The
core reads no clock, file, configuration or environment: time is an argument.
"""
cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT16_MAX, UINT64_MAX, int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from amounts cimport amount_add, i128
from ask cimport (
    ACCOUNT_UNKNOWN, ALLOWED, BURST, DRAWS_MAX, LIMIT_EXHAUSTED, MODEL_NONE, MODEL_UNKNOWN_LABEL, RULE_ACCOUNT, draw_t, request_t,
)
from blob cimport (
    BLOB_BYTES_MIN, BLOB_SCHEMA, blob_checksum, read_byte, read_log, read_span, read_varint, reader_t, write_byte, write_bytes, write_log,
    write_varint, writer_t,
)
from counters cimport counter_kind, counters_add, counters_copy, counters_init, counters_t
from decide cimport (
    DECIDED, NO_MEMORY, answer_begin, answer_t, charge_t, decide, limit_state, state_t,
)
from listing cimport ID_BYTES_MAX, account_copy, account_t, gather, gathered_t
from log cimport ENTRIES_MAX_MAX, ENTRIES_MAX_MIN, entry_t
from names cimport name_of, name_t, names_add, names_free, names_init, names_t
from record cimport (
    SLOTS_MAX, need_t, padded, record_carried, record_copy, record_id, record_log, record_new, record_remake, record_slot, record_slots, record_t,
)
from rules cimport (
    CATALOGS_MAX, LABELS_MAX, LIMITS_MAX, METERS_MAX, POOLS_MAX, limit_t, member_t, members_t, meter_t, model_t, pattern_t, plan_t,
    rules_plan, rules_t, weight_t,
)
from siphash cimport siphash
from table cimport (
    CHUNK_RECORDS, chunk_t, chunks_free, chunks_t, hash_tag, record_prefetch, table_add, table_find, table_init, table_prefetch,
    table_probable, table_remove, table_t,
)
from window cimport BUCKET, NEVER, SLIDING, seen_t, slot_t, window_t
from zone cimport schedule_t, span_t, zone_local, zone_t

from quota import types
from quota.errors import CorruptRecord, FailedPrecondition, InvalidArgument
from quota.types import CatalogVersion, LimitState, Mode, Usage, Verdict
from quota.wording import worded

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t*, const void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)

cdef tuple VERDICTS = tuple(Verdict)

include "labels.pyx"
include "rules.pyx"
include "request.pyx"
include "decision.pyx"
include "blob.pyx"
include "check.pyx"
include "ledger.pyx"
include "gate.pyx"
