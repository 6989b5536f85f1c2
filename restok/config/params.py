"""A parameter file, whole: what holds between its sections."""

from typing import Self

from pydantic import JsonValue, model_validator

from restok.config.base import Config, Seed, Seeds, Threads
from restok.config.data import Codes, Data
from restok.config.evaluation import Classifier, Evaluation
from restok.config.generator import Generator, GuidanceSearch, Sampling
from restok.config.objective import Objective
from restok.config.tokenizer import Tokenizer
from restok.config.training import GeneratorTraining, TokenizerTraining


class Experiments(Config):
    """What the rows of params/experiments.tsv share."""

    main_seeds: Seeds                      # seeds of a row of base 'main': `seed` and the ones after it
    ablation_seeds: Seeds
    ablation: dict[str, JsonValue]         # what rows of base 'ablation' change first: SECTION.KEY: VALUE


class Params(Config):
    seed: Seed
    threads: Threads                       # CPU threads of a model's arithmetic: their number changes the last digits
    data: Data
    classifier: Classifier | None
    tokenizer: Tokenizer
    tokenizer_training: TokenizerTraining
    objective: Objective
    codes: Codes
    generator: Generator
    generator_training: GeneratorTraining
    sampling: Sampling
    guidance_search: GuidanceSearch
    evaluation: Evaluation
    experiments: Experiments

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.sampling.class_cache == "overwritten" and self.generator.ntp != 1:
            raise ValueError(f"sampling.class_cache: the fault belongs to generator.ntp 1, not {self.generator.ntp!r}")
        for ours, theirs in (("codebook_size", "codebook_size"), ("tokens", "latents")):
            a, b = getattr(self.generator, ours), getattr(self.tokenizer, theirs)
            if a != b:
                raise ValueError(f"generator.{ours}: {a} is not tokenizer.{theirs}, which is {b}")
        networks = (self.objective.alignment.network, self.objective.perceptual_network.network,
                    self.objective.discriminator.network, *self.evaluation.networks)
        if "digits" in networks and self.classifier is None:
            raise ValueError("classifier: null, but 'digits' features are asked for")
        judged, stages = self.objective.discriminator.layers, len(self.classifier.channels) if self.classifier else 0
        if self.objective.discriminator.network == "digits" and max(judged) >= stages:
            raise ValueError(f"objective.discriminator.layers: {list(judged)}, but classifier.channels has {stages} stages")
        return self
