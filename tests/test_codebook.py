"""Use and entropy of the codebook (Eq. 5-6)."""

import numpy as np
import pytest
import torch

from restok.metrics.codebook import code_counts, codebook_metrics


def test_a_uniform_codebook_of_8192_has_13_bits_less_what_epsilon_takes():
    found = codebook_metrics(code_counts(torch.arange(8192).view(64, 128), 8192, (128,)), (128,))
    assert 13 - found["entropy"] == pytest.approx(1.18e-4, rel=0.01)
    assert (found["usage"], found["dead"], found["used"]) == (1, 0, 8192)
    assert found["perplexity"] == pytest.approx(8192, rel=1e-4)


def test_levels_are_described_one_by_one_and_pooled():
    codes = np.array([[0, 1, 2, 3], [0, 2, 2, 3], [0, 1, 3, 2], [0, 2, 3, 2]], dtype=np.uint16)
    found = codebook_metrics(code_counts(codes, 8, (1, 1, 2)), (1, 1, 2))
    levels = found["levels"]
    found_levels = [[level[key] for key in ("level", "tokens", "used", "dead")] for level in levels]
    assert found_levels == [[1, 1, 1, 7], [2, 1, 2, 6], [3, 2, 2, 6]]
    assert [level["entropy"] for level in levels] == pytest.approx([0, 1, 1], abs=1e-6)
    p = np.array([4, 2, 6, 4]) / 16
    assert found["usage"] == 0.5 and found["entropy"] == pytest.approx(-(p * np.log2(p)).sum(), abs=1e-6)
    halves = code_counts(codes[:1], 8, (1, 1, 2)) + code_counts(codes[1:], 8, (1, 1, 2))
    assert torch.equal(halves, code_counts(codes, 8, (1, 1, 2)))


def test_codebook_refuses_what_is_no_set_of_codes(unchecked):
    codes = torch.zeros(3, 4, dtype=torch.int64)
    for bad, size, levels, message in ((codes + 8, 8, (4,), "outside a codebook of 8"), (codes - 1, 8, (4,), "outside"),
                                       (codes, 8, (1, 1), "levels of 2 tokens"), (codes.float(), 8, (4,), "integers"),
                                       (codes[:0], 8, (4,), "integers")):
        with pytest.raises(ValueError, match=message):
            code_counts(bad, size, levels)
    with pytest.raises(ValueError, match="no codes"):              # 0 / 0 is no use of the codebook
        codebook_metrics(torch.tensor([[1, 2], [0, 0]]), (1, 2))


def test_a_codebook_of_one_code_has_no_entropy_and_a_perplexity_of_one():
    counts = torch.zeros(1, 256, dtype=torch.int64)
    counts[0, 7] = 360                                      # Eq. 6's epsilon would take the entropy to -1.44e-8
    found = codebook_metrics(counts, [1])
    for described in (found, *found["levels"]):
        assert (described["entropy"], described["perplexity"], described["used"], described["dead"]) == (0, 1, 1, 255)
