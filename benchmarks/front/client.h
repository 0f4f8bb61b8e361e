/* One connection of the generator: an nghttp2 session with `streams_max` calls in flight at most, each checked to its last byte.
 *
 * A call has succeeded when HTTP says 200, the trailer says grpc-status 0 and there was one whole message, uncompressed, of the
 * length that its prefix names; a call is `wanted` if besides its message begins as the pattern says. */
#pragma once

#include "histogram.h"
#include "link.h"
#include "messages.h"

#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>

#define READ_BYTES 262144
#define WINDOW_BYTES (1 << 24)
#define HEAD_BYTES 37 /* of an answer that are kept: gRPC's prefix and what a pattern looks at */
#define PATTERN_BYTES_MAX (HEAD_BYTES - 5)

typedef struct {
    uint64_t calls, wanted, answer_bytes;             /* in the time that counts */
    uint64_t http_failed, grpc_failed, message_failed; /* ever */
    uint64_t reset;                                    /* streams that ended with an error of HTTP/2, ever */
    int last_grpc_status;                              /* of those that failed */
    char last_grpc_message[200];
    histogram_t times;
} tally_t;

/* What all connections share. */
typedef struct {
    messages_t messages;
    nghttp2_nv head[6];
    nghttp2_session_callbacks *callbacks;
    uint8_t pattern[PATTERN_BYTES_MAX], mask[PATTERN_BYTES_MAX];
    size_t pattern_size;
    uint64_t now_ns; /* read once for all that a read brings */
    int counts;
    tally_t tally;
} plan_t;

typedef struct call {
    struct call *next_free;
    const message_t *message;
    size_t sent, got;
    uint64_t begin_ns;
    int http_ok, grpc_ok;
    uint8_t head[HEAD_BYTES];
} call_t;

typedef struct {
    plan_t *plan;
    link_t link;
    nghttp2_session *session;
    call_t *calls, *free;
    int in_flight, streams_max, waits_to_write;
} client_t;

/* ---- Callbacks ---- */

static inline ssize_t client_body(nghttp2_session *session, int32_t stream, uint8_t *at, size_t room, uint32_t *flags,
                                  nghttp2_data_source *source, void *user)
{
    messages_t *messages = &((client_t *)user)->plan->messages;
    call_t *call = source->ptr;
    size_t left = call->message->size - call->sent, size = left < room ? left : room;
    (void)session, (void)stream;
    memcpy(at, call->message->at + call->sent, size);
    if (messages->digits && size != call->message->size)
        die("a message with a number has to leave whole");
    if (messages->digits)
        messages_number(messages, at + size);
    call->sent += size;
    if (size == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)size;
}

static inline int client_on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                                   const uint8_t *value, size_t value_size, uint8_t flags, void *user)
{
    client_t *self = user;
    call_t *call;
    (void)flags;
    if (name_size == 7 && !memcmp(name, ":status", 7)) {
        call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        call->http_ok = value_size == 3 && !memcmp(value, "200", 3);
    } else if (name_size == 11 && !memcmp(name, "grpc-status", 11)) {
        call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
        call->grpc_ok = value_size == 1 && *value == '0';
        if (!call->grpc_ok)
            self->plan->tally.last_grpc_status = atoi((const char *)value);
    } else if (name_size == 12 && !memcmp(name, "grpc-message", 12)) {
        snprintf(self->plan->tally.last_grpc_message, 200, "%.*s", (int)value_size, value);
    }
    return 0;
}

static inline int client_on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *at, size_t size,
                                 void *user)
{
    call_t *call = nghttp2_session_get_stream_user_data(session, stream);
    (void)flags, (void)user;
    if (call->got < HEAD_BYTES)
        memcpy(call->head + call->got, at, size < HEAD_BYTES - call->got ? size : HEAD_BYTES - call->got);
    call->got += size;
    return 0;
}

static inline int answer_wanted(const plan_t *plan, const call_t *call)
{
    if (call->got < 5 + plan->pattern_size)
        return 0;
    for (size_t i = 0; i < plan->pattern_size; i++)
        if ((call->head[5 + i] ^ plan->pattern[i]) & plan->mask[i])
            return 0;
    return 1;
}

