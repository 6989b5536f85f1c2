from math import cos, pi, sqrt

import pytest
import torch
from conftest import small_params

from restok.compat import generate_with_lost_class, losing_class
from restok.config import Guidance
from restok.generator.guidance import guidance_scales
from restok.generator.model import HAR
from restok.generator.sampling import Steps, draw, filter_logits, generate, require_sound, uniforms
from restok.hierarchy import group_sizes
from restok.nn.finite import NotFiniteError

LABELS = torch.tensor([0, 1, 2, 3, 4, 5])
SCHEDULES = [Guidance(schedule="constant", scale=3.0), Guidance(schedule="linear", scale=3.0),
             Guidance(schedule="cosine", scale=3.0), Guidance(schedule="step", scale=3.0, start=0.25)]


@pytest.fixture(params=[4, 1, "all"], ids=lambda ntp: f"ntp={ntp}")
def generator(request):
    return noisy(request.param)


def noisy(ntp):
    """A small generator with noise for its head, which starts at zero."""
    model = HAR(small_params(f"generator.ntp={ntp}").generator)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    return model


def probabilities(*p):
    return torch.tensor(p).log()


# The schedules.

@pytest.mark.parametrize(("guidance", "scales"), [
    (Guidance(schedule="constant", scale=3.0), [3.0] * 9),
    (Guidance(schedule="linear", scale=3.0), [1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0]),
    (Guidance(schedule="step", scale=3.75, start=0.25), [1.0, 1.0] + [3.75] * 7),
    (Guidance(schedule="step", scale=3.75, start=0.0), [3.75] * 9),
    (Guidance(schedule="step", scale=3.75, start=1.0), [1.0] * 8 + [3.75]),
    (Guidance(schedule="cosine", scale=3.0), [2 - cos(pi * t / 8) for t in range(9)])], ids=str)
def test_scales_of_9_steps(guidance, scales):
    """The ratio of step t is t / 8; a start ratio of 0.25 guides steps 2 to 8."""
    assert guidance_scales(guidance, [1] * 9) == pytest.approx(scales)


@pytest.mark.parametrize("steps", [2, 8, 9, 128])
def test_rising_schedules_end_at_1_and_the_largest(steps):
    for schedule in ("linear", "cosine"):
        scales = guidance_scales(Guidance(schedule=schedule, scale=4.5), [1] * steps)
        assert (len(scales), scales[0], scales[-1]) == (steps, 1.0, pytest.approx(4.5))
        assert list(scales) == sorted(scales)


def test_one_step_is_the_first():
    assert [guidance_scales(guidance, [1]) for guidance in SCHEDULES] == [(3.0,), (1.0,), (1.0,), (1.0,)]


def test_table_10_guides_vanilla_after_its_first_4_tokens():
    scales = guidance_scales(Guidance(schedule="step", scale=4.5, start=4 / 127), [1] * 128)
    assert scales == (1.0,) * 4 + (4.5,) * 124


def test_a_ratio_over_tokens_counts_those_drawn_before_the_step():
    """Of 128 tokens in 9 steps the last one has 64 before it. Vanilla's ratios are the same."""
    by_tokens = Guidance(schedule="linear", scale=2.0, over="tokens")
    drawn = [0, 1, 2, 3, 4, 8, 16, 32, 64]
    assert guidance_scales(by_tokens, group_sizes(128, 4)) == pytest.approx([1 + n / 64 for n in drawn])
    assert guidance_scales(by_tokens, [1] * 16) == guidance_scales(Guidance(schedule="linear", scale=2.0), [1] * 16)


# The distribution.

def test_top_k_keeps_the_k_largest():
    logits = torch.tensor([1.0, 4.0, 2.0, 3.0])
    assert filter_logits(logits, 2, 0.0).tolist() == [-torch.inf, 4.0, -torch.inf, 3.0]
    assert filter_logits(logits, 1, 0.0).isfinite().tolist() == [False, True, False, False]


