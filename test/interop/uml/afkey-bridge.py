#!/usr/bin/python3
"""PF_KEY of the guest's kernel as a Unix stream socket, for programs that cannot open AF_KEY.

usage: afkey-bridge.py PATH

Each client has a kernel socket of its own. Messages follow each other on the stream, each as long
as its header says. What the kernel refuses to be sent comes back as a header with the errno, so
that a client sees errors in one form only.
"""
import asyncio
import socket
import struct
import sys

AF_KEY, PF_KEY_V2 = 15, 2
HEADER = struct.Struct("=BBBBHHII")
ANSWER_MAX = 1 << 17


def refused(message, errno):
    version, kind, _, satype, _, _, seq, pid = HEADER.unpack_from(message)
    return HEADER.pack(version, kind, errno, satype, HEADER.size // 8, 0, seq, pid)


async def to_kernel(reader, writer, kernel):
    while True:
        head = await reader.readexactly(HEADER.size)
        length = HEADER.unpack(head)[4] * 8
        message = head + await reader.readexactly(length - HEADER.size)
        try:
            kernel.send(message)
        except OSError as error:
            writer.write(refused(message, error.errno))


async def serve(reader, writer):
    kernel = socket.socket(AF_KEY, socket.SOCK_RAW, PF_KEY_V2)
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    kernel.setblocking(False)
    loop = asyncio.get_running_loop()
    loop.add_reader(kernel, lambda: writer.write(kernel.recv(ANSWER_MAX)))
    try:
        await to_kernel(reader, writer, kernel)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        loop.remove_reader(kernel)
        kernel.close()
        writer.close()


async def main(path):
    server = await asyncio.start_unix_server(serve, path)
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main(sys.argv[1]))
