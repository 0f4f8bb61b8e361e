# cython: cdivision=True
"""A front: what turns bytes of HTTP/2 into decisions and back, as plain structs.

    front_t      what all threads share: limits, methods, tokens, and the one function that decides
    worker_t     what one thread owns: its calls that wait, spare memory, figures, and the time
    session_t    one connection: a libnghttp2 session and what gRPC asks beside it (session.pxd)
    call_t       one stream: a request that arrives, waits perhaps, and is answered (call.pxd)

Bytes go in and bytes come out; there is no socket, no clock and no Python here. A worker's structs are touched by its own thread alone, but
for calls that are handed to Python: those lie in the front's queue, then in their worker's inbox, each under its own mutex.

A call belongs to its stream until that closes. While it waits (for the disk, or in Python's hands) it belongs to whoever it waits for: a
stream that closes meanwhile only leaves it, `session` becomes NULL, and its memory is freed when what it waited for has come.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from buffer cimport buffer_t
from nghttp2 cimport nghttp2_nv, nghttp2_option, nghttp2_session, nghttp2_session_callbacks
from traced cimport TRACEPARENT_BYTES, traces_t
from watermark cimport watermark_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass

cdef enum:
    INLINE_BYTES = 232              # of a request: most are no longer
    ANSWER_BYTES = 312              # of an answer: likewise
    PREFIX_BYTES = 5                # gRPC's: a flag and a length
    PEER_BYTES = 64
    STATUSES = 17                   # gRPC's, 0 to 16
    BUCKETS = 16                    # of a histogram of times
    SAMPLE_DECISIONS = 1024         # one group of calls is timed in about as many decisions
    METHODS_MAX = 64
    GATHERED_MAX = 16               # calls decided together: as many as the service fetches memory for at once
    TOKENS_MAX = 256
    HEALTH_MAX = 8

cdef enum method_kind_t:            # those below HEALTH are Service.serve's
    GATHERED = 0                    # Admit: decided together with what came in the same read
    HEALTH = 7
    PYTHON = 8                      # and all from here on

cdef enum served_t:
    HANDED = 0
    SERVED = 1

cdef enum role_t:
    ROLE_NONE = 0
    ROLE_READ = 1
    ROLE_WRITE = 2

ctypedef int (*serve_t)(
    void* service, int method, const uint8_t* at, size_t size, int64_t now, buffer_t* out, uint64_t* ticket, size_t* rest
) noexcept nogil

cdef struct asking_t:               # one message of several, and its answer among theirs
    const uint8_t* at
    size_t size
    size_t start                    # of the answer in `out`, PREFIX_BYTES of room first
    size_t end
    uint64_t ticket
    int served

ctypedef void (*serve_all_t)(void* service, asking_t* askings, int count, int64_t now, buffer_t* out) noexcept nogil

cdef struct method_t:
    const uint8_t* path
    uint32_t size
    int kind
    int role                        # least one that may call it

cdef struct token_t:
    uint64_t hash
    const uint8_t* at
    uint32_t size
    int role

cdef struct tokens_t:               # replaced as a whole, and never freed while a front lives: somebody may be reading
    uint64_t key[2]
    int count
    token_t at[TOKENS_MAX]

cdef struct health_t:               # what a service says of itself
    const uint8_t* name
    uint32_t size
    int status                      # grpc.health.v1's number

cdef struct limits_t:
    uint32_t streams_max            # of one connection
    uint32_t header_bytes_max       # of one request's header list, as HTTP/2 counts it
    uint32_t message_bytes_max
    uint64_t input_bytes_max        # of requests that are arriving, a connection
    uint64_t output_bytes_max       # of answers that are not fetched, a connection: above it nothing is decided
    uint32_t handed_max             # calls in Python's hands, or waiting for them
    uint32_t waiting_max            # calls of one worker that wait for the disk
    uint32_t control_burst_max      # PING, SETTINGS, PRIORITY, RST_STREAM and empty DATA frames at once
    int64_t control_ns              # until there is room for one more of them
    int64_t disk_ns_max             # how long an answer waits for the disk

cdef struct front_t:
    limits_t limits
    serve_t serve
    serve_all_t serve_all           # of GATHERED
    void* service
    watermark_t* watermark          # NULL: answers wait for nothing
    int method_count
    method_t methods[METHODS_MAX]
    const tokens_t* tokens          # NULL: nobody has to show one
    int health_count
    health_t health[HEALTH_MAX]
    nghttp2_session_callbacks* callbacks
    nghttp2_option* option
    pthread_mutex_t mutex           # guards what follows
    pthread_cond_t filled
    call_t* handed_first
    call_t* handed_last
    uint32_t handed_count           # in the queue or in Python's hands
    bint closed

cdef enum ended_t:                  # why the front ended a connection
    UNGREETED = 0                   # no handshake in time
    STALLED = 1                     # answers not fetched
    SILENT = 2                      # no answer to our ping
    LINGERING = 3                   # still there after its grace
    IDLE = 4                        # no call for long
    OLD = 5
    ENDED_KINDS = 6

cdef struct figures_t:
    uint64_t calls[METHODS_MAX + 1][STATUSES]       # the last method: none that is served
    uint64_t times[METHODS_MAX + 1][BUCKETS + 1]    # answers by the time they took; the last bucket: longer
    uint64_t times_sum[METHODS_MAX + 1]             # nanoseconds
    uint64_t decision_times[BUCKETS + 1]            # of those sampled; a group counts as its mean, once
    uint64_t decision_times_sum
    uint64_t sessions_ended[ENDED_KINDS]
    uint64_t sessions_opened
    uint64_t sessions_closed
    uint64_t sessions_refused
    uint64_t streams_reset          # by the peer, before their answer
    uint64_t sessions_calmed        # closed for floods
    uint64_t headers_refused
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t waiting                # now, for the disk
    uint64_t streams                # likewise, open

cdef struct worker_t:
    front_t* front
    int64_t now                     # Unix microseconds: what decisions are made at
    int64_t monotonic               # nanoseconds
    int64_t began                   # likewise: when what is being read could be read
    call_t* spare
    int spare_count
    call_t* parked_first            # for the disk, in the order of their tickets
    call_t* parked_last
    call_t* waiting                 # all that wait, for deadlines: linked both ways
    int64_t deadline                # the next one, 0: none
    call_t* gathered[GATHERED_MAX]  # whole, and decided before what was read is done with
    int gathered_count
    int unsampled                   # decisions since the last that were timed
    session_t* dirty                # have something to send although nothing was read
    buffer_t out                    # scratch: an answer being made
    pthread_mutex_t inbox_mutex
    call_t* inbox                   # answered by Python
    int listener                    # its place at the watermark
    bint has_waited                 # the watermark has been told of somebody who waits
    int bell                        # eventfd: something lies in the inbox, or the watermark has risen
    figures_t figures
    traces_t traces

cdef struct session_t:
    worker_t* worker
    nghttp2_session* http
    call_t* current                 # whose headers or data arrive
    call_t* calls                   # open streams, linked both ways
    uint32_t call_count
    uint64_t input_bytes
    uint64_t output_bytes           # of answers that nghttp2 has not taken
    call_t* deferred_first          # whole, but not decided while so much is not fetched
    call_t* deferred_last
    uint32_t unended                # answered before the request was whole
    int64_t control_since           # bucket of control frames: when it is empty
    int64_t opened                  # monotonic, like all that follow
    int64_t active                  # last frame of a call, either way
    int64_t heard                   # last byte
    int64_t pinged                  # our own ping that is not answered, 0: none
    bint greeted                    # the preface and its SETTINGS have come
    bint leaving                    # the last GOAWAY is on its way
    int64_t fetched                 # last bytes of an answer that could be sent
    bint is_dirty
    session_t* dirty_next
    void* owner                     # the transport's
    char peer[PEER_BYTES]

cdef struct call_t:
    session_t* session              # NULL: nobody listens any more
    worker_t* worker
    int32_t stream
    int method                      # index, or the front's method_count: none that is served
    int role
    int refused                     # status to be told once the headers are whole, 0: none
    const char* refusal
    bint is_post
    bint is_grpc
    bint encoded                    # a grpc-encoding that Python undoes
    bint gzip
    bint compressed                 # this message is
    bint answered
    bint sending                    # the answer, not a status alone
    bint ended                      # the peer has said all
    bint gathered
    bint deferred
    bint parked
    bint handed
    bint listed                     # in worker.waiting
    bint traced                     # `trace_parent` is the caller's
    uint32_t header_bytes
    int64_t deadline                # monotonic, 0: none
    bint impatient                  # the deadline is the server's own: the disk does not answer
    int64_t arrived
    int prefix_size
    uint8_t prefix[PREFIX_BYTES]
    uint32_t message_size           # as it says
    uint32_t message_have
    uint32_t message_room
    uint8_t* message                # `short`, or memory of its own
    size_t rest                     # handed: from where on Python serves
    uint64_t ticket
    uint8_t* answer                 # likewise; prefix first
    size_t answer_size
    size_t answer_sent
    int status                      # from Python
    buffer_t status_text            # likewise, percent-encoded when sent
    buffer_t metadata               # name NUL value NUL ..., for Python's methods alone
    char peer[PEER_BYTES]           # handed: who asks
    call_t* previous                # among the session's
    call_t* next
    call_t* queued                  # next in the queue it is in: deferred, parked, handed, inbox, spare
    call_t* waiting_previous
    call_t* waiting_next
    uint8_t short_message[INLINE_BYTES]
    uint8_t short_answer[ANSWER_BYTES]
    char trace_parent[TRACEPARENT_BYTES]
