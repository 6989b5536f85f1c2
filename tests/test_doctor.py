"""What keeps a run from its end is found before anything long begins, each with its remedy; what it takes is estimated."""

import os
import re
import shutil

import numpy as np
import pytest
import torch
import warm
from conftest import dry_run, small_params
from image_sets import FORMS, IDS, photographs, write_tar
from small_sheet import TWO, rows

from restok.data.prepare import prepare
from restok.experiments import Tree
from restok.experiments.records import Examined
from restok.experiments.trials import Sheet
from restok.files import read_json
from restok.files.loading import load_model
from restok.stages.doctor import disk, things
from restok.stages.doctor.examination import NotReadyError, _memory, examine
from restok.stages.doctor.speed import FULL, Speed, Speeds

CLASSES = "generator.classes=3"


def params_of(data, *overrides):
    return small_params(*overrides).model_copy(update={"data": data})


def states(findings):
    return {finding.what: finding.state for finding in findings}


def of(findings, what):
    (says,) = [finding.says for finding in findings if finding.what == what]
    return says


@pytest.fixture
def tree(tmp_path):
    """Of a run without rows and results."""
    return Tree(tmp_path / "results/mine", Sheet("mine", []))


# Images


@pytest.mark.parametrize("form", FORMS)
def test_images_of_each_source_are_counted_and_their_classes_checked(form, tree, tmp_path):
    findings, counts = things.images(params_of(FORMS[form](tmp_path / "raw"), CLASSES), tree)
    photos = photographs()
    train, validation = (len(photos[split]) for split in ("train", "validation"))
    assert "fault" not in states(findings).values()
    if form == "webdataset":                                       # without timm's list their number is guessed, and said so
        assert counts.known and 0.5 * train < counts.train < 2 * train
        assert "(about, since nothing beside the shards says how many)" in of(findings, "train images")
    else:
        assert counts[:2] == (train, validation)
        assert of(findings, "train images").startswith(f"{train:,} in ") and states(findings)["classes"] == "ok"
    assert of(findings, "train class order") == "sorted WordNet ids, checked"
    held = sum(len(photo.data) for split in photos.values() for photo in split)
    assert 0.3 * held < counts.size < 3 * held


def test_shards_that_timms_list_counts_are_counted(tree, tmp_path):
    _, counts = things.images(params_of(FORMS["webdataset"](tmp_path, info=True), CLASSES), tree)
    assert counts[:2] == tuple(len(photos) for photos in photographs().values())


def test_another_number_of_classes_is_refused_with_the_remedy(tree, tmp_path):
    for form, number in (("imagefolder", "3"), ("webdataset", "3 or more")):
        findings, _ = things.images(params_of(FORMS[form](tmp_path / form), "generator.classes=2"), tree)
        assert states(findings)["classes"] == "fault"
        assert f"generator.classes: 2, but the images have {number} classes; set it" in of(findings, "classes")


def test_another_order_of_the_classes_is_refused_with_the_remedy(tree, tmp_path):
    data = FORMS["webdataset"](tmp_path)
    swapped = {IDS["hat"]: 2, IDS["dress"]: 0, IDS["shoes"]: 1}
    write_tar(tmp_path / "imagenet1k-train-0000.tar", [
        {f"{photo.stem}.jpg": photo.data, f"{photo.stem}.cls": str(swapped[photo.id]).encode()}
        for photo in photographs()["train"]])
    findings, _ = things.images(params_of(data, CLASSES), tree)
    assert states(findings) == {"images": "fault"}
    assert re.search(r"label \d (is n0\d+, where the order of WordNet ids has n0|stands for n0)", of(findings, "images"))


def test_images_that_are_not_there_are_named_and_those_prepared_before_will_do(tree, tmp_path):
    data = FORMS["imagefolder"](tmp_path / "raw")
    prepare(data, 16, tree.root / "data")
    shutil.rmtree(tmp_path / "raw")
    findings, counts = things.images(params_of(data, CLASSES), tree)
    assert "fault" not in states(findings).values() and "prepared before" in of(findings, "train images")
    assert counts[:2] == tuple(len(photos) for photos in photographs().values())
    shutil.rmtree(tree.root)
    findings, counts = things.images(params_of(data, CLASSES), tree)
    assert counts is None and re.search("raw/train: no such folder; put the images there", of(findings, "images"))
    _, counts = things.images(params_of(data, "generator.classes=1000"), tree)
    assert counts == (1_281_167, 50_000, 146_428_370_000, False)          # ImageNet's, by its number of classes


# Reference and weights


