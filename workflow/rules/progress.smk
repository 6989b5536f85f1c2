"""While jobs run: how far the long ones are, on this terminal. `restok progress` shows all of them."""

from restok.experiments.telling import Telling
from snakemake.logging import logger

logger.addHandler(Telling(workflow, logger))
