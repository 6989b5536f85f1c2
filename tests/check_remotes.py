"""DVC's remotes, each tried for real: a folder, a server of S3, one of SSH. Not one of the tests, since it takes minutes; `make
artifacts` runs it.

What is pushed comes back; what was lost or damaged in the remote is named; a command that was cut off goes on. The commands of
docs/artifacts.md set the remotes up."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_server
import ssh_server
from dvc_projects import Remote, add, by_ssh, clone, commands, connect, dvc, files, git, in_folder, in_s3, killed, shell, stored

MB = 2**20


@pytest.fixture(scope="module")
def s3(tmp_path_factory) -> Iterator[s3_server.Server]:
    with s3_server.server(tmp_path_factory.mktemp("s3") / "server") as server:
        yield server


@pytest.fixture(scope="module")
def ssh(tmp_path_factory) -> Iterator[ssh_server.Server]:
    if reason := ssh_server.why_not():
        pytest.skip(reason)
    with ssh_server.server(tmp_path_factory.mktemp("ssh") / "server") as server:
        yield server


@pytest.fixture(params=["folder", "s3", "ssh"])
def remote(request, tmp_path) -> Remote:
    if request.param == "folder":
        return in_folder(tmp_path / "store")
    server = request.getfixturevalue(request.param)
    return in_s3(server, tmp_path.name) if request.param == "s3" else by_ssh(server, tmp_path / "store")


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch) -> None:
    """Git and DVC without any settings of the user's."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in {"HOME": tmp_path, "DVC_SITE_CACHE_DIR": tmp_path / "site", "DVC_NO_ANALYTICS": "1",
                        "GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "nobody",
                        "GIT_CONFIG_KEY_1": "user.email", "GIT_CONFIG_VALUE_1": "nobody@localhost"}.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder under DVC, committed."""
    folder = tmp_path / "project"
    (folder / "weights/inner").mkdir(parents=True)
    git(folder, "init", "-q")
    dvc(folder, "init", "-q")
    for name in ("0", "1", "2", "inner/3"):
        (folder / "weights" / name).write_bytes(os.urandom(2 * MB))
    (folder / "weights/empty").touch()
    add(folder, "weights")
    return folder


def test_what_was_pushed_comes_back(project, remote):
    (project / "big").write_bytes(os.urandom(101 * MB))
    add(project, "big")
    connect(project, remote)
    assert "7 files pushed" in dvc(project, "push")                     # with the list of the folder's files
    assert "Everything is up to date" in dvc(project, "push")
    there = clone(project, remote)
    assert "7 files fetched" in dvc(there, "pull")
    assert files(there / "weights") == files(project / "weights")
    assert (there / "big").read_bytes() == (project / "big").read_bytes()
    assert dvc(there, "status") == "Data and pipelines are up to date.\n"
    assert not git(there, "status", "--porcelain")
    secrets = [ours for theirs, ours in remote.words.items() if theirs in ("SECRET-KEY", "~/.ssh/id_ed25519")]
    assert not any(secret in git(there, "show", "HEAD:.dvc/config") for secret in secrets)


def test_a_lost_file_is_named_and_what_came_stays(project, remote):
    connect(project, remote)
    dvc(project, "push")
    lost = stored(project, "inner/3")
    remote.delete(lost)
    there = clone(project, remote)
    said = dvc(there, "pull", code=1)
    assert f"failed to transfer '{lost[-33:].replace('/', '')}'" in said
    assert said.count("ERROR: ") == 2                                   # the second counts
    assert not (there / "weights").exists()
    assert len(files(there / ".dvc/cache/files")) == 4                  # all but the lost one
    assert dvc(there, "status", "-c").split() == ["deleted:", "weights/inner/3"]

    assert "Everything is up to date" in dvc(project, "push")           # no remedy, says the page, and gives one
    for line in commands("When it fails", {"NEW-URL": f"{remote.url}-2"}):
        shell(project, line)
    git(project, "commit", "-qam", "another place")
    git(there, "pull", "-q")
    assert "1 file fetched" in dvc(there, "pull")
    assert files(there / "weights") == files(project / "weights")


def test_a_damaged_file_is_refused_and_nothing_old_is_lost(project, remote):
    connect(project, remote)
    dvc(project, "push")
    there = clone(project, remote)
    dvc(there, "pull")
    old = files(there / "weights")
    (project / "weights/0").write_bytes(new := os.urandom(2 * MB))
    add(project, "weights")
    dvc(project, "push")
    remote.write(stored(project, "0"), b"?" + new[1:])
    git(there, "pull", "-q")
    said = dvc(there, "pull", code=1)
    assert "Checkout failed for following targets:\nweights\n" in said
    assert said.count("ERROR: ") == 1
    git(there, "checkout", "-q", "HEAD~1")
    dvc(there, "checkout")
    assert files(there / "weights") == old
    git(there, "checkout", "-q", "-")
    remote.write(stored(project, "0"), new)
    dvc(there, "pull")
    assert files(there / "weights") == files(project / "weights")


def test_without_verify_a_damaged_file_comes_unsaid(project, remote):
    """Why the page asks for it. Where this fails, DVC has changed for the better."""
    connect(project, remote)
    dvc(project, "push")
    remote.write(stored(project, "0"), b"damaged")
    there = clone(project, remote)
    dvc(there, "remote", "modify", "--local", "storage", "verify", "false")
    dvc(there, "pull")
    assert (there / "weights/0").read_bytes() == b"damaged"
    assert dvc(there, "status") == "Data and pipelines are up to date.\n"


STOP = """
import os, signal, sys
from dvc_data.index import collect as module
from dvc.cli import main
collect, listed = module._collect_from_index, []
def stop(*args, **more):
    if listed:
        os.kill(os.getpid(), signal.SIGINT)
    listed.append(collect(*args, **more))
