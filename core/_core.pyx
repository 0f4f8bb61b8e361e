# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""quota._core: windows, records, rules and decisions.

One extension, many files: what is C alone is in header-only .pxd files, what Python sees in the .pyx files included here. The
core reads no clock, file, configuration or environment: time is an argument.
"""
cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport UINT16_MAX, UINT64_MAX, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from libc.errno cimport EAGAIN, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from posix.unistd cimport close, read

from adjust cimport adjust, adjusted_t
from admission cimport (
    HELD, ID_BYTES_MAX, SETTLED, admission_drawn, admission_id, admission_moved, admission_new, admission_open,
    admission_outlives, admission_t, drawn_t, moved_t, spares_t,
)
from amounts cimport MICRO, amount_add
from answer cimport (
    CONFLICT, DECIDED, HOLD_ENDED, HOLD_TOO_LONG, METER_ABSENT, NOT_HERE, NOT_KNOWN, NO_MEMORY, PROMPT_AMOUNT, answer_begin,
    answer_t, charge_t, ms_up, state_percent, state_t,
)
from ask cimport ACCOUNT_UNKNOWN, ALLOWED, DRAWS_MAX, MODEL_NONE, MODEL_UNKNOWN_LABEL, RULE_ACCOUNT, draw_t, request_t
from asked cimport (
    CANCEL, HOLD_MAX_MS, TEXT_BYTES_MAX, UNITS_MAX, asked_admit, asked_complete, asked_item, asked_renew, asked_settle, asked_t, asked_usage,
    batch_fits, request_complete,
)
from answered cimport answer_refused, answer_wait_us, answer_write, renewed_write, settled_write, standing_write, words_t
from atomic cimport atomic_read, atomic_write
from blob cimport (
    ADMISSION, BLOB_BYTES_MIN, BLOB_SCHEMA, BLOB_SCHEMA_MIN, OVERRIDE, PROMPT, TOMBSTONE, blob_checksum, read_byte, read_log, read_span,
    read_u64, read_varint, reader_t, write_record,
)
from buffer cimport buffer_free, buffer_init, buffer_put, buffer_reserve, buffer_t
from call cimport INTERNAL, RESOURCE_EXHAUSTED
from census cimport census_end, census_t, census_take
from charge cimport terms_t
from counters cimport (
    CHARGED, REFUNDED, counter_charge, counter_t, counters_add, counters_copy, counters_init, counters_t, decision_kind, units_kind, way_t,
)
from decide cimport decide
from descriptors cimport descriptors_read, descriptors_t
from domain cimport DESCRIPTORS_MAX, STYLES, domain_t, domains_t, key_t, prefix_t
from fingerprint cimport request_id_hash, settlement_fingerprint
from front cimport (
    BUCKETS, ENDED_KINDS, HANDED, HEALTH_MAX, IDLE, LINGERING, METHODS_MAX, OLD, PEER_BYTES, PREFIX_BYTES, SERVED, SILENT, STALLED, STATUSES,
    TOKENS_MAX, UNGREETED, asking_t, call_t, figures_t, front_t, limits_t, pthread_cond_t, pthread_mutex_t, session_t, tokens_t, worker_t,
)
from limited cimport ITEMS_MAX, ITEM_BYTES_MAX, limited_t, limited_write
from line cimport line_lay, line_t, line_time
from listing cimport account_copy, account_t, gather, gathered_t
from log cimport ENTRIES_MAX_MAX, ENTRIES_MAX_MIN, entry_t
from clocks cimport CLOCK_BOOTTIME, CLOCK_MONOTONIC, clock_ns
from metadata cimport MS, NS_PER_SECOND
from names cimport name_hash, name_of, name_t, names_add, names_free, names_init, names_t
from nghttp2 cimport (
    nghttp2_option_del, nghttp2_option_new, nghttp2_option_set_max_outbound_ack, nghttp2_option_set_no_closed_streams,
    nghttp2_option_set_stream_reset_rate_limit, nghttp2_session_callbacks_del, ssize_t,
)
from prompt cimport prompt_t
from record cimport (
    CHANGED, DELETED, DEMOTED, RECENT, SLOTS_MAX, WINDOW_DAYS_MAX, need_t, padded, record_carried, record_copy, record_era, record_free,
    record_id, record_log, record_new, record_override, record_remake, record_slot, record_slots, record_stub, record_t, record_taken,
)
from refusal cimport part_of_message_t, refusal_t, refusal_write
from rules cimport (
    CATALOGS_MAX, CONCURRENCY_MAX, LABELS_MAX, LIMITS_MAX, METERS_MAX, POOLS_MAX, PROMPT_POOLS_MAX, VERDICTS_MAX, concurrency_t, in_flight_t,
    in_force_t, limit_t, member_t, members_t, meter_t, model_t, pattern_t, plan_t, rules_plan, rules_t, version_t, weight_memo_t, weight_t,
)
from serving cimport session_resume
from session cimport (
    callbacks_new, session_feed, session_fetch, session_free, session_leave, session_new, session_over, session_ping, session_warn,
)
from settle cimport renew, settle, settled_t
from side cimport (
    OVERRIDES_MAX, PREFETCH, bounds_t, forgotten_t, known_insert, known_t, override_t, side_empty, side_hold, side_new,
    side_prefetch, side_prefetch_queues, side_reserve, side_reserve_prompt, side_t,
)
from siphash cimport siphash
from sockets cimport (
    EPOLLERR, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, IPPROTO_TCP,
    MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_NONBLOCK, TCP_NODELAY, accept4, epoll_create1, epoll_ctl, epoll_event, epoll_wait, peer_text, recv,
    send, setsockopt, sockaddr, sockaddr_storage, socklen_t,
)
from standing cimport standing_free, standing_t, standing_take
from table cimport (
    CHUNK_RECORDS, chunk_home, chunk_t, chunks_free, chunks_t, hash_tag, record_prefetch, table_add, table_find, table_init,
    table_move, table_prefetch, table_probable, table_remove, table_t,
)
from traced cimport TRACED_MAX, TRACEPARENT_BYTES, traced_t, traces_init, traces_take
from track cimport track_free, track_note, track_purge, track_purge_reserve, track_reserve, track_t
from vendor cimport refused_t, vendor_t, vendor_word
from waiting cimport call_extend_answer, front_take, worker_collect, worker_expire, worker_may_sleep, worker_post, worker_release
from watermark cimport (
    LISTENERS_MAX, bell_ring, watermark_begin, watermark_durable, watermark_end, watermark_fail, watermark_failed, watermark_may_leave,
    watermark_oldest_ns, watermark_park, watermark_ring, watermark_t,
)
from window cimport BUCKET, NEVER, SLIDING, slot_t, window_t
from wire cimport DEPTH_MAX, put_close, put_open, wire_of, wire_t
from zone cimport DAY_US, schedule_t, span_t, zone_t

import binascii
import re
import threading

from quota import types
from quota.errors import AlreadyExists, CorruptRecord, FailedPrecondition, InvalidArgument, NotFound
from quota.types import (
    Adjustment, Bounds, CatalogVersion, ConcurrencyState, LimitState, Mode, OpenHold, Outcome, Settlement, Usage, VendorRefusal, Verdict,
)

cdef extern from "<pthread.h>" nogil:
    int pthread_cond_init(pthread_cond_t*, const void*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)
    int pthread_cond_broadcast(pthread_cond_t*)
    int pthread_mutex_init(pthread_mutex_t*, const void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)

cdef tuple VERDICTS = tuple(Verdict)
cdef int PERIOD_COUNT = len(types.PERIODS)

include "request.pyx"
include "labels.pyx"
include "rules.pyx"
include "catalogs.pyx"
include "decision.pyx"
include "usage.pyx"
include "blob.pyx"
include "check.pyx"
include "take.pyx"
include "accounts.pyx"
include "archive.pyx"
include "decider.pyx"
include "ledger.pyx"
include "line.pyx"
include "gate.pyx"
include "watermark.pyx"
include "domain.pyx"
include "service.pyx"
include "front.pyx"
include "connections.pyx"
include "loop.pyx"
