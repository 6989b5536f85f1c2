"""A profile of Snakemake, read as strictly as parameters. Snakemake itself passes in silence over an unknown key whose value is
a mapping, and over names of rules and groups that there are not."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from restok.config import Site
from restok.config.load import ConfigError, parse, read_tree
from restok.experiments import requests

# What Snakemake and its executor of SLURM read of a job's resources, beside those that the rules name.
RESOURCES = ("mem", "mem_mb", "mem_mib", "disk", "disk_mb", "disk_mib", "runtime", "tmpdir", "slurm_account", "slurm_partition",
             "slurm_cluster", "cluster", "clusters", "constraint", "qos", "mem_mb_per_cpu", "tasks", "tasks_per_node",
             "tasks_per_gpu", "cpus_per_task", "cpus_per_gpu", "nodes", "mpi", "gres", "gpu", "gpu_model", "slurm_extra")


class Profile(NamedTuple):
    """As written, and what the workflow reads of it."""

    file: Path
    tree: dict[str, Any]
    site: Site

    def pairs(self, key: str) -> dict[str, Any]:
        """What stands under a key, which may be a mapping, or a list of NAME=VALUE as on the command line."""
        found = self.tree.get(key) or {}
        if isinstance(found, dict):
            return found
        return dict(str(word).partition("=")[::2] for word in (found if isinstance(found, list) else [found]))

    def changed(self, rule: str) -> set[str]:
        """The resources of a rule that `set-resources` says."""
        return {name for where, _, name in _set_resources(self) if where == rule}


def read_profile(name: str) -> Profile:
    """The profile that `snakemake --profile NAME` takes. Raises ConfigError, a line a fault."""
    file = _find(name)
    tree = read_tree(file)
    faults = list(_unknown(file, tree))
    if "site" in tree and not _reads_itself(file, tree):
        faults.append(f"{file}: configfile: the workflow reads `site` only of files that are named here; write {file.name}")
    site = Site()
    try:
        site = parse(Site, tree.get("site") or {}, f"{file}: site")
    except ConfigError as error:
        faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return Profile(file, tree, site)


def _find(name: str) -> Path:
    """Where Snakemake looks: here, and in the folders of its configuration."""
    from snakemake.cli import get_appdirs, get_profile_dir

    try:
        found = get_profile_dir(name) if name else None
    except OSError as error:
        raise ConfigError(f"--profile {name}: cannot be read ({error.strerror})") from None
    if found is None:
        folders = get_appdirs()
        if Path(name).is_dir() and name:
            raise ConfigError(f"--profile {name}: a folder without profile.yaml; write one, as workflow/profiles/slurm has")
        raise ConfigError(f"--profile {name!r}: no such profile here, in {folders.user_config_dir} or in "
                          f"{folders.site_config_dir}; call it at the root of the clone, where `slurm` is one")
    return found[1]


def _unknown(file: Path, tree: dict[str, Any]) -> Iterator[str]:
    """Keys that are none of Snakemake's options, and values that it passes over."""
    from configargparse import ConfigFileParserException
    from snakemake.cli import get_argument_parser
    from snakemake.profiles import ProfileConfigFileParser
    from snakemake_interface_common.exceptions import WorkflowError

    try:
        parser = get_argument_parser()
    except (WorkflowError, OSError) as error:              # of an executor, which looks for its commands
        yield f"snakemake: {' '.join(str(error).split())}"
        return
    options = {key.lstrip("-") for action in parser._actions for key in parser.get_possible_config_keys(action)}
    for key in tree:
        if key not in options and key != "site":
            near = difflib.get_close_matches(key, [*options, "site"], n=1, cutoff=0.6)
            yield f"{file}: {key}: no option of Snakemake" + (f"; did you mean {near[0]!r}?" if near else "; remove it")
    try:
        with file.open(encoding="utf-8") as stream:
            taken = ProfileConfigFileParser().parse(stream)
    except (ConfigFileParserException, WorkflowError) as error:
        yield f"{file}: {' '.join(str(error).split())}"
        return
    for key, value in tree.items():
        if key in options and value is not None and key not in taken:
            yield f"{file}: {key}: Snakemake takes no mapping here, and would pass over it; write a value"


def _reads_itself(file: Path, tree: dict[str, Any]) -> bool:
    named = tree.get("configfile") or []
    places = [Path(place) for place in (named if isinstance(named, list) else [named]) if isinstance(place, str)]
    return any(file.resolve() in ((file.parent / place).resolve(), place.resolve()) for place in places)


def names(profile: Profile, rules: list[str], asked: list[str], scatter: list[str]) -> Iterator[str]:
    """Faults in what the profile says of rules, groups and resources: names that there are not, and limits of resources that no
    rule asks for (`asked`), nor the profile itself."""
    groups = set(map(str, profile.pairs("groups").values()))
    resources = {*RESOURCES, *requests.names("tokenizer"), *profile.pairs("resources")}
    asked = [*asked, *RESOURCES, *profile.pairs("default-resources"), *(name for _, _, name in _set_resources(profile))]
    for name in profile.pairs("resources"):
        if name not in asked:
            yield f"{profile.file}: resources: {name}: limits nothing, since no rule asks for it; leave it out"
    said = [*(("groups", name, rules) for name in profile.pairs("groups")),
            *(("group-components", name, groups) for name in profile.pairs("group-components")),
            *(("set-scatter", name, scatter) for name in profile.pairs("set-scatter")),
            *(("set-threads", name, rules) for name in profile.pairs("set-threads")),
            *(("default-resources", name, resources) for name in profile.pairs("default-resources"))]
    for rule, _, name in _set_resources(profile):
        said += [("set-resources", rule, rules), (f"set-resources: {rule}", name, resources)]
    for key, name, valid in dict.fromkeys((key, name, tuple(valid)) for key, name, valid in said):
        if name not in valid:
            near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
            help = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(valid)) or 'none'}"
            yield f"{profile.file}: {key}: {name}: no such name; {help}"


def _set_resources(profile: Profile) -> Iterator[tuple[str, str, str]]:
    """Rule, ':' and resource of each."""
    for rule, changes in profile.pairs("set-resources").items():
        if isinstance(changes, dict):
            yield from ((rule, ":", name) for name in changes)
        else:
            yield rule.partition(":")
