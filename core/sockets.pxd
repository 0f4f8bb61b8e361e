# cython: cdivision=True
"""Sockets: what the system offers a loop."""
from libc.stdint cimport uint32_t
from libc.stdio cimport snprintf
from libc.string cimport strchr

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


cdef inline void peer_text(const sockaddr_storage* address, socklen_t size, char* text, size_t room) noexcept nogil:
    """Write a peer's address as `127.0.0.1:51234` or `[::1]:51234`; empty if it has none."""
    cdef char host[48]
    cdef char port[8]
    if getnameinfo(<const sockaddr*>address, size, &host[0], 48, &port[0], 8, NI_NUMERICHOST | NI_NUMERICSERV) != 0:
        text[0] = 0
    elif strchr(&host[0], 0x3a) != NULL:
        snprintf(text, room, "[%s]:%s", &host[0], &port[0])
    else:
        snprintf(text, room, "%s:%s", &host[0], &port[0])
