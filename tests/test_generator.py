import pytest
import torch
from conftest import ROOT, small_params

from restok.config.load import load_params
from restok.generator.model import HAR

NTP = [1, 2, 4, "all"]
PAPER = load_params(ROOT / "params/imagenet256.yaml").generator


def har(ntp, tokens=16):
    """A small generator in eval mode, with noise for its head, which starts at zero."""
    config = small_params(f"generator.ntp={ntp}", f"generator.tokens={tokens}", f"tokenizer.latents={tokens}").generator
    generator = HAR(config).eval()
    torch.nn.init.normal_(generator.head.weight, std=0.5)
    return generator


def batch(generator, images=3):
    config = generator.config
    return torch.randint(config.codebook_size, (images, config.tokens)), torch.arange(images) % config.classes


@torch.no_grad()
def cached(generator, codes, labels):
    """The logits as sampling computes them, one group at a time, each reading the true tokens of the group before."""
    cache = generator.new_cache(len(codes))
    previous = [None, *codes.split(generator.config.groups, dim=1)[:-1]]
    return torch.cat([generator.step(generator.group_input(i, p, labels), cache) for i, p in enumerate(previous)], dim=1)


@torch.no_grad()
def uncached(generator, codes, labels):
    return generator(codes, labels)


def read(generator, ntp_groups):
    """What each position reads, in letters: C the class, a digit or letter the token of that number, m0 .. the mask tokens."""
    config = generator.config
    codes, labels = torch.arange(config.tokens)[None], torch.tensor([3])
    names = {"C": generator.class_embedding.weight[3]}
    names |= {f"t{i + 1}": generator.token_embedding.weight[i] for i in range(config.tokens)}
    names |= {f"m{i}": row for i, row in enumerate(generator.mask_tokens)}
    groups = []
    for step, previous in enumerate([None, *codes.split(ntp_groups, dim=1)[:-1]]):
        rows = generator.group_input(step, previous, labels)[0]
        groups.append(" ".join(next(n for n, vector in names.items() if torch.equal(vector, row)) for row in rows))
    return " | ".join(groups)


def test_parameters_of_the_paper():
    """326M; without its 127 mask tokens it is LlamaGen-L's vanilla GPT."""
    with torch.device("meta"):
        counts = {ntp: sum(p.numel() for p in HAR(PAPER.model_copy(update={"ntp": ntp})).parameters()) for ntp in (4, 1, "all")}
    assert counts == {4: 326_263_808, 1: 326_263_808, "all": 326_133_760}
    assert counts[4] - counts["all"] == 127 * 1024


def test_steps_of_table_5():
    assert [len(PAPER.model_copy(update={"ntp": ntp}).groups) for ntp in (4, 1, "all")] == [9, 8, 128]


def test_the_inputs_of_figure_4():
    """8 tokens: a group reads the tokens of the group before it, then masks; the last group's tokens are read by nobody."""
    pictures = {ntp: read(g := har(ntp, tokens=8), g.config.groups) for ntp in (4, 2, 1, "all")}
    assert pictures == {
        4: "C | t1 | t2 | t3 | t4 m0 m1 m2",
        2: "C | t1 | t2 m0 | t3 t4 m1 m2",
        1: "C | t1 | t2 m0 | t3 t4 m1 m2",
        "all": "C | t1 | t2 | t3 | t4 | t5 | t6 | t7"}


def test_the_inputs_of_16_tokens_use_7_of_15_masks():
    generator = har(4)
    assert read(generator, generator.config.groups) == "C | t1 | t2 | t3 | t4 m0 m1 m2 | t5 t6 t7 t8 m3 m4 m5 m6"
    assert len(generator.mask_tokens) == 15


@pytest.mark.parametrize("ntp", NTP)
def test_cached_equals_uncached(ntp):
    generator = har(ntp)
    codes, labels = batch(generator)
    assert torch.allclose(cached(generator, codes, labels), uncached(generator, codes, labels), atol=1e-4)


