"""The vendors' samples, byte for byte as their pages print them.

The stored page hides the e-mail address of a person; `jack@example.com` stands in its place.
"""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path(__file__).parents[1] / "samples"


def sample(name: str) -> bytes:
    """Return a sample by its path, such as "clevertap/page.json"."""
    return (SAMPLES / name).read_bytes()


def only_record(answer: bytes) -> bytes:
    """Return the one record of an answer, which ends right before the answer does."""
    return answer[answer.index(b"{", 1) : answer.rindex(b"}", 0, -1) + 1]
