"""One question to a service, and what a person sees while the answer is awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from rich.status import Status

from ..models import Attempt
from ..session import Session
from .app import App
from .consoles import plain

__all__ = ["ask"]

T = TypeVar("T")


def ask(
    app: App,
    question: Callable[[Session], Awaitable[T]],
    *,
    service: Literal["clevertap", "alta"] = "clevertap",
) -> T:
    """Return the answer to `question`; on a terminal, say meanwhile why it is asked again."""

    with _telling(app) as on_event:
        session = app.session(service=service, on_event=on_event)

        async def main() -> T:
            async with session:
                return await question(session)

        return app.run(main)


@contextmanager
def _telling(app: App) -> Iterator[Callable[[Attempt], None] | None]:
    if not app.interactive:
        yield None
        return
    # Begun by the first failure: what is answered at once needs no more than its answer.
    status = Status("", console=app.console)

    def tell(attempt: Attempt) -> None:
        if attempt.error is not None and attempt.delay is not None:
            told = plain(f"asking again: {attempt.error}")
            # Beside the spinner, on one line: it leaves behind what it has to wrap.
            told.truncate(app.console.width - 2, overflow="crop")
            status.update(told)
            status.start()

    try:
        yield tell
    finally:
        status.stop()