static inline int client_on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user)
{
    client_t *self = user;
    plan_t *plan = self->plan;
    tally_t *tally = &plan->tally;
    call_t *call = nghttp2_session_get_stream_user_data(session, stream);
    const uint8_t *head = call->head;
    uint32_t size = (uint32_t)head[1] << 24 | head[2] << 16 | head[3] << 8 | head[4];
    if (error)
        tally->reset++;
    else if (!call->http_ok)
        tally->http_failed++;
    else if (!call->grpc_ok)
        tally->grpc_failed++;
    else if (call->got < 5 || head[0] || size != call->got - 5)
        tally->message_failed++;
    else if (plan->counts) {
        tally->calls++;
        tally->wanted += (uint64_t)answer_wanted(plan, call);
        tally->answer_bytes += size;
        histogram_add(&tally->times, plan->now_ns > call->begin_ns ? plan->now_ns - call->begin_ns : 0);
    }
    call->next_free = self->free;
    self->free = call;
    self->in_flight--;
    return 0;
}

static inline void client_callbacks(nghttp2_session_callbacks **made)
{
    nghttp2_session_callbacks_new(made);
    nghttp2_session_callbacks_set_on_header_callback(*made, client_on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(*made, client_on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(*made, client_on_close);
}

/* ---- The connection ---- */

static inline void client_open(client_t *self, plan_t *plan, int fd, SSL_CTX *tls, int streams_max)
{
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}, {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES}};
    nghttp2_option *option;
    memset(self, 0, sizeof *self);
    self->plan = plan;
    self->streams_max = streams_max;
    self->calls = calloc((size_t)streams_max, sizeof *self->calls);
    if (!self->calls)
        die("memory");
    for (int i = 0; i < streams_max; i++) {
        self->calls[i].next_free = self->free;
        self->free = &self->calls[i];
    }
    if (!link_open(&self->link, fd, tls, 0))
        die("TLS");
    nghttp2_option_new(&option);
    nghttp2_option_set_no_http_messaging(option, 1); /* what answers have to be is checked here */
    nghttp2_session_client_new2(&self->session, plan->callbacks, self, option);
    nghttp2_option_del(option);
    nghttp2_submit_settings(self->session, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(self->session, NGHTTP2_FLAG_NONE, 0, 1 << 30);
}

/* Begin a call that counts from `begin_ns`. There has to be a free one. */
static inline void client_begin(client_t *self, uint64_t begin_ns)
{
    call_t *call = self->free;
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = client_body};
    self->free = call->next_free;
    self->in_flight++;
    call->message = messages_next(&self->plan->messages);
    call->sent = call->got = 0;
    call->http_ok = call->grpc_ok = 0;
    call->begin_ns = begin_ns;
    if (nghttp2_submit_request(self->session, NULL, self->plan->head, 6, &body, call) < 0)
        die("no more streams");
}

/* Take in what has come; 0 at the end of the connection. */
static inline int client_read(client_t *self)
{
    static uint8_t in[READ_BYTES];
    ssize_t size;
    do {
        size = link_read(&self->link, in, sizeof in);
        if (size < 0 || (size > 0 && nghttp2_session_mem_recv(self->session, in, (size_t)size) != size))
            return 0;
    } while (size == READ_BYTES || (size > 0 && self->link.ssl));
    return 1;
}

/* Let leave what has to, by one write; 0 at the end of the connection. */
static inline int client_write(client_t *self, int loop)
{
    const uint8_t *frame;
    ssize_t size;
    int left;
    while ((size = nghttp2_session_mem_send(self->session, &frame)) > 0)
        link_put(&self->link, frame, (size_t)size);
    left = link_flush(&self->link);
    if (self->waits_to_write == left) {
        struct epoll_event event = {.events = EPOLLIN | (left ? 0 : EPOLLOUT), .data.ptr = self};
        self->waits_to_write = !left;
        epoll_ctl(loop, EPOLL_CTL_MOD, self->link.fd, &event);
    }
    return size >= 0 && left >= 0 && nghttp2_session_want_read(self->session);
}
