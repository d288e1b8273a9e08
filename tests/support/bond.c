/* One end of a connection group over a libsrt that was built with ENABLE_BONDING.
 *
 *   bond receive UDP PASSPHRASE PORT...            listens on every port, gives what comes to a UDP port of loopback
 *   bond send UDP PASSPHRASE TYPE PORT:WEIGHT...   takes from a UDP port of loopback, dials every port
 *
 * TYPE is broadcast or backup; PASSPHRASE may be empty. Ends when the group is gone.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <srt/srt.h>

static struct sockaddr_in local(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, srt_getlasterror_str());
    exit(1);
}

static void set(SRTSOCKET socket, const char *passphrase) {
    int latency = 2000;
    srt_setsockflag(socket, SRTO_LATENCY, &latency, sizeof latency);
    if (*passphrase && srt_setsockflag(socket, SRTO_PASSPHRASE, passphrase, (int)strlen(passphrase)) != 0)
        fail("passphrase");
}

static void receive(int out, const char *passphrase, int count, char **ports) {
    struct sockaddr_in to = local(out);
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    SRTSOCKET listeners[16];
    for (int i = 0; i < count; i++) {
        struct sockaddr_in at = local(atoi(ports[i]));
        int yes = 1;
        listeners[i] = srt_create_socket();
        set(listeners[i], passphrase);
        if (srt_setsockflag(listeners[i], SRTO_GROUPCONNECT, &yes, sizeof yes) != 0) fail("groupconnect");
        if (srt_bind(listeners[i], (struct sockaddr *)&at, sizeof at) != 0) fail("bind");
        if (srt_listen(listeners[i], 8) != 0) fail("listen");
    }
    SRTSOCKET group = srt_accept_bond(listeners, count, -1);
    if (group == SRT_INVALID_SOCK) fail("accept");
    fprintf(stderr, "%s\n", group & SRTGROUP_MASK ? "a group" : "a single connection");
    char buffer[2048];
    for (;;) {
        SRT_MSGCTRL control = srt_msgctrl_default;
        int length = srt_recvmsg2(group, buffer, sizeof buffer, &control);
        if (length <= 0) fail("receive");
        sendto(udp, buffer, (size_t)length, 0, (struct sockaddr *)&to, sizeof to);
    }
}

static void send_group(int in, const char *passphrase, const char *type, int count, char **links) {
    struct sockaddr_in at = local(in);
    int udp = socket(AF_INET, SOCK_DGRAM, 0), size = 4 << 20;
    setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (bind(udp, (struct sockaddr *)&at, sizeof at) != 0) fail("bind");
    SRTSOCKET group = srt_create_group(strcmp(type, "backup") ? SRT_GTYPE_BROADCAST : SRT_GTYPE_BACKUP);
    if (group == SRT_INVALID_SOCK) fail("group");
    set(group, passphrase);
    SRT_SOCKGROUPCONFIG config[16];
    for (int i = 0; i < count; i++) {
        struct sockaddr_in to = local(atoi(links[i]));
        const char *weight = strchr(links[i], ':');
        config[i] = srt_prepare_endpoint(NULL, (struct sockaddr *)&to, sizeof to);
        config[i].weight = (uint16_t)(weight ? atoi(weight + 1) : 0);
    }
    if (srt_connect_group(group, config, count) == SRT_ERROR) fail("connect");
    fprintf(stderr, "connected\n");
    char buffer[2048];
    for (;;) {
        ssize_t length = recv(udp, buffer, sizeof buffer, 0);
        if (length <= 0) continue;
        SRT_MSGCTRL control = srt_msgctrl_default;
        if (srt_sendmsg2(group, buffer, (int)length, &control) == SRT_ERROR) fail("send");
    }
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    srt_startup();
    srt_setloglevel(3);
    if (!strcmp(argv[1], "receive")) receive(atoi(argv[2]), argv[3], argc - 4, argv + 4);
    else send_group(atoi(argv[2]), argv[3], argv[4], argc - 5, argv + 5);
    return 0;
}
