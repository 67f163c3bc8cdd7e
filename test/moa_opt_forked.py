"""`moa-opt` for lit: forks of one process that has imported it, which takes longest.

`python moa_opt_forked.py serve NUMBER PARENT` serves a socket until its parent ends;
`python moa_opt_forked.py run PATH ARG...` is moa-opt: files, folder and status too.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module

LONGEST = 120  # seconds, as test/lit.cfg.py has it


def serve(server: socket.socket, parent: int) -> None:
    from moa_dialect.tools import moa_opt
    from moa_dialect.universe import MOA_UNIVERSE

    for load in MOA_UNIVERSE.all_passes.values():
        load()
    for package in ("sympy", "z3"):  # which passes import when they need them
        import_module(package)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for children
    path = server.getsockname()
    with server:
        server.settimeout(1)
        while os.getppid() == parent:
            try:
                call, _ = server.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                server.close()
                answer(call, moa_opt.main)
            call.close()
    os.unlink(path)
    os.rmdir(os.path.dirname(path))


def answer(call: socket.socket, main: Callable[[], None]) -> None:
    """Run `moa-opt` for a call, in a process that ends with it."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.alarm(LONGEST)
        call.setblocking(True)
        text, files, _, _ = socket.recv_fds(call, 1 << 16, 3)
        folder, arguments = json.loads(text)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        sys.argv = ["moa-opt", *arguments]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        call.sendall(bytes([code]))
        os._exit(0)


def run(path: str, arguments: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as call:
        call.connect(path)
        text = json.dumps([os.getcwd(), arguments]).encode()
        socket.send_fds(call, [text], [0, 1, 2])
        code = call.recv(1)
    return code[0] if code else 128 + signal.SIGABRT  # it did not end as it should


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3]))
    else:
        sys.exit(run(sys.argv[2], sys.argv[3:]))