def test_a_reference_is_there_and_is_one(tmp_path):
    assert things.reference(None).state == "ok"
    adm = things.reference(str(tmp_path / "VIRTUAL_imagenet256_labeled.npz"))
    address = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/"
    assert adm.state == "fault" and f"no such file; download {address}VIRTUAL_imagenet256_labeled.npz there" in adm.says
    assert "no such file; put it there, or name another in evaluation.reference" in things.reference(str(tmp_path / "a")).says
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    assert "has no array 'arr_0'" in things.reference(str(tmp_path / "other.npz")).says
    np.savez(tmp_path / "sound.npz", mu=np.zeros(3), sigma=np.zeros((3, 3)))
    torch.save({"mu": np.zeros(3), "sigma": np.zeros((3, 3))}, tmp_path / "sound.pt")
    for name in ("sound.npz", "sound.pt"):
        assert things.reference(str(tmp_path / name)) == ("reference", "ok", str(tmp_path / name))
    np.savez(tmp_path / "half.npz", mu=np.zeros(3))
    np.savez(tmp_path / "coco_clean_trainval_1024.npz", mu=np.zeros(3), sigma=np.zeros((3, 3)))
    (tmp_path / "cut.pt").write_bytes((tmp_path / "sound.pt").read_bytes()[:50])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "sound.npz").read_bytes()[:50])
    (tmp_path / "none.safetensors").write_bytes(b"none")
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("cut.npz", "not a whole npz"), ("half.npz", "has only one of 'mu' and 'sigma'"),
                       ("cut.pt", "no statistics as torch-fidelity keeps them"), ("none.safetensors", "no statistics"),
                       ("pipe", "no regular file"), ("coco_clean_trainval_1024.npz", "clean")):
        assert (found := things.reference(str(tmp_path / name))).state == "fault" and says in found.says
        assert says in things.reference(str(tmp_path / name)).says


def test_that_a_reference_gives_no_fdr6_is_said_beforehand(tmp_path):
    asked = small_params("evaluation.features=inception", "evaluation.also=[fdr6]").evaluation
    found = list(things.references(asked))
    assert [finding.state for finding in found] == ["ok", "not known"]
    assert found[1].says.startswith("not measured against the validation images: evaluation.reference must name what")
    statistics = asked.model_copy(update={"reference": str(tmp_path / "training.safetensors")})
    assert [finding.what for finding in things.references(statistics)] == ["reference"]
    assert len(list(things.references(small_params().evaluation))) == 1


def test_finished_weights_that_a_row_names_are_looked_for(models, tmp_path):
    sheet = rows(tmp_path, f"theirs\tmain\t\ttable1\t\t{models}/tokenizer\t{tmp_path}/nowhere",
                 "ours\tmain\t\ttable1\t\tresults/other/tokenizer/main/1M")             # the workflow makes it
    first, second = things.weights(small_params(), Tree("results/demo", sheet))
    assert (first.state, second.state) == ("ok", "fault")
    assert f"{tmp_path}/nowhere: no model here" in second.says and "leave out the row" in second.says


def test_missing_pretrained_weights_name_what_brings_them(tmp_path, monkeypatch, tree):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (finding,) = things.weights(small_params("evaluation.lpips=true"), tree)
    assert finding.state == "fault" and "run `restok fetch`" in finding.says and "alexnet-owt-7be5be79.pth" in finding.says


# Everything


TINY = ["tokenizer_training.batch_size=2", "generator_training.batch_size=2", "codes.batch_size=10", "sampling.batch_size=2",
        "evaluation.batch_size=2"]


def test_the_examination_is_shown_and_written_and_raises_what_is_missing_when_that_is_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params, sheet, shown = small_params(*TINY, "evaluation.reference=nowhere.npz"), rows(tmp_path, *TWO), []
    monkeypatch.setattr(disk, "free", lambda places: 1000)
    with pytest.raises(NotReadyError) as error:
        examine(params, sheet, tmp_path / "doctor.json", shown.append, within=600)
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and lines[0].startswith("reference: nowhere.npz: no such file; put it there")
    assert re.match(r"disk: \S+ GB are needed .*, but 1e-06 GB are free for results/demo and runs/demo; make room", lines[1])
    (found,) = shown
    assert {row.verb for row in found.hours if row.main is None} == set()
    assert all(row.main > 0 and row.sheet >= row.main for row in found.hours)
    written = read_json(tmp_path / "doctor.json")
    assert (written["kind"], written["run"]) == ("doctor", "demo") and len(written["hours"]) == len(found.hours)
    assert {finding["what"]: finding["state"] for finding in written["findings"]} == states(found.findings)
    tree = Tree("results/demo", sheet)
    (candidate, *_) = tree.candidates(sheet.trial("main"), "1M")
    expected = {tree.path("data"), tree.path("generator", sheet.trial("main"), "1M"), candidate}
    assert {path.as_posix() for path in expected} <= set(load_model(tmp_path / "doctor.json", Examined).results)
    assert sum(written["results"].values()) == pytest.approx(sum(row.sheet for row in found.hours))
    assert written["estimate"] == ("GPU" if torch.cuda.is_available() else "CPU")
    if not torch.cuda.is_available():
        assert states(found.findings)["GPU memory"] == "not known"


