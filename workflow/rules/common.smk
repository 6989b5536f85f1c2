"""What the workflow shares: the parameter files, and what of them a result depends on."""

from functools import cache
from pathlib import Path

from restok.params import facts, load_params

RUNS = sorted(path.stem for path in Path("params").glob("*.yaml"))


wildcard_constraints:
    run="|".join(RUNS),
    label=r"\w+",
    schedule="constant|linear|step|cosine",
    scale=r"[0-9.]+",
    start=r"[0-9.]+",


@cache
def params_of(run):
    return load_params(f"params/{run}.yaml")


def depends_on(*names):
    """The settings that an output depends on, as JSON: Snakemake makes it anew when they change, and only then."""
    return lambda wildcards: facts(params_of(wildcards.run), *names)


def checkpoints(run):
    return list(params_of(run).tokenizer_training.checkpoints)


def classifier(wildcards):
    """The demo's feature network, where the parameters train one."""
    return [f"results/{wildcards.run}/classifier"] if params_of(wildcards.run).classifier else []


def classifier_option(wildcards, input):
    return f"--classifier {input.classifier}" if input.classifier else ""


def previous_checkpoint(wildcards):
    labels = checkpoints(wildcards.run)
    place = labels.index(wildcards.label)
    return [f"results/{wildcards.run}/tokenizer/{labels[place - 1]}"] if place else []


def candidates(wildcards):
    search = params_of(wildcards.run).guidance_search
    folder = f"results/{wildcards.run}/guidance/{wildcards.label}"
    return [f"{folder}/{g.schedule}_{g.scale}_{g.start}.json" for g in search.candidates()]


def validation(wildcards):
    """The statistics of the validation split."""
    return f"results/{wildcards.run}/reference/validation.safetensors"


def reference(wildcards):
    """The statistics that samples are held against."""
    published = params_of(wildcards.run).evaluation.reference
    return f"results/{wildcards.run}/reference/published.safetensors" if published else validation(wildcards)


def referred(wildcards):
    """The images behind statistics."""
    if wildcards.name == "validation":
        return f"results/{wildcards.run}/data"
    return params_of(wildcards.run).evaluation.reference


def evaluations(wildcards):
    return expand(
        "results/{run}/evaluation/{label}/{protocol}.json",
        run=wildcards.run,
        label=checkpoints(wildcards.run),
        protocol=["reconstruction", "generation"],
    )


def of_every_checkpoint(pattern):
    return lambda wildcards: expand(pattern, run=wildcards.run, label=checkpoints(wildcards.run))


FIGURE_INPUTS = {
    "5": "results/{run}/panel/{label}.npz",
    "6": "results/{run}/samples/{label}.npz",
}


# What a measurement reads of the parameters.
FEATURES = ["evaluation.features", "evaluation.weights", "evaluation.batch_size"]
RECONSTRUCTION = [*FEATURES, "evaluation.lpips", "evaluation.lpips_weights"]
CANDIDATE = ["seed", "sampling", *FEATURES, "guidance_search.samples_per_class"]
GENERATION = ["seed", "sampling", *FEATURES, "evaluation.samples_per_class", "evaluation.neighbours", "evaluation.distances"]


def data_settings(wildcards):
    """The embedded digits are drawn at the tokenizer's size; images of a folder are packed as they are."""
    digits = params_of(wildcards.run).data.source == "digits"
    size = ["tokenizer.image_size"] if digits else []
    return depends_on("data.source", "data.path", "data.train", "data.validation", *size)(wildcards)


def small(wildcards):
    """The embedded images run on any CPU; everything else is sized for a GPU."""
    return params_of(wildcards.run).data.source == "digits"


def memory(wildcards):
    return 2000 if small(wildcards) else 64000


def gpus(wildcards):
    return 0 if small(wildcards) else 1


def with_workers(wildcards):
    """One thread for the model and one for each loader process."""
    return 1 + params_of(wildcards.run).data.workers
