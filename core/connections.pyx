"""Connections: sockets, and the sessions they carry, as one loop has them.

The base of a loop. A connection is read once per wake-up and written once per read; what does not fit the socket waits in the connection, and while
it waits nothing more is read from there. A connection that is closed is freed when nothing of the wake-up points to it any more.
"""

cdef enum:
    ACCEPTS_MAX = 64                # connections accepted per wake-up
    READ_BYTES = 65536
    WRITE_BYTES = 262144            # gathered per write
    SOCKETS_MAX = 16
    ACCEPT_REST_MS = 100            # after descriptors ran out

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


@cython.internal
@cython.auto_pickle(False)
cdef class Connections:
    """One thread's connections. `settings` has their number and age."""

    cdef worker_t worker
    cdef readonly Front front
    cdef object _clock              # asked where there is no line
    cdef Line _line
    cdef const line_t* _line_c      # NULL: the clock is always asked
    cdef object _channels           # makes a Channel of each new connection, or None
    cdef int _epoll
    cdef int64_t _accept_at         # accepting was given up until then, for want of descriptors; 0: it was not
    cdef int _listeners[SOCKETS_MAX]
    cdef int _listener_count
    cdef uint32_t _connections_max
    cdef int64_t _age_max           # nanoseconds of a connection; each gets up to a tenth less. 0: any
    cdef uint32_t _count
    cdef conn_t* _conns
    cdef conn_t* _closed
    cdef uint32_t _dice
    cdef uint8_t* _input
    cdef buffer_t _output           # scratch: what is being sent

    def __cinit__(self, Front front not None, clock, settings):
        cdef epoll_event event
        self._epoll = self.worker.bell = -1
        pthread_mutex_init(&self.worker.inbox_mutex, NULL)
        self._input = <uint8_t*>malloc(READ_BYTES)
        if self._input == NULL:
            raise MemoryError
        self.front, self._clock = front, clock
        self._line = getattr(clock, "line", None)
        if self._line is not None and self._line.is_boottime:
            self._line_c = &self._line.c
        self._connections_max, self._age_max = settings.connections_max, settings.connection_age_ms_max * MS
        self._dice = 88172645
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
        free(self.worker.traces.at)
        buffer_free(&self._output)
        pthread_mutex_destroy(&self.worker.inbox_mutex)
        free(self._input)

    @cython.final
    cdef void read_clocks(self) noexcept nogil:
        self.worker.monotonic = clock_ns(CLOCK_MONOTONIC)
        self.worker.now = line_time(self._line_c, clock_ns(CLOCK_BOOTTIME)) if self._line_c != NULL else 0
        if self.worker.now == 0:
            with gil:
                self.worker.now = self._clock.now_us()

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
                    self._accept_at = self.worker.monotonic + ACCEPT_REST_MS * MS
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
        peer_text(address, size, &conn.session.peer[0], PEER_BYTES)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int))
        conn.fd, conn.reading, conn.moved = fd, True, self.worker.monotonic
        conn.old = self.worker.monotonic + self._age_max - self.throw(self._age_max // 10) if self._age_max else 0
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

    # ---- Closing ----

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
