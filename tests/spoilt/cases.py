"""All bad inputs, by group."""

from spoilt import images, models, outputs, provenance, released, results, settings, shards, workflow

GROUPS = {"parameter files": settings.PARAMETERS, "the sheet of experiments": settings.EXPERIMENTS, "options": settings.OPTIONS,
          "images and folders of them": images.IMAGES, "shards of images": shards.SHARDED, "arrays of images": images.ARRAYS,
          "prepared images": images.PREPARED, "parts of images": shards.PARTS,
          "models": models.MODELS, "codes": models.STORES, "parts of codes": models.PARTS,
          "checkpoints and states": models.STATES, "released weights": released.RELEASED,
          "statistics": released.STATISTICS, "results": results.RECORDS, "tables and figures": results.TABLES,
          "provenance": provenance.WALKED,
          "places to write": outputs.OUTPUTS, "the workflow": workflow.PLANNED}
