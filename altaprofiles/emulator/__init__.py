"""Both services on loopback, for tests, benchmarks and experiments.

A second implementation of the documented APIs, independent of the client: they share no rule.
"""

from .bindings import Bindings
from .faults import Fault
from .load import Stats
from .people import Population
from .person import Person
from .recorder import Recorder
from .server import Emulator
from .settings import BaseQuery, RecordSize

__all__ = [
    "BaseQuery",
    "Bindings",
    "Emulator",
    "Fault",
    "Person",
    "Population",
    "RecordSize",
    "Recorder",
    "Stats",
]


def __dir__() -> list[str]:
    return __all__
