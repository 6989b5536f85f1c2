"""Small projects under DVC and their remotes, as docs/artifacts.md sets them up."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pages
from conftest import ROOT
from s3_server import BUCKET, USER
from s3_server import Server as S3
from slurm_cluster import wait_until
from ssh_server import Server as SSH


@dataclass(frozen=True)
class Remote:
    section: str                        # of the page, which sets it up
    url: str
    words: dict[str, str]               # what stands there for one's own
    write: Callable[[str, bytes], object]
    delete: Callable[[str], object]


def in_folder(folder: Path) -> Remote:
    return Remote("A folder", str(folder), {"/shared/restok-artifacts": str(folder)},
                  lambda name, data: overwrite(folder / name, data), lambda name: (folder / name).unlink())


def in_s3(server: S3, prefix: str) -> Remote:
    def call(operation: str, name: str, **more) -> None:
        getattr(server.client(), operation)(Bucket=BUCKET, Key=f"{prefix}/{name}", **more)

    url = f"s3://{BUCKET}/{prefix}"
    words = {"s3://BUCKET/restok": url, "https://s3.example.org": server.endpoint, "ACCESS-KEY": USER,
             "SECRET-KEY": server.secret}
    return Remote("S3", url, words, lambda name, data: call("put_object", name, Body=data),
                  lambda name: call("delete_object", name))


def by_ssh(server: SSH, folder: Path) -> Remote:
    url = f"ssh://127.0.0.1{folder}"
    words = {"ssh://storage.example.org/shared/restok-artifacts": url, "port 22": f"port {server.port}", "USER": server.user,
             "~/.ssh/id_ed25519": str(server.key)}
    return Remote("SSH", url, words, lambda name, data: overwrite(folder / name, data), lambda name: (folder / name).unlink())


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def dvc(folder: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    """What DVC says. It must end with this code, and never with a trace."""
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True,
                          env=os.environ | environment, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    return said


def killed(project: Path, s3: S3, when: Callable[[], bool]) -> None:
    """A push whose server is killed on the way, and started again after it."""
    with subprocess.Popen([sys.executable, "-m", "dvc", "push"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, env=os.environ | {"AWS_MAX_ATTEMPTS": "1"}) as push:
        wait_until(when, "no push")
        s3.kill()
        said = push.communicate(timeout=300)[0]
    assert push.returncode in (1, 255)
    assert "Could not connect to the endpoint URL" in said
    assert "Traceback" not in said
    s3.start()


def add(folder: Path, *names: str) -> None:
    dvc(folder, "add", "-q", *names)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "artifacts")


def commands(section: str, words: dict[str, str]) -> list[str]:
    """The commands in a section of the page, with one's own words in them."""
    lines = "\n".join(command.text for command in pages.commands(ROOT / "docs/artifacts.md") if command.section == section)
    assert lines, section
    for theirs, ours in words.items():
        assert theirs in lines, theirs
        lines = lines.replace(theirs, ours)
    return lines.splitlines()


def shell(folder: Path, line: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(line, shell=True, cwd=folder, check=True, env=os.environ | {"PATH": path}, text=True,
                          stdout=subprocess.PIPE).stdout


def connect(project: Path, remote: Remote) -> None:
    """And commit what all may know."""
    for line in commands(remote.section, remote.words):
        if line.startswith("dvc "):
            shell(project, line)
    git(project, "commit", "-qam", "remote")


def clone(project: Path, remote: Remote, name: str = "clone") -> Path:
    folder = project.with_name(name)
    git(project.parent, "clone", "-q", project.name, name)
    for line in commands(remote.section, remote.words):
        if "--local" in line:
            shell(folder, line)
    return folder


def stored(project: Path, name: str) -> str:
    """Where a file of `weights` lies in a remote and in a cache."""
    digest = re.search(r"md5: (\w+)\.dir", (project / "weights.dvc").read_text())[1]
    listing = project / f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}.dir"
    [digest] = [each["md5"] for each in json.loads(listing.read_text()) if each["relpath"] == name]
    return f"files/md5/{digest[:2]}/{digest[2:]}"


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
