"""Floating-point operations an image of each part of the chain, counted from the sizes in the parameters: two for each product
of matrices, of convolutions and of attention. What is small beside them (norms, activations, the optimizer) is left out."""

import re
from collections.abc import Callable
from itertools import pairwise

from restok.config import CNN, DINOV2, Generator, Params, Tokenizer
from restok.config.objective import Objective
from restok.experiments.work import Draw
from restok.hierarchy import merge_layers, scale_grids

# Forwards that a step takes: of what is trained (forward, backward to inputs, backward to weights), and of a frozen network
# through which gradients pass (forward, backward to inputs).
TRAINED, PASSED = 3, 2
# The 2015 Inception network of FID and the five of FDr6 at their own pixels, whatever the image's size, and LPIPS of a pair of
# 256 x 256 pixels, by the network below it: counted by torch.utils.flop_counter on the networks themselves, as
# tests/test_operations.py and tests/test_fdr6.py do.
JUDGES = {"inception": 11.43e9, "convnextv2": 30.71e9, "dinov2-256": 232e9, "mae": 123.1e9, "siglip2": 167.3e9, "clip": 232e9}
LPIPS = {"alex": 3.48e9, "vgg": 80.2e9}
LPIPS_SIDE = 256
# Width and layers of vision transformers, by the word in timm's names (Dosovitskiy et al. 2021, table 1; Touvron et al. 2021,
# table 1). Of a name without one, the largest that is common: an estimate should rather be too high.
SIZES = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24), "huge": (1280, 32)}
PATCH, SIDE = 16, 224         # of a vision transformer whose name does not say


def operations(part: str | Draw, params: Params) -> float:
    """Of one image in a part of `work.Task`: 'encode', 'decode', 'judge' (features), 'score' (those of the first network),
    'compare' (with its original), a Draw, or a step of training of 'tokenizer', 'generator' or 'classifier', each with all that
    it trains with. 'image' takes none."""
    if isinstance(part, Draw):
        return drawing(params.generator.model_copy(update={"ntp": part.ntp})) * (1 + part.guided)
    counts: dict[str, Callable[[], float]] = {
        "image": lambda: 0,
        "tokenizer": lambda: tokenizer_step(params),
        "generator": lambda: generator_step(params),
        "classifier": lambda: TRAINED * classifier(params),
        "encode": lambda: encoding(params.tokenizer),
        "decode": lambda: decoding(params.tokenizer),
        "judge": lambda: sum(judging(name, params) for name in params.evaluation.networks),
        "score": lambda: judging(params.evaluation.features, params),
        "compare": lambda: lpips("alex", params) if params.evaluation.lpips else 0}
    return counts[part]()


# The tokenizer


def encoding(config: Tokenizer) -> float:
    return cnn(config.cnn, config.image_size, decoder=False) + encoder(config) + nearest(config)


def decoding(config: Tokenizer) -> float:
    return decoder(config) + cnn(config.cnn, config.image_size, decoder=True)


def encoder(config: Tokenizer) -> float:
    """Its sequence grows by a scale within each layer that merges."""
    scales = [height * width for height, width in scale_grids(config.grid, config.merge_kernels)]
    merging, tokens, total = merge_layers(config.encoder_layers, config.scales), config.latents + scales[0], 0.0
    for layer in range(1, config.encoder_layers + 1):
        total += attention(tokens, tokens, config.width)
        if layer in merging:
            tokens += scales[1 + merging.index(layer)]
        total += 16 * tokens * config.width**2                              # an MLP four times as wide
    return total + 2 * config.width * (config.grid**2 * config.cnn.latent_channels + config.latents * config.codebook_dim)


def decoder(config: Tokenizer) -> float:
    tokens, width = config.latents + config.grid**2, config.width
    ends = 2 * width * (config.latents * config.codebook_dim + config.grid**2 * config.cnn.latent_channels)
    return config.decoder_layers * (attention(tokens, tokens, width) + 16 * tokens * width**2) + ends


def nearest(config: Tokenizer) -> float:
    return 2 * config.latents * config.codebook_dim * config.codebook_size


def attention(queries: int, keys: int, width: int) -> float:
    """Four projections, and the products of queries with keys and of their weights with values."""
    return 8 * queries * width**2 + 4 * queries * keys * width


