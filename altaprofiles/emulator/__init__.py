"""Both services on loopback, for tests, benchmarks and trying things out.

A second, independent implementation of what the vendors document: it and the
client share no rule.
"""

from .faults import Fault
from .server import Emulator

__all__ = ["Emulator", "Fault"]
