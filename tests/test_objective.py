"""The terms of the tokenizer's loss, one by one: closed forms, and where gradients go."""

import copy
import shutil
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import small_params
from safetensors.torch import save_file

from restok.config import Alignment as AlignmentConfig
from restok.config import Discriminator, Optimizer, Perceptual
from restok.networks.classifier import load_classifier
from restok.objective.adversarial import LeCam, diff_augment, hinge_discriminator, hinge_generator
from restok.objective.alignment import Alignment, load_teacher
from restok.objective.discriminator import FeatureDiscriminator
from restok.objective.perceptual import build_perceptual
from restok.objective.tokenizer import Adversary
from restok.training.tokenizer import TokenizerJob

POLICY = ("color", "translation", "cutout")
OPTIMIZER = Optimizer(learning_rate=1e-4, final_learning_rate=1e-5, warmup_steps=0, betas=(0.9, 0.95), weight_decay=0.0)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def alignment_config(**changes):
    return AlignmentConfig(**{"network": "digits", "weights": None, "encoder": 1.0, "decoder": 1.0, "margin": 0.85,
                              "projection": "teacher"} | changes)


def discriminator_config(network="digits", weights=None, layers=(0, 1)):
    return Discriminator(network=network, weights=weights, layers=layers, start=0, optimizer=OPTIMIZER, lecam=1e-3,
                         augment=POLICY)


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory):
    """Weights of timm's smallest vision transformer: 160 px, patches of 16, width 64."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit.r160_in1k")
    with torch.no_grad():
        network.cls_token.normal_()
    path = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file(network.state_dict(), path)
    return str(path)


# The classifier behind the demo's networks.


def test_classifier_maps_halve_and_a_saved_one_is_the_same(classifier, tmp_path):
    network, images = load_classifier(classifier), draw(2, 3, 16, 16)
    assert [tuple(m.shape) for m in network.maps(images)] == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 8, 4, 4)]
    assert network.pooled(images).shape == (2, network.width) and network(images).shape == (2, 10)
    network.save(tmp_path / "copy")
    assert torch.equal(load_classifier(tmp_path / "copy")(images), network(images))
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_a_classifier_that_is_missing_or_broken_names_folder_and_remedy(classifier, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*restok train-classifier"):
        load_classifier(tmp_path / "nowhere")
    classifier = shutil.copytree(classifier, tmp_path / "classifier")
    settings = (classifier / "config.json").read_text()
    for change, message in (('"classes": 11', "classifier/model.safetensors: does not fit .*'head.bias'.*train-classifier"),
                            ('"classes": 0', "classifier/config.json: classes.*restok train-classifier"),
                            ('"width": 8, "classes": 10', "classifier/config.json: width: unknown.*restok train-classifier")):
        (classifier / "config.json").write_text(settings.replace('"classes": 10', change))
        with pytest.raises(ValueError, match=message):
            load_classifier(classifier)
    (classifier / "config.json").write_text(settings)
    (classifier / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(ValueError, match=r"classifier.*restok train-classifier"):
        load_classifier(classifier)
    with pytest.raises(ValueError, match="restok train-classifier"):
        build_perceptual(Perceptual(network="digits"), None)


# Eq. 1 and 2.


def identity(alignment):
    for projection in alignment.phi.values():
        torch.nn.init.eye_(projection.weight)
    return alignment


@pytest.mark.parametrize("projection", ["teacher", "tokenizer"])
def test_aligned_features_cost_nothing_orthogonal_ones_the_margin_opposite_ones_more(projection):
    alignment = identity(Alignment(alignment_config(projection=projection), 4, 4, 4))
    x, y = torch.tensor([2.0, 0, 0, 0]), torch.tensor([0, 3.0, 0, 0])
    tokens, ours = x.expand(2, 5, 4), x.expand(2, 6, 4)
    for theirs, expected in ((x, 0.0), (y, 0.85), (-x, 1.85)):
        terms = alignment(tokens, ours, theirs.expand(2, 4), theirs.expand(2, 6, 4))
        assert {name: term.item() for name, term in terms.items()} == pytest.approx({"encoder": expected, "decoder": expected})


def test_the_encoder_aligns_the_mean_of_its_tokens_and_the_decoder_each_token():
    alignment = identity(Alignment(alignment_config(margin=1.0), 2, 2, 2))
    x, y = torch.tensor([1.0, 0]), torch.tensor([0, 1.0])
    mixed = torch.stack([x, y])[None]
    terms = alignment(mixed, mixed, (x + y)[None], x.expand(1, 2, 2))
    assert terms["encoder"].item() == pytest.approx(0, abs=1e-6) and terms["decoder"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("projection", ["teacher", "tokenizer"])
def test_the_papers_alignment_has_2098176_parameters(projection):
    with torch.device("meta"):
        alignment = Alignment(alignment_config(projection=projection), 1024, 1024, 1024)
    assert sum(p.numel() for p in alignment.parameters()) == 661_791_947 - 659_693_771 == 2_098_176


def test_a_term_of_weight_zero_has_no_parameters_and_is_not_computed():
    encoder = Alignment(alignment_config(decoder=0.0), 4, 3, 6)
    assert encoder.vf_token is None and [tuple(p.shape) for p in encoder.parameters()] == [(4, 3)]
    assert encoder(draw(2, 5, 4), None, draw(2, 3), draw(2, 7, 6)).keys() == {"encoder"}
    decoder = Alignment(alignment_config(encoder=0.0), 4, 3, 6)
    assert decoder.vf_token.shape == (1, 1, 4)
    assert decoder(None, draw(2, 7, 4), draw(2, 3), draw(2, 7, 6)).keys() == {"decoder"}
    neither = Alignment(alignment_config(encoder=0.0, decoder=0.0), 4, 3, 6)
    assert not list(neither.parameters()) and not neither(None, None, draw(2, 3), draw(2, 7, 6))


# Teachers.


def test_what_has_weight_zero_loads_no_network(classifier):
    """Each of the three networks is one that nobody has."""
    nobody = ["objective.alignment.network=nobody", "objective.discriminator.network=nobody",
              "objective.perceptual_network.network=lpips-vgg"]
    for vf in (["objective.vf=0.0"], ["objective.alignment.encoder=0", "objective.alignment.decoder=0"]):
        params = small_params(*nobody, "objective.perceptual=0", "objective.gan=0", *vf)
        job = TokenizerJob(params, classifier, torch.device("cpu"))
        losses = job.step((draw(2, 3, 16, 16), None), step=10_000)
        assert set(losses) == {"mse", "codebook", "commitment"}
        job.load_state_dict(job.state_dict())
    with pytest.raises(ValueError, match="nobody"):
        TokenizerJob(small_params(nobody[0]), classifier, torch.device("cpu"))
    with pytest.raises(ValueError, match="nobody"):
        TokenizerJob(small_params(nobody[1]), classifier, torch.device("cpu"))


@pytest.mark.parametrize("grid", [4, 16])
def test_the_demos_teacher_gives_one_patch_a_grid_position_without_gradient(classifier, grid):
    teacher = load_teacher(alignment_config(), grid, classifier).train()
    f_cls, f_patch = teacher(draw(2, 3, 16, 16).requires_grad_())
    assert f_cls.shape == (2, teacher.width) and f_patch.shape == (2, grid * grid, teacher.width)
    assert not f_cls.requires_grad and not any(m.training for m in teacher.modules())


def test_a_transformer_teacher_is_timms_network_on_normalised_images_at_the_tokenizers_grid(vit_file):
    teacher = load_teacher(alignment_config(network="test_vit.r160_in1k", weights=vit_file), 10, None)
    reference = timm.create_model("test_vit.r160_in1k", pretrained_cfg_overlay={"file": vit_file}, pretrained=True).eval()
    images, config = draw(2, 3, 160, 160), reference.pretrained_cfg
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        tokens = reference.forward_features((images - mean) / std)                   # one class token, then 10 x 10 patches
    f_cls, f_patch = teacher(images)
    assert torch.allclose(f_cls, tokens[:, 0], atol=1e-5) and torch.allclose(f_patch, tokens[:, 1:], atol=1e-5)
    for side, grid in ((32, 4), (256, 16)):
        small = load_teacher(alignment_config(network="test_vit.r160_in1k", weights=vit_file), grid, None)
        assert small(draw(1, 3, side, side))[1].shape == (1, grid * grid, small.width)


def test_registers_are_neither_class_nor_patch(monkeypatch):
    """DINOv3's own layout, class | 4 registers | patches, in one block of width 32."""
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch16_dinov3.lvd1689m", depth=1, embed_dim=32, num_heads=2)
    monkeypatch.setattr("restok.networks.backbone.create", lambda name, weights: network)
    teacher = load_teacher(alignment_config(network="dinov3"), 4, None)
    f_cls, f_patch = teacher(torch.full((1, 3, 64, 64), 0.5))
    tokens = network.forward_features(((0.5 - torch.tensor(network.pretrained_cfg["mean"]))
                                       / torch.tensor(network.pretrained_cfg["std"]))[None, :, None, None].expand(1, 3, 64, 64))
    assert tokens.shape == (1, 1 + 4 + 16, 32)
    assert torch.allclose(f_cls, tokens[:, 0], atol=1e-5) and torch.allclose(f_patch, tokens[:, 5:], atol=1e-5)


