"""Keyed permutations of whole numbers: different numbers stay different, and none stays itself."""

from __future__ import annotations

from array import array
from hashlib import blake2b, shake_128

__all__ = ["Permutation"]

_ROUNDS = 6
_TABLE_BITS = 18
"""Widest half of a number for which the rounds are looked up in tables, of 1 MB each."""


class Permutation:
    """A permutation of the numbers from 0 to `size - 1`, decided by a key.

    It is a step along one secret circle of all numbers, so that no number is its own image. A
    Feistel network, walked until it ends below `size`, gives the place of a number on that circle.

    Args:
        key: up to 64 bytes.
        size: 2 or more.
    """

    def __init__(self, key: bytes, size: int) -> None:
        self._key = key
        self._size = size
        bits = max(2, (size - 1).bit_length())
        # The halves, right and left, of which each round changes one.
        self._bits = (bits // 2, bits - bits // 2)
        self._tables: list[array[int]] | None = None
        if self._bits[1] <= _TABLE_BITS:
            self._tables = [self._draw_table(number) for number in range(_ROUNDS)]

    def image(self, number: int) -> int:
        """Return the number that takes the place of `number`."""
        place = number
        while True:
            place = self._mix(place, range(_ROUNDS))
            if place < self._size:
                break
        place = (place + 1) % self._size
        while True:
            place = self._mix(place, range(_ROUNDS - 1, -1, -1))
            if place < self._size:
                return place

    def _mix(self, number: int, rounds: range) -> int:
        low, high = self._bits
        left, right = number >> low, number & (1 << low) - 1
        for turn in rounds:
            if turn % 2:
                left ^= self._round(turn, right) & (1 << high) - 1
            else:
                right ^= self._round(turn, left) & (1 << low) - 1
        return left << low | right

    def _round(self, turn: int, half: int) -> int:
        if self._tables is not None:
            return self._tables[turn][half]
        data = b"%d %d %d" % (self._size, turn, half)
        return int.from_bytes(blake2b(data, key=self._key, digest_size=16).digest())

    def _draw_table(self, turn: int) -> array[int]:
        seed = blake2b(b"%d %d" % (self._size, turn), key=self._key).digest()
        return array("I", shake_128(seed).digest(4 << self._bits[1]))
