"""The class token in the KV cache: kept here for every NTP count, lost by the release with one."""

import pytest
import torch
from conftest import small_params

from restok.compat import generate_with_lost_class
from restok.config import Guidance
from restok.errors import RestokError
from restok.generator.model import HAR
from restok.generator.sampling import generate

CLASSES = torch.arange(10)


def noisy(ntp):
    """A small generator whose logits differ: its head starts at zero."""
    model = HAR(small_params(f"generator.ntp={ntp}").generator)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    torch.nn.init.normal_(model.class_embedding.weight)
    return model.eval()


def recorded(model, monkeypatch):
    """The logits of every call of `step`, from now on."""
    calls, step = [], HAR.step
    monkeypatch.setattr(HAR, "step", lambda self, x, cache: calls.append(step(self, x, cache)) or calls[-1])
    return calls


@torch.no_grad()
def cached(model, codes, labels):
    """The logits of given codes, one group a step."""
    cache, previous, found = model.new_cache(len(codes)), None, []
    for step, group in enumerate(codes.split(model.config.groups, dim=1)):
        found.append(model.step(model.group_input(step, previous, labels), cache))
        previous = group
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("ntp", [1, 4, "all"])
def test_cached_equals_uncached_and_both_hear_the_class_to_the_last_group(ntp):
    model, codes = noisy(ntp), torch.randint(64, (1, 16)).expand(10, 16)          # one image's codes for every class
    with torch.no_grad():
        uncached = model(codes, CLASSES)
    found = cached(model, codes, CLASSES)
    assert torch.allclose(found, uncached, atol=1e-5)
    last = model.config.groups[-1]
    for logits in (found, uncached):
        assert (logits[0, -last:] - logits[1:, -last:]).abs().amax((1, 2)).min() > 1e-3


def test_with_the_fault_no_logit_depends_on_the_class_from_the_second_call_on(monkeypatch):
    model = noisy(1)
    model.class_embedding.weight.data[:] = model.class_embedding.weight[:1] + 1e-4 * torch.randn(11, 32)
    calls = recorded(model, monkeypatch)
    codes = generate_with_lost_class(model, CLASSES, greedy=True)
    assert len(calls) == 5 and len(codes[:, 0].unique()) == 1                     # classes so near that the next input is one
    assert not torch.equal(calls[0][0], calls[0][1])
    for logits in calls[1:]:
        assert torch.equal(logits, logits[:1].expand_as(logits))
    calls.clear()
    generate(model, CLASSES, greedy=True)
    assert all((logits[0] != logits[1]).any() for logits in calls)


def test_with_the_fault_classes_of_one_first_token_go_on_alike():
    model = noisy(1)
    labels = CLASSES.repeat_interleave(4)
    first = generate(model, labels, greedy=True)[:, 0]
    codes = {name: draw(model, labels, greedy=True) for name, draw in (("kept", generate), ("lost", generate_with_lost_class))}
    assert torch.equal(codes["kept"][:, 0], codes["lost"][:, 0])                  # the first step still hears it
    for token in first.unique():
        assert len(codes["lost"][first == token].unique(dim=0)) == 1
    assert not torch.equal(codes["kept"], codes["lost"])


def test_token_1_takes_the_class_tokens_slot_and_position_and_the_rest_follows(monkeypatch):
    """The same as a sequence without the class: its first group is token 1, at position 0."""
    model = noisy(1)
    calls = recorded(model, monkeypatch)
    codes = generate_with_lost_class(model, CLASSES[:1], greedy=True)
    lost = [logits.clone() for logits in calls]
    cache, groups = model.new_cache(1), codes.split(model.config.groups, dim=1)
    for step, previous in enumerate(groups[:-1], start=1):
        with torch.no_grad():
            assert torch.allclose(model.step(model.group_input(step, previous, CLASSES[:1]), cache), lost[step], atol=1e-6)


def test_the_fault_takes_every_argument_and_leaves_the_model_as_it_was():
    model = noisy(1).train()
    before = generate(model, CLASSES, seed=4)
    options = {"guidance": Guidance(schedule="constant", scale=2.0), "temperature": 0.9, "top_k": 9, "top_p": 0.9, "seed": 4}
    whole = generate_with_lost_class(model, CLASSES, offset=3, **options)
    assert torch.equal(whole[2:4], generate_with_lost_class(model, CLASSES[2:4], offset=5, **options))
    assert model.training and torch.equal(before, generate(model, CLASSES, seed=4))


@pytest.mark.parametrize("ntp", [4, "all"])
def test_other_generators_never_lost_it(ntp):
    with pytest.raises(RestokError, match="the release loses the class with 1 alone"):
        generate_with_lost_class(noisy(ntp), CLASSES)