def test_a_transformer_without_a_class_token_cannot_teach(tmp_path):
    save_file(timm.create_model("test_vit2.r160_in1k").state_dict(), tmp_path / "vit2.safetensors")
    with pytest.raises(ValueError, match=r"test_vit2\.r160_in1k has no class token"):
        load_teacher(alignment_config(network="test_vit2.r160_in1k", weights=str(tmp_path / "vit2.safetensors")), 10, None)


def test_weights_that_do_not_fit_are_named(vit_file, tmp_path):
    def build(network, weights):
        return load_teacher(alignment_config(network=network, weights=str(weights)), 10, None)

    with pytest.raises(FileNotFoundError, match=r"absent\.pth.*test_vit"):
        build("test_vit", tmp_path / "absent.pth")
    with pytest.raises(ValueError, match=r"vit\.safetensors does not hold the weights of test_vit2"):
        build("test_vit2.r160_in1k", vit_file)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not hold"):
        build("test_vit.r160_in1k", tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"did you mean 'vit_small_patch16_224\.dino'"):
        build("vit_smal_patch16_224.dino", vit_file)
    torch.save(timm.create_model("test_resnet.r160_in1k").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"test_resnet\.r160_in1k is not a plain vision transformer"):
        build("test_resnet.r160_in1k", tmp_path / "resnet.pth")


