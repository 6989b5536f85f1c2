"""What the pages take for given, made small: what is put there before a page's commands are typed, and the words in them that
stand for something of one's own, or that would take long."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import timm
import torch
from conftest import ROOT
from image_sets import write_tar
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from test_released import GENERATOR, TOKENIZER
from torch_fidelity.metric_fid import fid_features_to_statistics
from torch_fidelity.utils_torch import torch_atomic_save

from restok import compat
from restok.files import write_json
from restok.generator.model import HAR
from restok.networks.inception import inception_network
from restok.networks.lpips import random_lpips
from restok.tokenizer.model import ResTok

ROW = ("half_codebook", "ablation", "tokenizer.codebook_size=128; generator.codebook_size=128", "table2 #9")
RELEASED = ("released", "main", "sampling.guidance={schedule: step, scale: 3.75, start: 0.25}",
            "table1 ResTok, released weights", "imagenet256", "weights/tokenizer", "weights/generator")


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, (file, old)
    file.write_text(text.replace(old, new))


def nothing(clone: Path) -> None:
    pass


def row(clone: Path, cells: tuple[str, ...]) -> None:
    sheet = clone / "params/experiments.tsv"
    if f"\n{cells[0]}\t" not in sheet.read_text():
        sheet.write_text(sheet.read_text().rstrip("\n") + "\n" + "\t".join(cells) + "\n")


def mine(clone: Path) -> None:
    """Pictures of three classes, and the parameters that docs/images.md describes, with few steps."""
    if (clone / "params/mine.yaml").exists():
        return
    pictures, labels = load_digits(return_X_y=True)
    for kind in range(3):
        for number, picture in enumerate(pictures[labels == kind][:30]):
            folder = clone / "data/mine" / ("train" if number < 20 else "validation") / f"digit_{kind}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((picture.reshape(8, 8) * 15).astype(np.uint8)).resize((20, 18)).save(folder / f"{number}.png")
    shutil.copy(clone / "params/short.yaml", clone / "params/mine.yaml")
    for old, new in (("source: digits", "source: imagefolder"), ("path: null", "path: data/mine"),
                     ("flip: false  ", "flip: true  "), ("classes: 10", "classes: 3"), ("{750k: 40, 1M: 80}", "{750k: 10}"),
                     ("\n  steps: 80", "\n  steps: 10"), ("\n  steps: 100", "\n  steps: 10"), ("[2.0, 3.0]", "[2.0]"),
                     ("coarse: {samples_per_class: 5, finalists: 2}", "coarse: null")):
        replace(clone / "params/mine.yaml", old, new)


def released(clone: Path) -> None:
    """The authors' files, of small models with random weights, converted; a row of the sheet that takes them; photographs."""
    row(clone, RELEASED)
    if (clone / "theirs").exists():
        return
    torch.manual_seed(0)
    settings = GENERATOR | {"num_classes": 1000}
    for kind, model, config in (("tokenizer", ResTok(compat.tokenizer_config(TOKENIZER)), TOKENIZER),
                                ("generator", HAR(compat.generator_config(settings)), settings)):
        (clone / "theirs" / kind).mkdir(parents=True)
        save_file(compat.released_tensors(model), clone / "theirs" / kind / "model.safetensors")
        write_json(clone / "theirs" / kind / "config.json", config)
    photographs = sorted((ROOT / "tests/photographs/validation").glob("*/*.jpg"))
    (clone / "photos").mkdir()
    shutil.copy(photographs[0], clone / "photo.jpg")
    shutil.copy(photographs[-1], clone / "photos")
    subprocess.run([Path(sys.executable).parent / "restok", "convert", "--from", "release", "theirs/tokenizer",
                    "theirs/generator", "weights"], cwd=clone, check=True)


def measured(clone: Path) -> None:
    """Images of noise by two models, references of them, and judges with random weights."""
    if (clone / "theirs.npz").exists():
        return
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    torch.save(inception_network(None).state_dict(), clone / "inception.pth")
    torch.save({f"features.{name.partition('.')[2]}": tensor for name, tensor in random_lpips("alex").net.state_dict().items()},
               clone / "alexnet.pth")
    torch.save(timm.create_model("vit_large_patch14_dinov2", num_classes=0).state_dict(), clone / "dinov2.pth")
    images = rng.integers(256, size=(12, 256, 256, 3), dtype=np.uint8)
    for name in ("theirs.npz", "samples.npz"):
        np.savez(clone / name, arr_0=images)
    np.savez(clone / "VIRTUAL_imagenet256_labeled.npz", arr_0=images[::-1], mu=np.zeros(2048), sigma=np.eye(2048),
             mu_s=np.zeros(2023), sigma_s=np.eye(2023))
    for folder, size in (("reconstructed", (256, 256)), ("validation", (300, 280))):
        (clone / folder).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).resize(size).save(clone / folder / f"{number}.png")


