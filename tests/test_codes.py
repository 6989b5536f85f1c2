"""The code store: written whole or not at all, and never read under another tokenizer."""

import tracemalloc
from itertools import islice

import numpy as np
import pytest
import torch
from conftest import small_params

from restok.data.codes import CodesError, CodeStore, write_codes
from restok.data.loader import code_batches
from restok.files import read_json, sha256_file, write_json
from restok.stages.codes import encode

IMAGES, CROPS, TOKENS, CODEBOOK = 10, 3, 8, 65536
FACTS = {"crops": CROPS, "tokens": TOKENS, "codebook_size": CODEBOOK, "classes": 4, "tokenizer": "a1" * 32,
         "dataset": "d0" * 32}


def numbers():
    """Codes that differ everywhere, up to the largest 16-bit number."""
    codes = np.random.default_rng(0).integers(CODEBOOK, size=(IMAGES, CROPS, TOKENS))
    codes[0, 0, :2] = 0, CODEBOOK - 1
    return codes, np.arange(IMAGES) % 4


def pairs(size=4):
    codes, labels = (torch.from_numpy(array) for array in numbers())
    return zip(codes.split(size), labels.split(size), strict=True)


@pytest.fixture
def folder(tmp_path):
    write_codes(tmp_path / "codes", pairs(), IMAGES, **FACTS)
    return tmp_path / "codes"


def test_codes_come_back_as_they_went_in(folder):
    store, (codes, labels) = CodeStore(folder, FACTS["tokenizer"]), numbers()
    assert np.array_equal(store.codes, codes) and np.array_equal(store.labels, labels)
    assert isinstance(store.codes, np.memmap) and store.codes.dtype == np.uint16 and len(store) == IMAGES
    assert store.manifest == {"images": IMAGES, **FACTS, "sha256": sha256_file(folder / "codes.npy")}


def test_the_arrays_are_what_numpy_saves(folder, tmp_path):
    codes, labels = numbers()
    for name, array in (("codes.npy", codes.astype(np.uint16)), ("labels.npy", labels)):
        np.save(tmp_path / name, array)
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_arrays_are_the_same_where_room_cannot_be_taken_first(folder, tmp_path, monkeypatch):
    monkeypatch.delattr("os.posix_fallocate")                        # as on macOS
    write_codes(tmp_path / "other", pairs(), IMAGES, **FACTS)
    assert (tmp_path / "other/codes.npy").read_bytes() == (folder / "codes.npy").read_bytes()


def test_a_full_disk_is_found_before_the_first_batch_and_named(tmp_path, small_files):
    def batches():
        pytest.fail("nothing was to be encoded")
        yield

    with small_files(400), pytest.raises(OSError, match=r"'\S+/codes/codes\.npy'"):
        write_codes(tmp_path / "codes", batches(), IMAGES, **FACTS)
    with small_files(200), pytest.raises(OSError, match=r"'\S+/codes/labels\.npy'"):
        write_codes(tmp_path / "codes", batches(), IMAGES, **FACTS | {"crops": 1, "tokens": 1})
    assert not (tmp_path / "codes").exists()


def test_a_foreign_tokenizer_is_refused_with_both_hashes(folder):
    with pytest.raises(CodesError, match=f"{FACTS['tokenizer']}.*{'b2' * 32}.*restok encode"):
        CodeStore(folder, "b2" * 32)
    assert len(CodeStore(folder)) == IMAGES


@pytest.mark.parametrize("name", ["codes.npy", "labels.npy"])
def test_a_truncated_store_is_refused(folder, name):
    whole = (folder / name).read_bytes()
    for kept in (whole[:-2], b""):
        (folder / name).write_bytes(kept)
        with pytest.raises(CodesError, match="restok encode"):
            CodeStore(folder)


def test_a_store_that_does_not_name_its_tokenizer_is_refused(folder):
    manifest = read_json(folder / "manifest.json")
    del manifest["tokenizer"]
    write_json(folder / "manifest.json", manifest)
    for tokenizer in (None, FACTS["tokenizer"]):
        with pytest.raises(CodesError, match=r"not a whole code store \(manifest\.json: has no 'tokenizer'\).*restok encode"):
            CodeStore(folder, tokenizer)