def test_top_p_keeps_the_fewest_that_reach_p():
    logits = probabilities(0.05, 0.5, 0.15, 0.3)
    kept = {p: filter_logits(logits, 0, p).isfinite().tolist() for p in (0.4, 0.6, 0.9, 0.97)}
    assert kept == {0.4: [False, True, False, False], 0.6: [False, True, False, True], 0.9: [False, True, True, True],
                    0.97: [True] * 4}


def test_top_k_comes_before_top_p():
    """Of 0.4, 0.3, 0.2, 0.1 the two largest are 4/7 and 3/7 of what is left, so p = 0.5 keeps one; p first would keep two."""
    logits = probabilities(0.4, 0.3, 0.2, 0.1)
    assert filter_logits(logits, 2, 0.5).isfinite().tolist() == [True, False, False, False]
    assert filter_logits(logits, 0, 0.5).isfinite().tolist() == [True, True, False, False]


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.0), (0, 1.0), (4, 0.0), (9, 1.0)])
def test_0_a_p_of_1_and_a_k_of_everything_are_off(top_k, top_p):
    logits = torch.randn(3, 4)
    assert torch.equal(filter_logits(logits, top_k, top_p), logits)


def test_the_largest_always_stays_and_rows_are_filtered_apart():
    logits = torch.randn(2, 5, 64)
    kept = filter_logits(logits, 0, 1e-6).isfinite()
    assert torch.equal(kept.sum(-1), torch.ones(2, 5, dtype=torch.int64))
    assert torch.equal(kept.int().argmax(-1), logits.argmax(-1))


def test_draw_inverts_the_cumulated_probability():
    logits = probabilities(0.25, 0.5, 0.25).expand(1, 6, 3)
    u = torch.tensor([[0.0, 0.2499, 0.2501, 0.7499, 0.7501, 0.9999999]], dtype=torch.float64)
    assert draw(logits, u).tolist() == [[0, 0, 1, 1, 2, 2]]


def test_draw_never_takes_what_was_filtered_out():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]).expand(1, 3, 5)
    assert draw(logits, torch.tensor([[0.0, 0.5, 1 - 2 ** -53]], dtype=torch.float64)).tolist() == [[1, 3, 3]]


def test_draws_come_as_often_as_they_are_probable():
    p = torch.tensor([0.4, 0.3, 0.2, 0.07, 0.03])
    drawn = draw(p.log().expand(20, 1000, 5), uniforms(0, 0, 20, 1000)).flatten().bincount(minlength=5)
    for count, q in zip(drawn.tolist(), p.tolist(), strict=True):
        assert abs(count - 20_000 * q) < 4 * sqrt(20_000 * q * (1 - q))


# The images.

def test_greedy_is_the_argmax_of_the_uncached_logits(generator):
    """Each group is the best guess given the groups before it, which the full forward pass confirms; seeds have no say."""
    codes = generate(generator, LABELS, greedy=True, seed=1)
    assert torch.equal(codes, generate(generator, LABELS, greedy=True, seed=2))
    with torch.no_grad():
        assert torch.equal(codes, generator.eval()(codes, LABELS).argmax(-1))


def test_an_image_depends_on_the_seed_and_its_own_number_alone(generator):
    options = {"guidance": SCHEDULES[1], "top_p": 0.95, "seed": 7}
    whole = generate(generator, LABELS, offset=10, **options)
    parts = [generate(generator, LABELS[i:i + 2], offset=10 + i, **options) for i in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole[3:4], generate(generator, LABELS[3:4], offset=13, **options))
    torch.manual_seed(99)                                                         # the global state has no say
    assert torch.equal(whole, generate(generator, LABELS, offset=10, **options))


