"""A server of S3 on this machine alone: OpenStack Swift, one process a service, one copy of each object. They lie in a folder,
whose disk must know extended attributes."""

import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from slurm_cluster import wait_until

PYTHON = sys.executable
SERVICES = "account", "container", "object", "proxy"
USER = "restok:artifacts"           # account and user: what S3 calls the access key
BUCKET = "artifacts"
# What is made of an upload in parts is a `slo`; the order is that of Swift's documentation.
PROXY = ("catch_errors gatekeeper healthcheck memcache listing_formats bulk s3api tempauth copy slo dlo versioned_writes "
         "proxy-server").split()
RING = """
import sys
from swift.common.ring import RingBuilder
for name, port in zip(sys.argv[2::2], sys.argv[3::2]):
    builder = RingBuilder(1, 1, 0)
    builder.add_dev(dict(id=0, region=1, zone=1, ip="127.0.0.1", port=int(port), device="disk", weight=1))
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""
# Swift's own commands know /etc/swift alone.
SERVE = """
import ctypes, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)          # PR_SET_PDEATHSIG: ends with the tests, however these end
from swift.common.utils import set_swift_dir
set_swift_dir(sys.argv[1])
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(f"{sys.argv[1]}/{sys.argv[2]}.conf", f"{sys.argv[2]}-server", verbose=True))
"""


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Server:
    """Its services, its bucket, and what a client must know of it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.secret = secrets.token_hex(20)
        self.ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        self.endpoint = f"http://127.0.0.1:{self.ports['proxy']}"
        self.running: dict[str, subprocess.Popen] = {}
        (folder / "devices/disk").mkdir(parents=True)
        (folder / "swift.conf").write_text(f"[swift-hash]\nswift_hash_path_suffix = {secrets.token_hex(8)}\n")
        for name in SERVICES:
            (folder / f"{name}.conf").write_text(self._configuration(name))
        rings = [word for name in SERVICES[:3] for word in (name, str(self.ports[name]))]
        subprocess.run([sys.executable, "-c", RING, folder, *rings], check=True, capture_output=True)

    def _configuration(self, name: str) -> str:
        common = {"bind_ip": "127.0.0.1", "bind_port": self.ports[name], "workers": 0, "swift_dir": self.folder,
                  "devices": self.folder / "devices", "mount_check": "false", "fallocate_reserve": 0}
        sections: dict[str, dict] = {"DEFAULT": common}
        pipeline = [*(PROXY if name == "proxy" else [f"{name}-server"])]
        sections["pipeline:main"] = {"pipeline": " ".join(pipeline)}
        sections |= {f"filter:{each}": {"use": f"egg:swift#{each}"} for each in pipeline[:-1]}
        sections[f"app:{name}-server"] = {"use": f"egg:swift#{name}"}
        if name == "proxy":
            sections["app:proxy-server"]["account_autocreate"] = "true"
            sections["filter:memcache"]["memcache_servers"] = "127.0.0.1:9"     # wants a name; does without the server
            sections["filter:tempauth"][f"user_{USER.replace(':', '_')}"] = f"{self.secret} .admin"
        return "".join(f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
                       for section, keys in sections.items())

    def start(self) -> None:
        for name in SERVICES:
            with (self.folder / f"{name}.log").open("a") as log:
                self.running[name] = subprocess.Popen([sys.executable, "-c", SERVE, self.folder, name], stdout=log, stderr=log)
        wait_until(lambda: all(map(answers, self.ports.values())), f"no server of S3 answers; {self.folder}/*.log say why")

    def kill(self) -> None:
        """As a power cut does."""
        for process in self.running.values():
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.running.clear()

    def environment(self) -> dict[str, str]:
        """The credentials, as AWS's programs take them."""
        return {"AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": self.secret}

    def client(self) -> BaseClient:
        # Without a limit it tries a dead server for a minute.
        limits = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
        return botocore.session.Session().create_client(
            "s3", region_name="us-east-1", endpoint_url=self.endpoint, aws_access_key_id=USER,
            aws_secret_access_key=self.secret, config=limits)

    def keys(self) -> list[str]:
        """The objects of the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def stored(self) -> int:
        """Files on its disk: objects, parts of objects, and uploads that are not complete."""
        return len(list(self.folder.glob("devices/disk/objects/*/*/*/*.data")))


def answers(port: int) -> bool:
    try:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
            return True
    except OSError:
        return False


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A running server with an empty bucket, whose objects and logs lie in a folder; its processes are ended."""
    ours = Server(folder)
    try:
        ours.start()
        ours.client().create_bucket(Bucket=BUCKET)
        yield ours
    finally:
        ours.kill()
