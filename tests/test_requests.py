"""What jobs ask of a machine, and how that is said to Snakemake."""

import pytest
from conftest import ROOT

from restok.config import Site
from restok.config.load import ConfigError, load_params, load_site
from restok.config.text import read_yaml
from restok.experiments.requests import Request, request, resources
from restok.training.parallel import require_division

IMAGENET = load_params(ROOT / "params/imagenet256.yaml")       # batches of 256: 8 micro-batches of 32, and 4 of 64


def site(**said):
    return load_site({"site": said})


@pytest.mark.parametrize(("step", "nodes", "tasks", "taken"), [
    ("tokenizer", 1, 8, (1, 8)), ("tokenizer", 2, 4, (2, 4)), ("tokenizer", 2, 8, (1, 8)), ("tokenizer", 1, 6, (1, 4)),
    ("tokenizer", 3, 2, (2, 2)), ("generator", 1, 8, (1, 4)), ("generator", 4, 2, (2, 2)), ("codes", 1, 8, (1, 1))])
def test_a_training_takes_as_many_processes_as_divide_its_batch(step, nodes, tasks, taken):
    asked = request(step, IMAGENET, label="250k", site=site(launcher="srun", nodes=nodes, tasks_per_node=tasks))
    assert (asked.nodes, asked.tasks) == taken and asked.gpus == asked.nodes * asked.tasks
    assert asked.memory == asked.tasks * request("codes", IMAGENET, Site()).memory            # of one machine
    if step != "codes":
        require_division(step, getattr(IMAGENET, f"{step}_training"), asked.gpus)


def test_parts_are_gathered_without_a_gpu():
    assert request("codes", IMAGENET, Site()).gpus == 1
    assert request("codes", IMAGENET, Site(), gathers=True)[:1] == (1,)
    assert request("codes", IMAGENET, Site(), gathers=True).gpus == request("data", IMAGENET, Site()).gpus == 0


def test_a_job_asks_for_no_more_time_than_a_site_gives():
    assert request("generator", IMAGENET, site(longest=60, warning=60)).minutes == 60
    assert request("generator", IMAGENET, Site()).minutes > 60


def test_a_training_has_time_before_it_is_told_to_save():
    demo = load_params(ROOT / "params/demo.yaml")
    asked = request("tokenizer", demo, site(launcher="srun", warning=3600), "250k").minutes
    assert asked == request("tokenizer", demo, Site(), "250k").minutes + 60


def test_a_cluster_is_told_partition_gpus_and_tasks():
    where = site(launcher="srun", nodes=2, tasks_per_node=4, cpu_partition="c", gpu_partition="g", gpu_model="h100")
    said = resources("tokenizer", Request(16, 1000, 60, 8, tasks=4, nodes=2), where)
    assert said == {
        "mem_mb": 1000, "runtime": 60, "gpu": 8, "gpu_model": "h100", "slurm_partition": "g", "in_turn": 1, "nodes": 2,
        "tasks_per_node": 4, "mpi": "srun", "slurm_extra": "--open-mode=append --signal=USR1@300 --gpus-per-node=h100:4",
        "launch": "bash workflow/scripts/tasks.sh --nodes=2 --ntasks-per-node=4 --cpus-per-task=16"}
    said = resources("tokenizer", Request(16, 1000, 60, 1), where)
    assert (said["mpi"], said["tasks_per_node"], "gpus-per-node" in said["slurm_extra"]) == ("", None, False)
    said = resources("data", Request(1, 1000, 60, 0), where)
    assert (said["slurm_partition"], said["gpu_model"]) == ("c", None) and "mpi" not in said


def test_one_machine_starts_processes_by_torchrun_and_one_as_it_is():
    several = resources("generator", Request(4, 1000, 60, 4, tasks=4), site(launcher="torchrun", tasks_per_node=4))
    assert several["launch"] == "torchrun --standalone --nproc-per-node 4 --no-python --" and several["mpi"] is None
    assert resources("generator", Request(4, 1000, 60, 1), Site())["launch"] == ""


@pytest.mark.parametrize(("said", "message"), [
    ({"gpu_modell": "h100"}, "site: gpu_modell: unknown key; did you mean 'gpu_model'?"),
    ({"tasks_per_node": 8}, "site: launcher: 'srun' or 'torchrun'"),
    ({"launcher": "torchrun", "nodes": 2, "tasks_per_node": 2}, "site: nodes: 1 with 'torchrun'"),
    ({"launcher": "srun", "nodes": 2}, "site: tasks_per_node: at least 2"),
    ({"longest": 12}, "site: longest: at least 13 minutes"), ({"run": "{x}"}, "site: run: "), ([], None)])
def test_a_site_is_checked(said, message):
    if message is None:
        assert load_site({"site": said}) == Site()
        return
    with pytest.raises(ConfigError) as error:
        load_site({"site": said})
    assert message in str(error.value)


def test_the_demo_asks_for_one_process():
    demo = load_params(ROOT / "params/demo.yaml")
    asked = request("tokenizer", demo, site(launcher="srun", nodes=2, tasks_per_node=8), "250k")
    assert (asked.nodes, asked.tasks, asked.gpus) == (1, 1, 0)


def test_a_profile_replaces_nothing_that_holds_everywhere():
    """What the default profile says wins over the same key of --profile, without a word."""
    everywhere, *machines = (read_yaml((ROOT / f"profiles/{name}/profile.yaml").read_text())
                             for name in ("default", "slurm", "workstation"))
    assert not [key for machine in machines for key in machine if key in everywhere]
    assert (ROOT / "slurm").resolve() == ROOT / "workflow/profiles/slurm"
