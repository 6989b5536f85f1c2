"""Steps that several jobs share, a part each: as many as `set-scatter` of the profile says, and the result is the same."""

from snakemake.io import IOFile


# One part each: what a step does where no profile says otherwise.
scattergather:
    prepare=1,
    encode=1,
    evaluate=1,


def parts(stage, names, suffix=""):
    """The parts that a stage's result is gathered from; none where one job makes it. `names` are those of `gather.NAME`. What
    stands keeps the parts that it was made from, so that a profile with another number does not make it again."""

    def files(wildcards):
        place, part = pattern(stage).format(**wildcards), part_pattern(stage, suffix)
        made = workflow.persistence.input(IOFile(place)) if Path(place).exists() else None
        if made is not None:
            before, _, after = part.partition("{part}")
            return [file for file in made if file.startswith(before.format(**wildcards)) and file.endswith(after)]
        return [part.format(part=name, **wildcards) for name in names] if len(names) > 1 else []

    return files


def part(wildcards):
    """How a verb is told its part: '0/4' of '1-of-4'."""
    number, _, count = wildcards.part.partition("-of-")
    return f"{int(number) - 1}/{count}"
