"""Random numbers that belong to a name, not to an order of calls."""

from hashlib import blake2b

import numpy as np


def seed_words(seed: int, *names: str) -> list[int]:
    """The integers that seed the thing called ``names``: equal names, equal numbers."""
    words = [int.from_bytes(blake2b(n.encode(), digest_size=8).digest(), "big") for n in names]
    return [seed, *words]


def rng_for(seed: int, *names: str) -> np.random.Generator:
    """Random numbers for a named thing, whoever asks, whenever, and on whichever worker."""
    return np.random.default_rng(seed_words(seed, *names))
