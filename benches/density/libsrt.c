/* libsrt as a user would write it: datagrams of one UDP port go to many SRT connections, or many SRT connections are
 * received and counted. Compiled and run by the benchmark where libsrt is installed; lives as long as the benchmark.
 *
 *   version
 *   copy UDP_PORT push|serve COUNT own|shared LATENCY KEY_BYTES PASSPHRASE FIRST_PORT PORTS
 *   receive LATENCY KEY_BYTES PASSPHRASE FIRST_PORT FIRST_PORT_OF_THE_OTHER_SIDE PORTS
 *
 * `receive` answers each line on standard input with one line of JSON: what came since the line `reset`.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <srt/srt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DATAGRAM = 1316, STAMP = 6 * 188 + 10, MOST = 4096, SHARED_PORT = 19000, SIDES = 2 };

static int latency, key_bytes;
static const char *passphrase;

static void check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, srt_getlasterror_str());
        exit(1);
    }
}

static struct sockaddr_in local(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void set_flag(SRTSOCKET socket, SRT_SOCKOPT name, int value)
{
    check(srt_setsockflag(socket, name, &value, sizeof value), "srt_setsockflag");
}

static SRTSOCKET create(void)
{
    SRTSOCKET socket = srt_create_socket();
    check(socket, "srt_create_socket");
    set_flag(socket, SRTO_LATENCY, latency);
    set_flag(socket, SRTO_CONNTIMEO, 10000);
    if (key_bytes) {
        check(srt_setsockflag(socket, SRTO_PASSPHRASE, passphrase, strlen(passphrase)), "passphrase");
        set_flag(socket, SRTO_PBKEYLEN, key_bytes);
    }
    return socket;
}

static SRTSOCKET listen_on(int port)
{
    SRTSOCKET listener = create();
    struct sockaddr_in address = local(port);
    check(srt_bind(listener, (struct sockaddr *)&address, sizeof address), "srt_bind");
    check(srt_listen(listener, 1024), "srt_listen");
    return listener;
}

/* ---- copy ---- */

static SRTSOCKET connections[MOST];
static int connected;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void add(SRTSOCKET socket)
{
    set_flag(socket, SRTO_SNDSYN, 0);
    pthread_mutex_lock(&lock);
    connections[connected++] = socket;
    pthread_mutex_unlock(&lock);
}

static void *accept_all(void *argument)
{
    SRTSOCKET listener = *(SRTSOCKET *)argument;
    while (connected < MOST) {
        SRTSOCKET socket = srt_accept(listener, NULL, NULL);
        if (socket != SRT_INVALID_SOCK)
            add(socket);
    }
    return NULL;
}

static void call(int shared, int port)
{
    SRTSOCKET socket = create();
    if (shared) {
        struct sockaddr_in from = local(SHARED_PORT);
        check(srt_bind(socket, (struct sockaddr *)&from, sizeof from), "srt_bind");
    }
    struct sockaddr_in to = local(port);
    check(srt_connect(socket, (struct sockaddr *)&to, sizeof to), "srt_connect");
    add(socket);
}

