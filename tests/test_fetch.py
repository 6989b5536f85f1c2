"""Pretrained networks: brought and verified once by `restok fetch`; nothing else looks for a network."""

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from conftest import ROOT
from safetensors.torch import load, save

from restok.files import read_json
from restok.networks.backbone import VisionTransformer
from restok.networks.pretrained import PRETRAINED, Pretrained

VIT = "test_vit.r160_in1k"
HOSTED = f"/timm/{VIT}/resolve/main/model.safetensors"
SETTINGS = ["--params", ROOT / "params/demo.yaml", "--set", "evaluation.lpips=true",
            "--set", f"objective.alignment.network={VIT}"]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the server has: a vision transformer and an AlexNet with random weights."""
    import torchvision
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("served") / "alex.pth"
    trunk = torchvision.models.alexnet().features.state_dict()
    torch.save({f"features.{name}": tensor for name, tensor in trunk.items()}, place)
    return {HOSTED: save(timm.create_model(VIT).state_dict()), "/alex.pth": place.read_bytes()}


class Server(ThreadingHTTPServer):
    """Answers as the hub and as a plain server do; `asked` are the paths of its answers with content, `cut` and `other` what it
    sends half of, or others in the place of."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.cut, self.other = files, [], set(), {}
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(content=True)

    def do_HEAD(self):
        self.answer(content=False)

    def answer(self, content):
        server, data = self.server, self.server.files.get(self.path)
        self.send_response(200 if data else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{sha256(data or b"")}"')
        self.send_header("Content-Length", str(len(data or b"")))
        if not data:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if content and data:
            server.asked.append(self.path)
            data = server.other.get(self.path, data)
            self.wfile.write(data[:len(data) // 2] if self.path in server.cut else data)

    def log_message(self, *words):
        pass


@pytest.fixture
def server(files, tmp_path, monkeypatch):
    """Of which `restok fetch` takes its networks, into empty caches."""
    server = Server(files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
                        server.address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf/hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)             # between the tries of the hub's client
    monkeypatch.setitem(PRETRAINED, "alex", Pretrained(f"{server.address}/alex.pth", sha256(files["/alex.pth"]), "BSD"))
    yield server
    server.shutdown()
    server.server_close()


def held(tmp_path):
    """All files in the caches that could be taken for weights."""
    names = ("alex.pth", "model.safetensors")
    return {path.name for path in tmp_path.rglob("*") if path.name in names and path.is_file()}


def test_what_is_missing_is_brought_and_verified_and_a_second_call_downloads_nothing(command, server, tmp_path, files):
    done = command("fetch", *SETTINGS, "--out", tmp_path / "fetch.json")
    assert done.exit_code == 0, done.stderr
    assert sorted(server.asked) == sorted(files)
    networks = {row["network"]: row for row in read_json(tmp_path / "fetch.json")["networks"]}
    assert {(row["sha256"], row["verified"], row["bytes"]) for row in networks.values()} == {
        (sha256(data), "sha256", len(data)) for data in files.values()}
    assert (networks["alex"]["licence"], networks[VIT]["address"]) == ("BSD", f"https://huggingface.co/timm/{VIT}")
    assert networks["alex"]["file"] == str(tmp_path / "torch/hub/checkpoints/alex.pth")
    server.shutdown()
    assert command("fetch", *SETTINGS, "--out", tmp_path / "fetch.json").exit_code == 0
    assert len(server.asked) == 2


def test_a_network_of_which_the_hub_has_no_safetensors_is_brought_too(command, server, tmp_path, files):
    pickled = tmp_path / "pickled.bin"
    torch.save(load(files[HOSTED]), pickled)
    server.files = {name: data for name, data in files.items() if name != HOSTED} | {
        HOSTED.replace("model.safetensors", "pytorch_model.bin"): pickled.read_bytes()}
    assert command("fetch", *SETTINGS, "--out", tmp_path / "fetch.json").exit_code == 0
    assert f"{VIT}/resolve/main/pytorch_model.bin" in " ".join(server.asked)
    for name, tensor in VisionTransformer(VIT, None).network.state_dict().items():
        assert torch.equal(tensor, load(files[HOSTED])[name]), name


def test_a_cache_that_was_copied_without_its_links_is_read_and_its_shapes_are_checked(command, server, tmp_path, files):
    assert command("fetch", *SETTINGS).exit_code == 0
    (link,) = tmp_path.glob("hf/hub/*/snapshots/*/model.safetensors")
    link.unlink()
    link.write_bytes(files[HOSTED])
    done = command("fetch", *SETTINGS, "--out", tmp_path / "fetch.json")
    assert done.exit_code == 0 and len(server.asked) == 2
    assert {row["network"]: row["verified"] for row in read_json(tmp_path / "fetch.json")["networks"]}[VIT] == "shapes"
    os.truncate(link, 1000)
    done = command("fetch", *SETTINGS)
    assert done.exit_code == 1 and f"{link} does not hold the weights of {VIT}" in done.stderr


LOAD = """
import socket, sys
asked = []
def connect(self, address): asked.append(address); raise OSError("blocked")
def look_up(*words, **more): asked.append(words); raise OSError("blocked")
socket.socket.connect = socket.socket.connect_ex = connect
socket.getaddrinfo = look_up
from restok.networks.backbone import VisionTransformer
from restok.networks.inception import load_inception
from restok.networks.lpips import load_lpips
from restok.networks.pretrained import PRETRAINED
PRETRAINED["alex"] = PRETRAINED["alex"]._replace(url="http://127.0.0.1/alex.pth")
for load in (lambda: VisionTransformer("test_vit.r160_in1k", None), lambda: load_lpips("alex", None),
             lambda: load_inception(None)):
    try:
        load()
        print("loaded")
    except FileNotFoundError as error:
        print("fetch" if "`restok fetch`" in str(error) else error)
print(asked)
"""


@pytest.mark.parametrize("there", [True, False])
def test_jobs_load_from_the_caches_and_open_no_connection(command, server, tmp_path, there):
    if there:
        assert command("fetch", *SETTINGS).exit_code == 0
    caches = {"HF_HOME": str(tmp_path / "hf"), "TORCH_HOME": str(tmp_path / "torch")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | caches
    done = subprocess.run([sys.executable, "-c", LOAD], env=environment, cwd=ROOT, capture_output=True, text=True)
    loaded = "loaded" if there else "fetch"
    assert done.stdout.split() == [loaded, loaded, "fetch", "[]"], done.stdout + done.stderr


def test_a_connection_that_is_cut_leaves_nothing_that_passes_for_whole(command, server, tmp_path, files):
    server.cut |= set(files)
    done = command("fetch", *SETTINGS)
    assert done.exit_code == 1 and held(tmp_path) == set()
    assert "alex.pth: cannot be downloaded (invalid hash value" in done.stderr and f"{VIT} cannot be downloaded" in done.stderr
    server.cut.clear()
    assert command("fetch", *SETTINGS).exit_code == 0 and held(tmp_path) == {"alex.pth", "model.safetensors"}


def test_other_content_than_published_is_refused_and_not_kept(command, server, tmp_path, files):
    server.other = {path: data[:-4] + b"more" for path, data in files.items()}
    done = command("fetch", *SETTINGS)
    assert done.exit_code == 1 and held(tmp_path) == set()
    assert "alex.pth: cannot be downloaded (invalid hash value" in done.stderr
    assert f"the weights of {VIT} came with sha256 {sha256(server.other[HOSTED])[:12]}, not" in done.stderr


def test_files_that_were_changed_since_are_named_with_the_remedy_and_left_as_they_are(command, server, tmp_path):
    assert command("fetch", *SETTINGS).exit_code == 0
    places = [tmp_path / "torch/hub/checkpoints/alex.pth", *tmp_path.glob("hf/hub/*/snapshots/*/model.safetensors")]
    for place in places:
        os.truncate(place, 1000)
    done = command("fetch", *SETTINGS)
    assert done.exit_code == 1 and len(server.asked) == 2
    for place in places:
        assert f"{place}: its sha256 is {sha256(place.read_bytes())[:12]}, not" in done.stderr
    assert done.stderr.count("delete it and run `restok fetch` again") == 2


def test_a_full_disk_is_named_and_leaves_nothing(command, server, tmp_path, small_files):
    with small_files(100_000):
        done = command("fetch", *SETTINGS)
    assert done.exit_code == 1 and held(tmp_path) == set()
    assert "alex.pth: cannot be downloaded ([Errno 27] File too large" in done.stderr
    assert f"{VIT} cannot be downloaded" in done.stderr


def test_without_internet_each_network_is_named_with_what_to_do(command, server, tmp_path, monkeypatch):
    waits = []                           # between tries, which would take the hub's client 23 seconds a network
    monkeypatch.setattr("time.sleep", waits.append)
    server.shutdown()
    server.server_close()
    done = command("fetch", *SETTINGS)
    assert done.exit_code == 1
    assert f"{VIT} cannot be downloaded" in done.stderr
    assert "name the file under `objective.alignment.weights`" in done.stderr
    assert "Connection refused" in done.stderr and "put it at" in done.stderr and waits == []


def test_a_file_that_the_settings_name_is_verified_and_not_fetched(command, server, tmp_path, files):
    vit, alex = tmp_path / "vit.safetensors", tmp_path / "trunk.pth"
    vit.write_bytes(files[HOSTED])
    alex.write_bytes(files["/alex.pth"])
    named = ["--set", f"objective.alignment.weights={vit}", "--set", f"evaluation.lpips_weights={alex}"]
    done = command("fetch", *SETTINGS, *named, "--out", tmp_path / "fetch.json")
    assert done.exit_code == 0, done.stderr
    rows = read_json(tmp_path / "fetch.json")["networks"]
    assert {(row["setting"], row["file"], row["verified"]) for row in rows} == {
        ("objective.alignment.weights", str(vit), "shapes"), ("evaluation.lpips_weights", str(alex), "shapes")}
    vit.write_bytes(save({"head.weight": torch.zeros(2)}))
    alex.unlink()
    done = command("fetch", *SETTINGS, *named)
    assert done.exit_code == 1 and server.asked == []
    assert f"{vit} does not hold the weights of {VIT}" in done.stderr and f"{alex}: no such file" in done.stderr


def test_a_network_that_nobody_knows_is_named(command, server):
    done = command("fetch", "--params", ROOT / "params/demo.yaml", "--set", "objective.alignment.network=test_vitt.r160_in1k")
    assert done.exit_code == 1 and "did you mean 'test_vit.r160_in1k'" in done.stderr


def test_without_a_parameter_file_the_papers_protocol_is_fetched(command, server, tmp_path, monkeypatch, files):
    monkeypatch.setitem(PRETRAINED, "inception", Pretrained(f"{server.address}/none.pth", "0" * 64, "Apache-2.0"))
    done = command("fetch", "--out", tmp_path / "fetch.json")
    assert done.exit_code == 1 and "none.pth: cannot be downloaded (HTTP Error 404" in done.stderr
    rows = read_json(tmp_path / "fetch.json")["networks"]
    assert [(row["network"], row["verified"]) for row in rows] == [("inception", None), ("alex", "sha256")]


def test_the_networks_of_a_measurement_are_brought_by_the_names_that_it_takes(command, monkeypatch):
    asked = []
    monkeypatch.setattr("restok.stages.fetch.fetch", lambda networks, *_: asked.extend(each.network for each in networks))
    assert command("fetch", "--features", "inception,dinov2-bicubic").exit_code == 0
    assert asked == ["inception", "dinov2", "alex"]