def test_steps_draw_batch_after_batch_in_the_same_memory_what_one_call_draws(generator):
    """Whatever was there before; of fewer labels than there is room for the others are dropped."""
    steps, options = Steps(generator.eval(), 4, SCHEDULES[1], top_p=0.9), {"guidance": SCHEDULES[1], "top_p": 0.9, "seed": 3}
    places = [buffer.data_ptr() for layer in steps.cache for buffer in (layer.keys, layer.values)]
    for labels, offset in ((LABELS[:4], 0), (LABELS[2:6], 8), (LABELS[5:], 1), (LABELS[:4], 0)):
        codes, sound = steps(labels, seed=3, offset=offset)
        assert torch.equal(codes, generate(generator, labels, offset=offset, **options)) and sound.all()
        codes.zero_()                                                             # they are the caller's
    assert places == [buffer.data_ptr() for layer in steps.cache for buffer in (layer.keys, layer.values)]


def test_the_class_is_lost_in_every_batch():
    """The cache forgets, between two batches, that it began again."""
    model = noisy(1).eval()
    steps = Steps(losing_class(model), 3)
    for labels, offset in ((LABELS[:3], 0), (LABELS[3:], 3), (LABELS[:3], 0)):
        assert torch.equal(steps(labels, seed=2, offset=offset)[0],
                           generate_with_lost_class(model, labels, seed=2, offset=offset))


@pytest.mark.parametrize("options", [{}, {"greedy": True}, {"guidance": SCHEDULES[3], "top_k": 9, "top_p": 0.9}], ids=str)
def test_no_step_waits_for_a_number(options):
    """On the meta device there are none: what asks for one ends with an error, as the capture of a graph would."""
    with torch.device("meta"):
        model = HAR(small_params().generator).eval()
    steps = Steps(model, 3, **options)
    steps._run()
    with pytest.raises(NotImplementedError):
        require_sound(steps.sound.all(1))


def test_one_unsound_batch_does_not_spoil_the_next():
    model = noisy(4).eval()
    steps = Steps(model, 2)
    with torch.no_grad():
        sound = model.mask_tokens.clone()
        model.mask_tokens.fill_(torch.nan)
        assert steps(LABELS[:2])[1].tolist() == [True] * 4 + [False] * 2
        model.mask_tokens.copy_(sound)
    codes, flags = steps(LABELS[:2])
    assert flags.all() and torch.equal(codes, generate(model, LABELS[:2]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="takes a GPU")
@pytest.mark.parametrize("guidance", [None, SCHEDULES[1]], ids=str)
def test_a_captured_graph_draws_the_same_without_waiting(generator, guidance):
    generator = generator.cuda().eval()
    plain, captured = (Steps(generator, 4, guidance, top_p=0.9) for _ in range(2))
    captured.capture()
    for labels, offset in ((LABELS[:4], 0), (LABELS[2:6], 8), (LABELS[5:], 1)):
        expected = plain(labels, offset=offset)
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = captured(labels, offset=offset)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("ntp", [4, 1, "all"])
def test_each_token_has_a_number_of_its_own(ntp):
    """The zero head of an untrained generator gives 64 equal chances: token i is the 64th of [0, 1) in which number i falls."""
    untrained = HAR(small_params(f"generator.ntp={ntp}").generator)
    assert torch.equal(generate(untrained, LABELS, seed=5, offset=2), (uniforms(5, 2, 6, 16) * 64).long())


def test_seeds_and_offsets_differ_and_so_do_images_of_one_class(generator):
    labels = torch.zeros(4, dtype=torch.int64)
    calls = [generate(generator, labels, seed=seed, offset=offset) for seed, offset in ((0, 0), (1, 0), (0, 4))]
    assert len(torch.cat(calls).unique(dim=0)) == 12


def test_a_scale_of_1_is_no_guidance(generator):
    for schedule in ("constant", "linear", "cosine"):
        guided = generate(generator, LABELS, guidance=Guidance(schedule=schedule, scale=1.0), seed=3)
        assert torch.equal(guided, generate(generator, LABELS, seed=3))


@pytest.mark.parametrize("guidance", SCHEDULES, ids=lambda guidance: guidance.schedule)
def test_every_schedule_gives_codes_of_the_codebook(generator, guidance):
    codes = generate(generator, LABELS, guidance=guidance)
    assert codes.shape == (6, 16) and codes.dtype == torch.int64 and 0 <= codes.min() and codes.max() < 64


def test_the_first_step_that_is_guided_is_the_first_that_changes():
    model = noisy(1)                                                              # 5 steps: ratios 0, 1/4, 1/2, 3/4, 1
    plain = generate(model, LABELS, greedy=True)
    guided = generate(model, LABELS, guidance=Guidance(schedule="step", scale=30.0, start=0.5), greedy=True)
    assert torch.equal(plain[:, :2], guided[:, :2])
    assert not torch.equal(plain[:, 2:4], guided[:, 2:4])


def test_guidance_pulls_towards_the_class():
    """With u and c the logits without and with the class, a guided step is more likely under c and less under u."""
    model = noisy(1).eval()
    labels = torch.arange(10).repeat(40)
    with torch.no_grad():
        embeddings = torch.stack([labels, torch.full_like(labels, model.no_class)])
        c, u = (model.step(model.group_input(0, None, row), model.new_cache(len(row))).log_softmax(-1) for row in embeddings)
    ratio = []
    for scale in (0.0, 1.0, 4.0):
        first = generate(model, labels, guidance=Guidance(schedule="constant", scale=scale))[:, :1]
        ratio.append((c - u)[:, 0].gather(1, first).mean().item())
    assert ratio[0] < ratio[1] < ratio[2]


def test_a_low_temperature_is_greedy(generator):
    assert torch.equal(generate(generator, LABELS, temperature=1e-6), generate(generator, LABELS, greedy=True))


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}])
def test_filters_reach_the_draw(generator, options):
    assert torch.equal(generate(generator, LABELS, **options), generate(generator, LABELS, greedy=True))
    assert not torch.equal(generate(generator, LABELS), generate(generator, LABELS, greedy=True))


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_out_of_range_are_refused(label):
    """10 is the number of 'no class' here: an embedding that exists, and no class."""
    model = noisy(4).train()
    with pytest.raises(ValueError, match="expected classes 0 to 9"):
        generate(model, torch.tensor([0, label]))
    assert model.training