static int copy(char **arguments)
{
    int udp = socket(AF_INET, SOCK_DGRAM, 0), size = 4 << 20;
    struct sockaddr_in address = local(atoi(arguments[0]));
    int serves = !strcmp(arguments[1], "serve"), count = atoi(arguments[2]);
    int shared = !strcmp(arguments[3], "shared");
    int first = atoi(arguments[7]), ports = atoi(arguments[8]);
    latency = atoi(arguments[4]), key_bytes = atoi(arguments[5]), passphrase = arguments[6];
    if (setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
        setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (count > MOST || bind(udp, (struct sockaddr *)&address, sizeof address)) {
        perror("bind");
        return 1;
    }
    if (serves) {
        static SRTSOCKET listener;
        pthread_t acceptor;
        listener = listen_on(first);
        pthread_create(&acceptor, NULL, accept_all, &listener);
    } else {
        for (int i = 0; i < count; i++)
            call(shared, first + i % ports);
        /* What came meanwhile is old. */
        char old[DATAGRAM];
        while (recv(udp, old, sizeof old, MSG_DONTWAIT) > 0)
            ;
    }
    for (;;) {
        char datagram[DATAGRAM];
        ssize_t length = recv(udp, datagram, sizeof datagram, 0);
        pthread_mutex_lock(&lock);
        int now = connected;
        pthread_mutex_unlock(&lock);
        /* A full buffer or a connection that is gone loses the datagram. */
        for (int i = 0; length > 0 && i < now; i++)
            srt_sendmsg2(connections[i], datagram, length, NULL);
    }
}

/* ---- receive ---- */

struct count {
    uint64_t in_order, stray, bytes, datagrams, heard, missing;
};
struct connection {
    SRTSOCKET socket;
    int side, heard;
    uint64_t next;
};
static struct count counts[SIDES];
static struct connection received[MOST];
static int accepted;

static uint64_t word(const char *bytes)
{
    uint64_t number = 0;
    for (int i = 0; i < 8; i++)
        number = number << 8 | (uint8_t)bytes[i];
    return number;
}

static void take(struct connection *from, const char *payload, int length)
{
    struct count *count = &counts[from->side];
    count->bytes += length;
    count->datagrams++;
    count->heard += !from->heard;
    from->heard = 1;
    uint64_t counter = length == DATAGRAM && !memcmp(payload + STAMP, "MRDB", 4) ? word(payload + STAMP + 8) : 0;
    if (length != DATAGRAM || memcmp(payload + STAMP, "MRDB", 4) || counter < from->next) {
        count->stray++;
        return;
    }
    from->next = counter + 1;
    count->in_order++;
}

static void print_side(const char *name, const struct count *count, int side)
{
    int open = 0;
    uint64_t missing = 0;
    for (int i = 0; i < accepted; i++) {
        SRT_TRACEBSTATS stats;
        if (received[i].side != side || srt_getsockstate(received[i].socket) != SRTS_CONNECTED)
            continue;
        open++;
        if (!srt_bstats(received[i].socket, &stats, 0))
            missing += stats.pktRcvDropTotal;
    }
    printf("\"%s\":{\"in_order\":%lu,\"stray\":%lu,\"bytes\":%lu,\"datagrams\":%lu,\"deliveries\":%lu,\"heard\":%lu,"
           "\"connections\":{\"open\":%d,\"missing\":%lu}}",
           name, count->in_order, count->stray, count->bytes, count->datagrams, count->datagrams, count->heard, open,
           missing);
}

static void answer(const char *request)
{
    printf("{\"Ok\":{");
    print_side("engine", &counts[0], 0);
    printf(",");
    print_side("against", &counts[1], 1);
    printf(",\"control\":{}}}\n");
    fflush(stdout);
    if (!strncmp(request, "reset", 5)) {
        memset(counts, 0, sizeof counts);
        for (int i = 0; i < accepted; i++)
            received[i].heard = 0, received[i].next = 0;
    }
}

static void watch(int set, SRTSOCKET socket)
{
    int events = SRT_EPOLL_IN | SRT_EPOLL_ERR;
    set_flag(socket, SRTO_RCVSYN, 0);
    check(srt_epoll_add_usock(set, socket, &events), "srt_epoll_add_usock");
}

static int receive(char **arguments)
{
    latency = atoi(arguments[0]), key_bytes = atoi(arguments[1]), passphrase = arguments[2];
    int ports = atoi(arguments[5]), set = srt_epoll_create(), listeners = 0;
    struct {
        SRTSOCKET socket;
        int side;
    } listening[64];
    for (int side = 0; side < SIDES; side++)
        for (int i = 0; i < ports && listeners < 64; i++, listeners++) {
            listening[listeners].socket = listen_on(atoi(arguments[3 + side]) + i);
            listening[listeners].side = side;
            watch(set, listening[listeners].socket);
        }
    printf("{\"Ok\":null}\n");
    fflush(stdout);
    for (;;) {
        static SRT_EPOLL_EVENT events[MOST];
        struct pollfd orders = {.fd = 0, .events = POLLIN};
        char line[64];
        if (poll(&orders, 1, 0) > 0) {
            /* One request at a time is under way, so the buffer of stdin holds no second one. */
            if (!fgets(line, sizeof line, stdin))
                return 0;
            answer(line);
        }
        int ready = srt_epoll_uwait(set, events, MOST, 5);
        for (int i = 0; i < ready; i++) {
            SRTSOCKET socket = events[i].fd;
            int is_listener = 0;
            for (int l = 0; l < listeners; l++) {
                if (listening[l].socket != socket)
                    continue;
                is_listener = 1;
                SRTSOCKET peer = srt_accept(socket, NULL, NULL);
                if (peer != SRT_INVALID_SOCK && accepted < MOST) {
                    received[accepted++] = (struct connection){.socket = peer, .side = listening[l].side};
                    watch(set, peer);
                }
            }
            for (int c = accepted - 1; !is_listener && c >= 0; c--) {
                if (received[c].socket != socket)
                    continue;
                char payload[1500];
                int length;
                while ((length = srt_recvmsg(socket, payload, sizeof payload)) > 0)
                    take(&received[c], payload, length);
                if (srt_getsockstate(socket) > SRTS_CONNECTED) {
                    srt_epoll_remove_usock(set, socket);
                    srt_close(socket);
                }
                break;
            }
        }
    }
}

int main(int count, char **arguments)
{
    srt_startup();
    srt_setloglevel(2);
    if (count == 2 && !strcmp(arguments[1], "version")) {
        uint32_t version = srt_getversion();
        printf("libsrt %u.%u.%u\n", version >> 16, version >> 8 & 255, version & 255);
        return 0;
    }
    if (count == 11 && !strcmp(arguments[1], "copy"))
        return copy(arguments + 2);
    if (count == 8 && !strcmp(arguments[1], "receive"))
        return receive(arguments + 2);
    fprintf(stderr, "see the first lines of this program\n");
    return 2;
}