@pytest.mark.parametrize(("faults", "state", "says"), [
    ({}, "ok", "60 GB for 16 images of the tokenizer's training, 20 GB for 64 images of the generator's training, of 80 GB"),
    ({"tokenizer": FULL}, "fault", r"tokenizer_training\.micro_batch: the GPU's memory does not hold so many images, of 80 GB; "
                                   r"set a smaller one, or tokenizer_training\.checkpointing: true"),
    ({"draw, ntp 4": FULL}, "fault", r"sampling\.batch_size: .*; set a smaller one$"),
    ({"generator": "not within 120 s"}, "not known", "not measured: not within 120 s")])
def test_the_memory_of_a_gpu_is_held_against_the_micro_batch(faults, state, says):
    measured = {"tokenizer": Speed(1, 60 * 10**9, 16), "generator": Speed(1, 20 * 10**9, 64)}
    known = {name: speed for name, speed in measured.items() if name not in faults}
    finding = _memory(Speeds("GPU", 80 * 10**9, known, faults))
    assert finding.state == state and re.search(says, finding.says)


# The workflow


def snakemake(workflow, *arguments):
    done = warm.snakemake(workflow, "--cores", "1", *arguments)
    return done.returncode, done.stdout + done.stderr


def jobs(planned):
    """By rule, of a dry run."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", planned, re.MULTILINE)}


@pytest.fixture
def mine(workflow):
    """Parameters for images in a folder, which is not there yet, for a reference of their own, and for models so large that
    the doctor times none of them on a CPU."""
    text = (workflow / "params/short.yaml").read_text()
    for old, new in (("source: digits", "source: imagefolder"), ("path: null", "path: data/mine"),
                     ("classes: 10", "classes: 3"), ("reference: null", "reference: data/reference.npz"),
                     ("width: 64", "width: 1024")):
        assert old in text, old
        text = text.replace(old, new, 1)
    (workflow / "params/mine.yaml").write_text(re.sub(r"batch_size: \d+", "batch_size: 2", text))
    return workflow


def test_the_workflow_asks_the_doctor_first_and_goes_on_when_all_is_there(mine):
    targets = "results/mine/data", "results/mine/reference/published.safetensors"
    code, said = snakemake(mine, *targets)
    assert code == 1 and "MissingInput" not in said and not (mine / "results/mine/data").exists()
    assert "images: data/mine/train: no such folder; put the images there" in said
    assert "reference: data/reference.npz: no such file; put it there" in said

    def write_reference(seed):
        images = np.random.default_rng(seed).integers(256, size=(20, 16, 16, 3), dtype=np.uint8)
        np.savez(mine / "data/reference.npz", arr_0=images)

    FORMS["imagefolder"](mine / "data/mine")
    write_reference(seed=0)
    code, said = snakemake(mine, *targets)
    assert code == 0, said
    assert read_json(mine / "results/mine/doctor.json")["run"] == "mine" and (mine / targets[1]).is_file()
    assert "Nothing to be done" in dry_run(mine, *targets)

    params = mine / "params/mine.yaml"                              # what no image depends on: the doctor alone looks again
    params.write_text(params.read_text().replace("ema: 0.99", "ema: 0.98", 1))
    assert jobs(dry_run(mine, *targets)) == {"doctor": 1, "total": 1}
    params.write_text(params.read_text().replace("ema: 0.98", "ema: 0.99", 1))

    write_reference(seed=1)                                         # a changed reference is measured again
    assert jobs(dry_run(mine, *targets)) == {"reference": 1, "total": 1}
    (mine / "data/reference.npz").unlink()                          # and a lost one is asked for, before anything else
    assert jobs(dry_run(mine, *targets)) == {"doctor": 1, "total": 1}


def test_finished_weights_that_are_not_there_are_left_to_the_doctor(mine):
    with (mine / "params/experiments.tsv").open("a") as sheet:
        sheet.write("theirs\tmain\tsampling.guidance={schedule: constant, scale: 1.0}\ttable1 theirs\tmine\tweights/t\t"
                    "weights/g\n")
    target = "results/mine/evaluation/theirs.10086/released/generation.json"
    planned = dry_run(mine, target)
    assert jobs(planned)["doctor"] == 1 and jobs(planned)["evaluate_generation"] == 1
    for name in ("t", "g"):
        (mine / "weights" / name).mkdir(parents=True)
    assert "weights/t" in dry_run(mine, target, "--printshellcmds")


def test_the_demo_asks_no_doctor(workflow):
    assert "doctor" not in jobs(dry_run(workflow, "all", "ablations"))


def test_imagenets_run_is_planned_without_images_reference_and_weights(workflow):
    main = jobs(dry_run(workflow, "reports/imagenet256/index.html"))
    assert main["doctor"] == main["prepare"] == 1 and main["train_tokenizer"] == main["train_generator"] == 4
    every = jobs(dry_run(workflow, "--config", "run=imagenet256", "--", "all", "ablations"))
    assert every["doctor"] == 1 and every["train_tokenizer"] == 20 and every["total"] > main["total"]
