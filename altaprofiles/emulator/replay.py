"""Answers of a recorded run, to the requests that it holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .exchanges import HEADER, read_line, recognize, request_key
from .reply import as_json

if TYPE_CHECKING:
    from os import PathLike

    from .reply import Reply

__all__ = ["Replay"]

_MISSING = "this request is not in the replay"
_OTHER_KEYS = f"{_MISSING}; its keys are replaced: ask for Recorder.replaced(KEY)"
_BY_KEY = ("profile", "cdp")


class Replay:
    """The exchanges of a file that `Recorder` has written. The answers stay on the disk.

    Args:
        path: the file.

    Raises:
        ValueError: it is not such a file. The message begins with `replay` and names the line.
        OSError: it cannot be read.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        self._places: dict[bytes, list[tuple[int, int]]] = {}
        self._turns: dict[bytes, int] = {}
        with self._path.open("rb") as file:
            if not _is_header(file.readline()):
                raise InvalidReplay(
                    "replay: line 1 is not the beginning of a replay; make one with "
                    "altaprofiles.emulator.Recorder"
                )
            offset = file.tell()
            for number, line in enumerate(file, 2):
                try:
                    request, _ = read_line(line)
                except ValueError as error:
                    raise InvalidReplay(f"replay: line {number} {error}; remove it") from None
                self._places.setdefault(request_key(request), []).append((offset, len(line)))
                offset += len(line)

    def answer(self, method: str, target: str, body: bytes) -> Reply:
        """Return the next answer to a request, after the last one the last one again."""
        request = recognize(method, target, body)
        key = b"" if request is None else request_key(request)
        places = self._places.get(key)
        if request is None or places is None:
            is_by_key = request is not None and request["operation"] in _BY_KEY
            return _missing(target, _OTHER_KEYS if is_by_key else _MISSING)
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        offset, length = places[min(turn, len(places) - 1)]
        with self._path.open("rb") as file:
            file.seek(offset)
            _, reply = read_line(file.read(length))
        page = key if request["operation"] == "page" else None
        return msgspec.structs.replace(reply, page=page)


class InvalidReplay(ValueError):
    """A file that is not a replay."""


def _is_header(line: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(line) == HEADER)
    except (msgspec.MsgspecError, UnicodeError):
        return False


def _missing(target: str, words: str) -> Reply:
    if target.startswith("/v1/"):
        return as_json({"code": 40000, "message": f"Invalid parameter: {words}"}, status=400)
    return as_json(
        {"status": "fail", "error": f"Incorrect usage: {words}", "code": 400}, status=400
    )
