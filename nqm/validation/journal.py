"""Files that grow as work is done: one JSON object per line, on the disk as soon as it is written.

The first line is the header: the kind of file, its format, and the configuration that all the rest depends on. Each
further line is one entry. Infinite and undefined numbers are the strings that ``float`` reads.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Generic, Self, TypeVar

__all__ = ["Form", "Journal", "as_line", "read_journal"]

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")
Configuration = dict[str, Any]


@dataclass(frozen=True)
class Form(Generic[T]):
    """What the journals of one kind hold.

    kind, format: as the header has them.
    encode: an entry as a JSON-able mapping.
    decode: of a configuration and the lines' JSON values, the entries, one for each line; fewer where lines at the end
        are part of something that is not whole, and count as not written. A ValueError or TypeError says what is wrong
        with the line taken last.
    check: raises ValueError, TypeError or KeyError for a configuration that no journal of this kind has.
    elsewhere: what errors call another file.
    """

    kind: str
    format: int
    encode: Callable[[T], Mapping[str, Any]]
    decode: Callable[[Configuration, Iterable[Any]], list[T]]
    check: Callable[[Any], object] = dict
    elsewhere: str = "another file"


def _whole(configuration: Configuration) -> Configuration:
    return configuration


class Journal(Generic[T]):
    """Entries of one configuration, in a file that is open for this process alone, or in memory (``path`` None).

    configuration: what the entries depend on, JSON-able. A file that is there already is continued if it has the same
    configuration, or at least the same ``compared(configuration)``; a torn end is cut off.

    While it is open the file is locked (``flock``, which ends with the process; no guard on Windows and on file
    systems without locks). The header is written in place and completed where it was interrupted: a new file renamed
    over the path could take it from a process that holds the lock.

    Raises ValueError for a damaged line (saying which), for a file that is something else, and for another
    configuration (saying which key differs); RuntimeError where another process is writing the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        form: Form[T],
        configuration: Mapping[str, Any],
        compared: Callable[[Configuration], Configuration] = _whole,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.form = form
        self.configuration: Configuration = json.loads(as_line(configuration))
        self.entries: list[T] = []
        self._stream: BinaryIO | None = None
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            _lock(self._stream, self.path, form)
            self._continue(self._stream, self.path, compared)
        except BaseException:
            self.close()
            raise

    def _continue(self, stream: BinaryIO, path: Path, compared: Callable[[Configuration], Configuration]) -> None:
        content = stream.read()
        header = as_line({"nqm": self.form.kind, "format": self.form.format, "configuration": self.configuration})
        if header.startswith(content):  # new, or interrupted in its first line
            stream.seek(0)
            stream.write(header)
            _flush(stream)
            return
        found, self.entries, good = _parse(content, path, self.form)
        _check_same(compared(self.configuration), compared(found), path, self.form)
        self.configuration = found
        stream.seek(good)
        if good < len(content):
            stream.truncate()
            _flush(stream)

    def append(self, entries: Sequence[T]) -> None:
        """Keep entries that belong together, on the disk when this returns."""
        if self._stream is not None:
            self._stream.write(b"".join(as_line(self.form.encode(entry)) for entry in entries))
            _flush(self._stream)
        self.entries += entries

    def close(self) -> None:
        """Unlock and close the file; the entries stay in memory."""
        if self._stream is not None:
            if sys.platform != "win32":  # by name: worker processes may have inherited the open file
                fcntl.flock(self._stream, fcntl.LOCK_UN)
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_journal(path: str | os.PathLike[str], form: Form[T]) -> tuple[Configuration, list[T]]:
    """Configuration and entries of a journal, also while it is being written; changes nothing.

    Raises ValueError for a damaged line or another kind of file, OSError where it cannot be read.
    """
    configuration, entries, _ = _parse(Path(path).read_bytes(), Path(path), form)
    return configuration, entries


def as_line(value: Mapping[str, Any]) -> bytes:
    """JSON in one line; a TypeError for what JSON does not have."""
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=True).encode() + b"\n"


def _plain(value: Any) -> Any:
    """The same with plain JSON types; infinite and undefined numbers as the strings that ``float`` reads."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return value


def _parse(content: bytes, path: Path, form: Form[T]) -> tuple[Configuration, list[T], int]:
    """Configuration, entries, and the number of bytes up to the last of them."""
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    configuration = _header(lines[0] if lines else content, path, form)
    number = 1

    def values() -> Iterator[Any]:
        nonlocal number
        for line in lines[1:]:
            number += 1
            yield json.loads(line)

    try:
        entries = form.decode(configuration, values())
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: line {number} is damaged: {error}; take the file from a backup, or delete it and start again"
        ) from error
    return configuration, entries, sum(map(len, lines[: 1 + len(entries)]))


def _header(line: bytes, path: Path, form: Form[Any]) -> Configuration:
    try:
        header = json.loads(line)
        kind, version, configuration = header["nqm"], header["format"], header["configuration"]
        if kind != form.kind or not isinstance(configuration, dict):
            raise ValueError(f"expected {form.kind!r}")
        form.check(configuration)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: line 1 is not the header of a results file; give {form.elsewhere} or delete this one"
        ) from error
    if version != form.format:
        raise ValueError(
            f"{path}: expected format {form.format}, found {version}; give {form.elsewhere} or read it with the "
            "version of nqm that wrote it"
        )
    return configuration


def _check_same(expected: Configuration, found: Configuration, path: Path, form: Form[Any]) -> None:
    difference = _difference(expected, found, "")
    if difference is not None:
        key, mine, theirs = difference
        raise ValueError(
            f"{path} holds results of another configuration: {key}: expected {mine}, found {theirs}; "
            f"write to {form.elsewhere} or delete this one"
        )


def _difference(expected: Any, found: Any, key: str) -> tuple[str, str, str] | None:
    """The first key that differs, with both values."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in [*expected, *(name for name in found if name not in expected)]:
            inner = f"{key}.{name}" if key else name
            if name not in expected or name not in found:
                mine, theirs = (_shown(side[name]) if name in side else "nothing" for side in (expected, found))
                return inner, mine, theirs
            difference = _difference(expected[name], found[name], inner)
            if difference is not None:
                return difference
        return None
    return None if expected == found else (key, _shown(expected), _shown(found))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _lock(stream: BinaryIO, path: Path, form: Form[Any]) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RuntimeError(
            f"{path}: another run is writing this file; wait until it ends, or write to {form.elsewhere}"
        ) from error
    except OSError:
        return  # a file system without locks
