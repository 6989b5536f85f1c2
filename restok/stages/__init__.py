"""What the commands between training and reports do: each reads folders, runs a model, writes one artefact."""
