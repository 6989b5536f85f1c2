"""What a job asks of a machine, by the sizes in the parameters, which a profile maps to its own partitions and limits; and what
the jobs of a run need from outside the clone."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from restok.config import DINOV2, FDR6, Evaluation, Objective, Params
from restok.experiments.trials import Sheet

GPU_FROM = 20_000_000     # parameters: what is smaller trains on a CPU
BYTES = 64                # of main memory a parameter: weights, gradients, moments, average, and a copy of them to be saved
PRETRAINED = 6000         # MB: the sums of a measurement by Inception, and pretrained networks
FURTHER = 1500            # MB: each of FDr6's networks, and its sums
LEAST = 2000              # MB: a process with its libraries, a batch, and the sums of a measurement
READER = 400              # MB: a process that reads images


def parameters(params: Params) -> int:
    """Of the larger model, about: 12 width^2 a transformer layer."""
    tokenizer, generator = params.tokenizer, params.generator
    return max(12 * tokenizer.width**2 * (tokenizer.encoder_layers + tokenizer.decoder_layers),
               12 * generator.width**2 * generator.layers)


def large(params: Params) -> bool:
    """Whether the models, or a pretrained network beside them, take a GPU."""
    objective = params.objective
    networks = {objective.alignment.network, objective.perceptual_network.network, objective.discriminator.network,
                *params.evaluation.networks}
    return parameters(params) >= GPU_FROM or networks != {"digits"}


def memory_mb(params: Params) -> int:
    """Main memory of a job, in MB."""
    further = FURTHER * len({*FDR6, DINOV2[1]} & set(params.evaluation.networks))
    return LEAST + (PRETRAINED + further + BYTES * parameters(params) // 10**6 if large(params) else 0)


def gpus(params: Params) -> int:
    """GPUs of a job that runs a model."""
    return int(large(params))


class Wanted(NamedTuple):
    """A pretrained network: 'inception', 'dinov2', 'alex' and 'vgg' (for LPIPS), or one by its timm name."""

    network: str
    setting: str | None             # that may name a file of its weights
    file: str | None                # which it names; None: what `restok fetch` brings


def judges(evaluation: Evaluation) -> list[Wanted]:
    """The pretrained networks that measure, each once."""
    files = {**FDR6, **dict.fromkeys(DINOV2, "dinov2")}
    found = [Wanted(files.get(name, name), *evaluation.weights_of(name)) for name in evaluation.networks if name != "digits"]
    alex = Wanted("alex", "evaluation.lpips_weights", evaluation.lpips_weights)
    return list(dict.fromkeys(found + [alex] * evaluation.lpips))


def teachers(objective: Objective) -> list[Wanted]:
    """The pretrained networks that train a tokenizer: a term of weight 0 loads none."""
    alignment, perceptual, judge = objective.alignment, objective.perceptual_network.network, objective.discriminator
    aligned = objective.vf and (alignment.encoder or alignment.decoder)
    weighed = [(aligned, Wanted(alignment.network, "objective.alignment.weights", alignment.weights)),
               (objective.perceptual, Wanted(perceptual.removeprefix("lpips-"), None, None)),
               (objective.gan, Wanted(judge.network, "objective.discriminator.weights", judge.weights))]
    return [wanted for weight, wanted in weighed if weight and wanted.network != "digits"]


def wanted(params: Params, sheet: Sheet) -> list[Wanted]:
    """Every pretrained network of a parameter file and of its rows, each once."""
    every: list[Wanted] = [*teachers(params.objective), *judges(params.evaluation)]
    for trial in sheet.trials:
        every += [*([] if trial.tokenizer else teachers(trial.params.objective)), *judges(trial.params.evaluation)]
    return list(dict.fromkeys(every))


def finished_weights(sheet: Sheet) -> list[Path]:
    """The folders of finished models that rows name, but for those that the workflow makes, of another row or run."""
    named: Iterable[str | None] = (folder for trial in sheet.trials for folder in (trial.tokenizer, trial.generator))
    return [Path(folder) for folder in dict.fromkeys(named) if folder and not folder.startswith("results/")]


def brought(params: Params, sheet: Sheet) -> list[Path]:
    """The files and folders that jobs of the workflow read and none of them makes."""
    named = [Path(file) for file in (params.data.classes, params.evaluation.reference) if file]
    return [*named, *finished_weights(sheet)]


def self_contained(params: Params, sheet: Sheet) -> bool:
    """Whether a run needs nothing from outside the clone: no data set, no reference, no weights."""
    return params.data.source == "digits" and not wanted(params, sheet) and not brought(params, sheet)