module._collect_from_index = stop
sys.exit(main(sys.argv[1:]))
"""


def stopped(folder: Path, command: str) -> None:
    """DVC, as if Ctrl-C was pressed when it had listed one of its outputs."""
    done = subprocess.run([sys.executable, "-c", STOP, command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 252 and "interrupted by the user" in done.stderr, done.stdout + done.stderr


def test_after_a_stop_the_next_one_takes_a_part_for_the_whole(project, tmp_path):
    """What the page warns of. Where this fails, DVC has changed for the better."""
    (project / "xyz").write_text("listed after the weights")
    add(project, "xyz")
    connect(project, remote := in_folder(tmp_path / "store"))
    stopped(project, "push")
    assert "6 files pushed" in dvc(project, "push")
    assert dvc(project, "status", "-c").split() == ["new:", "xyz"]
    dvc(project, "push")
    there = clone(project, remote)
    stopped(there, "pull")
    said = dvc(there, "pull", code=1)
    assert "6 files fetched" in said and "Checkout failed for following targets:\nxyz\n" in said


def test_what_was_stopped_goes_on(project, tmp_path):
    (project / "xyz").write_text("listed after the weights")
    add(project, "xyz")
    connect(project, remote := in_folder(tmp_path / "store"))
    there = clone(project, remote)
    *forget, push, status = commands("After it was stopped", {})
    stopped(project, "push")
    shell(project, "; ".join(forget))
    assert "7 files pushed" in shell(project, push)
    stopped(there, "pull")
    shell(there, "; ".join(forget))
    assert "7 files fetched" in shell(there, push.replace("push", "pull"))
    assert "in sync" in shell(there, status)
    assert files(there / "weights") == files(project / "weights")


@pytest.mark.parametrize("key, secret, url, words", [
    ("", "", "", "Unable to locate credentials"), (s3_server.USER, "wrong", "", "An error occurred (403)"),
    ("some:body", "wrong", "", "An error occurred (403)"), ("", "right", "s3://nothing", "bucket does not exist")])
def test_what_s3_refuses_is_said(project, s3, tmp_path, key, secret, url, words):
    connect(project, in_s3(s3, tmp_path.name))
    if secret != "right":
        (project / ".dvc/config.local").unlink()
    if url:
        dvc(project, "remote", "modify", "--local", "storage", "url", url)
    said = dvc(project, "push", code=255, **({"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret} if key else {}))
    assert words in said
    assert said.count("ERROR: ") == 1


def test_credentials_in_the_environment_are_enough(project, s3, tmp_path):
    connect(project, in_s3(s3, tmp_path.name))
    (project / ".dvc/config.local").unlink()
    assert "6 files pushed" in dvc(project, "push", **s3.environment())


def test_a_push_whose_server_dies_goes_on_later(project, s3, tmp_path):
    for name in range(80):
        (project / f"weights/more-{name}").write_bytes(os.urandom(MB))
    add(project, "weights")
    remote = in_s3(s3, tmp_path.name)
    connect(project, remote)
    before = s3.stored()
    killed(project, s3, lambda: s3.stored() >= before + 20)             # of which the last ones may not be listed yet
    arrived = [key for key in s3.keys() if key.startswith(f"{tmp_path.name}/")]
    assert 5 <= len(arrived) < 85
    assert not any(key.endswith(".dir") for key in arrived)             # which would say that all is there
    assert f"{86 - len(arrived)} files pushed" in dvc(project, "push")
    there = clone(project, remote)
    dvc(there, "pull")
    assert files(there / "weights") == files(project / "weights")


def test_an_upload_in_parts_whose_server_dies_goes_on_later(project, s3, tmp_path):
    (project / "big").write_bytes(data := os.urandom(250 * MB))
    add(project, "big")
    remote = in_s3(s3, tmp_path.name)
    connect(project, remote)
    dvc(project, "push", "weights.dvc")
    before = s3.stored()
    killed(project, s3, lambda: s3.stored() > before + 1)               # of which one stands for the upload itself
    [upload] = [each for each in s3.client().list_multipart_uploads(Bucket=s3_server.BUCKET)["Uploads"]
                if each["Key"].startswith(f"{tmp_path.name}/")]
    assert "1 file pushed" in dvc(project, "push")
    assert s3.client().head_object(Bucket=s3_server.BUCKET, Key=upload["Key"])["ETag"].endswith('-5"')          # parts of 50 MB
    there = clone(project, remote)
    dvc(there, "pull")
    assert (there / "big").read_bytes() == data


@pytest.mark.parametrize("kind", ["s3", "ssh"])
def test_a_server_out_of_reach_is_said_soon(project, request, kind, tmp_path):
    server = request.getfixturevalue(kind)
    remote = in_s3(server, tmp_path.name) if kind == "s3" else by_ssh(server, tmp_path / "store")
    connect(project, remote)
    [port] = s3_server.free_ports(1)
    option = ("endpointurl", f"http://127.0.0.1:{port}") if kind == "s3" else ("port", str(port))
    dvc(project, "remote", "modify", "storage", *option)
    began = time.monotonic()
    said = dvc(project, "push", code=255, AWS_MAX_ATTEMPTS="1")
    assert time.monotonic() - began < 60
    assert ("Could not connect to the endpoint URL" if kind == "s3" else "Connect call failed") in said
    assert said.count("ERROR: ") == 1
    there = clone(project, remote)
    dvc(there, "remote", "modify", "--local", "storage", *option)
    assert dvc(there, "pull", code=1, AWS_MAX_ATTEMPTS="1").count("ERROR: ") == 2     # the second counts files


def test_a_key_that_ssh_does_not_take_is_said(project, ssh, tmp_path):
    connect(project, by_ssh(ssh, tmp_path / "store"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    dvc(project, "remote", "modify", "--local", "storage", "keyfile", str(tmp_path / "other"))
    said = dvc(project, "push", code=255)
    assert f"Permission denied for user {ssh.user}" in said
    assert said.count("ERROR: ") == 1


def test_a_group_shares_a_cache(project, tmp_path):
    """What one clone has made, another one checks out, without a remote."""
    shared = tmp_path / "shared"
    lines = commands("A cache that a group shares", {"/shared/restok-cache": str(shared), "GROUP": str(os.getgid())})
    [unlock] = [line for line in lines if line.startswith("rm ")]
    there = project.with_name("clone")
    git(tmp_path, "clone", "-q", "project", "clone")
    for folder in (project, there):
        for line in lines:
            if line != unlock:
                shell(folder, line)
    assert "Unable to acquire lock" in dvc(project, "status", code=255)         # why the page says so
    shell(project, unlock)
    (project / "weights/0").write_bytes(b"new")
    add(project, "weights")
    git(there, "pull", "-q")
    dvc(there, "checkout")
    assert files(there / "weights") == files(project / "weights")
    assert (there / "weights/0").stat().st_mode & stat.S_IWUSR
    for path in (shared / "files").rglob("*"):
        group = path.stat().st_mode & (stat.S_IRWXG | stat.S_ISGID)
        assert group == (stat.S_IRWXG | stat.S_ISGID if path.is_dir() else stat.S_IRGRP), path
