"""A program that has a fork do its work; `forks.write_program` writes the command.

It imports next to nothing, as each import would be made once for every command of a test.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import marshal
import os
import sys
from array import array


def _main(place: str, arguments: list[str]) -> None:
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    server.connect(place)
    body = marshal.dumps((arguments, dict(os.environ), os.getcwd(), False))  # noqa: PTH109
    streams = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", (0, 1, 2)))]
    server.sendmsg([b"%8d" % len(body)], streams)
    while body:
        body = body[server.send(body) :]
    # Its streams are the fork's alone, so that readers of a pipe see where it ends.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    pid = int(server.recv(16))
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, lambda number, _: os.kill(pid, number))
    code = int(server.recv(16))
    if code < 0:
        _signal.signal(-code, _signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


_main(sys.argv[1], sys.argv[2:])
