"""What the workflow shares: the parameter files, the rows of the sample sheet, and what of them a result depends on.

`{run}` is a parameter file, params/RUN.yaml; `{trial}` is RUN, its settings as they are, or RUN/experiments/ID.SEED, a row of
params/experiments.tsv with one seed.
"""

import json
from functools import cache
from pathlib import Path

from restok.experiments import load_sheet, trials
from restok.config.load import canonical_json, load_params
from snakemake.exceptions import WorkflowError

RUNS = sorted(path.stem for path in Path("params").glob("*.yaml"))


wildcard_constraints:
    run="|".join(RUNS),
    trial=rf"({'|'.join(RUNS)})(/experiments/\w+\.\d+)?",
    label=r"\w+",
    schedule="constant|linear|step|cosine",
    scale=r"[0-9.]+",
    start=r"[0-9.]+",


@cache
def params_of(run):
    return load_params(f"params/{run}.yaml")


@cache
def sheet_of(run):
    return load_sheet(f"params/{run}.yaml")


def run_of(wildcards):
    return Path(wildcards.trial).parts[0] if hasattr(wildcards, "trial") else wildcards.run


def trial_of(wildcards):
    known = sheet_of(run_of(wildcards)).by_name
    if wildcards.trial not in known:
        raise WorkflowError(
            f"{wildcards.trial}: not a row of params/experiments.tsv with one of its seeds; there are {', '.join(known)}"
        )
    return known[wildcards.trial]


def settings_of(wildcards):
    return trial_of(wildcards).params if hasattr(wildcards, "trial") else params_of(wildcards.run)


def depends_on(*names):
    """The settings that an output depends on, as JSON: Snakemake makes it anew when they change, and only then."""
    return lambda wildcards: canonical_json(settings_of(wildcards), *names)


def options(wildcards):
    """How a verb is told the settings."""
    run, _, experiment = wildcards.trial.partition("/experiments/")
    return f"--params params/{run}.yaml" + (f" --experiment {experiment}" if experiment else "")


def of_run(path):
    """A file or folder that all rows of a parameter file share."""
    return lambda wildcards: f"results/{run_of(wildcards)}/{path}"


def of_stage(stage, pattern):
    """A stage's result, in the folder of the trial that makes it."""

    def path(wildcards):
        trial = trial_of(wildcards)
        finished = {"tokenizer": trial.tokenizer, "generator": trial.generator}.get(stage)
        home = sheet_of(trial.run).home(stage, trial)
        return finished or f"results/{home.name}/{pattern.format(label=wildcards.label)}"

    return path


tokenizer = of_stage("tokenizer", "tokenizer/{label}")
codes = of_stage("codes", "codes/{label}")
generator = of_stage("generator", "generator/{label}")


def guidance(wildcards):
    """The search's choice, where the settings do not name a guidance."""
    if trial_of(wildcards).params.sampling.guidance:
        return []
    return [of_stage("guidance", "guidance/{label}.json")(wildcards)]


def guidance_option(wildcards, input):
    return f"--guidance {input.guidance}" if input.guidance else ""


def classifier(wildcards):
    """The demo's feature network, where the parameters train one."""
    run = run_of(wildcards)
    return [f"results/{run}/classifier"] if params_of(run).classifier else []


def classifier_option(wildcards, input):
    return f"--classifier {input.classifier}" if input.classifier else ""


def previous_checkpoint(wildcards):
    labels = list(settings_of(wildcards).tokenizer_training.checkpoints)
    if wildcards.label not in labels:
        raise WorkflowError(f"{wildcards.trial}: no checkpoint {wildcards.label!r}; there are {', '.join(labels)}")
    place = labels.index(wildcards.label)
    return [f"results/{wildcards.trial}/tokenizer/{labels[place - 1]}"] if place else []


def candidates(wildcards):
    search = settings_of(wildcards).guidance_search
    folder = f"results/{wildcards.trial}/guidance/{wildcards.label}"
    return [f"{folder}/{g.schedule}_{g.scale}_{g.start}.json" for g in search.candidates()]


