"""What the rules share. `{run}` is a parameter file, params/RUN.yaml; `{trial}` is main, its settings as they are, or
ID.SEED, a row of params/experiments.tsv with one seed. Where a result lies, and what it depends on, is in
restok/experiments/places.py; what a table or figure is made from, in items.py beside it."""

import json
import re
from functools import cache
from pathlib import Path

from restok.config.load import CHOICE, ConfigError, canonical_json, load_choice, load_params, load_site
from restok.experiments import ITEMS, Tree, artifacts, demand, estimate, load_sheet, requests, work
from restok.experiments.places import STAGES, depends_on, part_pattern, pattern
from restok.experiments.trials import MAIN


configfile: CHOICE


SITE = load_site(config)
NUMBER = r"\d[\d.]*(e[+-]\d+)?"  # as Python writes a float


def named(*kinds):
    return "|".join(item.name for item in ITEMS.values() if item.kind in kinds)


wildcard_constraints:
    run=r"[^/]+",
    trial=artifacts.NAMES["trial"],
    label=artifacts.NAMES["label"],
    part=r"\d+-of-\d+",
    schedule="constant|linear|step|cosine",
    scale=NUMBER,
    start=NUMBER,
    rank=artifacts.NAMES["rank"],
    table=named("table", "chart"),
    chart=named("chart"),
    figure=named("figure"),
    file="|".join(map(re.escape, [*artifacts.PAGE, *(file for item in ITEMS.values() for file in item.files)])),


@cache
def params_of(run):
    if set(run) & set("{}"):
        raise ConfigError(f"params/{run}.yaml: Snakemake takes names in braces for wildcards; rename the file")
    return load_params(f"params/{run}.yaml")


def choice():
    """What run.yaml chooses, or --config run=NAME rows=all."""
    return load_choice(config)


def chosen_run():
    params_of(choice().run)
    return choice().run


@cache
def tree_of(run):
    return Tree(f"results/{run}", load_sheet(f"params/{run}.yaml"))


def trial_of(wildcards):
    return tree_of(wildcards.run).sheet.trial(wildcards.trial)


def settings_of(wildcards):
    return trial_of(wildcards).params if hasattr(wildcards, "trial") else params_of(wildcards.run)


def settings(stage):
    """What an output depends on: Snakemake makes it anew when that changes, and only then."""
    return lambda wildcards: depends_on(stage, settings_of(wildcards), wildcards.get("label"))


def result(stage):
    """The result of a stage that all rows share, or of a row: where the first row that shares it has it."""

    def path(wildcards):
        of_row = () if STAGES[stage].shared else (trial_of(wildcards), wildcards.label)
        return brought(wildcards.run, str(tree_of(wildcards.run).path(stage, *of_row)))

    return path


@cache
def missing(run):
    """What no job makes and is not there."""
    return [str(path) for path in demand.brought(params_of(run), tree_of(run).sheet) if not path.exists()]


def brought(run, path):
    """An input that may come from outside: in the place of one that is missing stands the doctor, who says so and fails."""
    return estimate.DOCTOR.format(run=run) if path in missing(run) else path


def examined(wildcards):
    """What the doctor found, where a run needs anything from outside the clone."""
    run = wildcards.run
    alone = demand.self_contained(params_of(run), tree_of(run).sheet)
    return [] if alone else [estimate.DOCTOR.format(run=run)]


def digest_of(run):
    """Of all settings of a run, and what its rows change."""
    return work.digest(params_of(run), tree_of(run).sheet)


def of_tree(method):
    """What a row reads by a method of the tree: `previous`, `candidates`, `finalists`."""
    return lambda wildcards: [str(path) for path in method(tree_of(wildcards.run), trial_of(wildcards), wildcards.label)]


def options(wildcards):
    """How a verb is told the settings, a word an element: shell lines quote (`:q`) all that comes from names and files."""
    experiment = [] if wildcards.trial == MAIN else ["--experiment", wildcards.trial]
    return ["--params", f"params/{wildcards.run}.yaml", *experiment]


def optional(name):
    """`--NAME FILE` where the rule has such an input."""
    return lambda wildcards, input: [f"--{name}", str(input[name])] if input[name] else []


def repeated(name, inputs):
    """`--NAME FILE` for each of such inputs."""
    return lambda wildcards, input: [word for file in input.get(inputs, []) for word in (f"--{name}", str(file))]


def classes(wildcards):
    """The list of the classes that are taken, where the parameters name one."""
    named = params_of(wildcards.run).data.classes
    return [brought(wildcards.run, named)] if named else []


def guidance(wildcards):
    """The search's choice, where the settings do not name a guidance."""
    return [] if settings_of(wildcards).sampling.guidance else [result("guidance")(wildcards)]


def classifier(wildcards):
    """The run's own feature network, where the parameters train one."""
    return [result("classifier")(wildcards)] if settings_of(wildcards).classifier else []


def reference(wildcards, name=None):
    """The statistics that samples, or reconstructions, are held against."""
    name = name or ("published" if settings_of(wildcards).evaluation.reference else "validation")
    return str(tree_of(wildcards.run).path("reference", name=name))


def referred(wildcards):
    """The images behind statistics."""
    if wildcards.name == "validation":
        return result("data")(wildcards)
    return brought(wildcards.run, params_of(wildcards.run).evaluation.reference)


def request_of(step, wildcards, input):
    """What a job asks of a machine: of a part, of the whole, or of the gathering of parts."""
    parts = int(wildcards.part.partition("-of-")[2]) if hasattr(wildcards, "part") else 1
    label, gathers = wildcards.get("label"), bool(input.get("parts"))
    return requests.request(step, settings_of(wildcards), SITE, label, parts, gathers)


def asks(step):
    """What a job asks of a machine, as resources."""

    def resource(name):
        return lambda wildcards, input: requests.resources(step, request_of(step, wildcards, input), SITE)[name]

    return {name: resource(name) for name in requests.names(step)}


def threads(step):
    return lambda wildcards, input: request_of(step, wildcards, input).threads


def pictured(wildcards):
    """How many classes Fig. 6 shows at most."""
    return min(20, settings_of(wildcards).generator.classes)


def made_from(kind):
    """The results that a table or figure shows."""
    return lambda wildcards: [str(path) for path in tree_of(wildcards.run).inputs(ITEMS[wildcards[kind]])]


def shows(kind):
    """The rows of the sheet and the settings that a table or figure shows: it is made anew when they change."""
    return lambda wildcards: json.dumps(
        [
            *([e.name, e.trial.name, e.label] for e in tree_of(wildcards.run).sheet.feeding(wildcards[kind])),
            canonical_json(params_of(wildcards.run), *type(params_of(wildcards.run)).model_fields),
        ]
    )


def reports(run, rows):
    """The files of the tables and figures that show the run's own models ('main'), or of 'all'."""
    return [f"reports/{run}/{file}" for item in artifacts.shown(tree_of(run), params_of(run), rows) for file in item.files]


def kept(phase):
    """What a phase of the chain makes of the chosen run."""
    return lambda wildcards: artifacts.of_phase(phase, tree_of(chosen_run()), params_of(chosen_run()), choice().rows)
