"""The authors' released weights: their files, tensor names and configuration, and what their code does that ours does not.

Facts from the release of 2026-04-01 (Kwai-Kolors/ResTok). `load_released_*` take a state dict and the authors' own
configuration mapping (as their checkpoints carry it); a missing or unexpected name or a wrong shape is an error that lists it.
"""

from restok.compat.files import read_settings, read_weights, shards
from restok.compat.lost_class import generate_with_lost_class, losing_class
from restok.compat.settings import (
    ReleasedWeightsError,
    complete_generator_settings,
    complete_tokenizer_settings,
    generator_config,
    generator_settings,
    tokenizer_config,
    tokenizer_settings,
)
from restok.compat.weights import load_released_alignment, load_released_generator, load_released_tokenizer, released_tensors
