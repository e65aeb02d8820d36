"""
A program that uses PF_KEY as Linux programs do, and knows nothing of Testudo. Each role prints
JSON objects, one a line.

    pfkey_program.py ROLE [ARGUMENT...]
"""

import ctypes
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import time

PF_KEY, PF_KEY_V2 = 15, 2
GETSPI, REGISTER, FLUSH, DUMP = 1, 7, 9, 10
ESP = 3
IP_IPSEC_POLICY, IPV6_IPSEC_POLICY, UDP_ENCAP = 16, 34, 100
SO_MARK = 36


def say(**what):
    print(json.dumps(what), flush=True)


def pfkey(flags=0):
    return socket.socket(PF_KEY, socket.SOCK_RAW | flags, PF_KEY_V2)


def message(kind, seq=0, body=b"", satype=ESP):
    head = struct.pack("=BBBBHHII", 2, kind, 0, satype, 2 + len(body) // 8, 0, seq, os.getpid())
    return head + body


def is_ready(sock):
    """Without waiting, as OpenIKED nearly does."""
    return bool(select.select([sock], [], [], 0)[0])


def ask(sock, octets):
    sock.send(octets)
    return is_ready(sock) and len(sock.recv(65536))


def attempt(what):
    try:
        return what()
    except OSError as error:
        # Python calls it by its other name.
        return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno]


def whole():
    """Whole messages, and looking at them without taking them."""
    s = pfkey()
    s.send(message(REGISTER, 7))
    ready = is_ready(s)
    peeked = s.recv(16, socket.MSG_PEEK)
    octets = s.recv(65536)
    s.send(message(FLUSH, 8))
    s.send(message(FLUSH, 9))
    short = s.recv(8)
    say(
        ready=ready,
        peeked=len(peeked),
        same=octets[:16] == peeked,
        said=struct.unpack_from("=H", octets, 4)[0] * 8,
        len=len(octets),
        seq=struct.unpack_from("=I", octets, 8)[0],
        short=len(short),
        next=struct.unpack_from("=I", s.recv(64), 8)[0],
        empty=not is_ready(s),
        domain=s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN),
        type=s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
    )


class Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("hdr", Msghdr), ("len", ctypes.c_uint)]


def send_many(s, messages):
    libc = ctypes.CDLL(None, use_errno=True)
    buffers = [ctypes.create_string_buffer(one, len(one)) for one in messages]
    vector = (Mmsghdr * len(messages))()
    iovecs = [(ctypes.c_size_t * 2)(ctypes.addressof(b), len(b)) for b in buffers]
    for slot, iov in zip(vector, iovecs):
        slot.hdr.iov = ctypes.addressof(iov)
        slot.hdr.iovlen = 1
    return libc.sendmmsg(s.fileno(), vector, len(messages), 0)


def writes():
    """Every way to write returns when the answer is there."""
    s = pfkey()
    m = message(REGISTER)
    ways = {
        "write": lambda: os.write(s.fileno(), m),
        "writev": lambda: os.writev(s.fileno(), [m[:16], m[16:], b""]),
        "send": lambda: s.send(m),
        "sendto": lambda: s.sendto(m, 0),
        "sendmsg": lambda: s.sendmsg([m[:4], m[4:]]),
        "sendmmsg": lambda: 8 * send_many(s, [m, m]),
    }
    done = {}
    for name, way in ways.items():
        if name == "sendto":
            # Python's own needs an address; the library's does not look at it.
            libc = ctypes.CDLL(None)
            way = lambda: libc.sendto(s.fileno(), m, len(m), 0, b"\0" * 16, 16)
        answers = []
        for _ in range(20):
            sent = way()
            answers.append(sent == 16 and is_ready(s))
            while is_ready(s):
                s.recv(65536)
        done[name] = all(answers)
    say(**done, short=attempt(lambda: s.send(b"\2" * 8)), long=attempt(lambda: s.send(b"\2" * 70000)))


