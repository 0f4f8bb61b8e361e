/* The floor: what gRPC over nghttp2 and epoll costs when nothing is decided.
 *
 *     floor PORT [--bytes 82] [--cert FILE --key FILE]
 *
 * One thread, one session a connection. To every stream that has ended, whatever its path, it answers the same message: as long
 * as an AdmitResponse, and one by its fields. Messages are taken in and not looked at. What is read at once is answered by one
 * write. Prints the port once it listens. */
#include "link.h"

#include <getopt.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>

#define READ_BYTES 65536
#define WINDOW_BYTES (1 << 24)
#define ANSWER_BYTES_MAX 16000

typedef struct {
    link_t link;
    nghttp2_session *session;
    int waits_to_write;
} connection_t;

#define TEXT(name, value) {(uint8_t *)name, (uint8_t *)value, sizeof name - 1, sizeof value - 1, \
    NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE}

static nghttp2_nv HEAD[] = {TEXT(":status", "200"), TEXT("content-type", "application/grpc")};
static nghttp2_nv TRAILER[] = {TEXT("grpc-status", "0")};
static uint8_t answer[5 + ANSWER_BYTES_MAX]; /* with its gRPC prefix */
static size_t answer_size;
static nghttp2_session_callbacks *callbacks;

/* ---- One call ---- */

static ssize_t read_answer(nghttp2_session *session, int32_t stream, uint8_t *at, size_t room, uint32_t *flags,
                           nghttp2_data_source *source, void *unused)
{
    (void)source, (void)unused;
    if (room < answer_size)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* a client with a tiny window: none that is measured */
    memcpy(at, answer, answer_size);
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2_submit_trailer(session, stream, TRAILER, 1);
    return (ssize_t)answer_size;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *unused)
{
    nghttp2_data_provider body = {.read_callback = read_answer};
    (void)unused;
    if ((frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
        frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        return nghttp2_submit_response(session, frame->hd.stream_id, HEAD, 2, &body);
    return 0;
}

static void make_answer(size_t size)
{
    memset(answer, 'x', sizeof answer);
    memcpy(answer, (uint8_t[]){0, 0, 0, (uint8_t)(size >> 8), (uint8_t)size}, 5);
    memcpy(answer + 5, (uint8_t[]){0x08, 1, 0x12}, 3); /* verdict ALLOWED, and a model as long as the rest */
    if (size - 4 < 128) {
        answer[8] = (uint8_t)(size - 4);
    } else {
        answer[8] = (uint8_t)((size - 5) | 128);
        answer[9] = (uint8_t)((size - 5) >> 7);
    }
    answer_size = 5 + size;
}

/* ---- Connections ---- */

static void connection_open(int loop, int fd, SSL_CTX *tls)
{
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1000}, {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES}};
    connection_t *self = calloc(1, sizeof *self);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = self};
    if (!self)
        die("memory");
    if (!link_open(&self->link, fd, tls, 1)) {
        ERR_clear_error();
        link_close(&self->link);
        free(self);
        return;
    }
    nghttp2_session_server_new(&self->session, callbacks, self);
    nghttp2_submit_settings(self->session, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(self->session, NGHTTP2_FLAG_NONE, 0, 1 << 30);
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

static void connection_close(connection_t *self)
{
    nghttp2_session_del(self->session);
    link_close(&self->link);
    free(self);
}

/* Take in what has come and let leave what follows from it; 0 at the end of the connection. */
static int connection_serve(connection_t *self, int loop)
{
    static uint8_t in[READ_BYTES];
    const uint8_t *frame;
    ssize_t size;
    int left;
    do {
        size = link_read(&self->link, in, sizeof in);
        if (size < 0 || (size > 0 && nghttp2_session_mem_recv(self->session, in, (size_t)size) != size))
            return 0;
    } while (size == READ_BYTES || (size > 0 && self->link.ssl));
    while ((size = nghttp2_session_mem_send(self->session, &frame)) > 0)
        link_put(&self->link, frame, (size_t)size);
    left = link_flush(&self->link);
    if (size < 0 || left < 0)
        return 0;
    if (self->waits_to_write == left) {
        struct epoll_event event = {.events = EPOLLIN | (left ? 0 : EPOLLOUT), .data.ptr = self};
        self->waits_to_write = !left;
        epoll_ctl(loop, EPOLL_CTL_MOD, self->link.fd, &event);
    }
    return nghttp2_session_want_read(self->session) || nghttp2_session_want_write(self->session);
}

static int listen_at(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof address;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024))
        die("listen");
    getsockname(fd, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static int choose_h2(SSL *ssl, const uint8_t **chosen, uint8_t *size, const uint8_t *offered, unsigned offered_size,
                     void *unused)
{
    (void)ssl, (void)unused;
    return SSL_select_next_proto((uint8_t **)chosen, size, (const uint8_t *)"\2h2", 3, offered, offered_size) ==
           OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static SSL_CTX *make_tls(const char *cert, const char *key)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(tls, cert) != 1 || SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1)
        die("certificate");
    SSL_CTX_set_alpn_select_cb(tls, choose_h2, NULL);
    link_tls_modes(tls);
    return tls;
}

int main(int count, char **words)
{
    static const struct option options[] = {
        {"bytes", 1, 0, 'b'}, {"cert", 1, 0, 'c'}, {"key", 1, 0, 'k'}, {0, 0, 0, 0}};
    struct epoll_event ready[256], event = {.events = EPOLLIN, .data.ptr = NULL};
    const char *cert = NULL, *key = NULL;
    long bytes = 82;
    int option, listener, loop = epoll_create1(0);
    while ((option = getopt_long(count, words, "", options, NULL)) != -1) {
        if (option == 'b')
            bytes = atol(optarg);
        else if (option == 'c')
            cert = optarg;
        else if (option == 'k')
            key = optarg;
    }
    if (optind + 1 != count || bytes < 8 || bytes > ANSWER_BYTES_MAX || !cert != !key) {
        fprintf(stderr, "floor PORT [--bytes 8 to %d] [--cert FILE --key FILE]\n", ANSWER_BYTES_MAX);
        return 2;
    }
    SSL_CTX *tls = cert ? make_tls(cert, key) : NULL;
    make_answer((size_t)bytes);
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    listener = listen_at(atoi(words[optind]));
    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(loop, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            connection_t *one = ready[i].data.ptr;
            if (!one)
                connection_open(loop, accept(listener, NULL, NULL), tls);
            else if (!connection_serve(one, loop))
                connection_close(one);
        }
    }
}
