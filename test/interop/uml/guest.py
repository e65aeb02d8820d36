"""The kernel's side of the tests: answers the test by UDP, pings when asked, and echoes TCP streams.

A question is a JSON object in a datagram to port 8100; the answer is one too:
    {"do": "ping", "from": ADDRESS, "to": ADDRESS, "len": OCTETS}
        {"ok": true} when the echo came back unaltered
    {"do": "counters"}
        {"counters": {NAME: NUMBER}} of /proc/net/xfrm_stat
    {"do": "states"}
        {"states": {SPI: PACKETS}} of all SAs
    {"do": "quit"}
        {}, and then the guest is powered off
A TCP connection to port 8101 gets, after the end of what it sent: its SHA-256 (32 octets), and then
all of it.
"""

import hashlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time

CONTROL_PORT = 8100
STREAM_PORT = 8101
ENCAPSULATION_PORT = 4500
UDP_ENCAP = 100
UDP_ENCAP_ESPINUDP = 2
PING_SECONDS = 5
# A test that died must not leave a kernel behind.
IDLE_SECONDS = 60


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def bound(kind, family, port):
    """A socket on all addresses of one family."""
    s = socket.socket(family, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(("", port))
    return s


def internet_checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ping(source, destination, length, ident):
    """Whether an echo request of `length` octets of data comes back within PING_SECONDS."""
    six = family_of(source) == socket.AF_INET6
    data = bytes((i * 5 + ident) & 255 for i in range(length))
    rest = ident.to_bytes(2, "big") + b"\0\1" + data
    request = bytes([128 if six else 8, 0, 0, 0]) + rest
    if not six:  # the kernel computes that of ICMPv6
        request = request[:2] + internet_checksum(request).to_bytes(2, "big") + rest
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    with socket.socket(family_of(source), socket.SOCK_RAW, protocol) as s:
        s.bind((source, 0))
        s.sendto(request, (destination, 0))
        end = time.monotonic() + PING_SECONDS
        while (left := end - time.monotonic()) > 0 and select.select([s], [], [], left)[0]:
            packet, sender = s.recvfrom(65536)
            message = packet if six else packet[(packet[0] & 15) * 4 :]
            is_reply = message[0] == (129 if six else 0) and sender[0] == destination
            if is_reply and message[4:] == rest:
                return True
    return False


def counters():
    with open("/proc/net/xfrm_stat") as f:
        return {name: int(number) for name, number in (line.split() for line in f)}


def states():
    text = subprocess.run(["ip", "-s", "xfrm", "state"], stdout=subprocess.PIPE, text=True).stdout
    pattern = r"spi (0x[0-9a-f]+).*?lifetime current:\s*\d+\(bytes\), (\d+)\(packets\)"
    found = re.findall(pattern, text, re.DOTALL)
    return {str(int(spi, 16)): int(packets) for spi, packets in found}


def echo_stream(connection):
    with connection:
        received = bytearray()
        while chunk := connection.recv(1 << 16):
            received += chunk
        connection.sendall(hashlib.sha256(received).digest())
        connection.sendall(received)


def serve_streams(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo_stream, args=(connection,), daemon=True).start()


def answer(question, number):
    if question["do"] == "ping":
        return {"ok": ping(question["from"], question["to"], question["len"], number)}
    if question["do"] == "counters":
        return {"counters": counters()}
    if question["do"] == "states":
        return {"states": states()}
    return {}


def main():
    keep = []
    for family in (socket.AF_INET, socket.AF_INET6):
        s = bound(socket.SOCK_DGRAM, family, ENCAPSULATION_PORT)
        s.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
        keep.append(s)
        listener = bound(socket.SOCK_STREAM, family, STREAM_PORT)
        listener.listen(16)
        threading.Thread(target=serve_streams, args=(listener,), daemon=True).start()
    control = bound(socket.SOCK_DGRAM, socket.AF_INET, CONTROL_PORT)
    with open("/share/ready.new", "w") as f:
        f.write(os.uname().release)
    os.rename("/share/ready.new", "/share/ready")
    number = 0
    while select.select([control], [], [], IDLE_SECONDS)[0]:
        text, asker = control.recvfrom(65536)
        question = json.loads(text)
        number += 1
        control.sendto(json.dumps(answer(question, number)).encode(), asker)
        if question["do"] == "quit":
            time.sleep(0.1)  # until the answer has left the card
            return 0
    return 1


sys.exit(main())
