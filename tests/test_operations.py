"""Operations counted from sizes are those of the modules themselves, which torch counts."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT, small_params

from restok.config import Params
from restok.config.load import load_params
from restok.experiments import operations as counted
from restok.experiments import work
from restok.generator.model import HAR
from restok.generator.sampling import generate
from restok.metrics.features import random_features
from restok.networks.classifier import SmallClassifier
from restok.networks.lpips import random_lpips
from restok.networks.pretrained import random_weights
from restok.objective.tokenizer import Adversary, TokenizerObjective
from restok.stages.bench.peaks import operations
from restok.stages.bench.training import generator_training, tokenizer_training
from restok.tokenizer.model import ResTok

NEAR = 0.02
META = torch.device("meta")                # shapes without memory
PAPER = load_params(ROOT / "params/imagenet256.yaml")


def near(count: float) -> object:
    return pytest.approx(count, rel=NEAR)


def noise(params: Params, *, on: torch.device = META, grad: bool = False) -> torch.Tensor:
    side = params.tokenizer.image_size
    return torch.rand(1, 3, side, side, device=on, requires_grad=grad)


# At the paper's sizes


@pytest.mark.parametrize("changed", [{}, {"scales": 1}, {"merge_factor": 4}, {"merge_factor": 1, "latents": 64}])
def test_of_the_papers_tokenizer_and_what_an_ablation_changes(changed):
    config = PAPER.tokenizer.model_copy(update=changed)
    with META:
        model = ResTok(config)
    images = noise(PAPER)
    assert counted.encoding(config) == near(operations(lambda: model.quantizer.nearest(model.latents(images))))
    entries = torch.rand(1, config.latents, config.codebook_dim, device=META)

    def decode():
        (tokens,) = model.decoder.tokens(entries, [model.decoder.mask_token])
        model.cnn_decoder(model.decoder.features(tokens))

    assert counted.decoding(config) == near(operations(decode))


@pytest.mark.parametrize(("ntp", "guided"), [(1, False), (4, True), ("all", True)])
def test_of_the_papers_generator_as_it_draws(ntp, guided):
    config = PAPER.generator.model_copy(update={"ntp": ntp, "layers": 2})
    params = PAPER.model_copy(update={"generator": config})
    with META:
        model = HAR(config).eval()
    labels = torch.zeros(1 + guided, dtype=torch.int64, device=META)

    @torch.no_grad()
    def draw():
        cache, previous = model.new_cache(len(labels)), None
        for step, size in enumerate(config.groups):
            model.step(model.group_input(step, previous, labels), cache)
            previous = torch.zeros(len(labels), size, dtype=torch.int64, device=META)

    assert counted.operations(work.Draw("", ntp, guided), params) == near(operations(draw))


def test_of_a_step_of_the_papers_generator():
    with META:
        model = HAR(PAPER.generator)
    codes, label = (torch.zeros(*shape, dtype=torch.int64, device=META) for shape in ((1, PAPER.generator.tokens), (1,)))
    assert counted.operations("generator", PAPER) == near(operations(lambda: model.loss(codes, label).backward()))


def test_of_what_teaches_and_judges_the_papers_tokenizer():
    with random_weights():
        objective = TokenizerObjective(PAPER.objective, PAPER.tokenizer).to(META)
        adversary = Adversary(PAPER.objective.discriminator).to(META)
    images, made, rng = noise(PAPER), noise(PAPER, grad=True), torch.Generator()

    def taught():
        objective.teacher(images)
        objective.perceptual(made, images).mean().backward()

    def judged():
        adversary.generator_loss(made, rng).backward()
        adversary.discriminator_loss(images, made, rng).backward()

    assert counted.taught(PAPER.objective, PAPER) == near(operations(taught))
    assert counted.judged(PAPER.objective, PAPER) == near(operations(judged))


def test_of_the_networks_that_measure_images():
    params, images = PAPER, noise(PAPER, on=torch.device("cpu"))
    pixels = (255 * images).byte().permute(0, 2, 3, 1).numpy()
    for network in params.evaluation.networks:
        with random_weights():
            features = random_features(network, torch.device("cpu"))
        assert counted.judging(network, params) == near(operations(lambda features=features: features(pixels)))
    assert counted.judging("dinov2-bicubic", params) == counted.judging("dinov2", params)
    assert counted.operations("judge", params) == sum(counted.judging(name, params) for name in ("inception", "dinov2"))
    for network in counted.LPIPS:
        lpips = random_lpips(network)
        assert counted.lpips(network, params) == near(operations(lambda lpips=lpips: lpips(images, images)))


# At the tests' sizes, on the steps of training themselves


OFF = {"objective.vf=0": "teacher", "objective.perceptual=0": "perceptual distance", "objective.gan=0": "adversary",
       "objective.alignment.decoder=0": "Eq. 2"}


@pytest.mark.parametrize("changed", [(), *((one,) for one in OFF), tuple(OFF), ("tokenizer_training.checkpointing=true",)])
def test_of_a_step_of_training(changed, tmp_path):
    params = small_params(*changed)
    classifier = _classifier(params, tmp_path)
    step = tokenizer_training(params, classifier).of(2)
    assert 2 * counted.operations("tokenizer", params) == pytest.approx(operations(step), rel=0.1)
    step = generator_training(params).of(2)
    assert 2 * counted.operations("generator", params) == pytest.approx(operations(step), rel=0.1)


def test_a_term_of_weight_0_takes_nothing():
    whole = counted.operations("tokenizer", PAPER)
    for key in OFF:
        assert counted.operations("tokenizer", load_params(ROOT / "params/imagenet256.yaml", [key])) < 0.99 * whole


def test_of_a_whole_draw_and_of_the_classifier(tmp_path):
    params = small_params()
    model = HAR(params.generator).eval()
    draw = work.drawing(params, guided=False)
    assert counted.operations(draw, params) == near(operations(lambda: generate(model, torch.zeros(1, dtype=torch.int64))))
    classifier = SmallClassifier(10, params.classifier.channels)
    images = noise(params, on=torch.device("cpu"))
    assert counted.operations("judge", params) == near(operations(lambda: classifier.pooled(images)))


def _classifier(params: Params, folder: Path) -> Path:
    SmallClassifier(params.generator.classes, params.classifier.channels).save(folder)
    return folder
