"""ImageNet as it is published: the same photographs as folder, tar shards and parquet are the same prepared images."""


import json

import pyarrow.parquet
import pytest
from image_sets import FORMS, IDS, as_parquet, as_tars, photographs, sample, settings, write_tar

from restok.data import classes
from restok.data.images import open_images
from restok.data.loader import batches, evaluation_batches
from restok.data.prepare import prepare
from restok.data.reading import DataError
from restok.data.table import open_split


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Every form, prepared, and its manifest."""
    root, forms = tmp_path_factory.mktemp("forms"), {}
    for name, write in FORMS.items():
        forms[name] = root / name / "data", prepare(write(root / name / "raw"), 256, root / name / "data")
    return forms


def test_the_same_photographs_are_the_same_tensors_and_digests_whatever_they_came_in(prepared):
    first, _ = prepared["imagefolder"]
    data = settings("imagefolder", first, "train", "validation")
    ordered = {split: sorted(photos, key=lambda photo: (photo.id, photo.stem)) for split, photos in photographs().items()}
    for folder, manifest in prepared.values():
        for split, photos in ordered.items():
            one, other = open_split(first, split), open_split(folder, split)
            assert other.digest == one.digest and other.labels.tolist() == [photo.label for photo in photos]
            assert [other._encoded(int(row)) for row in other._rows] == [photo.data for photo in photos]
            for (images, labels), (again, labels_again) in zip(
                    evaluation_batches(one, 48, 4), evaluation_batches(other, 48, 4), strict=True):
                assert images.equal(again) and labels.equal(labels_again)
            facts = manifest["splits"][split]
            assert facts["skipped"] == facts["odd"] == {} and facts["count"] == len(photos)
        assert open_images(folder, crop=48).digest == open_images(first, crop=48).digest
    views = [next(batches(open_split(folder, "train"), data, 48, 8, seed=3))[0] for folder, _ in prepared.values()]
    assert all(view.equal(views[0]) for view in views)


def test_class_order_is_checked_where_names_carry_wordnet_ids(prepared):
    order = {name: [manifest["splits"][split]["class_order"] for split in ("train", "validation")]
             for name, (_, manifest) in prepared.items()}
    checked, unknown = "sorted WordNet ids, checked", "not checked: nothing but the labels tells the classes"
    assert order == {"imagefolder": [checked] * 2, "webdataset": [checked, unknown], "parquet": [checked] * 2}
    names = {name: manifest["splits"]["train"]["classes"] for name, (_, manifest) in prepared.items()}
    assert names["imagefolder"] == names["webdataset"] == sorted(IDS.values())
    assert names["parquet"] == ["hat, chapeau", "shoe", "dress, frock"]


@pytest.mark.parametrize("form", FORMS)
def test_a_list_of_classes_takes_these_alone_and_numbers_them_in_order(form, tmp_path, caplog):
    """ImageNet-100, say: the order is that of the names, whatever that of the lines."""
    (tmp_path / "two.txt").write_text("n03000001\n\nn02000003\n")
    told = {"told": True} if form == "webdataset" else {}
    data = FORMS[form](tmp_path / "raw", **told).model_copy(update={"classes": str(tmp_path / "two.txt")})
    prepared = prepare(data, 256, tmp_path / "data")["splits"]
    ordered = sorted((photo for photo in photographs()["train"] if photo.kind != "hat"), key=lambda photo: photo.stem)
    split = open_split(tmp_path / "data", "train")
    assert [split._encoded(int(row)) for row in split._rows] == [photo.data for photo in ordered]
    assert split.labels.tolist() == [0, 0, 0, 1, 1, 1] and split.classes == ["n02000003", "n03000001"]
    assert prepared["validation"]["images_per_class"] == {"n02000003": 1, "n03000001": 1}
    for text, message in (("n03000001\nn03000002\n", r"class 'n03000002' is no class of [\w/]+.*; did you mean 'n03000001'"),
                          ("", "names no classes"), ("n03000001\nn03000001\n", "names class 'n03000001' 2 times")):
        (tmp_path / "two.txt").write_text(text)
        with pytest.raises(DataError, match=rf"two\.txt: {message}"):
            prepare(data, 256, tmp_path / "data")


def test_where_names_tell_no_class_imagenets_own_numbers_are_taken_or_none(tmp_path):
    """As they are in shards of ImageNet whose validation images are named ILSVRC2012_val_00000001."""
    (tmp_path / "two.txt").write_text("n03000001\nn02000003\n")
    data = as_tars(tmp_path / "raw").model_copy(update={"classes": str(tmp_path / "two.txt")})
    with pytest.raises(DataError, match=r"validation-0000\.tar: ILSVRC2012_val_0000000\d: says no more of its class than"):
        prepare(data, 256, tmp_path / "data")
    tench, shark, bytes_of = "n01440764", "n01491361", [photo.data for photo in photographs()["train"]]
    for split, stems in (("train", (f"{tench}_1", f"{shark}_1", "n01443537_1")), ("validation", ("a", "b", "c"))):
        write_tar(tmp_path / f"raw/{split}.tar", [{f"{stem}.cls": str(label).encode(), f"{stem}.jpg": bytes_of[label]}
                                                  for stem, label in zip(stems, (0, 3, 1), strict=True)])
    (tmp_path / "two.txt").write_text(f"{shark}\n{tench}\n")
    data = data.model_copy(update={"train": "train.tar", "validation": "validation.tar"})
    facts = prepare(data, 256, tmp_path / "data")["splits"]
    assert facts["validation"]["images_per_class"] == facts["train"]["images_per_class"] == {tench: 1, shark: 1}
    assert facts["validation"]["class_order"].startswith("not checked")
    write_tar(tmp_path / "raw/train.tar", [{f"{shark}_1.cls": b"2", f"{shark}_1.jpg": bytes_of[2]}])
    with pytest.raises(DataError, match=f"label 2 is {shark}, where the order of WordNet ids has n01484850"):
        prepare(data, 256, tmp_path / "again")


def test_a_parquet_file_s_own_class_names_may_be_listed_too(tmp_path):
    (tmp_path / "one.txt").write_text("shoe\n")
    data = as_parquet(tmp_path / "raw").model_copy(update={"classes": str(tmp_path / "one.txt")})
    assert prepare(data, 256, tmp_path / "data")["splits"]["train"]["images_per_class"] == {"shoe": 3}
    (tmp_path / "one.txt").write_text("shoes\n")
    with pytest.raises(DataError, match=r"class 'shoes' is no class of .*raw/snapshots/0123abc/train; did you mean 'shoe'"):
        prepare(data, 256, tmp_path / "data")


def test_class_names_that_are_none_are_not_taken_for_names(tmp_path):
    data = as_parquet(tmp_path / "raw")
    for blob in (tmp_path / "raw/blobs").iterdir():
        about = {"info": {"features": {"label": {"names": None if blob.name == "train0" else [1, 2, 3]}}}}
        table = pyarrow.parquet.read_table(blob)
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), blob)
    assert prepare(data, 256, tmp_path / "data")["splits"]["train"]["classes"] == sorted(IDS.values())


def test_shards_are_named_below_the_folder_or_with_their_whole_path_and_hidden_ones_are_left_alone(tmp_path):
    data, root = as_tars(tmp_path / "raw"), tmp_path / "raw"
    (root / "._imagenet1k-train-0000.tar").write_bytes(b"Mac OS X")
    (root / "train").mkdir()
    for file in root.glob("imagenet1k-train-*.tar"):
        (root / "train" / file.name).symlink_to(file)
    named = data.train, "*-train-*.tar", "train", "train/", f"{root}/*-train-*.tar", f"{root}/train"
    digests = {prepare(data.model_copy(update={"train": train}), 256, tmp_path / str(i))["splits"]["train"]["sha256"]
               for i, train in enumerate(named)}
    assert len(digests) == 1


def test_hidden_files_and_files_without_a_kind_are_of_no_sample_of_a_shard(tmp_path):
    """As macOS's tar puts them beside others."""
    data = as_tars(tmp_path / "raw", told=True)
    samples = [sample(photo, told=True) for photo in photographs()["validation"]]
    write_tar(tmp_path / "raw/imagenet1k-validation-0000.tar",
              [{"LICENSE": b"CC0"}, *({f"._{min(one)}": b"Mac OS X"} | one for one in samples)])
    assert prepare(data, 256, tmp_path / "data")["splits"]["validation"]["count"] == len(samples)


def test_imagenets_names_in_parquet_files_show_its_order_without_any_id():
    words = dict(line.split("\t") for line in classes._timm("imagenet_synset_to_lemma.txt").splitlines())
    names = [words[each] for each in classes.imagenet_ids()]
    names[134] = "crane bird"            # as ILSVRC/imagenet-1k has it, to tell it from the machine
    seen = {label: {name} for label, name in enumerate(names)}
    assert classes.ordered("data/train", seen, names)[1] == "sorted WordNet ids, checked"
    other = sorted(names)
    with pytest.raises(DataError, match="label 0 is 'Afghan hound, Afghan', where ImageNet's order has 'tench, Tinca"):
        classes.ordered("data/train", {label: {name} for label, name in enumerate(other)}, other)
