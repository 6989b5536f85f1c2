"""Names and settings that the workflow meets: planned, with every name as one word of its command, or refused."""

from spoilt.case import Case, Spoil, both, bytes_of, copied, folder, garbage, text, written
from spoilt.chain import RUN

PLAN = "snakemake --cores 1 --dry-run --printshellcmds"

REFERENCE = "results/run/reference/published.safetensors"
OF_A_ROW = "results/run/evaluation/a.10086/released/reconstruction.json"


def row(weights: str) -> Spoil:
    """One more row of the sheet, of a finished tokenizer."""
    return bytes_of("params/experiments.tsv", lambda data: data + f"a\tmain\t\ttable1\t\t{weights}\t\n".encode())


def named(name: str, shown: str) -> Case:
    """A parameter file of that name; `shown` is how a shell takes it."""
    return Case(f"a parameter file {name}.yaml", f'{PLAN} -- "results/{name}/layout.npz"', shown,
                copied(RUN, f"params/{name}.yaml"), read=True)


PLANNED = [
    named("my run", r"--params params/'my run'\.yaml"), named("a&touch harm&b", r"--params params/'a&touch harm&b'\.yaml"),
    named("a;touch harm", r"--params params/'a;touch harm'\.yaml"), named("w[1]*", r"--params params/'w\[1\]\*'\.yaml"),
    Case("a parameter file in braces", f"{PLAN} -- 'results/{{a}}/layout.npz'", r"\{a\}", copied(RUN, "params/{a}.yaml")),
    Case("a run that is not there", f"{PLAN} --config run=nosuch", r"params/nosuch\.yaml"),
    Case("a broken file beside the parameters", f"{PLAN} -- results/run/layout.npz",
         "results/run/layout.npz|Nothing to be done", garbage("params/other.yaml"), read=True),
    Case("a reference with a quote", f"{PLAN} -- {REFERENCE}", r"""'it'"'"'s\.npz'""",
         both(text(RUN, "reference: null", 'reference: "it\'s.npz"'), written("it's.npz", "")), read=True),
    Case("a reference that is not there", f"{PLAN} -- {REFERENCE}", "rule doctor:",
         text(RUN, "reference: null", "reference: nowhere.npz"), read=True),
    Case("weights of a row that are not there", f"{PLAN} -- {OF_A_ROW}", "rule doctor:", row("nowhere"), read=True),
    Case("weights of a row that would run a command", f"{PLAN} -- {OF_A_ROW}", r"--tokenizer 'a;touch>harm'",
         both(row("a;touch>harm"), folder("a;touch>harm")), read=True),
    Case("a broken sheet", f"{PLAN} -- reports/run/table1.csv", r"experiments\.tsv", garbage("params/experiments.tsv")),
]