def reference(wildcards):
    """The statistics that samples are held against."""
    run = run_of(wildcards)
    return f"results/{run}/reference/{'published' if params_of(run).evaluation.reference else 'validation'}.safetensors"


def referred(wildcards):
    """The images behind statistics."""
    if wildcards.name == "validation":
        return f"results/{wildcards.run}/data"
    return params_of(wildcards.run).evaluation.reference


def data_settings(wildcards):
    """The embedded digits are drawn at the tokenizer's size; images of a folder are packed as they are."""
    digits = params_of(wildcards.run).data.source == "digits"
    size = ["tokenizer.image_size"] if digits else []
    return depends_on("data.source", "data.path", "data.train", "data.validation", *size)(wildcards)


def small(wildcards):
    """The embedded images run on any CPU; everything else is sized for a GPU."""
    return params_of(run_of(wildcards)).data.source == "digits"


def memory(wildcards):
    return 2000 if small(wildcards) else 64000


def gpus(wildcards):
    return 0 if small(wildcards) else 1


def with_workers(wildcards):
    """One thread for the model and one for each loader process."""
    return 1 + params_of(run_of(wildcards)).data.workers


# What a report reads.


def entries(item):
    """What feeds a table or figure, as JSON: it is made anew when the sheet says otherwise."""
    return lambda wildcards: json.dumps([[e.name, e.trial.name, e.label] for e in sheet_of(wildcards.run).feeding(item)])


def evaluations(item):
    """The measurements that feed a table or figure: reconstruction, and generation where there is a generator."""

    def paths(wildcards):
        sheet, found = sheet_of(wildcards.run), []
        for _, trial, label in sheet.feeding(item):
            for protocol in ("reconstruction", "generation"):
                if protocol == "reconstruction" or trial.generator or not trial.tokenizer:
                    found.append(f"results/{sheet.home(protocol, trial).name}/evaluation/{label}/{protocol}.json")
        return list(dict.fromkeys(found))

    return paths


def searches(item):
    """The guidance of what feeds a table or figure, where it was searched."""

    def paths(wildcards):
        sheet = sheet_of(wildcards.run)
        return [
            f"results/{sheet.home('guidance', trial).name}/guidance/{label}.json"
            for _, trial, label in sheet.feeding(item)
            if not trial.params.sampling.guidance and not trial.tokenizer
        ]

    return paths


def of_every_checkpoint(pattern):
    """Of the main run alone."""
    return lambda wildcards: expand(pattern, run=wildcards.run, label=params_of(wildcards.run).tokenizer_training.checkpoints)


TABLE_INPUTS = {
    **{str(n): [evaluations(f"table{n}")] for n in range(1, 6)},
    "6": [searches("table6")],
    "10": [evaluations("table10"), searches("table10")],
    "release_switches": [evaluations("release_switches")],
}
FIGURE_INPUTS = {
    "5": [evaluations("fig5"), of_every_checkpoint("results/{run}/panel/{label}.npz")],
    "6": [evaluations("fig6"), of_every_checkpoint("results/{run}/samples/{label}.npz"), of_run("data")],
    "7": [evaluations("fig7")],
    "8": [of_run("layout.npz")],
    "9": [of_run("layout.npz")],
    "codebook": [evaluations("codebook")],
    "guidance": [searches("guidance")],
}


TABLES = [*(f"table{number}.csv" for number in range(1, 11)), "release_switches.csv"]


def reports(run):
    """Every table and figure of a run; the search for guidance, where there is one."""
    figures = ["fig5", "fig6", "fig7", "fig8", "fig9", "codebook"]
    figures += [] if params_of(run).sampling.guidance else ["guidance"]
    found = [*TABLES, *expand("table{number}.{kind}", number=range(2, 6), kind=["png", "pdf"])]
    found += expand("{name}.{kind}", name=figures, kind=["png", "pdf", "csv"])
    return [f"reports/{run}/{file}" for file in found]


def inputs(table):
    """The files that a table or figure is made from."""

    def paths(wildcards):
        found = [function(wildcards) for function in table.get(wildcards.name, [])]
        return [path for paths in found for path in ([paths] if isinstance(paths, str) else paths)]

    return paths