# Perceptual distance.


@pytest.fixture(params=["digits", "lpips-alex"])
def perceptual(request, classifier, tmp_path, monkeypatch):
    torch.manual_seed(0)
    if request.param == "lpips-alex":                          # an untrained trunk where torch keeps its downloads
        import torchvision

        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        (tmp_path / "checkpoints").mkdir()
        name = Path(torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url).name
        trunk = torchvision.models.alexnet().features.state_dict()
        torch.save({f"features.{key}": tensor for key, tensor in trunk.items()}, tmp_path / "checkpoints" / name)
    return build_perceptual(Perceptual(network=request.param), classifier)


def test_perceptual_distance_is_zero_for_equal_images_and_pulls_only_the_first(perceptual):
    a, b = draw(2, 3, 64, 64, seed=1).requires_grad_(), draw(2, 3, 64, 64, seed=2).requires_grad_()
    assert perceptual(a, a).tolist() == [0, 0]
    distance = perceptual(a, b)
    assert distance.shape == (2,) and (distance > 0).all()
    distance.sum().backward()
    assert a.grad.abs().sum() > 0 and b.grad is None
    assert not any(p.requires_grad for p in perceptual.parameters())


def test_the_demos_distance_follows_lpips_recipe(classifier):
    a, b = draw(1, 3, 8, 8, seed=1), draw(1, 3, 8, 8, seed=2)
    network, stages = load_classifier(classifier), []
    for x, y in zip(network.maps(a), network.maps(b), strict=True):
        cosine = F.cosine_similarity(x, y, dim=1)              # |x - y|^2 = |x|^2 + |y|^2 - 2 cos of unit vectors, or of
        alive = (x.any(dim=1).float(), y.any(dim=1).float())   # zero where every ReLU is dead
        stages.append((alive[0] + alive[1] - 2 * cosine).mean())
    distance = build_perceptual(Perceptual(network="digits"), classifier)(a, b)
    assert distance.item() == pytest.approx(torch.stack(stages).mean().item(), rel=1e-4)


# The adversary.


def test_hinge_closed_forms():
    real, fake = torch.tensor([[3.0, 0.0]]), torch.tensor([[-2.0, 1.0]])
    assert hinge_discriminator(real, fake).item() == (0 + 1) / 2 + (0 + 2) / 2
    assert hinge_generator(fake).item() == 0.5


def test_lecam_closed_form_and_exact_resume():
    lecam = LeCam(decay=0.75)
    real, fake = torch.tensor([[2.0, -1.0]]), torch.tensor([[-3.0, 1.0]])
    assert lecam(real, fake).item() == (4 + 0) / 2 + (9 + 0) / 2                      # averages still 0
    lecam.update(real.mean(), fake.mean())
    assert (lecam.real.item(), lecam.fake.item()) == (0.125, -0.25)
    expected = ((2 + 0.25) ** 2 + 0) / 2 + ((0.125 + 3) ** 2 + 0) / 2
    resumed = LeCam(decay=0.75)
    resumed.load_state_dict(lecam.state_dict())
    assert lecam(real, fake).item() == resumed(real, fake).item() == pytest.approx(expected)
    assert resumed.real.item() == 0.125                                               # a loss alone moves no average


@pytest.fixture(params=["digits", "vit"])
def discriminator(request, classifier, vit_file):
    torch.manual_seed(0)
    if request.param == "digits":
        return FeatureDiscriminator(discriminator_config(), classifier)
    return FeatureDiscriminator(discriminator_config("test_vit.r160_in1k", vit_file, (1, 5)), None)


