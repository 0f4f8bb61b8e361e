"""Loops: a thread without the GIL that moves bytes between sockets and sessions.

The one file of the core that meets the machine: sockets, epoll, and the two clocks that a wake-up reads. Everything is level-triggered. A
connection is read once per wake-up and written once per read; what does not fit the socket waits in the connection, and while it waits, or while
answers are not fetched, nothing more is read from there. A sweep, some times a second, ends what has been silent, stalled or old for too long.

The GIL is taken for TLS, and once a second to have the clock compared; never for a call.
"""

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)
    enum:
        EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
        EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        pass
    cdef struct sockaddr_storage:
        int ss_family
    int accept4(int, sockaddr*, socklen_t*, int)
    int setsockopt(int, int, int, const void*, socklen_t)
    Py_ssize_t recv(int, void*, size_t, int)
    Py_ssize_t send(int, const void*, size_t, int)
    enum:
        SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef extern from "<netdb.h>" nogil:
    int getnameinfo(const sockaddr*, socklen_t, char*, socklen_t, char*, socklen_t, int)
    enum:
        NI_NUMERICHOST, NI_NUMERICSERV

cdef extern from *:
    """
    #ifndef EPOLLEXCLUSIVE
    #define EPOLLEXCLUSIVE (1u << 28)
    #endif
    """
    const uint32_t EPOLLEXCLUSIVE

cdef enum:
    EVENTS_MAX = 256                # handled per wake-up
    ACCEPTS_MAX = 64                # connections accepted per wake-up
    READ_BYTES = 65536
    WRITE_BYTES = 262144            # gathered per write
    SWEEP_MS = 50
    SOCKETS_MAX = 16

cdef enum stage_t:
    SERVING = 0
    WARNING = 1                     # no new connections or streams, please
    LEAVING = 2                     # none at all; connections end with their last call
    ENDING = 3                      # at once

cdef struct patience_t:             # nanoseconds
    int64_t handshake               # for the preface, TLS included
    int64_t idle                    # without a call
    int64_t stalled                 # with answers that the peer does not fetch
    int64_t silent                  # without a byte, until we ask by a ping
    int64_t ping                    # for its answer
    int64_t age                     # of a connection; each gets up to a tenth less, 0: any
    int64_t grace                   # after we have said that we leave

cdef struct conn_t:
    int fd
    bint closed
    bint writing                    # the socket is full; EPOLLOUT is asked for
    bint reading                    # EPOLLIN is
    session_t* session
    buffer_t out                    # what the socket has not taken
    size_t sent
    int64_t moved                   # when the socket last took something
    int64_t old                     # when it is too old
    int64_t warned                  # 0: not
    PyObject* tls                   # NULL: none, or a Channel
    conn_t* previous
    conn_t* next


cdef void peer_text(const sockaddr_storage* address, socklen_t size, char* text) noexcept nogil:
    """Write a peer's address as `127.0.0.1:51234` or `[::1]:51234`; empty if it has none."""
    cdef char host[48]
    cdef char port[8]
    if getnameinfo(<const sockaddr*>address, size, &host[0], 48, &port[0], 8, NI_NUMERICHOST | NI_NUMERICSERV) != 0:
        text[0] = 0
    elif strchr(&host[0], 0x3a) != NULL:
        snprintf(text, PEER_BYTES, "[%s]:%s", &host[0], &port[0])
    else:
        snprintf(text, PEER_BYTES, "%s:%s", &host[0], &port[0])