@pytest.mark.parametrize("logits", [cached, uncached])
@pytest.mark.parametrize("ntp", NTP)
def test_every_group_hears_the_class(ntp, logits):
    """The release's 8-step sampling overwrites the class in its cache: from the second step on all classes are one."""
    generator = har(ntp)
    codes, labels = batch(generator)
    difference = (logits(generator, codes, labels) - logits(generator, codes, labels + 1)).abs().amax(dim=(0, 2))
    assert all(group.max() > 1e-3 for group in difference.split(generator.config.groups))


@pytest.mark.parametrize("ntp", NTP)
def test_a_token_is_predicted_from_earlier_groups_alone_and_from_each_of_them(ntp):
    generator = har(ntp)
    codes, labels = batch(generator, images=1)
    logits, start = uncached(generator, codes, labels), 0
    for group in generator.config.groups:
        changed = codes.clone()
        changed[:, start:start + group] = (changed[:, start:start + group] + 1) % generator.config.codebook_size
        moved = (uncached(generator, changed, labels) - logits).abs().amax(dim=(0, 2)) > 1e-5
        assert not moved[:start + group].any() and moved[start + group:].all()
        start += group


def test_tokens_of_a_group_see_each_other():
    """Masks differ: were a group causal inside, its first position would not hear its last mask."""
    generator = har(1)
    codes, labels = batch(generator)
    logits = uncached(generator, codes, labels)
    with torch.no_grad():
        generator.mask_tokens[6] += 1                                             # the last input of the last group of 8
    moved = (uncached(generator, codes, labels) - logits).abs().amax(dim=(0, 2)) > 1e-5
    assert moved.tolist() == [False] * 8 + [True] * 8


def test_an_untrained_generator_knows_nothing():
    """The zero head: uniform logits, a loss of log k."""
    generator = HAR(small_params().generator)
    assert generator.loss(*batch(generator)).item() == pytest.approx(torch.tensor(64.0).log().item())


def test_classes_are_dropped_at_their_rate_by_their_own_generator():
    generator, labels = har(4), torch.zeros(20_000, dtype=torch.int64)
    drop = [generator.drop_labels(labels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drop[0], drop[1]) and not torch.equal(drop[0], drop[2])
    assert drop[0].unique().tolist() == [0, generator.no_class]
    rate, sigma = generator.config.class_dropout, (0.1 * 0.9 / 20_000) ** 0.5
    assert rate == 0.1 and abs((drop[0] == generator.no_class).double().mean().item() - rate) < 4 * sigma


@pytest.mark.parametrize(("rate", "left"), [(0.0, [0]), (1.0, [10])])
def test_class_dropout_of_0_keeps_and_of_1_drops_every_class(rate, left):
    generator = HAR(small_params(f"generator.class_dropout={rate}").generator)
    assert generator.drop_labels(torch.zeros(500, dtype=torch.int64), torch.Generator()).unique().tolist() == left


def test_dropout_is_off_outside_training_and_on_within():
    generator = har(4)
    codes, labels = batch(generator)
    assert torch.equal(uncached(generator, codes, labels), uncached(generator, codes, labels))
    generator.train()
    assert not torch.equal(uncached(generator, codes, labels), uncached(generator, codes, labels))


@pytest.mark.parametrize("tokens", [15, 17])
def test_codes_of_another_length_are_refused_by_name(tokens):
    with pytest.raises(ValueError, match=f"codes of {tokens} tokens: generator.tokens is 16"):
        har(4)(torch.zeros(1, tokens, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(("ntp", "masks_read"), [(1, 7), (2, 7), (4, 7), (8, 7), ("all", 0)])
def test_every_parameter_learns_but_the_mask_tokens_that_nobody_reads(ntp, masks_read):
    """A group of n after one of m reads n - m masks: tokens / 2 - 1 in all, however many tokens were predicted one by one."""
    generator = har(ntp).train()
    generator.loss(*batch(generator, images=8)).backward()
    gradients = {name: p.grad for name, p in generator.named_parameters()}
    masks = gradients.pop("mask_tokens")
    assert all((gradient != 0).any() for gradient in gradients.values())
    assert (masks != 0).any(dim=1).sum() == masks_read