def test_gradients_pass_the_frozen_backbone_to_the_images_and_train_only_the_heads(discriminator):
    images = draw(2, 3, 32, 32).requires_grad_()
    logits = discriminator(images)
    assert logits.shape == (2, {4: 32 * 32 + 16 * 16, 64: 2 * 10 * 10}[discriminator.backbone.widths[0]])
    logits.sum().backward()
    assert images.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    trained = {id(p) for p in discriminator.parameters() if p.requires_grad}
    assert trained == {id(p) for p in discriminator.heads.parameters()}
    assert discriminator.train().heads.training and not discriminator.backbone.training


@pytest.mark.parametrize("network", ["digits", "test_vit.r160_in1k"])
def test_the_generators_loss_reaches_the_images_and_not_the_heads(network, classifier, vit_file):
    adversary = Adversary(discriminator_config(network, vit_file), classifier)
    plain, heads = copy.deepcopy(adversary), adversary.discriminator.heads
    images, others = (draw(2, 3, 32, 32).requires_grad_() for _ in range(2))
    start = {name: value.clone() for name, value in heads.state_dict().items()}
    loss = adversary.generator_loss(images, seeded(1))
    expected = hinge_generator(plain.discriminator(diff_augment(others, POLICY, seeded(1))))     # gradients everywhere
    loss.backward()
    expected.backward()
    assert all(p.grad is None for p in heads.parameters())
    assert torch.equal(loss, expected) and torch.equal(images.grad, others.grad) and images.grad.any()
    assert not all(torch.equal(value, start[name]) for name, value in heads.state_dict().items())    # the spectral norm's u, v
    assert all(torch.equal(value, plain.discriminator.heads.state_dict()[name]) for name, value in heads.state_dict().items())
    adversary.discriminator_loss(images, others, seeded(2)).backward()
    assert all(p.grad is not None for p in heads.parameters())


def test_an_adversarys_state_holds_the_heads_and_nothing_pretrained(discriminator, classifier):
    adversary = Adversary(discriminator_config(), classifier)
    adversary.discriminator = discriminator
    images, state = draw(2, 3, 32, 32), copy.deepcopy(adversary.trained_state())
    names = discriminator.state_dict()
    assert set(state["heads"]) == {name.removeprefix("heads.") for name in names if name.startswith("heads.")}
    logits = discriminator.eval()(images)
    with torch.no_grad():
        for parameter in discriminator.heads.parameters():
            parameter.normal_()
    assert not torch.equal(discriminator(images), logits)
    adversary.load_trained_state(state)
    assert torch.equal(discriminator(images), logits)


def test_a_logit_depends_on_its_own_image_alone(discriminator):
    images = draw(3, 3, 32, 32)
    assert torch.allclose(discriminator.eval()(images)[1:2], discriminator(images[1:2]), atol=1e-5)


def test_layers_that_a_network_lacks_are_refused(classifier):
    with pytest.raises(ValueError, match=r"layers: \[0, 3\]; digits has layers 0 to 2"):
        FeatureDiscriminator(discriminator_config(layers=(0, 3)), classifier)


# DiffAugment.


def test_no_policy_leaves_images_alone():
    images = draw(2, 3, 16, 16)
    assert diff_augment(images, (), seeded(0)) is images


@pytest.mark.parametrize("policy", [POLICY, *((name,) for name in POLICY)])
def test_augmentation_is_the_seeds_alone_and_differs_between_images(policy):
    images = draw(1, 3, 32, 32).expand(4, -1, -1, -1)
    first, again, other = (diff_augment(images, policy, seeded(seed)) for seed in (0, 0, 1))
    assert first.shape == images.shape and torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_augmentation_is_differentiable():
    images = draw(2, 3, 4, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, POLICY, seeded(0)), images)


def test_cutout_greys_a_window_of_half_the_sides_and_translation_shifts_by_an_eighth_at_most():
    white = torch.ones(64, 3, 16, 16)
    grey = (diff_augment(white, ("cutout",), seeded(0)) == 0.5)[:, 0]
    assert grey.sum(dim=(1, 2)).max() == 8 * 8 and grey.any(dim=1).sum(dim=1).min() >= 4
    columns = torch.arange(16.0).expand(64, 3, 16, 16)
    moved = diff_augment(columns, ("translation",), seeded(0))[:, 0, 8, 8]           # the column that came to column 8
    assert set(moved.tolist()) == {6, 7, 8, 9, 10}


def test_colour_keeps_a_grey_image_grey_and_moves_it_by_a_quarter_at_most():
    grey = torch.full((64, 3, 4, 4), 0.5)
    level = diff_augment(grey, ("color",), seeded(0))
    assert torch.allclose(level, level[:, :1, :1, :1].expand_as(level), atol=1e-6)
    shift = (level - 0.5).abs().amax(dim=(1, 2, 3))
    assert 0.2 < shift.max() <= 0.25
