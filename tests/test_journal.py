"""A journal gives back what is whole of what was appended, whatever a crash left of it."""

import pytest

from restok.files.journal import Journal

WHOLE = [b"first", b"second" * 1000]


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "a.journal")
    for record in WHOLE:
        journal.append(record)
    return journal


def test_records_come_back_in_order_and_more_may_follow(journal, tmp_path):
    assert list(Journal(tmp_path / "none.journal").read()) == []
    assert list(journal.read()) == WHOLE
    journal.append(b"third")
    assert list(journal.read()) == [*WHOLE, b"third"]


@pytest.mark.parametrize("left", [-1, -5990, 60, 46, 45, 44, 20, 7, 0])
def test_of_a_record_that_is_cut_short_nothing_is_left(journal, left):
    """The first record ends at byte 45: of 8 of its length, 32 of its digest, 5 of its own."""
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[:left])
    whole = WHOLE[:1] if left < 0 or left >= 45 else []
    assert list(journal.read()) == whole
    journal.append(b"again")
    assert list(journal.read()) == [*whole, b"again"]


@pytest.mark.parametrize("at", [0, 7, 8, 39, 40, 44])
def test_what_was_altered_is_dropped_with_all_after_it(journal, at):
    data = bytearray(journal.path.read_bytes())
    data[at] ^= 0x80
    journal.path.write_bytes(data)
    assert list(journal.read()) == [] and journal.path.stat().st_size == 0


def test_zeros_as_a_file_system_leaves_them_after_a_crash_are_no_records(journal):
    with open(journal.path, "ab") as file:
        file.write(bytes(10_000))
    assert list(journal.read()) == WHOLE


def test_no_room_is_an_error_that_names_the_file(journal, small_files):
    with small_files(10_000), pytest.raises(OSError, match=r"a\.journal"):
        journal.append(bytes(20_000))
    assert list(journal.read()) == WHOLE
