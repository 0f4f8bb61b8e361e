"""Loops: a thread without the GIL that moves bytes between sockets and sessions.

With its connections it is the one place of the core that meets the machine: sockets, epoll, and the two clocks that a wake-up reads. Everything is
level-triggered. A loop wakes, handles what is ready, lets go what has waited, and sends. A sweep, some times a second, ends what has been silent,
stalled or old for too long.

The GIL is taken for TLS, and once a second to have the clock compared; never for a call.
"""

cdef enum:
    EVENTS_MAX = 256                # handled per wake-up
    SWEEP_MS = 50

cdef enum stage_t:
    SERVING = 0
    WARNING = 1                     # no new connections or streams, please
    LEAVING = 2                     # none at all; connections end with their last call
    ENDING = 3                      # at once

ENDED_REASONS = ("handshake", "stalled", "silent", "grace", "idle", "age")      # as ended_t

cdef struct patience_t:             # nanoseconds
    int64_t handshake               # for the preface, TLS included
    int64_t idle                    # without a call
    int64_t stalled                 # with answers that the peer does not fetch
    int64_t silent                  # without a byte, until we ask by a ping
    int64_t ping                    # for its answer
    int64_t grace                   # after we have said that we leave


@cython.final
@cython.auto_pickle(False)
cdef class Loop(Connections):
    """One thread's connections. `listen` it, `run` it in a thread of its own, and steer it with `warn`, `leave` and `end` from any other."""

    cdef patience_t _patience
    cdef int _stage                 # as told
    cdef int _reached               # as done
    cdef int64_t _sweep_at

    def __cinit__(self, Front front not None, clock, settings):
        self.take_patience(settings)

    # ---- From other threads ----

    def take_patience(self, settings):
        """Bear with peers as long as a quota.settings.Settings says, from now on; each length is read by itself."""
        self._patience.handshake = settings.handshake_ms_max * MS
        self._patience.idle = settings.idle_ms_max * MS
        self._patience.stalled = settings.stalled_ms_max * MS
        self._patience.silent = settings.keepalive_ms * MS
        self._patience.ping = settings.keepalive_timeout_ms * MS
        self._patience.grace = settings.grace_ms * MS

    def listen(self, int descriptor):
        """Accept from a listening, non-blocking socket that the caller keeps open. Before `run`."""
        cdef epoll_event event
        if self._listener_count == SOCKETS_MAX:
            raise ValueError(descriptor)
        self._listeners[self._listener_count] = descriptor
        event.events, event.data.ptr = EPOLLIN | EPOLLEXCLUSIVE, &self._listeners[self._listener_count]
        self._listener_count += 1
        if epoll_ctl(self._epoll, EPOLL_CTL_ADD, descriptor, &event) != 0:
            raise OSError(errno, "cannot wait for connections")

    def trace(self):
        """Note calls that are traced, for `traced`. Before `run`."""
        if not traces_init(&self.worker.traces):
            raise MemoryError

    def secure(self, channels):
        """Speak TLS: `channels()` makes what encrypts one connection. None: plain, for those to come."""
        self._channels = channels

    def warn(self):
        """Accept no more, and ask all peers for no new streams."""
        self.order(WARNING)

    def leave(self):
        """Take no new streams; connections end with their last call, or when their grace is over. `run` then returns."""
        self.order(LEAVING)

    def end(self):
        """Close everything now."""
        self.order(ENDING)

    cdef void order(self, int stage):
        self._stage = max(self._stage, stage)
        bell_ring(self.worker.bell)

    @property
    def connection_count(self):
        return self._count

    def calls(self):
        """(path, status, count) of every kind of call so far; the path is empty for methods that are not served."""
        cdef int method, status
        cdef figures_t* figures = &self.worker.figures
        return [
            (self.path(method), status, figures.calls[method][status])
            for method in range(self.front.c.method_count + 1) for status in range(STATUSES) if figures.calls[method][status]
        ]

    def times(self):
        """(path, calls by the bucket of the nanoseconds that they took, all their nanoseconds) of every method; the last bucket has no end."""
        cdef int method, bucket
        cdef figures_t* figures = &self.worker.figures
        return [
            (self.path(method), [figures.times[method][bucket] for bucket in range(BUCKETS + 1)], figures.times_sum[method])
            for method in range(self.front.c.method_count + 1)
        ]

    def decision_times(self):
        """(decisions of Admit by the bucket of the nanoseconds that they took, all their nanoseconds), of those that were timed: some in each
        SAMPLE_DECISIONS, which count as one."""
        cdef int bucket
        cdef figures_t* figures = &self.worker.figures
        return [figures.decision_times[bucket] for bucket in range(BUCKETS + 1)], figures.decision_times_sum

    def ended(self):
        """How many connections were ended from here, by ENDED_REASONS."""
        cdef int kind
        return {ENDED_REASONS[kind]: self.worker.figures.sessions_ended[kind] for kind in range(<int>ENDED_KINDS)}

    @cython.final
    cdef str path(self, int method):
        return self.front.methods[method] if method < self.front.c.method_count else ""

    def figures(self):
        """What happened so far, by name: connections, floods, bytes."""
        cdef figures_t* figures = &self.worker.figures
        return {
            "connections": self._count,
            "connections_opened": figures.sessions_opened,
            "connections_refused": figures.sessions_refused,
            "connections_calmed": figures.sessions_calmed,
            "calls_reset": figures.streams_reset,
            "headers_refused": figures.headers_refused,
            "bytes_received": figures.bytes_in,
            "bytes_sent": figures.bytes_out,
            "answers_waiting": figures.waiting,
            "streams": figures.streams,
        }

    def traced(self):
        """(path, traceparent, status, when it came, when it was answered) of every call noted since the last time, in monotonic nanoseconds.

        For one thread at a time. The path is empty for methods that are not served."""
        cdef traced_t it
        cdef list found = []
        cdef int _
        for _ in range(TRACED_MAX):
            if self.worker.traces.at == NULL or not traces_take(&self.worker.traces, &it):
                break
            found.append((self.path(it.method), it.parent[:TRACEPARENT_BYTES].decode("latin-1"), it.status, it.arrived, it.answered))
        return found

    @property
    def traces_lost_count(self):
        """Traced calls that found no room."""
        return self.worker.traces.lost

    # ---- The thread ----

    def run(self):
        """Serve until told to leave, and nobody is left."""
        if self.front._watermark is not None:
            self.worker.listener = self.front._watermark.listen(self.worker.bell)
        try:
            with nogil:
                self.turn()
        finally:
            if self.front._watermark is not None:
                self.front._watermark.leave(self.worker.listener)

    @cython.final
    cdef void turn(self) noexcept nogil:
        cdef epoll_event events[EVENTS_MAX]
        cdef int i, count
        while True:
            count = epoll_wait(self._epoll, &events[0], EVENTS_MAX, self.patience_left() if worker_may_sleep(&self.worker) else 0)
            self.read_clocks()
            self.worker.began = self.worker.monotonic
            for i in range(count):
                self.handle(&events[i])
            worker_release(&self.worker)
            worker_collect(&self.worker)
            worker_expire(&self.worker)
            self.flush_dirty()
            if self.worker.monotonic >= self._sweep_at:
                self._sweep_at = self.worker.monotonic + SWEEP_MS * MS
                self.sweep()
            self.bury()
            if self._reached != self._stage:
                self.take_stage()
            if self._reached >= LEAVING and self._conns == NULL and self.worker.waiting == NULL:
                return

    @cython.final
    cdef int patience_left(self) noexcept nogil:
        """Milliseconds that the loop may sleep, -1 for ever."""
        cdef int64_t until = self._sweep_at
        if self.worker.deadline:
            until = min(until, self.worker.deadline)
        if self._conns == NULL and self._stage == SERVING and self._accept_at == 0 and self.worker.deadline == 0:
            return -1
        return <int>max(<int64_t>0, (until - self.worker.monotonic + MS - 1) // MS)

    @cython.final
    cdef void handle(self, epoll_event* event) noexcept nogil:
        cdef void* whose = event.data.ptr
        cdef uint64_t rings
        if whose == &self.worker:
            read(self.worker.bell, &rings, 8)
        elif <void*>&self._listeners[0] <= whose < <void*>&self._listeners[SOCKETS_MAX]:
            self.accept((<int*>whose)[0])
        else:
            self.serve(<conn_t*>whose, event.events)

    @cython.final
    cdef void take_stage(self) noexcept nogil:
        cdef conn_t* conn = self._conns
        cdef conn_t* following
        self._reached = self._stage
        self.stop_accepting()
        while conn != NULL:
            following = conn.next
            if self._reached == WARNING:
                self.warn_peer(conn)
            elif self._reached == LEAVING:
                session_leave(conn.session)
                conn.warned = self.worker.monotonic
            else:
                self.close(conn)
            if not conn.closed:
                self.flush(conn)
            conn = following
        self.bury()

    # ---- Sweeping ----

    @cython.final
    cdef void sweep(self) noexcept nogil:
        cdef conn_t* conn = self._conns
        cdef conn_t* following
        if self._accept_at and self.worker.monotonic >= self._accept_at and self._stage == SERVING:
            self.accept_again()
        while conn != NULL:
            following = conn.next
            self.look_at(conn)
            conn = following

    @cython.final
    cdef void look_at(self, conn_t* conn) noexcept nogil:
        """End a connection that has been silent, stalled or old for too long, in that order."""
        cdef session_t* session = conn.session
        cdef int64_t now = self.worker.monotonic
        if not session.greeted and now - session.opened > self._patience.handshake:
            self.end_conn(conn, UNGREETED)
        elif conn.out.size and now - conn.moved > self._patience.stalled:
            self.end_conn(conn, STALLED)
        elif session.output_bytes and now - session.fetched > self._patience.stalled:
            self.end_conn(conn, STALLED)
        elif session.pinged and now - session.pinged > self._patience.ping:
            self.end_conn(conn, SILENT)
        elif session.leaving and now - conn.warned > self._patience.grace:
            self.end_conn(conn, LINGERING)
        elif conn.warned and not session.leaving and (session.pinged == 0 or now - conn.warned > min(NS_PER_SECOND, self._patience.grace)):
            session_leave(session)
            conn.warned = now
            self.flush(conn)
        elif conn.warned == 0 and (conn.old and now >= conn.old or now - session.active > self._patience.idle):
            self.worker.figures.sessions_ended[<int>OLD if conn.old and now >= conn.old else <int>IDLE] += 1
            self.warn_peer(conn)
            self.flush(conn)
        elif session.pinged == 0 and now - session.heard > self._patience.silent:
            session_ping(session)
            self.flush(conn)

    @cython.final
    cdef void end_conn(self, conn_t* conn, int kind) noexcept nogil:
        self.worker.figures.sessions_ended[kind] += 1
        self.close(conn)

    @cython.final
    cdef void warn_peer(self, conn_t* conn) noexcept nogil:
        """Ask for no new streams; the answered ping says that the peer has read it."""
        if conn.warned == 0:
            conn.warned = self.worker.monotonic
            session_warn(conn.session)
            session_ping(conn.session)
