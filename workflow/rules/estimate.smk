"""Below the counts of a dry run's jobs (`snakemake -n`): the GPU-hours that they take."""

from snakemake.logging import logger

from restok.experiments import estimate, work


def digest_of(run):
    return work.digest(params_of(run), tree_of(run).sheet)


logger.addHandler(estimate.BelowCounts(workflow, logger, settings_of, digest_of))