def cnn(config: CNN, side: int, decoder: bool) -> float:
    """The tokenizer's CNN encoder or decoder: levels of residual blocks, each half as large a side as the one before."""
    widths = [config.channels * multiplier for multiplier in config.multipliers]
    sides = [side // 2**level for level in range(len(widths))]
    if decoder:
        widths, sides = widths[::-1], sides[::-1]
    pairs = list(pairwise([widths[0] if decoder else config.channels, *widths]))
    total = sum(_blocks(*pair, config.blocks) * at**2 for pair, at in zip(pairs, sides, strict=True))
    small = sides[0] if decoder else sides[-1]
    total += _blocks(*[widths[0] if decoder else widths[-1]] * 2, config.blocks) * small**2                  # the middle
    if decoder:
        ends = 9 * config.latent_channels * widths[0] * small**2 + 9 * 3 * widths[-1] * side**2
        ends += sum(9 * width**2 * at**2 for width, at in zip(widths, sides[1:], strict=False))              # upsamplers
    else:
        ends = 9 * 3 * config.channels * side**2 + widths[-1] * config.latent_channels * small**2
    return total + 2 * ends


def _blocks(inside: int, outside: int, count: int) -> float:
    """Of residual blocks, a pixel."""
    return 2 * (9 * inside * outside + (outside**2 if inside != outside else 0) + 9 * outside**2 * (2 * count - 1))


# The generator


def drawing(config: Generator) -> float:
    """Group after group; the tokens before are cached."""
    groups, drawn, total = config.groups, 0, 0.0
    for size in groups:
        drawn += size
        total += config.layers * attention(size, drawn, config.width)
    return total + config.tokens * _a_token(config)


def generator_step(params: Params) -> float:
    config, tokens = params.generator, params.generator.tokens
    layers = config.layers * attention(tokens, tokens, config.width) + tokens * _a_token(config)
    return (TRAINED + params.generator_training.checkpointing) * layers


def _a_token(config: Generator) -> float:
    """SwiGLU, and the head."""
    return config.layers * 6 * config.width * config.hidden + 2 * config.width * config.codebook_size


# Training of the tokenizer


def tokenizer_step(params: Params) -> float:
    """Eq. 4 and the discriminator's step. A term of weight 0 takes nothing. The adversary counts from the first step on."""
    config, objective = params.tokenizer, params.objective
    blocks = encoder(config) + decoder(config) * (1 + bool(objective.vf and objective.alignment.decoder))     # Eq. 2's tokens
    convolutions = cnn(config.cnn, config.image_size, decoder=False) + cnn(config.cnn, config.image_size, decoder=True)
    total = (TRAINED + params.tokenizer_training.checkpointing) * blocks + TRAINED * convolutions + nearest(config)
    return total + taught(objective, params) + judged(objective, params)


def taught(objective: Objective, params: Params) -> float:
    """By the teacher's features of the images, and by the perceptual distance of each reconstruction from its image."""
    total, aligned = 0.0, objective.alignment
    if objective.vf and (aligned.encoder or aligned.decoder):
        total += classifier(params) if aligned.network == "digits" else vit(aligned.network, params.tokenizer.grid)
    if objective.perceptual:
        network = objective.perceptual_network.network
        one = classifier(params) if network == "digits" else lpips(network.removeprefix("lpips-"), params) / 2
        total += (1 + PASSED) * one
    return total


def judged(objective: Objective, params: Params) -> float:
    """The adversary: its features of the reconstruction with gradients, for the tokenizer; then of both for its heads."""
    config = objective.discriminator
    if not objective.gan:
        return 0
    if config.network == "digits":
        sides = [params.tokenizer.image_size // 2**layer for layer in config.layers]
        features, widths = classifier(params), [params.classifier.channels[layer] for layer in config.layers]
        positions = [side**2 for side in sides]
    else:
        side = _number(r"_(\d{3})\b", config.network, SIDE) // _number(r"_patch(\d+)", config.network, PATCH)
        features, widths = vit(config.network, side, max(config.layers) + 1), [_size(config.network)[0]] * len(config.layers)
        positions = [side**2] * len(widths)
    heads = sum(20 * width**2 * count for width, count in zip(widths, positions, strict=True))   # kernels of 1 and of 9
    return (PASSED + 2) * features + (PASSED + 2 * TRAINED) * heads


# Networks that teach and judge


def vit(name: str, side: int, layers: int | None = None) -> float:
    """A vision transformer of side x side patches, up to a layer; the class token and registers beside them are few."""
    (width, depth), patch, tokens = _size(name), _number(r"_patch(\d+)", name, PATCH), side**2 + 1
    blocks = min(layers or depth, depth) * (attention(tokens, tokens, width) + 16 * tokens * width**2)
    return blocks + 2 * side**2 * 3 * patch**2 * width


def lpips(network: str, params: Params) -> float:
    """Of a pair of images: convolutions, which grow with their pixels."""
    return LPIPS[network] * (params.tokenizer.image_size / LPIPS_SIDE)**2


def classifier(params: Params) -> float:
    """The demo's feature network."""
    if params.classifier is None:
        return 0
    channels, side = params.classifier.channels, params.tokenizer.image_size
    return sum(18 * (inside + outside) * outside * (side // 2**stage)**2
               for stage, (inside, outside) in enumerate(pairwise([3, *channels]))) + 2 * channels[-1]**2


def judging(network: str, params: Params) -> float:
    """What measures an image, by its name in the parameters."""
    return JUDGES.get(network) or (vit("_large_patch14", 16) if network in DINOV2 else classifier(params))


def _size(name: str) -> tuple[int, int]:
    return next((size for word, size in SIZES.items() if f"_{word}" in name), SIZES["large"])


def _number(expression: str, name: str, otherwise: int) -> int:
    found = re.search(expression, name)
    return int(found[1]) if found else otherwise
