"""Choices decided by the seed. Pure: the same seed and parts give the same choice, in any order."""

from hashlib import blake2b, shake_128


class Dice:
    """Draws keyed by what is being decided, so that interleaving cannot change an outcome."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def _key(self, parts: tuple[object, ...]) -> bytes:
        return repr((self._seed, *parts)).encode("utf-8", "surrogateescape")

    def token(self, size: int, *parts: object) -> bytes:
        """Return `size` (1 to 64) bytes."""
        return blake2b(self._key(parts), digest_size=size).digest()

    def filler(self, size: int, *parts: object) -> bytes:
        """Return any number of bytes; a longer draw starts with a shorter one of the same parts."""
        return shake_128(self._key(parts)).digest(size)

    def number(self, *parts: object) -> int:
        """Return an int of 0 to 2**64 - 1."""
        return int.from_bytes(self.token(8, *parts))

    def share(self, *parts: object) -> float:
        """Return a float of 0.0 up to, not including, 1.0."""
        return (self.number(*parts) >> 11) / 2**53

    def below(self, count: int, *parts: object) -> int:
        """Return an int of 0 to count - 1."""
        return self.number(*parts) % count
