#!/usr/bin/python3
"""A PF_KEY client that shares nothing with the host but RFC 2367: octets, errno and recipients.

usage: pfkey.py SOCKET          prints one line per check that failed, then how many there were

Linux's numbers (linux/pfkeyv2.h). Four programs are connected: one asks, one has registered for
ESP, one only listens, one is promiscuous. Each case says which octets each of them must get.
"""
import ipaddress
import socket
import struct
import sys

(GETSPI, UPDATE, ADD, DELETE, GET, ACQUIRE, REGISTER, EXPIRE, FLUSH, DUMP, PROMISC, PCHANGE,
 SPDUPDATE, SPDADD, SPDDELETE, SPDGET, SPDACQUIRE, SPDDUMP, SPDFLUSH, SPDSETIDX, SPDEXPIRE,
 SPDDELETE2, NEW_MAPPING, MIGRATE) = range(1, 25)
UNSPEC, AH, ESP, IPCOMP = 0, 2, 3, 9
ENOENT, ESRCH, EEXIST, EINVAL = 2, 3, 17, 22
EPROTONOSUPPORT, EOPNOTSUPP = 93, 95
PID = 4711


def message(kind, satype, seq, *parts, errno=0, pid=PID, reserved=0):
    body = b"".join(parts)
    length = (16 + len(body)) // 8
    return struct.pack("=BBBBHHII", 2, kind, errno, satype, length, reserved, seq, pid) + body


