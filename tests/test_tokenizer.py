import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, small_params

from restok.config.load import load_params
from restok.nn.finite import NotFiniteError
from restok.objective.alignment import Alignment
from restok.objective.tokenizer import Adversary, TokenizerObjective
from restok.tokenizer.model import ResTok

PAPER = load_params(ROOT / "params/imagenet256.yaml")


def restok(*overrides):
    return ResTok(small_params(*(f"tokenizer.{override}" for override in overrides)).tokenizer)


def images(count=2):
    return torch.rand(count, 3, 16, 16)


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    return restok()


# What belongs to it.

def test_parameters_of_the_paper():
    """662M with the mask VF token and the two projections that only training needs."""
    with torch.device("meta"):
        tokenizer = ResTok(PAPER.tokenizer)
        alignment = Alignment(PAPER.objective.alignment, 1024, class_width=1024, patch_width=1024)
    assert parameters(tokenizer) == 659_693_771
    assert parameters(tokenizer, alignment) == 661_791_947


def test_the_tokenizers_state_holds_nothing_of_its_objective(classifier):
    """Neither teacher nor perceptual network nor discriminator: training next to them leaves names and sizes as they were."""
    params = small_params()
    tokenizer = ResTok(params.tokenizer)
    names = set(tokenizer.state_dict())
    objective = TokenizerObjective(params.objective, params.tokenizer, classifier)
    adversary = Adversary(params.objective.discriminator, classifier)
    x, out = images(), {}
    terms = objective.terms(x, tokenizer(x, None, objective.alignment.vf_token, out), out)
    objective.total(terms | {"gan": adversary.generator_loss(x, torch.Generator())}).backward()
    assert set(tokenizer.state_dict()) == names
    assert {name.split(".")[0] for name in names} == {"cnn_encoder", "encoder", "quantizer", "decoder", "cnn_decoder"}
    own = {id(p) for p in tokenizer.parameters()}
    assert parameters(objective, adversary) and not any(id(p) in own for m in (objective, adversary) for p in m.parameters())


# Shapes.

def test_there_and_back(tokenizer):
    out = {}
    codes = tokenizer.encode(images(), out=out)
    assert codes.shape == (2, 16) and codes.dtype == torch.int64 and 0 <= codes.min() and codes.max() < 64
    assert out["latents"].shape == (2, 16, 4)
    assert tokenizer.decode(codes).shape == (2, 3, 16, 16)


def test_forward_is_encode_then_decode(tokenizer):
    x, out = images(), {}
    reconstruction = tokenizer(x, keep=[4, 16], out=out)
    assert torch.equal(out["quantized"].codes, tokenizer.encode(x))
    assert torch.allclose(reconstruction, tokenizer.decode(tokenizer.encode(x), keep=[4, 16]), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 16, 32), (2, 3, 32, 32), (2, 1, 16, 16)])
def test_images_of_another_size_are_refused_by_name(tokenizer, unchecked, shape):
    with pytest.raises(ValueError, match=r"expected \(b, 3, 16, 16\), as tokenizer.image_size says"):
        tokenizer.encode(torch.rand(shape))


@pytest.mark.parametrize(("factor", "grid", "sizes"), [
    (2, "2d", [4, 8, 16]), (2, "width", [4, 8, 16]), (4, "2d", [1, 4, 16]), (1, "2d", [16, 16, 16])])
def test_image_tokens_come_out_coarse_to_fine(factor, grid, sizes):
    out = {}
    restok(f"merge_factor={factor}", f"merge_grid={grid}").encode(images(), out=out)
    assert [scale.shape for scale in out["scales"]] == [(2, size, 32) for size in sizes]


# Keeping fewer codes.

def test_keeping_all_is_keeping_none_back(tokenizer):
    codes = tokenizer.encode(images())
    assert torch.equal(tokenizer.decode(codes, keep=16), tokenizer.decode(codes))


