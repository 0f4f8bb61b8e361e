/* A TCP connection without waiting, in the clear or under TLS, with bytes that are still to leave.
 *
 * Floor and generator share it. What is wrong with the socket ends the process or the connection: a benchmark has nobody to
 * hand an error to but its caller, who reads standard error. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    int fd;
    SSL *ssl;      /* NULL in the clear */
    uint8_t *out;  /* what is to leave, `out_at` of `out_size` bytes have */
    size_t out_at, out_size, out_room;
} link_t;

static inline void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "failed");
    if (ERR_peek_error())
        ERR_print_errors_fp(stderr);
    exit(1);
}

/* Take over a connected socket; 0 if TLS fails. The handshake is waited for: it is not what is measured. */
static inline int link_open(link_t *self, int fd, SSL_CTX *tls, int serves)
{
    int one = 1;
    memset(self, 0, sizeof *self);
    self->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (tls) {
        const uint8_t *protocol;
        unsigned size;
        self->ssl = SSL_new(tls);
        SSL_set_fd(self->ssl, fd);
        if ((serves ? SSL_accept(self->ssl) : SSL_connect(self->ssl)) != 1)
            return 0;
        SSL_get0_alpn_selected(self->ssl, &protocol, &size);
        if (size != 2 || memcmp(protocol, "h2", 2))
            return 0;
    }
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
        die("fcntl");
    return 1;
}

static inline void link_close(link_t *self)
{
    SSL_free(self->ssl);
    close(self->fd);
    free(self->out);
    self->fd = -1;
}

/* Bytes read; 0 if there are none now, -1 at the end of the connection. */
static inline ssize_t link_read(link_t *self, uint8_t *at, size_t room)
{
    ssize_t size;
    if (self->ssl) {
        size = SSL_read(self->ssl, at, (int)room);
        if (size > 0)
            return size;
        size = SSL_get_error(self->ssl, (int)size) == SSL_ERROR_WANT_READ ? 0 : -1;
        ERR_clear_error();
        return size;
    }
    size = read(self->fd, at, room);
    if (size > 0)
        return size;
    return size < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static inline void link_put(link_t *self, const uint8_t *at, size_t size)
{
    if (self->out_size + size > self->out_room) {
        self->out_room = 2 * (self->out_size + size);
        self->out = realloc(self->out, self->out_room);
        if (!self->out)
            die("memory");
    }
    memcpy(self->out + self->out_size, at, size);
    self->out_size += size;
}

/* Let leave what can. 1 if all has left, 0 if the rest waits for the socket, -1 at the end of the connection. */
static inline int link_flush(link_t *self)
{
    while (self->out_at < self->out_size) {
        size_t left = self->out_size - self->out_at;
        ssize_t size;
        if (self->ssl) {
            size = SSL_write(self->ssl, self->out + self->out_at, (int)left);
            if (size <= 0) {
                int error = SSL_get_error(self->ssl, (int)size);
                ERR_clear_error();
                return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? 0 : -1;
            }
        } else {
            size = write(self->fd, self->out + self->out_at, left);
            if (size < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -1;
        }
        self->out_at += (size_t)size;
    }
    self->out_at = self->out_size = 0;
    return 1;
}

static inline void link_tls_modes(SSL_CTX *tls)
{
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}
