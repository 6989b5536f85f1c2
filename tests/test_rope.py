import torch

from restok.nn.rope import decoder_ids, encoder_ids, rotate, rotation


def rows(ids):
    return " ".join(f"{a},{b}" for a, b in ids.tolist())


def test_encoder_ids_of_figure_9():
    """A 1x2 scale, a 2x2 scale, three latents: each grid counts from where the tokens before it ended."""
    assert rows(encoder_ids([(1, 2), (2, 2)], 3)) == "0,0 0,1 2,2 2,3 3,2 3,3 6,6 7,7 8,8"


def test_decoder_ids_of_figure_9():
    assert rows(decoder_ids(3, (2, 2))) == "0,0 1,1 2,2 3,3 3,4 4,3 4,4"


def test_rotation_keeps_lengths_and_depends_on_differences_alone():
    x = torch.randn(1, 1, 6, 8)
    by = rotation(torch.arange(6)[:, None], 8, 10_000)
    assert torch.allclose(rotate(x, by).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    same = x[:, :, :1].expand(-1, -1, 6, -1)
    scores = rotate(same, by) @ rotate(same, by).transpose(-1, -2)
    assert torch.allclose(scores[0, 0].diagonal(1), scores[0, 0, 0, 1].expand(5), atol=1e-4)
    assert not torch.allclose(scores[0, 0, 0, 1], scores[0, 0, 0, 3], atol=1e-3)


def test_axes_share_the_head_evenly():
    """Moving along the columns leaves the first half of the head, the rows', where it was."""
    x = torch.randn(1, 1, 1, 8)
    here, there = (rotate(x, rotation(torch.tensor([[1, c]]), 8, 10_000)) for c in (1, 5))
    assert torch.equal(here[..., :4], there[..., :4])
    assert not torch.allclose(here[..., 4:], there[..., 4:])