@pytest.mark.parametrize("keep", [0, -1, 17, [4, 17]])
def test_codes_that_there_are_not_cannot_be_kept(tokenizer, keep):
    codes = torch.zeros(2, 16, dtype=torch.long)
    with pytest.raises(ValueError, match=r"keep (0|-1|17): keep 1 to 16 codes"):
        tokenizer.decode(codes, keep=keep)


def test_keep_is_a_number_for_all_or_one_an_image(tokenizer):
    codes = tokenizer.encode(images())
    expected = tokenizer.decode(codes, keep=4)
    for keep in ([4, 4], torch.tensor([4, 4]), torch.tensor(4)):
        assert torch.equal(tokenizer.decode(codes, keep=keep), expected)
    mixed = tokenizer.decode(codes, keep=[4, 8])
    assert torch.allclose(mixed[0], expected[0], atol=1e-6)
    assert torch.allclose(mixed[1], tokenizer.decode(codes, keep=8)[1], atol=1e-6)


@pytest.mark.parametrize("keep", [1, 4, 15])
def test_a_picture_of_k_codes_knows_the_first_k_and_each_of_them(tokenizer, keep):
    codes = tokenizer.encode(images(1))
    picture = tokenizer.decode(codes, keep=keep)
    later = codes.clone()
    later[:, keep:] = (later[:, keep:] + 7) % 64
    assert torch.equal(tokenizer.decode(later, keep=keep), picture)
    for place in range(keep):
        changed = codes.clone()
        changed[:, place] = (changed[:, place] + 7) % 64
        assert not torch.allclose(tokenizer.decode(changed, keep=keep), picture, atol=1e-6)


# The hierarchy.

def test_a_level_knows_itself_and_what_is_coarser(tokenizer):
    """Nudging level l's embedding, where the sequence starts, moves the latents of levels l, l + 1, ... and no earlier one."""
    x, levels = images(1), tokenizer.config.levels
    assert levels == (1, 1, 2, 4, 8)
    with torch.no_grad():
        before = tokenizer.latents(x)
        for level in range(len(levels)):
            start = tokenizer.encoder.level_embedding[level].clone()
            tokenizer.encoder.level_embedding[level] += torch.randn(32)
            moved = ((tokenizer.latents(x) - before).abs().amax(dim=(0, 2)) > 1e-5).split(levels)
            tokenizer.encoder.level_embedding[level] = start
            assert [bool(part.any()) for part in moved] == [False] * level + [True] * (len(levels) - level)
            assert all(part.all() for part in moved[level:])


def test_latents_hear_the_image_and_the_image_never_hears_the_latents(tokenizer):
    first, second, nudged = {}, {}, {}
    x, y = images(), images()
    with torch.no_grad():
        assert not torch.allclose(tokenizer.latents(x, first), tokenizer.latents(y, second), atol=1e-3)
        tokenizer.encoder.level_embedding += 1
        tokenizer.latents(x, nudged)
        tokenizer.encoder.level_embedding -= 1
    for a, b in zip(first["scales"], nudged["scales"], strict=True):
        assert torch.equal(a, b)


def test_a_finer_scale_never_reaches_a_coarser_one_once_they_are_apart(tokenizer):
    """Figure 8a between scales: each level of attention to finer tokens is exactly zero, to coarser ones it is not."""
    out = {"attention": []}
    tokenizer.encode(images(1), out=out)
    last = out["attention"][-1][0].mean(0)                                        # scales of 4, 8 and 16 tokens, then latents
    assert (last[:4, 4:] == 0).all() and (last[4:12, 12:] == 0).all() and (last[:28, 28:] == 0).all()
    assert (last[12:28, :28] > 0).all() and (last[28:, :28] > 0).all()


def test_without_hierarchy_latents_are_one_level():
    tokenizer = restok("latent_hierarchy=false")
    out = {"attention": []}
    tokenizer.encode(images(1), out=out)
    assert (len(tokenizer.encoder.heads), len(tokenizer.decoder.embed)) == (1, 1)
    assert (out["attention"][-1][0].mean(0)[28:] > 0).all()


