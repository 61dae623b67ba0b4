"""Choices decided by a seed. Pure: equal parts give equal choices, in any order of calls."""

from hashlib import blake2b, shake_128

__all__ = ["Dice"]


class Dice:
    """Draws, each keyed by the thing it decides, so that interleaving cannot change an outcome."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def _key(self, parts: tuple[object, ...]) -> bytes:
        return repr((self._seed, *parts)).encode("utf-8", "surrogateescape")

    def token(self, size: int, *parts: object) -> bytes:
        """Return `size` (1 to 64) bytes."""
        return blake2b(self._key(parts), digest_size=size).digest()

    def filler(self, size: int, *parts: object) -> bytes:
        """Return any number of bytes. A longer draw begins with a shorter one of equal parts."""
        return shake_128(self._key(parts)).digest(size)

    def number(self, *parts: object) -> int:
        """Return an int from 0 to 2**64 - 1."""
        return int.from_bytes(self.token(8, *parts))

    def share(self, *parts: object) -> float:
        """Return a float from 0.0 up to, but not including, 1.0."""
        return (self.number(*parts) >> 11) / 2**53

    def below(self, count: int, *parts: object) -> int:
        """Return an int from 0 to `count` - 1."""
        return self.number(*parts) % count
