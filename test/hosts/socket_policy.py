"""
A program that has policies for its own sockets, as any does on a system that has IPsec: option
numbers and octets are those of Linux. Prints one JSON object.

    socket_policy.py ADDRESS        where port 5000 wants protection, and both echo
"""

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys

peer = sys.argv[1]
FAMILY = socket.AF_INET6 if ":" in peer else socket.AF_INET
IP_IPSEC_POLICY, IPV6_IPSEC_POLICY = 16, 34
LEVEL, OPTION = (
    (socket.IPPROTO_IPV6, IPV6_IPSEC_POLICY)
    if FAMILY == socket.AF_INET6
    else (socket.IPPROTO_IP, IP_IPSEC_POLICY)
)
IN, OUT = 1, 2
IPSEC = 2
ESP, TRANSPORT, REQUIRE = 50, 1, 2


def policy(direction):
    request = struct.pack("=HHBBHII", 16, ESP, TRANSPORT, REQUIRE, 0, 0, 0)
    head = struct.pack("=HHHBBII", 4, 18, IPSEC, direction, 0, 0, 0)
    return head + request


def open_socket(kind, protect=True):
    s = socket.socket(FAMILY, kind)
    s.settimeout(10)
    for direction in (IN, OUT) if protect else ():
        s.setsockopt(LEVEL, OPTION, policy(direction))
    return s


def read_back(s):
    """Python has no way to give getsockopt a buffer that is filled."""
    import ctypes

    buffer = ctypes.create_string_buffer(policy(OUT)[:16], 64)
    size = ctypes.c_uint(64)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.getsockopt(s.fileno(), LEVEL, OPTION, buffer, ctypes.byref(size))
    return buffer.raw[: size.value] == policy(OUT)


def echo_datagram(size):
    s = open_socket(socket.SOCK_DGRAM)
    data = os.urandom(size)
    s.sendto(data, (peer, 5000))
    return s.recv(65536) == b"echo-" + data


def echo_stream(size, port=5000, protect=True):
    """As much as is there, in pieces; each comes back with a few octets in front."""
    s = open_socket(socket.SOCK_STREAM, protect)
    s.connect((peer, port))
    sent, received = hashlib.sha256(), hashlib.sha256()
    left = size
    while left > 0:
        data = os.urandom(min(left, 32768))
        s.sendall(data)
        sent.update(data)
        got = b""
        while len(got.replace(b"echo-", b"")) < len(data):
            got += s.recv(65536)
        received.update(got.replace(b"echo-", b""))
        left -= len(data)
    return sent.digest() == received.digest()


def passed_on():
    """To a process that knows nothing of the host, and has a copy of the descriptor only."""
    s = open_socket(socket.SOCK_DGRAM)
    script = (
        "import socket, sys\n"
        f"s = socket.socket(fileno={s.fileno()})\n"
        "s.settimeout(10)\n"
        f"s.connect(({peer!r}, 5000))\n"
        "s.send(b'passed-on')\n"
        "print(s.recv(100).decode())\n"
    )
    clean = {"PATH": os.environ["PATH"]}
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        env=clean,
        pass_fds=[s.fileno()],
        stdout=subprocess.PIPE,
        text=True,
    )
    s.close()
    return child.communicate()[0].strip() == "echo-passed-on"


print(
    json.dumps(
        {
            "readBack": read_back(open_socket(socket.SOCK_STREAM)),
            "small": echo_datagram(100),
            # In fragments, before the socket has a port.
            "large": echo_datagram(20000),
            "stream": echo_stream(2000000),
            "neighbour": echo_stream(100000, 5001, protect=False),
            "passedOn": passed_on(),
        }
    )
)