def extension(kind, body):
    return struct.pack("=HH", (4 + len(body)) // 8, kind) + body


def sa(spi, replay=0, state=1, auth=0, encrypt=20, flags=0):
    return extension(1, struct.pack("!I", spi) + struct.pack("=BBBBI", replay, state, auth, encrypt, flags))


def sa2(mode=0, sequence=0, reqid=0):
    return extension(19, struct.pack("=BBHII", mode, 0, 0, sequence, reqid))


def lifetime(kind, packets=0, octets=0, add=0, use=0):
    return extension(kind, struct.pack("=IQQQ", packets, octets, add, use))


HARD, SOFT = 3, 4


def sockaddr(of, port=0):
    address = ipaddress.ip_address(of)
    if address.version == 4:
        return struct.pack("=H", 2) + struct.pack("!H", port) + address.packed + bytes(8)
    return struct.pack("=H", 10) + struct.pack("!HI", port, 0) + address.packed + bytes(4)


def address(kind, of, port=0, proto=0, prefix=None):
    full = 32 if ":" not in of else 128
    body = struct.pack("=BBH", proto, full if prefix is None else prefix, 0) + sockaddr(of, port)
    return extension(kind, body + bytes(-(len(body) + 4) % 8))


def src(of, **more):
    return address(5, of, **more)


def dst(of, **more):
    return address(6, of, **more)


def key(kind, octets):
    body = struct.pack("=HH", 8 * len(octets), 0) + octets
    return extension(kind, body + bytes(-(len(body) + 4) % 8))


def request(proto=50, mode=1, level=2, reqid=0, ends=b""):
    return struct.pack("=HHBBHII", 16 + len(ends), proto, mode, level, 0, reqid, 0) + ends


def policy(direction, kind=2, number=0, priority=0, requests=(request(),)):
    body = struct.pack("=HBBII", kind, direction, 0, number, priority) + b"".join(requests)
    return extension(18, body + bytes(-(len(body) + 4) % 8))


class Program:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.socket.settimeout(5)
        self.pending = b""

    def send(self, octets):
        self.socket.sendall(octets)

    def read(self):
        """One whole message."""
        while len(self.pending) < 16 or len(self.pending) < 8 * self.length():
            more = self.socket.recv(65536)
            if not more:
                raise EOFError("the host has closed the connection")
            self.pending += more
        length = 8 * self.length()
        found, self.pending = self.pending[:length], self.pending[length:]
        return found

    def length(self):
        return struct.unpack_from("=H", self.pending, 4)[0]

    def until(self, marker):
        """What came before the answer to a question that means nothing."""
        found = []
        while True:
            one = self.read()
            if struct.unpack_from("=I", one, 8)[0] == marker:
                return found
            found.append(one)


class Checks:
    def __init__(self, path):
        self.path = path
        self.count = self.failed = 0
        self.asker, self.registered, self.listener, self.watcher = (Program(path) for _ in range(4))
        self.marker = 0x7000_0000
        self.seq = 0
        self.registered.send(message(REGISTER, ESP, 1))
        self.registered.read()
        self.watcher.send(message(PROMISC, 1, 1))
        self.watcher.read()
        self.settle()

    def settle(self, *programs):
        """Everything that was sent has been answered; what each of the programs got meanwhile."""
        self.marker += 1
        got = []
        for one in programs or (self.asker, self.registered, self.listener, self.watcher):
            # SADB_RESERVED is an error to the asker alone, apart from a copy to the promiscuous.
            one.send(message(0, 0, self.marker))
            got.append([each for each in one.until(self.marker) if not self.is_marker(each)])
        return got

    @staticmethod
    def is_marker(octets):
        return octets[1] == PROMISC and len(octets) >= 32 and octets[17] == 0

    def equal(self, name, got, wanted):
        self.count += 1
        if got == wanted:
            return
        self.failed += 1
        print(f"{name}: got {show(got)}, wanted {show(wanted)}")

    def case(self, name, kind, satype, parts, reply=None, errno=0, to="one", shown=None, seq=None):
        """`reply`: its extensions. `shown`: what others get, if that is not the same."""
        self.seq += 1
        self.asker.send(message(kind, satype, self.seq, *parts))
        asker, registered, listener, watcher = self.settle()
        body = () if errno or reply is None else reply
        answer = message(kind, satype, self.seq, *body, errno=errno)
        other = message(kind, satype, self.seq, *(body if shown is None else shown), errno=errno)
        self.equal(name, asker, [answer])
        reaches = {"one": (0, 0), "registered": (1, 0), "all": (1, 1)}[to]
        self.equal(f"{name}, registered", registered, [other] * reaches[0])
        self.equal(f"{name}, listener", listener, [other] * reaches[1])
        copy = message(PROMISC, 0, 0, other)
        self.equal(f"{name}, promiscuous", sorted(watcher), sorted([other] * reaches[1] + [copy]))


def show(octets):
    if isinstance(octets, list):
        return "[" + ", ".join(show(one) for one in octets) + "]"
    return octets.hex() if isinstance(octets, bytes) else repr(octets)


A, B = "10.0.0.1", "10.0.0.2"
ENDS = (src(A), dst(B))
SECRET = key(9, bytes(range(1, 21)))
NO_LIMITS = (lifetime(HARD), lifetime(SOFT))


def about_sas(check):
    public = (sa(0x1001), sa2(), *NO_LIMITS, *ENDS)
    check.case("ADD", ADD, ESP, (sa(0x1001, state=0), *ENDS, SECRET), public, to="all")
    check.case("ADD again", ADD, ESP, (sa(0x1001), *ENDS, SECRET), errno=EEXIST)
    check.case("ADD without a key", ADD, ESP, (sa(0x1002), *ENDS), errno=EINVAL)
    check.case("ADD, reserved SPI", ADD, ESP, (sa(255), *ENDS, SECRET), errno=EINVAL)
    check.case("ADD, IPComp", ADD, IPCOMP, (sa(0x1002), *ENDS), errno=EPROTONOSUPPORT)
    check.case("ADD of nothing", ADD, UNSPEC, (sa(0x1002), *ENDS, SECRET), errno=EINVAL)
    check.case("ADD without SA", ADD, ESP, (*ENDS, SECRET), errno=EINVAL)
    check.case("ADD of RSVP", ADD, 5, (sa(0x1002), *ENDS, SECRET), errno=EOPNOTSUPP)
    six = (src("2001:db8::1"), dst("2001:db8::2"))
    wanted = (sa(0x1001), sa2(2, 0, 7), lifetime(HARD, 9, 8, 7, 6), lifetime(SOFT, 5, 4, 3, 2), *six)
    given = (sa(0x1001, state=0), sa2(2, 0, 7), *wanted[2:], SECRET)
    check.case("ADD over IPv6, with everything", ADD, ESP, given, wanted, to="all")
    check.case("GET of nothing", GET, ESP, (sa(0x1009), *ENDS), errno=ESRCH)
    check.case("UPDATE of nothing", UPDATE, ESP, (sa(0x1009), *ENDS, SECRET), errno=ESRCH)
    check.case("DELETE of nothing", DELETE, ESP, (sa(0x1009), *ENDS), errno=ESRCH)
    longer = (sa(0x1001), sa2(), lifetime(HARD, add=99), lifetime(SOFT), *ENDS)
    check.case("UPDATE", UPDATE, ESP, (sa(0x1001), *ENDS, lifetime(HARD, add=99)), longer, to="all")
    other = key(9, bytes(20))
    check.case("UPDATE of keys", UPDATE, ESP, (sa(0x1001), *ENDS, other), errno=EINVAL)
    get(check)
    check.case("DELETE", DELETE, ESP, (sa(0x1001), *six), (sa(0x1001), sa2(2, 0, 7), *six), to="all")
    check.case("DELETE of all between two", DELETE, ESP, ENDS, ENDS, to="all")
    check.case("DUMP of none", DUMP, AH, (), errno=ENOENT)


def get(check):
    """GET has the keys and a time; everybody but the asker sees it without keys."""
    check.seq += 1
    check.asker.send(message(GET, ESP, check.seq, sa(0x1001), *ENDS))
    asker, registered, listener, watcher = check.settle()
    current = asker[0][16 + 16 + 16 + 64:][:32]
    check.equal("GET, LIFETIME_CURRENT", current[:4], struct.pack("=HH", 4, 2))
    parts = (sa(0x1001), sa2(), lifetime(HARD, add=99), lifetime(SOFT), current, *ENDS)
    check.equal("GET", asker, [message(GET, ESP, check.seq, *parts, SECRET)])
    check.equal("GET, others", [registered, listener], [[], []])
    check.equal("GET, promiscuous", watcher, [message(PROMISC, 0, 0, message(GET, ESP, check.seq, *parts))])


def larval(check):
    spirange = extension(16, struct.pack("=III", 0x2001, 0x2001, 0))
    reply = (sa(0x2001, state=0, encrypt=0), sa2(1, 0, 5), *ENDS)
    check.case("GETSPI", GETSPI, ESP, (*ENDS, sa2(1, 0, 5), spirange), reply)
    check.case("GETSPI, one that is in use", GETSPI, ESP, (*ENDS, spirange), errno=EEXIST)
    empty = extension(16, struct.pack("=III", 0x3000, 0x2000, 0))
    check.case("GETSPI, no range", GETSPI, ESP, (*ENDS, empty), errno=EINVAL)
    keys = (sa(0x2001), sa2(1, 0, 5), *ENDS, SECRET)
    short = key(9, bytes(7))
    check.case("UPDATE, bad key", UPDATE, ESP, (sa(0x2001), *ENDS, short), errno=EINVAL)
    public = (sa(0x2001), sa2(1, 0, 5), *NO_LIMITS, *ENDS)
    check.case("UPDATE of a larval SA", UPDATE, ESP, keys, public, to="all")
    check.case("FLUSH of AH", FLUSH, AH, (), (), to="all")
    check.case("FLUSH of RSVP", FLUSH, 5, (), errno=EOPNOTSUPP)
    check.case("FLUSH", FLUSH, UNSPEC, (), (), to="all")
    check.case("DUMP of nothing", DUMP, UNSPEC, (), errno=ENOENT)


def dumps(check):
    """Counts down to 0; keys for the asker alone."""
    for i in range(300):
        check.asker.send(message(ADD, ESP, 1, sa(0x4000 + i), *ENDS, SECRET))
    check.settle()
    check.asker.send(message(DUMP, ESP, 9))
    asker, registered, listener, watcher = check.settle()
    seqs = [struct.unpack_from("=I", one, 8)[0] for one in asker]
    check.equal("DUMP counts down", seqs, list(range(299, -1, -1)))
    spis = {struct.unpack_from("!I", one, 20)[0] for one in asker}
    check.equal("DUMP, all of them", spis, set(range(0x4000, 0x4000 + 300)))
    check.equal("DUMP has keys", all(SECRET in one for one in asker), True)
    check.equal("DUMP is for the asker", [registered, listener], [[], []])
    check.equal("DUMP, promiscuous", [len(watcher), any(SECRET in one for one in watcher)], [300, False])
    check.case("FLUSH after", FLUSH, ESP, (), (), to="all")


def about_policies(check):
    net = (src("10.1.0.0", prefix=16, proto=255), dst("10.2.0.0", prefix=16, proto=255))
    check.asker.send(message(SPDADD, UNSPEC, 1, policy(2), *net))
    (added,), _, (seen,), _ = check.settle()
    number = struct.unpack_from("=I", added, 16 + 8)[0]
    check.equal("SPDADD", added, message(SPDADD, UNSPEC, 1, policy(2, number=number), *net))
    check.equal("SPDADD, listener", seen, added)
    check.equal("SPDADD gives a number above those of people", number > 0x3FFF, True)
    check.case("SPDADD again", SPDADD, UNSPEC, (policy(2), *net), errno=EEXIST)
    check.case("SPDADD of an SA type", SPDADD, ESP, (policy(2), *net), errno=EINVAL)
    check.case("SPDADD, direction 9", SPDADD, UNSPEC, (policy(9), *net), errno=EINVAL)
    check.case("SPDADD, entrust", SPDADD, UNSPEC, (policy(2, 3, requests=()), *net), errno=EINVAL)
    check.case("SPDADD without requests", SPDADD, UNSPEC, (policy(2, requests=()), *net), errno=EINVAL)
    comp = policy(2, requests=(request(108),))
    check.case("SPDADD, IPComp", SPDADD, UNSPEC, (comp, *net), errno=EPROTONOSUPPORT)
    seven = policy(1, requests=(request(),) * 7)
    check.case("SPDADD, seven layers", SPDADD, UNSPEC, (seven, *net), errno=40)
    unique = policy(1, number=77, priority=5, requests=(request(50, 2, 3, 9, sockaddr(A) + sockaddr(B)),))
    check.case("SPDADD, a number and a tunnel", SPDADD, UNSPEC, (unique, *net), (unique, *net), to="all")
    check.case("SPDUPDATE", SPDUPDATE, UNSPEC, (policy(2, 1, requests=()), *net),
               (policy(2, 1, number=number, requests=()), *net), to="all")
    check.case("SPDGET, no such number", SPDGET, UNSPEC, (policy(0, number=5, requests=()),), errno=ENOENT)
    check.case("SPDDELETE2", SPDDELETE2, UNSPEC, (policy(0, number=77, requests=()),), (unique, *net), to="all")
    check.case("SPDDELETE2 again", SPDDELETE2, UNSPEC, (policy(0, number=77, requests=()),), errno=ENOENT)
    check.case("SPDDELETE", SPDDELETE, UNSPEC, (policy(2, requests=()), *net),
               (policy(2, 1, number=number, requests=()), *net), to="all")
    check.case("SPDDELETE again", SPDDELETE, UNSPEC, (policy(2, requests=()), *net), errno=ENOENT)
    check.case("SPDDUMP of none", SPDDUMP, UNSPEC, (), errno=ENOENT)
    check.case("SPDFLUSH", SPDFLUSH, UNSPEC, (), (), to="all")


def about_programs(check):
    check.case("EXPIRE from a program", EXPIRE, ESP, (sa(0x1001), *ENDS), errno=EOPNOTSUPP)
    check.case("SPDEXPIRE from a program", SPDEXPIRE, UNSPEC, (), errno=EOPNOTSUPP)
    check.case("SPDACQUIRE from a program", SPDACQUIRE, UNSPEC, (), errno=EOPNOTSUPP)
    check.case("NEW_MAPPING from a program", NEW_MAPPING, ESP, (), errno=EOPNOTSUPP)
    check.case("PCHANGE", PCHANGE, ESP, (), errno=EOPNOTSUPP)
    check.case("MIGRATE without a policy", MIGRATE, UNSPEC, ENDS, errno=EINVAL)
    check.case("REGISTER for RSVP", REGISTER, 5, (), errno=EOPNOTSUPP)
    check.case("REGISTER for IPComp", REGISTER, IPCOMP, (), errno=EPROTONOSUPPORT)
    check.asker.send(message(ACQUIRE, ESP, 99, errno=110))
    check.equal("ACQUIRE that failed has no answer", check.settle()[:3], [[], [], []])
    check.case("PROMISC off", PROMISC, UNSPEC, (), (), to="all")
    check.case("PROMISC, SA type 3", PROMISC, ESP, (), errno=EINVAL)
    inner = message(FLUSH, ESP, 5, pid=1)
    check.asker.send(message(PROMISC, UNSPEC, 6, inner))
    asker, registered, listener, _ = check.settle()
    answer = message(PROMISC, UNSPEC, 6)
    check.equal("PROMISC around a message", asker, [answer])
    check.equal("PROMISC around a message, others", [registered, listener], [[inner, answer]] * 2)


def broken(check):
    """Whatever is wrong with a message, its header comes back with an errno, and nothing else."""
    good = message(ADD, ESP, 1, sa(0x1001), *ENDS, SECRET)
    version = bytes([3]) + good[1:]
    kind = good[:1] + bytes([99]) + good[2:]
    twice = message(ADD, ESP, 1, sa(0x1001), sa(0x1001), *ENDS, SECRET)
    unknown = message(ADD, ESP, 1, extension(50, bytes(4)), *ENDS)
    short = message(ADD, ESP, 1, extension(1, bytes(4)), *ENDS)
    too_long = bytearray(message(ADD, ESP, 1, sa(0x1001), *ENDS))
    too_long[16] = 200
    families = message(ADD, ESP, 1, sa(0x1001), src(A), dst("2001:db8::2"), SECRET)
    protos = message(ADD, ESP, 1, sa(0x1001), src(A, proto=6), dst(B, proto=17), SECRET)
    prefix = message(SPDADD, UNSPEC, 1, policy(2), src(A, prefix=33), dst(B))
    unix = bytearray(message(ADD, ESP, 1, sa(0x1001), src(A), dst(B), SECRET))
    unix[16 + 16 + 8] = 1
    cases = [
        ("version", version, EINVAL), ("type", kind, EINVAL), ("twice", twice, EINVAL),
        ("unknown", unknown, EINVAL), ("short", short, EINVAL), ("too long", bytes(too_long), EINVAL),
        ("families", families, EINVAL), ("protocols", protos, EINVAL), ("prefix", prefix, EINVAL),
        ("address family 1", bytes(unix), 97),
    ]
    for name, octets, errno in cases:
        check.asker.send(octets)
        asker, registered, listener, _ = check.settle()
        wanted = bytearray(octets[:16])
        wanted[0], wanted[2] = 2, errno
        wanted[4:6] = struct.pack("=H", 2)
        check.equal(f"broken: {name}", asker, [bytes(wanted)])
        check.equal(f"broken: {name}, others", [registered, listener], [[], []])
    lost = Program(check.path)
    lost.send(bytes([2, ADD, 0, ESP, 0, 0]) + bytes(10))
    try:
        lost.read()
        check.equal("a length of 0 ends the connection", "an answer", "the end")
    except (EOFError, ConnectionError):
        check.equal("a length of 0 ends the connection", True, True)


def expiry(check):
    limits = (lifetime(HARD, add=2), lifetime(SOFT, add=1))
    check.asker.send(message(ADD, ESP, 5, sa(0x6001), *ENDS, SECRET, *limits))
    check.settle()
    soft, hard = check.registered.read(), check.registered.read()
    for name, octets, state, limit in (("soft", soft, 2, limits[1]), ("hard", hard, 3, limits[0])):
        current = octets[16 + 16 + 16:][:32]
        parts = (sa(0x6001, state=state), sa2(), current, limit, *ENDS)
        check.equal(f"EXPIRE, {name}", octets, message(EXPIRE, ESP, 5, *parts, pid=0))
    _, registered, listener, watcher = check.settle()
    check.equal("EXPIRE, others", [registered, listener], [[], []])
    copies = [message(PROMISC, 0, 0, one, pid=0) for one in (soft, hard)]
    check.equal("EXPIRE, promiscuous", watcher, copies)


def main(path):
    check = Checks(path)
    for part in (about_sas, larval, dumps, about_policies, about_programs, broken, expiry):
        part(check)
    print(f"{check.count} checks, {check.failed} failed")
    sys.exit(1 if check.failed else 0)


main(sys.argv[1])
