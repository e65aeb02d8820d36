/*
 * The system calls of a tunnel and nothing else: what a TUN device hands over goes to the peer in
 * one row of datagrams, and what comes goes to the device as it is. Nothing is cut, sealed, checked
 * or decided, so that no program that does so can be faster by the same way.
 *
 *     relay DEVICE LOCAL PEER      IPv4 addresses; the device is made, and vanishes with the program
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

enum {
    PORT = 4500,
    /* What a segment of 1400 octets becomes as ESP: as many datagrams as Testudo sends. */
    DATAGRAM = 1436,
    /* Octets that wait at a socket: as Testudo has it. */
    BUFFER = 1 << 20,
    /* A side is left after so many, for the other one. */
    TURN = 4,
    PACKET_MAX = 65536 + 10,
};

static void check(int result, const char *what)
{
    if (result >= 0)
        return;
    perror(what);
    exit(1);
}

static int open_device(const char *name)
{
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    check(device, "/dev/net/tun");
    struct ifreq request = {0};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    check(ioctl(device, TUNSETIFF, &request), name);
    check(ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6), "TUNSETOFFLOAD");
    return device;
}

static struct sockaddr_in address_of(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    if (inet_pton(AF_INET, text, &address.sin_addr) == 1)
        return address;
    fprintf(stderr, "%s is not an IPv4 address\n", text);
    exit(1);
}

static int open_socket(const struct sockaddr_in *local)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, len = BUFFER;
    check(fd, "socket");
    check(setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on), "UDP_GRO");
    check(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &len, sizeof len), "SO_RCVBUFFORCE");
    check(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &len, sizeof len), "SO_SNDBUFFORCE");
    check(bind(fd, (const struct sockaddr *)local, sizeof *local), "bind");
    return fd;
}

/* What cannot be sent is lost, as on any wire. */
static void send_row(int fd, struct sockaddr_in *peer, void *data, size_t len)
{
    union {
        char room[CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec part = {data, len};
    struct msghdr message = {
        .msg_name = peer, .msg_namelen = sizeof *peer, .msg_iov = &part, .msg_iovlen = 1};
    if (len > DATAGRAM) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *segment = CMSG_FIRSTHDR(&message);
        segment->cmsg_level = IPPROTO_UDP;
        segment->cmsg_type = UDP_SEGMENT;
        segment->cmsg_len = CMSG_LEN(sizeof(uint16_t));
        *(uint16_t *)CMSG_DATA(segment) = DATAGRAM;
    }
    (void)sendmsg(fd, &message, MSG_DONTWAIT);
}

int main(int argc, char **argv)
{
    static unsigned char packet[PACKET_MAX];
    if (argc != 4) {
        fprintf(stderr, "usage: relay DEVICE LOCAL PEER\n");
        return 2;
    }
    struct sockaddr_in local = address_of(argv[2]), peer = address_of(argv[3]);
    int device = open_device(argv[1]), fd = open_socket(&local);
    struct pollfd both[] = {{device, POLLIN, 0}, {fd, POLLIN, 0}};
    while (poll(both, 2, -1) >= 0 || errno == EINTR) {
        ssize_t len = 1;
        for (int i = 0; i < TURN && len > 0; i++) {
            len = read(device, packet, sizeof packet);
            if (len > 0)
                send_row(fd, &peer, packet, (size_t)len);
        }
        len = 1;
        for (int i = 0; i < TURN && len > 0; i++) {
            len = recv(fd, packet, sizeof packet, 0);
            if (len > 0 && write(device, packet, (size_t)len) < 0 && errno != EIO)
                perror("write");
        }
    }
    perror("poll");
    return 1;
}