def test_more_labels_than_there_is_room_for_are_refused():
    with pytest.raises(ValueError, match="6 labels: these steps draw 4 images at once"):
        Steps(noisy(4).eval(), 4, SCHEDULES[1])(LABELS)


def test_sampling_leaves_the_mode_as_it_was(generator):
    for mode in (True, False):
        generator.train(mode)
        generate(generator, LABELS[:1])
        assert generator.training is mode


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("guidance", [None, Guidance(schedule="linear", scale=2.0)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_refused_with_their_step_not_drawn_from(value, guidance, greedy):
    broken = noisy(4)
    with torch.no_grad():
        broken.head.weight[3, 0] = value
    with pytest.raises(NotFiniteError, match=r"logits, first in step 1 of 6"):
        generate(broken.train(), LABELS, guidance=guidance, greedy=greedy)
    assert broken.training
    late = noisy(4)
    with torch.no_grad():
        late.mask_tokens.fill_(value)                                           # the first four steps read none
    with pytest.raises(NotFiniteError, match=r"logits, first in step 5 of 6"):
        generate(late, LABELS, guidance=guidance, greedy=greedy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_overflows_in_half_precision_is_refused_and_what_does_not_is_drawn(dtype):
    half = noisy(4).to(dtype)
    assert generate(half, LABELS).shape == (6, 16)
    with torch.no_grad():
        half.head.weight.mul_(torch.finfo(dtype).max / half.head.weight.abs().max())         # finite, its sums are not
    with pytest.raises(NotFiniteError, match=r"take sound weights of the generator, and float32 where they overflow in less"):
        generate(half, LABELS)


def test_a_temperature_that_leaves_float32_is_refused():
    with pytest.raises(NotFiniteError, match="logits"):
        generate(noisy(4), LABELS, temperature=1e-44)