def scored(clone: Path) -> None:
    """The same images as tar shards, as parquet, and as a folder; statistics as torch-fidelity keeps them."""
    measured(clone)
    (clone / "titok_s_128.npz").symlink_to("theirs.npz")
    (clone / "mar_samples").symlink_to("reconstructed")
    files = sorted((clone / "reconstructed").glob("*.png"))
    for name, those in (("shards/0.tar", files[:6]), ("shards/1.tar", files[6:]),
                        ("validation.tar", sorted((clone / "validation").glob("*.png")))):
        write_tar(clone / name, [{file.name: file.read_bytes()} for file in those])
    pyarrow.parquet.write_table(pyarrow.table({"image": [file.read_bytes() for file in files]}), clone / "samples.parquet")
    torch_atomic_save(fid_features_to_statistics(torch.rand(2100, 2048)),
                      str(clone / "theirs-inception-v3-compat-stat-fid-2048.pt"))


def readme(clone: Path) -> None:
    for prepare in (mine, released, measured):
        prepare(clone)


def sheet(clone: Path) -> None:
    row(clone, ROW)


def kaggle(clone: Path) -> None:
    """Two images as Kaggle lays them out."""
    folder = clone / "ILSVRC/Data/CLS-LOC/val"
    folder.mkdir(parents=True)
    for number in (1, 2):
        (folder / f"ILSVRC2012_val_0000000{number}.JPEG").write_bytes(b"")
    (clone / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 85 1 499 272 \n"
                                                "ILSVRC2012_val_00000002,n01443537 1 2 3 4 n01443537 5 6 7 8 \n")


JUDGES = ("--set evaluation.weights=inception.pth --set evaluation.lpips_weights=alexnet.pth "
          "--set evaluation.dinov2_weights=dinov2.pth")

# By page: what is put there, and what is typed in the place of words of the page. `demo` is the run's name everywhere.
PAGES: dict[str, tuple[Callable[[Path], None], dict[str, str]]] = {
    "README.md": (readme, {"evaluate --samples": f"evaluate {JUDGES} --samples", "--class 207": "--class 207 --per-class 1"}),
    "docs/ablations.md": (sheet, {}),
    "docs/images.md": (mine, {}),
    "docs/data.md": (kaggle, {}),
    "docs/cluster.md": (nothing, {"git clone REPOSITORY": f"mkdir cluster; cd cluster; git clone --quiet {ROOT}",
                                  "source .venv": f"source {ROOT}/.venv"}),
    "docs/install.md": (nothing, {}),
    "docs/measuring.md": (measured, {
        "evaluate --samples": f"evaluate {JUDGES} --samples", "evaluate --features": f"evaluate {JUDGES} --features",
        "statistics samples.npz": f"statistics {JUDGES} samples.npz",
        "statistics validation/": f"statistics {JUDGES} validation/", "--nproc-per-node 8": "--nproc-per-node 2",
        "params/imagenet256.yaml --tokenizer T --generator G --guidance g.json":
            "params/demo.yaml --tokenizer results/demo/tokenizer/main/1M --generator results/demo/generator/main/1M "
            "--guidance results/demo/guidance/main/1M.json --classifier results/demo/classifier",
        "--reference reference.safetensors --state run.safetensors --out r.json":
            "--reference results/demo/reference/validation.safetensors --state run.safetensors --out models.json"}),
    "docs/evaluate.md": (scored, {"evaluate --samples": f"evaluate {JUDGES} --samples",
                                  "statistics validation.tar": f"statistics {JUDGES} validation.tar"}),
    "docs/released.md": (released, {
        "--class 207": "--class 207 --per-class 1",
        "results/imagenet256/tokenizer/main/750k results/imagenet256/generator/main/750k theirs":
            "weights/tokenizer weights/generator back"}),
    "docs/benchmarks.md": (nothing, {"--repeats 20": "--repeats 1", "--samples 10000 --images 64": "--samples 300 --images 2",
                                     "--repeats 3": "--repeats 1", "--samples 100000": "--samples 300",
                                     "--batch-size 64 --repeats 5": "--batch-size 2 --repeats 1"}),
    "docs/steps.md": (nothing, {"250k": "750k", "500k": "1M"}),          # the checkpoints that params/short.yaml has
    "docs/tracking.md": (nothing, {"track-sync demo --follow": "track-sync demo"}),
    "docs/training.md": (nothing, {
        "--nproc-per-node 8": "--nproc-per-node 2", "250k": "750k", "TARGET": "results/demo/codes/main/1M",
        "$T --run runs/by_hand": "$T --set tokenizer_training.micro_batch=4 --run runs/by_hand"}),     # 8 are for one process
}
