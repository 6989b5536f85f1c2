"""What the verbs that measure share: their options, by group, and what those name."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restok.cli.base import AnyParams, Classifier, Experiment, Overrides, option, read
from restok.config import UNGUIDED, Evaluation, Params, Tokenizer
from restok.config.base import LARGEST_SEED
from restok.config.load import ConfigError, load_protocol, parse

if TYPE_CHECKING:                        # torch takes seconds to import, and `--help` does without
    from restok.metrics.statistics import Statistics
    from restok.stages.evaluator import Evaluator
    from restok.stages.subjects import Subject


@dataclass(frozen=True)
class SubjectOptions:
    """What to measure: images of files, or straight from the models."""

    samples: option(list[Path] | None, "What to measure: an npz (arr_0), a folder of images, tar or parquet, or statistics "
                    "files of all its parts (repeat the option); with --tokenizer, of what it makes.") = None
    originals: option(Path | None, "Measure reconstructions of these, image by image: an npz, a folder of images, tar or "
                      "parquet, or a folder that `restok prepare` wrote.") = None
    tokenizer: option(Path | None, "Measure images straight from this tokenizer: reconstructions, or with --generator "
                      "samples.") = None
    generator: option(Path | None, "Generator to sample from, with --tokenizer, and --guidance or --unguided.") = None
    guidance: option(Path | None, "File that `restok search-guidance` wrote; else sampling.guidance.") = None
    unguided: option(bool, "Sample without guidance, whatever sampling.guidance says.", "--unguided") = False
    seed: option(int | None, "Seed to sample with, else the parameters'; of --samples, the seed they were drawn from.",
                 min=0, max=LARGEST_SEED) = None

    @property
    def are_statistics(self) -> bool:
        """Whether they were measured already."""
        return bool(self.samples) and all(path.suffix == ".safetensors" for path in self.samples)

    def require_one(self, params: Params | None) -> None:
        """Raises ConfigError where the options name nothing, or two things at once."""
        parts = self.are_statistics and self.tokenizer          # of what the models make
        if bool(self.samples) == bool(self.tokenizer) and not parts:
            raise ConfigError("name either --samples, or --tokenizer to measure straight from the models")
        if self.samples and (self.generator or self.guidance or self.unguided) and not parts:
            raise ConfigError("--generator, --guidance and --unguided draw samples with --tokenizer; leave them out, or "
                              "--samples")
        if self.guidance and self.unguided:
            raise ConfigError("--guidance and --unguided: samples are drawn with guidance or without; leave one out")
        if self.are_statistics and self.originals and not parts:
            raise ConfigError("statistics files know what they were measured beside; leave --originals out")
        if self.samples and len(self.samples) > 1 and not self.are_statistics:
            raise ConfigError("several --samples: only statistics files (.safetensors) of one set's parts add")
        if self.tokenizer and not self.generator and (self.originals is None or self.guidance or self.unguided):
            raise ConfigError("--tokenizer alone measures reconstructions: name their --originals; samples take --generator "
                              "and --guidance or --unguided too")
        if self.generator and (params is None or self.originals):
            raise ConfigError("samples from a generator take --params, and have no --originals")

    def drawn_from(self, params: Params | None) -> int | None:
        """The seed of samples; None where nobody knows it, and of reconstructions straight from a tokenizer."""
        if self.generator and self.seed is None:
            return params.seed
        return self.seed if self.generator or self.samples else None

    def load(self, evaluator: "Evaluator", params: Params | None) -> "Subject | Statistics":
        """What the options name, which `require_one` let pass. Of statistics files the sum."""
        from restok.stages.measure import added
        if not self.are_statistics:
            return self._images(evaluator, params)
        return added(self.samples, evaluator.network.device,
                     evaluator.begin(self._images(evaluator, params)) if self.tokenizer else None)

    def _images(self, evaluator: "Evaluator", params: Params | None) -> "Subject":
        from restok.data.images import open_images
        from restok.files import read_json
        from restok.stages import subjects
        from restok.stages.sampler import Sampler
        from restok.stages.search import read_guidance
        if self.generator:
            if self.unguided:                                    # as if they said so: what they say leaves no trace
                params = params.model_copy(update={"sampling": params.sampling.model_copy(update={"guidance": UNGUIDED})})
            guidance = read_guidance(self.guidance) if self.guidance else params.sampling.guidance
            if guidance is None:
                raise ConfigError("samples from a generator take --guidance, --unguided, or parameters whose sampling.guidance "
                                  "is not null")
            return subjects.sampled(Sampler(self.tokenizer, self.generator, params.sampling), params, guidance,
                                    params.evaluation.samples_per_class, self.drawn_from(params), self.guidance)
        crop, workers = evaluator.crop, evaluator.workers
        if self.tokenizer:
            settings = self.tokenizer / "config.json"
            side = parse(Tokenizer, read_json(settings), str(settings)).image_size
            originals = open_images(self.originals, side, workers)
            return subjects.reconstructed(self.tokenizer, originals, evaluator.settings.batch_size, self.originals)
        (path,) = self.samples
        originals = open_images(self.originals, crop, workers) if self.originals else None
        prepared = (path / "manifest.json").is_file()            # other samples are measured as they are, or refused
        samples = open_images(path, crop if prepared else None, workers)
        if originals is None:
            return subjects.images_of(samples, path)
        return subjects.reconstructions_of(samples, originals, path, params.tokenizer if params else None)


Judges = option(str | None, "digits, inception, dinov2 or dinov2-bicubic, or several: the first one's metrics bear the plain "
                "names; fdr6: Inception and FDr6's five, which behind another may be named one by one; else evaluation."
                "features and .also.")


def judged_by(features: str | None) -> list[str]:
    """What `--features` changes of the parameters."""
    if not features:
        return []
    named = features.split(",")
    first, *others = named if named[0] != "fdr6" else ["inception", *named]
    return [f"evaluation.features={first}", f"evaluation.also=[{', '.join(others)}]"]


@dataclass(frozen=True)
class NetworkOptions:
    """With what to measure: the command's options go before the parameter file, and that before the paper's protocol."""

    params: AnyParams = None
    experiment: Experiment = None
    overrides: Overrides = None
    features: Judges = None
    weights: option(Path | None, "File of the Inception network; else evaluation.weights.") = None
    classifier: Classifier = None
    crop: option(int | None, "Side of the centre crops of reference and originals in folders; else the tokenizer's image "
                 "size.", min=1) = None
    workers: option(int | None, "Threads that decode images; else data.workers.", min=0, max=256) = None

    def read(self) -> tuple[Params | None, Evaluation]:
        """The parameter file, where one was named, and the protocol."""
        if self.experiment and not self.params:
            raise ConfigError("--experiment changes a parameter file; name one with --params")
        if self.weights and self.features and not {"inception", "fdr6"} & {*self.features.split(",")}:
            raise ConfigError(f"--weights is of the Inception network, and --features {self.features} asks for others; of "
                              "DINOv2 name a file with --set evaluation.dinov2_weights=FILE")
        overrides = [*(self.overrides or []), *judged_by(self.features)]
        if self.weights:
            overrides.append(f"evaluation.weights={json.dumps(str(self.weights))}")
        params = read(self.params, overrides, self.experiment) if self.params else None
        return params, params.evaluation if params else load_protocol(overrides)

    def load(self, params: Params | None, protocol: Evaluation, paired: bool, spare: bool = False) -> "Evaluator":
        """With LPIPS where images are `paired` with originals; with `spare`, without FDr6's networks where one is missing."""
        from restok.distributed import use_threads
        from restok.stages.evaluator import Evaluator
        crop, workers = self.crop, self.workers
        if params:
            use_threads(params.threads)
            crop = params.tokenizer.image_size if crop is None else crop
            workers = params.data.workers if workers is None else workers
        return Evaluator.load(protocol, self.classifier, crop, workers or 0, paired, spare)
