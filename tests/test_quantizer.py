import pytest
import torch
import torch.nn.functional as F

from restok.tokenizer.quantizer import Quantizer, Revival


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def quantizer():
    return Quantizer(32, 4)


def nearest_by_hand(quantizer, z):
    """The smallest squared distance on the unit sphere."""
    difference = F.normalize(z, dim=-1)[..., None, :] - F.normalize(quantizer.codebook, dim=-1)
    return difference.square().sum(-1).argmin(-1)


def test_the_nearest_entry_is_the_one_a_search_over_all_finds(quantizer):
    z = torch.randn(3, 50, 4) * 5
    with torch.no_grad():
        quantizer.codebook.mul_(torch.rand(32, 1) + 0.5)                          # lengths must not matter, of z or of entries
    assert torch.equal(quantizer.nearest(z), nearest_by_hand(quantizer, z))
    assert torch.equal(quantizer(z).codes, nearest_by_hand(quantizer, z))


def test_what_is_looked_up_has_unit_length_and_its_own_code(quantizer):
    with torch.no_grad():
        quantizer.codebook.mul_(3)
    codes = torch.arange(32)[None]
    assert torch.allclose(quantizer.lookup(codes).norm(dim=-1), torch.ones(1, 32), atol=1e-6)
    assert torch.equal(quantizer.nearest(quantizer.lookup(codes)), codes)


def test_the_gradient_passes_straight_through_to_the_direction_of_z(quantizer):
    z = torch.randn(2, 6, 4, requires_grad=True)
    weights = torch.randn(2, 6, 4)
    (quantizer(z).latents * weights).sum().backward()
    through, z.grad = z.grad, None
    (F.normalize(z, dim=-1) * weights).sum().backward()
    assert torch.allclose(through, z.grad) and through.abs().max() > 0
    assert quantizer.codebook.grad is None                                        # what is decoded does not move the entries


def test_the_latents_passed_on_are_the_entries(quantizer):
    quantized = quantizer(torch.randn(2, 6, 4))
    assert torch.allclose(quantized.latents, quantizer.lookup(quantized.codes), atol=1e-6)


def test_both_losses_are_mean_squares_between_unit_vectors_and_each_moves_one_side(quantizer):
    z = torch.randn(2, 6, 4, requires_grad=True)
    quantized = quantizer(z)
    expected = (F.normalize(z, dim=-1) - quantizer.lookup(quantized.codes)).square().mean()
    assert torch.allclose(quantized.codebook_loss, expected) and torch.allclose(quantized.commitment_loss, expected)
    moved = [[g is not None and bool(g.abs().max() > 0)
              for g in torch.autograd.grad(loss, [quantizer.codebook, z], retain_graph=True, allow_unused=True)]
             for loss in (quantized.codebook_loss, quantized.commitment_loss)]
    assert moved == [[True, False], [False, True]]                                # entries towards latents, and back


def test_a_latent_on_its_entry_costs_nothing_and_one_at_a_right_angle_two_over_the_dimension():
    quantizer = Quantizer(1, 4)
    with torch.no_grad():
        quantizer.codebook.copy_(torch.tensor([[1.0, 0, 0, 0]]))
    assert quantizer(torch.tensor([[[7.0, 0, 0, 0]]])).commitment_loss == 0
    assert quantizer(torch.tensor([[[0.0, 7, 0, 0]]])).commitment_loss == pytest.approx(2 / 4)


def test_autocast_does_not_reach_the_quantiser(quantizer):
    z = torch.randn(2, 200, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = quantizer(z)
    outside = quantizer(z)
    assert inside.latents.dtype == inside.codebook_loss.dtype == torch.float32
    assert torch.equal(inside.codes, outside.codes) and torch.equal(inside.latents, outside.latents)


def test_place_moves_the_entries_it_is_given_onto_latents_and_no_other(quantizer):
    before, z = quantizer.codebook.detach().clone(), torch.randn(2, 6, 4)
    entries = torch.tensor([3, 30])
    quantizer.place(entries, z, seeded())
    untouched = torch.ones(32, dtype=torch.bool)
    untouched[entries] = False
    assert torch.equal(quantizer.codebook[untouched], before[untouched])
    cosine = quantizer.codebook[entries] @ F.normalize(z, dim=-1).flatten(0, 1).T
    assert (cosine.max(dim=1).values > 0.99).all()
    assert torch.allclose(quantizer.codebook[entries].norm(dim=-1), torch.ones(2))


def test_entries_placed_on_one_latent_differ_and_the_generator_alone_decides(quantizer):
    def placed(seed):
        quantizer.place(torch.arange(4), torch.ones(1, 1, 4), seeded(seed))
        return quantizer.codebook[:4].detach().clone()

    assert len(placed(0).unique(dim=0)) == 4
    assert torch.equal(placed(0), placed(0)) and not torch.equal(placed(0), placed(1))


@pytest.mark.parametrize("after", [1, 3])
def test_an_unused_entry_moves_onto_a_latent_after_exactly_so_many_steps(quantizer, after):
    revival, start = Revival(quantizer, after), quantizer.codebook.detach().clone()
    used, z = torch.arange(31)[None], torch.randn(1, 31, 4)                       # all but the last entry
    for _ in range(after - 1):
        revival.step(used, z, seeded())
        assert torch.equal(quantizer.codebook, start)
    revival.step(used, z, seeded())
    assert torch.equal(quantizer.codebook[:31], start[:31])
    assert (F.normalize(z, dim=-1)[0] @ quantizer.codebook[31]).max() > 0.99 > (F.normalize(z, dim=-1)[0] @ start[31]).max()
    moved = quantizer.codebook.detach().clone()
    for _ in range(after - 1):                                                    # moved, it starts counting anew
        revival.step(used, z, seeded(1))
        assert torch.equal(quantizer.codebook, moved)


def test_a_single_use_starts_the_count_anew(quantizer):
    revival, start = Revival(quantizer, 2), quantizer.codebook.detach().clone()
    z, everything, some = torch.randn(1, 32, 4), torch.arange(32)[None], torch.arange(32).clamp(max=30)[None]
    for codes in (some, everything, some, everything):
        revival.step(codes, z, seeded())
    assert torch.equal(quantizer.codebook, start)


def test_revival_after_0_steps_is_never(quantizer):
    revival, start = Revival(quantizer, 0), quantizer.codebook.detach().clone()
    for _ in range(5):
        revival.step(torch.zeros(1, 1, dtype=torch.int64), torch.randn(1, 1, 4), seeded())
    assert torch.equal(quantizer.codebook, start)


def test_the_counts_of_idle_steps_survive_a_resume(quantizer):
    used, z = torch.arange(31)[None], torch.randn(1, 31, 4)
    first, resumed = Revival(quantizer, 2), Revival(quantizer, 2)
    first.step(used, z, seeded())
    resumed.load_state_dict(first.state_dict())
    start = quantizer.codebook.detach().clone()
    resumed.step(used, z, seeded())
    assert not torch.equal(quantizer.codebook[31], start[31])
