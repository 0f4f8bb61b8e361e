/* A generator of unary gRPC calls, on one thread, that checks every answer.
 *
 *     load [options] PORT PATH MESSAGES
 *
 * PATH is `/package.Service/Method`, MESSAGES a file as messages.h says. Without --rate the loop is closed: each connection has
 * --streams calls in flight, and an answer begins the next. With it calls begin at so many a second whatever the answers do, and
 * a call's time counts from the moment at which it was due, also if it had to wait for a free stream.
 *
 *     --connections N --streams N --seconds S --warm-up S --rate R --tls
 *     --expect HEX     an answer's first bytes, `..` for any; --expect 0801 counts AdmitResponses with ALLOWED
 *     --digits N       overwrite the last N bytes of each message with a running number
 *     --pid P          a process whose CPU time to tell; up to 8 times
 *
 * Prints one line of JSON. Ends with status 1 if a single call failed or the server closed a connection. */
#include "client.h"

#include <getopt.h>
#include <time.h>

#define PROCESSES_MAX 8
#define CONNECTIONS_MAX 4096

typedef struct {
    int connections, streams, port, tls;
    double seconds, warm_up, rate;
    const char *path, *messages;
    int processes;
    pid_t pids[PROCESSES_MAX];
} settings_t;

typedef struct {
    settings_t settings;
    plan_t plan;
    client_t *clients;
    int loop, next; /* epoll's, and the client that begins the next call of an open loop */
    double due;     /* when that call is due, ns */
    double interval_ns;
} load_t;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec at;
    if (clock_gettime(clock, &at))
        die("clock");
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

/* Of all threads of a process, those that have ended too. */
static uint64_t process_cpu_ns(pid_t pid)
{
    clockid_t clock;
    errno = clock_getcpuclockid(pid, &clock);
    if (errno)
        die("--pid");
    return clock_ns(clock);
}

/* ---- Setting up ---- */

static void set_pattern(plan_t *plan, const char *text)
{
    for (size_t i = 0; text[2 * i]; i++) {
        unsigned byte = 0;
        if (i == PATTERN_BYTES_MAX || !text[2 * i + 1] || (text[2 * i] != '.' && sscanf(text + 2 * i, "%2x", &byte) != 1))
            die("--expect");
        plan->pattern[i] = (uint8_t)byte;
        plan->mask[i] = text[2 * i] == '.' ? 0 : 255;
        plan->pattern_size = i + 1;
    }
}

static void read_options(load_t *self, int count, char **words)
{
    static const struct option options[] = {
        {"connections", 1, 0, 'c'}, {"streams", 1, 0, 'm'}, {"seconds", 1, 0, 's'}, {"warm-up", 1, 0, 'w'}, {"rate", 1, 0, 'r'},
        {"tls", 0, 0, 't'}, {"expect", 1, 0, 'e'}, {"digits", 1, 0, 'd'}, {"pid", 1, 0, 'p'}, {0, 0, 0, 0}};
    settings_t *settings = &self->settings;
    int option;
    *settings = (settings_t){.connections = 1, .streams = 1, .seconds = 1, .warm_up = 0.2};
    while ((option = getopt_long(count, words, "", options, NULL)) != -1) {
        switch (option) {
        case 'c': settings->connections = atoi(optarg); break;
        case 'm': settings->streams = atoi(optarg); break;
        case 's': settings->seconds = atof(optarg); break;
        case 'w': settings->warm_up = atof(optarg); break;
        case 'r': settings->rate = atof(optarg); break;
        case 't': settings->tls = 1; break;
        case 'e': set_pattern(&self->plan, optarg); break;
        case 'd': self->plan.messages.digits = (size_t)atoi(optarg); break;
        case 'p':
            if (settings->processes < PROCESSES_MAX)
                settings->pids[settings->processes++] = atoi(optarg);
            break;
        default: exit(2);
        }
    }
    if (count - optind != 3 || settings->connections < 1 || settings->connections > CONNECTIONS_MAX || settings->streams < 1) {
        fprintf(stderr, "load [options] PORT PATH MESSAGES\n");
        exit(2);
    }
    settings->port = atoi(words[optind]);
    settings->path = words[optind + 1];
    settings->messages = words[optind + 2];
}

static nghttp2_nv field(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
                        NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static int connect_to(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        die("connect");
    return fd;
}

static void prepare(load_t *self)
{
    const settings_t *settings = &self->settings;
    plan_t *plan = &self->plan;
    SSL_CTX *tls = NULL;
    if (settings->tls) {
        tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_alpn_protos(tls, (const uint8_t *)"\2h2", 3);
        link_tls_modes(tls);
    }
    messages_read(&plan->messages, settings->messages);
    plan->messages.number = clock_ns(CLOCK_REALTIME) / 1000; /* past what an earlier run has sent */
    plan->head[0] = field(":method", "POST");
    plan->head[1] = field(":scheme", tls ? "https" : "http");
    plan->head[2] = field(":path", settings->path);
    plan->head[3] = field(":authority", "localhost");
    plan->head[4] = field("te", "trailers");
    plan->head[5] = field("content-type", "application/grpc");
    client_callbacks(&plan->callbacks);
    self->loop = epoll_create1(0);
    self->clients = calloc((size_t)settings->connections, sizeof *self->clients);
    for (int i = 0; i < settings->connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &self->clients[i]};
        client_open(&self->clients[i], plan, connect_to(settings->port), tls, settings->streams);
        epoll_ctl(self->loop, EPOLL_CTL_ADD, self->clients[i].link.fd, &event);
    }
}

/* ---- Running ---- */

static void write_out(load_t *self, client_t *client)
{
    if (!client_write(client, self->loop))
        die("the server closed a connection");
}

