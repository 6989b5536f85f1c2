"""A command whose `restok` and `snakemake` are forked from processes that have imported what takes longest: else that is most
of a short job, and of a dry run.

    python tests/warm_commands.py COMMAND ...

For checks of what commands make; how they start, others check. What comes first on the PATH hands its words, folder,
environment and streams to the process, which forks; it passes signals on, and ends as the fork ends. Where it is killed, so is
the fork, but not what that has started. To the Makefile's targets and to the checks, `FIRST` names what comes before the
environment's commands.
"""

import ast
import atexit
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

SERVE = "--serve"
PRELOADED = {
    "restok": ["torch", "numpy", "pandas", "pyarrow.parquet", "scipy.linalg", "matplotlib.figure", "PIL.Image", "pydantic",
               "rich.table", "safetensors.torch", "typer"],                 # nothing of restok itself
    "snakemake": ["snakemake.cli", "snakemake.profiles", "snakemake.report.html_reporter", "smart_open", "restok.dvc",
                  "restok.mirror.child", "restok.slurm", "restok.experiments.estimate", "restok.experiments.requests",
                  "restok.experiments.telling"]}
CLIENT = """#!{python} -IS
import os, signal, socket, struct, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b"-"], [0, 1, 2])
asked = repr((sys.argv[1:], os.getcwd(), dict(os.environ), os.nice(0))).encode(errors="surrogateescape")
server.sendall(struct.pack("Q", len(asked)) + asked)
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: server.send(bytes([number])))
code, = struct.unpack("i", server.recv(4))
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def serve(listening: socket.socket, parent: int) -> list[str]:
    """In the process itself until the command has ended, or was killed; in each fork, its words."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)                 # forks that wait for forks leave no zombies
    listening.settimeout(5)
    while True:
        try:
            client, _ = listening.accept()
        except TimeoutError:
            if os.getppid() != parent:
                sys.exit()
            continue
        if os.fork() == 0:
            listening.close()
            return attend(client)
        client.close()


def attend(client: socket.socket) -> list[str]:
    """Fork for a client, and return there; here, wait for the fork's end, and leave."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, *_ = socket.recv_fds(client, 1, 3)
    file = client.makefile("rb")
    asked = file.read(*struct.unpack("Q", file.read(8)))
    if (fork := os.fork()) == 0:
        client.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        words, folder, environment, nice = ast.literal_eval(asked.decode(errors="surrogateescape"))
        os.chdir(folder)
        os.nice(nice - os.nice(0))
        os.environ.clear()
        os.environ.update(environment)
        return words
    ended = os.pidfd_open(fork)
    while ended not in select.select([client, ended], [], [])[0]:
        told = client.recv(1)                                     # a signal; nothing: the client is gone
        os.kill(fork, told[0] if told else signal.SIGKILL)
        if not told:
            break
    _, status = os.waitpid(fork, 0)
    with suppress(OSError):
        client.send(struct.pack("i", os.waitstatus_to_exitcode(status)))
    os._exit(0)


def forked(name: str, listening: socket.socket) -> None:
    """The process itself, and what its forks do. After all else that is to be done at their end they leave without taking their
    objects apart, of which each would first be copied: 1.7 of 2.2 seconds.
    """
    parent, code = os.getppid(), 1
    atexit.register(lambda: (sys.stdout.flush(), sys.stderr.flush(), os._exit(code)))        # called last, as it comes first
    for module in PRELOADED[name]:
        import_module(module)
    sys.argv = [str(Path(sys.executable).with_name(name)), *serve(listening, parent)]
    [command] = entry_points(group="console_scripts", name=name)
    try:
        sys.exit(command.load()())
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)      # else a message
        raise


def served(name: str, folder: Path, ends: ExitStack) -> None:
    """Start the process for a command, whose client lies in `folder` then."""
    listening = ends.enter_context(socket.socket(socket.AF_UNIX))
    listening.bind(address := f"{folder}.{name}")
    listening.listen(64)
    client = folder / name
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o755)
    number = listening.fileno()
    server = subprocess.Popen([sys.executable, "-P", __file__, SERVE, name, str(number)], pass_fds=[number])
    ends.callback(server.wait)
    ends.callback(server.kill)


def main(command: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        clients = Path(folder, "bin")
        clients.mkdir()
        for name in PRELOADED:
            served(name, clients, ends)
        first = f"{clients}:"
        return subprocess.call(command, env=os.environ | {"FIRST": first, "PATH": first + os.environ["PATH"]})


if __name__ == "__main__":
    if sys.argv[1] == SERVE:
        forked(sys.argv[2], socket.socket(fileno=int(sys.argv[3])))
    else:
        sys.exit(main(sys.argv[1:]))
