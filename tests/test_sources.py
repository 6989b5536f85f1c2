"""ImageNet as it is published: the same photographs as folder, tar shards and parquet are the same prepared images."""

import pytest
from image_sets import FORMS, IDS, photographs, settings

from restok.data.images import open_images
from restok.data.loader import batches, evaluation_batches
from restok.data.prepare import prepare
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
