"""What identifies named arrays, whichever library holds them and whatever file they lie in."""

from collections.abc import Iterable, Mapping
from hashlib import sha256

import numpy as np


def arrays_sha256(arrays: Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]]) -> str:
    """Over names, kinds, shapes and bytes, in the order of the names where it is a mapping, else in the order given."""
    digest = sha256()
    for name, array in sorted(arrays.items()) if isinstance(arrays, Mapping) else arrays:
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()
