"""Bytes that say where they belong."""

import hashlib


def pattern(seed: object, size: int) -> bytes:
    """`size` bytes that depend on the seed, and look like nothing else in a test."""
    return hashlib.shake_128(str(seed).encode()).digest(size)