static void fill(load_t *self, client_t *client)
{
    while (client->free)
        client_begin(client, self->plan.now_ns);
    write_out(self, client);
}

/* Begin the calls that are due, on connections in turn; those that find no free stream stay due. */
static void begin_due(load_t *self)
{
    int count = self->settings.connections, full = 0;
    while (self->due <= (double)self->plan.now_ns && full < count) {
        client_t *client = &self->clients[self->next];
        self->next = (self->next + 1) % count;
        if (!client->free) {
            full++;
            continue;
        }
        full = 0;
        client_begin(client, (uint64_t)self->due);
        self->due += self->interval_ns;
    }
    for (int i = 0; i < count; i++)
        if (nghttp2_session_want_write(self->clients[i].session))
            write_out(self, &self->clients[i]);
}

/* Until `end_ns`; with `begins` new calls begin, otherwise only answers are waited for, and not once all have come. */
static void run_until(load_t *self, uint64_t end_ns, int begins)
{
    struct epoll_event ready[256];
    plan_t *plan = &self->plan;
    int open = begins && self->settings.rate > 0, in_flight = 1;
    while ((plan->now_ns = clock_ns(CLOCK_MONOTONIC)) < end_ns && (begins || in_flight)) {
        /* A loop with a rate never sleeps, because the next call is due sooner than a sleeper wakes. */
        int n = epoll_wait(self->loop, ready, 256, open ? 0 : 10);
        for (int i = 0; i < n; i++) {
            client_t *client = ready[i].data.ptr;
            plan->now_ns = clock_ns(CLOCK_MONOTONIC);
            if (!client_read(client))
                die("the server closed a connection");
            if (begins && !open)
                fill(self, client);
            else
                write_out(self, client);
        }
        if (open)
            begin_due(self);
        in_flight = 0;
        for (int i = 0; i < self->settings.connections && !begins; i++)
            in_flight += self->clients[i].in_flight;
    }
}

static void run(load_t *self, uint64_t *took_ns, uint64_t *own_ns, uint64_t *cpu_ns)
{
    const settings_t *settings = &self->settings;
    uint64_t begin_ns = clock_ns(CLOCK_MONOTONIC);
    self->plan.now_ns = begin_ns;
    self->interval_ns = settings->rate > 0 ? 1e9 / settings->rate : 0;
    self->due = (double)begin_ns;
    for (int i = 0; i < settings->connections; i++)
        settings->rate > 0 ? write_out(self, &self->clients[i]) : fill(self, &self->clients[i]);
    run_until(self, begin_ns + (uint64_t)(settings->warm_up * 1e9), 1);
    begin_ns = clock_ns(CLOCK_MONOTONIC);
    *own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < settings->processes; i++)
        cpu_ns[i] = process_cpu_ns(settings->pids[i]);
    self->plan.counts = 1;
    run_until(self, begin_ns + (uint64_t)(settings->seconds * 1e9), 1);
    self->plan.counts = 0;
    for (int i = 0; i < settings->processes; i++)
        cpu_ns[i] = process_cpu_ns(settings->pids[i]) - cpu_ns[i];
    *own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - *own_ns;
    *took_ns = clock_ns(CLOCK_MONOTONIC) - begin_ns;
    run_until(self, clock_ns(CLOCK_MONOTONIC) + 5000000000u, 0);
}

int main(int count, char **words)
{
    static load_t load;
    uint64_t took_ns, own_ns, cpu_ns[PROCESSES_MAX], cpu_all_ns = 0, unanswered = 0;
    const tally_t *tally = &load.plan.tally;
    double behind;
    read_options(&load, count, words);
    prepare(&load);
    run(&load, &took_ns, &own_ns, cpu_ns);
    for (int i = 0; i < load.settings.connections; i++)
        unanswered += (uint64_t)load.clients[i].in_flight;
    for (int i = 0; i < load.settings.processes; i++)
        cpu_all_ns += cpu_ns[i];
    behind = load.settings.rate > 0 ? ((double)load.plan.now_ns - load.due) / 1e9 : 0;
    printf("{\"calls\": %lu, \"seconds\": %.6f, \"rate\": %.1f, \"wanted\": %lu, \"answer_bytes\": %.1f, ", tally->calls,
           (double)took_ns / 1e9, (double)tally->calls * 1e9 / (double)took_ns, tally->wanted,
           tally->calls ? (double)tally->answer_bytes / (double)tally->calls : 0);
    printf("\"mean_us\": %.2f, \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f, ",
           tally->times.total ? (double)tally->times.sum_ns / (double)tally->times.total / 1e3 : 0,
           histogram_us(&tally->times, 0.5), histogram_us(&tally->times, 0.9), histogram_us(&tally->times, 0.99),
           histogram_us(&tally->times, 0.999), (double)tally->times.max_ns / 1e3);
    printf("\"cpu_us\": %.4f, \"cpu_share\": %.3f, \"own_share\": %.3f, \"behind_s\": %.4f, ",
           tally->calls ? (double)cpu_all_ns / (double)tally->calls / 1e3 : 0, (double)cpu_all_ns / (double)took_ns,
           (double)own_ns / (double)took_ns, behind > 0 ? behind : 0);
    printf("\"http_failed\": %lu, \"grpc_failed\": %lu, \"message_failed\": %lu, \"reset\": %lu, \"unanswered\": %lu, "
           "\"grpc_status\": %d}\n",
           tally->http_failed, tally->grpc_failed, tally->message_failed, tally->reset, unanswered, tally->last_grpc_status);
    if (tally->grpc_failed)
        fprintf(stderr, "grpc-status %d: %s\n", tally->last_grpc_status, tally->last_grpc_message);
    return tally->http_failed || tally->grpc_failed || tally->message_failed || tally->reset || unanswered;
}
