"""Both services on loopback, for tests, benchmarks and experiments.

A second implementation of the documented APIs, independent of the client: they share no rule.
"""

from .faults import Fault
from .recorder import Recorder
from .server import Emulator

__all__ = ["Emulator", "Fault", "Recorder"]
