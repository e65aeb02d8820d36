"""
Answers what it gets by UDP and TCP, over IPv4 and IPv6, on each port that it is given.
"""

import selectors
import socket
import sys

loop = selectors.DefaultSelector()


def open_port(kind, port):
    s = socket.socket(socket.AF_INET6, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port))
    return s


def answer_datagram(s):
    data, sender = s.recvfrom(65536)
    s.sendto(b"echo-" + data, sender)


def answer_stream(s):
    try:
        data = s.recv(65536)
    except OSError:
        data = b""
    if data:
        s.sendall(b"echo-" + data)
    else:
        loop.unregister(s)
        s.close()


def welcome(s):
    connection, _ = s.accept()
    loop.register(connection, selectors.EVENT_READ, answer_stream)


for port in map(int, sys.argv[1:]):
    loop.register(open_port(socket.SOCK_DGRAM, port), selectors.EVENT_READ, answer_datagram)
    listener = open_port(socket.SOCK_STREAM, port)
    listener.listen()
    loop.register(listener, selectors.EVENT_READ, welcome)
print("ready", flush=True)
while True:
    for key, _ in loop.select():
        key.data(key.fileobj)