def test_the_legacy_layout_mixes_all_latents_into_each_code():
    """The release's fault: the value at (position l, channel w) comes from token (w n + l) // d, here for n = 16, d = 32."""
    tokens, width = 16, 32
    origin = torch.arange(tokens).repeat_interleave(width).reshape(1, tokens, width).float()
    found = {}
    for layout in ("tokens", "legacy"):
        encoder = restok("latents=16", f"latent_layout={layout}").encoder
        seen = []
        for head in encoder.heads:
            head.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0].detach()))
        encoder.norm_out.register_forward_hook(lambda module, inputs, output: origin)
        encoder(torch.rand(1, 8, 4, 4), {})
        found[layout] = torch.cat(seen, dim=1)[0].int()
    assert found["tokens"].tolist() == [[token] * width for token in range(tokens)]
    assert found["legacy"].tolist() == [[(w * tokens + place) // width for w in range(width)] for place in range(tokens)]


# The options.

@pytest.mark.parametrize("option", [
    "latent_init=residual", "latent_init=pooled", "latent_init=sequence", "latent_init=learnable", "latent_hierarchy=false",
    "latent_layout=legacy",
    "merge=average", "merge=nearest", "merge_grid=width", "merge_factor=1", "merge_factor=4", "merge_residual=false",
    "scales=1", "scales=4"])
def test_every_option_trains_every_parameter(option):
    """Finite gradients everywhere, and none missing: what takes no gradient would never be learnt."""
    tokenizer, out, x = restok(option), {}, images(8)
    vf_token = torch.randn(32, requires_grad=True)
    reconstruction = tokenizer(x, torch.tensor([4, 8, 16, 16] * 2), vf_token, out)
    quantized = out["quantized"]
    loss = F.mse_loss(reconstruction, x) + quantized.codebook_loss + quantized.commitment_loss
    (loss + out["vf_tokens"].square().mean() + sum(scale.square().mean() for scale in out["scales"])).backward()
    silent = [name for name, p in tokenizer.named_parameters() if p.grad is None or not (p.grad != 0).any()]
    assert silent == []
    assert all(p.grad.isfinite().all() for p in tokenizer.parameters()) and vf_token.grad.abs().max() > 0


def test_merging_grids_differ_where_tokens_are_merged_twice():
    torch.manual_seed(1)
    wide = restok("merge_grid=width")
    square = restok("merge_grid=2d")
    square.load_state_dict(wide.state_dict())
    a, b = {}, {}
    x = images()
    wide.encode(x, out=a), square.encode(x, out=b)
    assert not torch.allclose(a["scales"][0], b["scales"][0], atol=1e-3)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_doubled_batch_leaves_the_reconstruction_as_it_is(tokenizer, batch):
    """Eq. 2's mask VF tokens take the other half of the decoder's batch; the halves do not meet."""
    x, out = images(batch), {}
    with torch.no_grad():
        alone = tokenizer(x, keep=8)
        doubled = tokenizer(x, keep=8, vf_token=torch.randn(1, 1, 32), out=out)
    assert torch.allclose(alone, doubled, atol=1e-5)
    assert out["vf_tokens"].shape == (batch, 16, 32)
    with torch.no_grad():
        same = tokenizer.pixels(tokenizer.decoder.tokens(out["quantized"].latents, [tokenizer.decoder.mask_token], 8)[0])
    assert torch.allclose(same, alone, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_has_no_code_and_is_named(value):
    model, images = restok(), torch.rand(2, 3, 16, 16)
    assert model.encode(images).shape == (2, 16)
    with pytest.raises(NotFiniteError, match=r"NaN or infinity in images, latents: no code"):
        model.encode(images.clone().index_fill(0, torch.tensor([1]), value))
    with torch.no_grad():
        model.quantizer.codebook[7, 0] = value
    with pytest.raises(NotFiniteError, match="NaN or infinity in codebook: no code"):
        model.encode(images)
    model = restok()
    with torch.no_grad():
        model.encoder.heads[0].bias[0] = value
    with pytest.raises(NotFiniteError, match="NaN or infinity in latents: no code"):
        model.encode(images)