def test_files_that_disagree_with_the_manifest_are_refused(folder):
    np.save(folder / "codes.npy", numbers()[0][:-1].astype(np.uint16))
    with pytest.raises(CodesError, match=r"\(9, 3, 8\).*\(10, 3, 8\)"):
        CodeStore(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(CodesError, match=r"manifest\.json.*restok encode"):
        CodeStore(folder)


def test_a_killed_write_leaves_nothing_and_the_old_store_whole(tmp_path, folder):
    def killed():
        yield from islice(pairs(), 2)
        raise KeyboardInterrupt

    for target in (tmp_path / "new", folder):
        with pytest.raises(KeyboardInterrupt):
            write_codes(target, killed(), IMAGES, **FACTS)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["codes"]
    assert np.array_equal(CodeStore(folder).codes, numbers()[0])


@pytest.mark.parametrize("count", [IMAGES - 1, IMAGES + 1])
def test_another_number_of_images_is_an_error(tmp_path, count):
    with pytest.raises(CodesError, match=str(count)):
        write_codes(tmp_path / "codes", pairs(), count, **FACTS)
    assert [path.name for path in tmp_path.iterdir()] == [".codes.lock"]


def test_what_sixteen_bits_cannot_hold_is_refused(tmp_path):
    with pytest.raises(CodesError, match="65537 entries"):
        write_codes(tmp_path / "codes", pairs(), IMAGES, **FACTS | {"codebook_size": 65537})
    with pytest.raises(CodesError, match=r"outside a codebook of 4096"):
        write_codes(tmp_path / "codes", pairs(), IMAGES, **FACTS | {"codebook_size": 4096})
    with pytest.raises(CodesError, match=r"expected \(4, 3, 16\)"):
        write_codes(tmp_path / "codes", pairs(), IMAGES, **FACTS | {"tokens": 16})


def test_code_batches_resume_exactly_and_show_one_crop_of_each_image_an_epoch(folder):
    store = CodeStore(folder)
    straight = list(islice(code_batches(store, 5, seed=3), 8))
    for (codes, labels), (again, labels_again) in zip(straight[5:], code_batches(store, 5, seed=3, start_step=5), strict=False):
        assert torch.equal(codes, again) and torch.equal(labels, labels_again)
    drawn = set()
    for first, second in zip(straight[::2], straight[1::2], strict=True):      # two batches an epoch
        codes, labels = torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
        assert codes.dtype == labels.dtype == torch.int64 and codes.shape == (IMAGES, TOKENS)
        places = [np.argwhere((store.codes == row).all(-1)) for row in codes.numpy()]
        assert sorted(int(place[0, 0]) for place in places) == list(range(IMAGES))
        assert labels.tolist() == [store.labels[place[0, 0]] for place in places]
        drawn |= {tuple(place[0].tolist()) for place in places}
    assert {crop for _, crop in drawn} == set(range(CROPS)) and len(drawn) > IMAGES


def test_both_crop_scales_of_llamagen_are_mixed_evenly(digits, models, tmp_path):
    """LlamaGen writes a folder of ten crops a scale, tosses a coin for the folder each time an image is seen, and draws one of
    its ten: one of twenty, each as likely."""
    stores = {}
    for name, scales in (("both", [1.3, 1.15]), ("far", [1.3]), ("near", [1.15])):      # 20 and 18 pixels of 16
        params = small_params(f"codes.scales={scales}", "codes.flip=true", "codes.batch_size=2000")
        encode(params, digits, models / "tokenizer", tmp_path / name, "validation")
        stores[name] = CodeStore(tmp_path / name)
    far, near = stores["far"].codes, stores["near"].codes
    assert np.array_equal(stores["both"].codes, np.concatenate([far, near], axis=1)) and not np.array_equal(far, near)
    store = stores["both"]
    store.codes = np.arange(20)[None, :, None] + 20 * np.arange(360)[:, None, None] + np.zeros(16, int)     # each known again
    epochs = [torch.cat([codes[:, 0] for codes, _ in islice(code_batches(store, 90, seed=1, start_step=4 * epoch), 4)]).numpy()
              for epoch in range(50)]
    for seen in epochs:
        assert sorted(seen // 20) == list(range(360))                                   # each image once
    counts = np.bincount(np.concatenate(epochs) % 20, minlength=20)
    assert len(counts) == 20 and abs(counts - 900).max() < 5 * 900 ** 0.5               # of 18,000
    assert (np.sort(epochs[0]) % 20 != np.sort(epochs[1]) % 20).mean() == pytest.approx(0.95, abs=0.06)


def test_a_store_of_imagenets_size_is_opened_and_read_in_little_memory(tmp_path):
    """Its 3.3 GB are a hole in the file here. An order of the images, a crop of each, and the labels take 10 MB each."""
    images, crops, tokens = 1_281_167, 10, 128
    header = {"descr": "<u2", "fortran_order": False, "shape": (images, crops, tokens)}
    with open(tmp_path / "codes.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + images * crops * tokens * 2)
    np.save(tmp_path / "labels.npy", np.arange(images) % 1000)
    write_json(tmp_path / "manifest.json", {"images": images, **FACTS, "crops": crops, "tokens": tokens, "classes": 1000})
    tracemalloc.start()
    try:
        batches = code_batches(CodeStore(tmp_path), 256, seed=0, start_step=5000)           # the end of the first epoch
        seen = torch.cat([labels for _, labels in islice(batches, 20)])
        assert len(seen.unique()) > 900 and tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
