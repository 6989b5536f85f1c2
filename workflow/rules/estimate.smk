"""Below the counts of a dry run's jobs (`snakemake -n`): the GPU-hours that they take."""

from snakemake.logging import logger

logger.addHandler(estimate.BelowCounts(workflow, logger, settings_of, digest_of))
