"""ResTok (arXiv 2601.03955): hierarchical residual tokens for images, and their generator in 9 steps."""

import importlib

_HOMES = {
    "load_params": "config.load", "Guidance": "config",
    "ResTok": "tokenizer.model", "HAR": "generator.model", "generate": "generator.sampling",
    "load_tokenizer": "weights", "load_generator": "weights",
}
__all__ = ["compat", *_HOMES]


def __getattr__(name: str):
    """Import on first use: tables and the workflow read this package without loading torch."""
    if name == "compat":
        return importlib.import_module("restok.compat")
    if name in _HOMES:
        return getattr(importlib.import_module(f"restok.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'restok' has no attribute {name!r}")