@cython.final
cdef class Loop:
    """One thread's connections. `listen` it, `run` it in a thread of its own, and steer it with `warn`, `leave` and `end` from any other."""

    cdef worker_t worker
    cdef patience_t patience
    cdef readonly Front front
    cdef object _clock              # asked where there is no line
    cdef Line _line
    cdef const line_t* _line_c      # NULL: the clock is always asked
    cdef object _channels           # makes a Channel of each new connection, or None
    cdef int _epoll
    cdef int _stage                 # as told
    cdef int _reached               # as done
    cdef int64_t _left              # when it began to leave
    cdef int64_t _sweep_at
    cdef int64_t _accept_at         # accepting was given up until then, for want of descriptors
    cdef int _listeners[SOCKETS_MAX]
    cdef int _listener_count
    cdef uint32_t _connections_max
    cdef uint32_t _count
    cdef conn_t* _conns
    cdef conn_t* _closed
    cdef uint32_t _dice
    cdef uint8_t* _input
    cdef buffer_t _output           # scratch: what is being sent

    def __cinit__(self):
        self._epoll = self.worker.bell = -1
        self._input = <uint8_t*>malloc(READ_BYTES)
        pthread_mutex_init(&self.worker.inbox_mutex, NULL)
        if self._input == NULL:
            raise MemoryError

    def __init__(self, Front front not None, clock, settings):
        cdef epoll_event event
        self.front, self._clock = front, clock
        self._line = getattr(clock, "line", None)
        if self._line is not None and self._line.is_boottime:
            self._line_c = &self._line.c
        self._connections_max, self._dice = settings.connections_max, 88172645
        self.patience.handshake = settings.handshake_ms_max * MS
        self.patience.idle = settings.idle_ms_max * MS
        self.patience.stalled = settings.stalled_ms_max * MS
        self.patience.silent = settings.keepalive_ms * MS
        self.patience.ping = settings.keepalive_timeout_ms * MS
        self.patience.age = settings.connection_age_ms_max * MS
        self.patience.grace = settings.grace_ms * MS
        self.worker.front = &front.c
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        self.worker.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self._epoll < 0 or self.worker.bell < 0:
            raise OSError(errno, "a loop needs two file descriptors")
        event.events, event.data.ptr = EPOLLIN, &self.worker
        epoll_ctl(self._epoll, EPOLL_CTL_ADD, self.worker.bell, &event)

    def __dealloc__(self):
        cdef call_t* call
        if self._epoll >= 0:
            close(self._epoll)
        if self.worker.bell >= 0:
            close(self.worker.bell)
        while self.worker.spare != NULL:
            call = self.worker.spare
            self.worker.spare = call.queued
            free(call)
        buffer_free(&self.worker.out)
        buffer_free(&self._output)
        pthread_mutex_destroy(&self.worker.inbox_mutex)
        free(self._input)

    # ---- From other threads ----

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
        }

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
    cdef void read_clocks(self) noexcept nogil:
        self.worker.monotonic = clock_ns(CLOCK_MONOTONIC)
        self.worker.now = line_time(self._line_c, clock_ns(CLOCK_BOOTTIME)) if self._line_c != NULL else 0
        if self.worker.now == 0:
            with gil:
                self.worker.now = self._clock.now_us()

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

    # ---- Accepting ----

    @cython.final
    cdef void accept(self, int listener) noexcept nogil:
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int fd
        for _ in range(ACCEPTS_MAX):
            size = sizeof(sockaddr_storage)
            fd = accept4(listener, <sockaddr*>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                    self.stop_accepting()
                    self._accept_at = self.worker.monotonic + 100 * MS
                return
            if self._count >= self._connections_max or not self.take_in(fd, &address, size):
                self.worker.figures.sessions_refused += 1
                close(fd)

    @cython.final
    cdef void stop_accepting(self) noexcept nogil:
        cdef int i
        for i in range(self._listener_count):
            epoll_ctl(self._epoll, EPOLL_CTL_DEL, self._listeners[i], NULL)

    @cython.final
    cdef void accept_again(self) noexcept nogil:
        cdef epoll_event event
        cdef int i
        self._accept_at = 0
        for i in range(self._listener_count):
            event.events, event.data.ptr = EPOLLIN | EPOLLEXCLUSIVE, &self._listeners[i]
            epoll_ctl(self._epoll, EPOLL_CTL_ADD, self._listeners[i], &event)

    @cython.final
    cdef bint take_in(self, int fd, const sockaddr_storage* address, socklen_t size) noexcept nogil:
        """Take a connection in; false without memory or descriptors."""
        cdef conn_t* conn = <conn_t*>calloc(1, sizeof(conn_t))
        cdef epoll_event event
        cdef int on = 1
        if conn == NULL:
            return False
        conn.session = session_new(&self.worker)
        if conn.session == NULL:
            free(conn)
            return False
        conn.session.owner = conn
        peer_text(address, size, &conn.session.peer[0])
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int))
        conn.fd, conn.reading, conn.moved = fd, True, self.worker.monotonic
        conn.old = self.worker.monotonic + self.patience.age - self.throw(self.patience.age // 10) if self.patience.age else 0
        event.events, event.data.ptr = EPOLLIN, conn
        if self._channels is not None and not self.secure_conn(conn) or epoll_ctl(self._epoll, EPOLL_CTL_ADD, fd, &event) != 0:
            self.drop_channel(conn)
            session_free(conn.session)
            free(conn)
            return False
        conn.next = self._conns
        if conn.next != NULL:
            conn.next.previous = conn
        self._conns = conn
        self._count += 1
        return True

    @cython.final
    cdef int64_t throw(self, int64_t below) noexcept nogil:
        """Something at random, so that connections made together do not end together."""
        self._dice ^= self._dice << 13
        self._dice ^= self._dice >> 17
        self._dice ^= self._dice << 5
        return self._dice % below if below > 0 else 0

    # ---- TLS ----

    @cython.final
    cdef bint secure_conn(self, conn_t* conn) noexcept nogil:
        with gil:
            try:
                channel = self._channels()
            except Exception:       # out of memory, or a context that cannot be used
                return False
            Py_INCREF(channel)
            conn.tls = <PyObject*>channel
            return True

    @cython.final
    cdef void drop_channel(self, conn_t* conn) noexcept nogil:
        if conn.tls != NULL:
            with gil:
                Py_DECREF(<object>conn.tls)
                conn.tls = NULL

    @cython.final
    cdef bint decrypt_and_feed(self, conn_t* conn, const uint8_t* at, size_t size) noexcept nogil:
        """Decrypt what has arrived and feed it; false if the connection is to be closed."""
        cdef const uint8_t* plain
        cdef size_t plain_size
        cdef bint good = True
        with gil:
            try:
                plaintext = (<object>conn.tls).decrypt(at[:size])
            except Exception:       # no handshake with us, or not TLS
                return False
            if plaintext is None:
                return False
            plain, plain_size = <const uint8_t*>PyBytes_AS_STRING(plaintext), len(plaintext)
            with nogil:
                good = plain_size == 0 or session_feed(conn.session, plain, plain_size)
        return good

    @cython.final
    cdef bint encrypt(self, conn_t* conn, buffer_t* out) noexcept nogil:
        """Encrypt what is to be sent, in its place."""
        with gil:
            try:
                sealed = (<object>conn.tls).encrypt(out.at[:out.size] if out.size else b"")
            except Exception:
                return False
            out.size = 0
            buffer_put(out, PyBytes_AS_STRING(sealed), len(sealed))
        return not out.failed

    # ---- Serving ----

    @cython.final
    cdef void serve(self, conn_t* conn, uint32_t events) noexcept nogil:
        cdef ssize_t size
        cdef bint good = True
        if conn.closed:
            return
        if events & EPOLLOUT:
            self.flush(conn)
            if conn.closed:
                return
        if events & (EPOLLIN | EPOLLHUP | EPOLLERR) and conn.reading:
            size = recv(conn.fd, self._input, READ_BYTES, 0)
            if size < 0 and (errno == EAGAIN or errno == EINTR):
                return
            if size <= 0:
                self.close(conn)
                return
            self.read_clocks()
            conn.session.is_dirty = True        # flushed right here, so that nobody has to list it
            good = self.decrypt_and_feed(conn, self._input, size) if conn.tls != NULL else session_feed(conn.session, self._input, size)
            conn.session.is_dirty = False
            self.flush(conn)
            if not good and not conn.closed:
                self.close(conn)
        elif events & (EPOLLHUP | EPOLLERR):
            self.close(conn)

    @cython.final
    cdef void flush(self, conn_t* conn) noexcept nogil:
        """Send what there is to send, as far as the socket takes it."""
        cdef buffer_t* out = &self._output
        cdef bint more = False      # one write is not enough
        if conn.out.size == 0:
            if not self.gather(conn, out):
                self.close(conn)
                return
            more = out.size >= WRITE_BYTES
            if out.size and not self.send(conn, out):
                return
        elif not self.send(conn, &conn.out):
            return
        else:
            more = conn.out.size == 0       # what has gathered meanwhile comes with the next
        if conn.out.size == 0 and session_over(conn.session):
            self.close(conn)
            return
        self.watch(conn, more)

    @cython.final
    cdef bint gather(self, conn_t* conn, buffer_t* out) noexcept nogil:
        """Make the bytes of the next write; false if the connection is to be closed."""
        cdef bint good
        conn.session.is_dirty = True            # calls that are resumed need not list it
        out.failed, out.size = False, 0
        good = session_fetch(conn.session, out, WRITE_BYTES)
        while good and session_resume(conn.session):
            good = session_fetch(conn.session, out, WRITE_BYTES)
        conn.session.is_dirty = False
        return good and (conn.tls == NULL or self.encrypt(conn, out))

    @cython.final
    cdef bint send(self, conn_t* conn, buffer_t* out) noexcept nogil:
        """Send as much as goes, and keep the rest; false if the connection was closed."""
        cdef size_t sent = conn.sent if out == &conn.out else 0
        cdef ssize_t size = send(conn.fd, out.at + sent, out.size - sent, MSG_NOSIGNAL)
        if size < 0 and errno != EAGAIN and errno != EINTR:
            self.close(conn)
            return False
        if size > 0:
            conn.moved = self.worker.monotonic
            self.worker.figures.bytes_out += size
            sent += size
        if sent == out.size:
            if out == &conn.out:
                buffer_free(out)
            conn.sent = 0
        elif out == &conn.out:
            conn.sent = sent
        else:
            buffer_put(&conn.out, out.at + sent, out.size - sent)
            conn.sent = 0
            if conn.out.failed:
                self.close(conn)
                return False
        return True

    @cython.final
    cdef void watch(self, conn_t* conn, bint more) noexcept nogil:
        """Ask epoll for what the connection can use."""
        cdef bint writing = more or conn.out.size > 0
        cdef bint reading = not writing
        cdef epoll_event event
        if writing == conn.writing and reading == conn.reading:
            return
        conn.writing, conn.reading = writing, reading
        event.events, event.data.ptr = (EPOLLOUT if writing else 0) | (EPOLLIN if reading else 0), conn
        epoll_ctl(self._epoll, EPOLL_CTL_MOD, conn.fd, &event)

    @cython.final
    cdef void flush_dirty(self) noexcept nogil:
        """Send what calls that waited have been answered."""
        cdef session_t* session = self.worker.dirty
        cdef conn_t* conn
        self.worker.dirty = NULL
        while session != NULL:
            session.is_dirty = False
            conn = <conn_t*>session.owner
            session = session.dirty_next
            if not conn.closed:
                self.flush(conn)

    @cython.final
    cdef void close(self, conn_t* conn) noexcept nogil:
        """Close the socket; the rest goes when nothing of this wake-up points to it any more."""
        if conn.closed:
            return
        conn.closed = True
        close(conn.fd)
        if conn.previous != NULL:
            conn.previous.next = conn.next
        else:
            self._conns = conn.next
        if conn.next != NULL:
            conn.next.previous = conn.previous
        conn.next, self._closed = self._closed, conn
        self._count -= 1

    @cython.final
    cdef void bury(self) noexcept nogil:
        """Free what was closed."""
        cdef conn_t* conn = self._closed
        while conn != NULL:
            self._closed = conn.next
            session_free(conn.session)
            buffer_free(&conn.out)
            self.drop_channel(conn)
            free(conn)
            conn = self._closed

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
        if not session.greeted and now - session.opened > self.patience.handshake:
            self.close(conn)
        elif conn.out.size and now - conn.moved > self.patience.stalled:
            self.close(conn)
        elif session.output_bytes and now - session.fetched > self.patience.stalled:
            self.close(conn)
        elif session.pinged and now - session.pinged > self.patience.ping:
            self.close(conn)
        elif session.leaving and now - conn.warned > self.patience.grace:
            self.close(conn)
        elif conn.warned and not session.leaving and (session.pinged == 0 or now - conn.warned > min(NS_PER_SECOND, self.patience.grace)):
            session_leave(session)
            conn.warned = now
            self.flush(conn)
        elif conn.warned == 0 and (conn.old and now >= conn.old or now - session.active > self.patience.idle):
            self.warn_peer(conn)
            self.flush(conn)
        elif session.pinged == 0 and now - session.heard > self.patience.silent:
            session_ping(session)
            self.flush(conn)

    @cython.final
    cdef void warn_peer(self, conn_t* conn) noexcept nogil:
        """Ask for no new streams; the answered ping says that the peer has read it."""
        if conn.warned == 0:
            conn.warned = self.worker.monotonic
            session_warn(conn.session)
            session_ping(conn.session)
