"""OpenSSH's server on this machine alone, with a key of its own for the host and one for the user. Needs Debian's
openssh-server. The user is who runs the tests."""

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3_server import answers, free_ports
from slurm_cluster import wait_until

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
RUN = Path("/run/sshd")         # Debian's does not start without
CONFIGURATION = """ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
AuthenticationMethods publickey
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""


def why_not() -> str | None:
    """What is missing for a server here."""
    if SSHD is None:
        return "no sshd: apt-get install openssh-server"
    return None if RUN.exists() or os.geteuid() == 0 else f"only root can make {RUN}"


class Server:
    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self.folder = folder
        self.user = getpass.getuser()
        self.key = folder / "user"
        [self.port] = free_ports(1)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "sshd_config").write_text(CONFIGURATION.format(port=self.port, folder=folder))


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A running server, whose keys and log lie in a folder; its process is ended."""
    ours = Server(folder)
    made = not RUN.exists()
    RUN.mkdir(exist_ok=True)
    with (folder / "sshd.log").open("a") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(ours.port), f"no server of SSH answers; {folder}/sshd.log says why")
        yield ours
    finally:
        process.terminate()
        process.wait()
        if made:
            RUN.rmdir()