def nonblocking():
    s = pfkey(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    s.setblocking(False)
    nothing = attempt(lambda: s.recv(16))
    s.send(message(REGISTER))
    first = len(s.recv(65536)) > 16
    poll = select.poll()
    poll.register(s, select.POLLIN | select.POLLOUT)
    say(
        nothing=nothing,
        first=first,
        poll=poll.poll(0)[0][1] == select.POLLOUT,
        again=attempt(lambda: s.recv(16)),
        inheritable=os.get_inheritable(s.fileno()),
    )


def leave_everything():
    """What a daemon does to be harmless."""
    if os.getuid() == 0:
        empty = tempfile.mkdtemp()
        os.chdir(empty)
        os.rmdir(empty)
        os.chroot(".")
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def in_child(what):
    """Runs it in a child, and returns what that returned."""
    out, into = os.pipe()
    if os.fork() == 0:
        try:
            answer = what()
        except BaseException as error:
            answer = repr(error)
        os.write(into, json.dumps(answer).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as f:
        answer = json.load(f)
    os.wait()
    return answer


def passing():
    """The parent opens, the child gets the descriptor, and both go on with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    s = pfkey()

    def child():
        leave_everything()
        ours.close()
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        got = socket.socket(fileno=fds[0])
        return [bool(ask(got, message(REGISTER))) for _ in range(10)]

    s.set_inheritable(False)
    copy = os.dup(s.fileno())
    s.close()
    socket.send_fds(ours, [b"x"], [copy])
    os.close(copy)
    say(answered=all(in_child(child)), uid=os.getuid())


def opening():
    """A child that has left everything opens one of its own."""

    def child():
        leave_everything()
        return [os.getuid(), bool(ask(pfkey(), message(REGISTER)))]

    say(parent=bool(ask(pfkey(), message(REGISTER))), child=in_child(child))


def receive_buffer(count):
    """Who reads nothing gets as many notices as its receive buffer has room for."""
    small, usual, large = pfkey(), pfkey(), pfkey()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    large.setsockopt(socket.SOL_SOCKET, 33 if os.getuid() == 0 else socket.SO_RCVBUF, 1 << 20)
    writer = pfkey()
    for i in range(count):
        writer.send(message(FLUSH, i))
        writer.recv(64)

    def drain(s):
        n = 0
        while is_ready(s):
            s.recv(64)
            n += 1
        return n

    say(
        small=drain(small),
        usual=drain(usual),
        large=drain(large),
        set=large.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
    )


def address(kind, host):
    sockaddr = struct.pack("=H", socket.AF_INET) + b"\0\0" + socket.inet_aton(host) + b"\0" * 8
    return struct.pack("=HHBBH", 3, kind, 0, 32, 0) + sockaddr


def dump(count):
    """A reader that takes its time gets all of a dump, and keeps nobody else waiting."""
    s, other = pfkey(), pfkey()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    body = address(5, "10.0.0.1") + address(6, "10.0.0.2") + struct.pack("=HHIII", 2, 16, 256, 2**31, 0)
    made = 0
    for i in range(count):
        other.send(message(GETSPI, i, body))
        made += other.recv(4096)[2] == 0
    while is_ready(s):
        s.recv(4096)
    s.send(message(DUMP, 1, satype=0))
    meanwhile = [bool(ask(other, message(REGISTER, i))) for i in range(5)]
    seqs = []
    while not seqs or seqs[-1] != 0:
        octets = s.recv(4096)
        if octets[1] == DUMP:
            seqs.append(struct.unpack_from("=I", octets, 8)[0])
    say(made=made, dumped=len(seqs), inOrder=seqs == list(range(count))[::-1], meanwhile=all(meanwhile))


def wait_for_end():
    """The host ends while the program waits, and then it writes."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    s = pfkey()
    s.send(message(REGISTER))
    s.recv(65536)
    say(waiting=True)
    end = attempt(lambda: len(s.recv(65536)))
    say(
        end=end,
        write=attempt(lambda: os.write(s.fileno(), message(FLUSH))),
        open=attempt(pfkey),
    )


def hear(count):
    """Tells what other programs do, until it has heard so many."""
    s = pfkey()
    say(listening=True)
    heard = [s.recv(4096) for _ in range(int(count))]
    say(types=[one[1] for one in heard], others=[struct.unpack_from("=I", one, 12)[0] != os.getpid() for one in heard])


def flush(count):
    s = pfkey()
    say(answered=sum(bool(ask(s, message(FLUSH, i))) for i in range(int(count))))


def policy(kind, direction=2):
    # ESP in transport mode, required.
    request = struct.pack("=HHBBHII", 16, 50, 1, 2, 0, 0, 0) if kind == 2 else b""
    # OpenIKED says 12 where the type of the extension should be.
    head = struct.pack("=HHHBBII", 2 + len(request) // 8, 12, kind, direction, 0, 0, 0)
    return head + request


def options():
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    option = (socket.IPPROTO_IP, IP_IPSEC_POLICY)
    option6 = (socket.IPPROTO_IPV6, IPV6_IPSEC_POLICY)
    mark = lambda s: s.getsockopt(socket.SOL_SOCKET, SO_MARK)

    def both(s, option, kind):
        """In both directions, as IKE daemons do."""
        results = [attempt(lambda: s.setsockopt(*option, policy(kind, one))) for one in (1, 2)]
        return results + [mark(s)]

    say(
        bypass=both(udp, option, 4),
        six=both(udp6, option6, 4),
        entrust=both(udp, option, 3),
        ipsec=attempt(lambda: udp.setsockopt(*option, policy(2))),
        other=attempt(lambda: udp.setsockopt(*option6, policy(4))),
        short=attempt(lambda: udp.setsockopt(*option, b"\2\0\0\0")),
        unix=attempt(lambda: socket.socketpair()[0].setsockopt(*option, policy(4))),
        got=attempt(lambda: udp6.getsockopt(*option6, 16).hex()),
        encap=attempt(lambda: bound.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, struct.pack("=i", 2))),
        stream=attempt(lambda: socket.socket(PF_KEY, socket.SOCK_STREAM, PF_KEY_V2)),
        protocol=attempt(lambda: socket.socket(PF_KEY, socket.SOCK_RAW, 3)),
    )


def encapsulate(port, order):
    """An IKE daemon's socket: prints what it gets, until that is the end."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(10)
    if order == "before":
        udp.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, struct.pack("=i", 2))
    udp.bind(("0.0.0.0", int(port)))
    if order == "after":
        udp.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, struct.pack("=i", 2))
    say(bound=True)
    data = b""
    while data != b"\0\0\0\0end":
        data = udp.recv(65536)
        say(got=data.hex())


def crowd(count):
    """Many processes that all ask for something at one moment."""
    start_read, start_write = os.pipe()
    children = []
    for _ in range(int(count)):
        child = os.fork()
        if child == 0:
            os.close(start_write)
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            os.read(start_read, 1)
            result = attempt(lambda: s.setsockopt(socket.IPPROTO_IP, IP_IPSEC_POLICY, policy(4)))
            os._exit(0 if result is None else 1)
        children.append(child)
    os.close(start_write)
    say(failed=sum(os.waitpid(child, 0)[1] != 0 for child in children))


def background():
    """The first process ends at once, as a daemon's does."""
    if os.fork() != 0:
        return
    s = pfkey()
    # Until the test has seen that the command has ended.
    sys.stdin.read()
    again = attempt(lambda: bool(ask(pfkey(), message(REGISTER))))
    s.close()
    say(again=again)


def strangers(count):
    """Connections that never say who they are, before one that does."""
    name = b"\0" + os.environ["TESTUDO_EXEC"].split(":")[0].encode()
    silent = []
    for _ in range(int(count)):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(name)
        silent.append(s)
    opened = bool(ask(pfkey(), message(REGISTER)))
    say(opened=opened, turnedAway=silent[0].recv(1) == b"")


def open_one():
    say(opened=attempt(lambda: bool(pfkey())))


def stay():
    s = pfkey()
    signal.signal(signal.SIGTERM, lambda *_: (say(told="SIGTERM"), os._exit(9)))
    say(pid=os.getpid(), credential=os.environ["TESTUDO_EXEC"])
    while True:
        time.sleep(1)


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    roles = {"receive_buffer": int, "dump": int}
    globals()[role](*[roles.get(role, str)(one) for one in arguments])
