"""A folder or a zip as a bounded, safe list of files that can be read as bytes.

Nothing is ever extracted. An archive's table of contents is checked before any member is read.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from unetscope.base import DataError, printable
from unetscope.data.decoding import MAX_FILE_BYTES, turn_for
from unetscope.data.problems import Problem, Unusable, problem

MAX_MEMBERS = 200_000
MAX_TOTAL_BYTES = 64 * 2**30
# Deflate reaches 1032:1 on honest uncompressed TIFF masks, so only members that are large as well are suspect.
MAX_RATIO, RATIO_COUNTS_FROM_BYTES = 200, 64 * 2**20
TOTAL_RATIO_COUNTS_FROM_BYTES = 2**30  # of all members together
MAX_NESTED_FOLDERS = 32
MAX_CONTENTS_BYTES = 64 * 2**20  # of an archive's table of contents

SPARSE_COUNTS_FROM_BYTES = 2**30
LOCAL_HEADER_BYTES = 30  # before each member's name and bytes
_MEMBER = b"PK\1\2"  # begins the entry of each member in the table of contents
_UNPACKERS_ERRORS = (zlib.error, lzma.LZMAError, struct.error, ValueError, LookupError, TypeError, AssertionError)

_HIDDEN = re.compile(r"(^|/)(\.|(__MACOSX|@eaDir)(/|$)|(eh)?thumbs\.db$|desktop\.ini$|Icon\r$)", re.IGNORECASE)
EXPECTED = "expected a folder or a zip with images/ and masks/, or with <id>/images/ and <id>/masks/"


@dataclass(frozen=True)
class Member:
    """One file: its name with forward slashes, its size in bytes, and what changes whenever the file does."""

    name: str
    size: int
    stamp: tuple[int, ...] = ()


class Source(Protocol):
    """The files of a folder or zip by name, in stable order, and the problems of listing them; see `open_source`."""

    path: Path
    members: tuple[Member, ...]
    problems: tuple[Problem, ...]

    def read(self, name: str) -> bytes:
        """The bytes of one file; Unusable if it cannot be read or is too large. Safe to call from several threads."""

    def content_hash(self) -> str:
        """SHA-256 in hex of all files."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(path: str | os.PathLike[str], *, follow_links: bool = False) -> Source:
    """The folder or zip at `path`, listed and checked; use it in a `with` block.

    Raises: DataError, one line, if there is nothing at `path`, if it is neither, or if it is broken or hostile.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.txt").write_text("hello")
    ...     with open_source(folder) as source:
    ...         [member.name for member in source.members], source.read("a.txt")
    (['a.txt'], b'hello')
    """
    path = Path(path)
    try:
        if path.is_dir():
            return FolderSource(path, follow_links=follow_links)
        if path.is_file():
            return ZipSource(path)
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read ({error.strerror}): {EXPECTED}") from error
    except ValueError as error:  # a name with a NUL in it
        raise DataError(f"{printable(str(path))} is not a name of a file: {EXPECTED}") from error
    raise DataError(f"{printable(str(path))} does not exist: {EXPECTED}")


class FolderSource:
    """The regular files below a folder. Links that leave it, and links to folders, are problems unless followed."""

    def __init__(self, path: Path, *, follow_links: bool = False) -> None:
        self.path = path
        self._root = path.resolve()
        self._follow = follow_links
        self._problems: list[Problem] = []
        self.members = tuple(sorted(self._walk(self._root, frozenset()), key=lambda member: member.name))
        self.problems = tuple(self._problems)

    def _walk(self, folder: Path, above: frozenset[Path]) -> Iterator[Member]:
        """Files below `folder`. above: the resolved parent folders, so that a circle of links ends."""
        if len(above) > MAX_NESTED_FOLDERS:
            inside = printable(folder.relative_to(self._root).as_posix())
            raise DataError(
                f"{printable(str(self.path))} has folders nested more than {MAX_NESTED_FOLDERS} deep ({inside[:60]}…): "
                "give the folder that holds images/ and masks/"
            )
        above = above | {folder.resolve()}
        with os.scandir(folder) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(self._root).as_posix()
                if _is_hidden(name) or (entry.is_symlink() and not self._may_follow(entry, name)):
                    continue
                if entry.is_dir():
                    if Path(entry.path).resolve() not in above:
                        yield from self._walk(Path(entry.path), above)
                elif stat.S_ISREG((status := entry.stat()).st_mode):
                    yield Member(name, status.st_size, (status.st_mtime_ns, status.st_ctime_ns))

    def _may_follow(self, entry: os.DirEntry[str], name: str) -> bool:
        target = Path(os.path.realpath(entry.path))
        if not target.exists():
            self._problems.append(problem("link", name, "it is a link to nowhere"))
            return False
        if self._follow or (target.is_file() and target.is_relative_to(self._root)):
            return True
        kind = "a link to a folder" if target.is_dir() else "a link that leaves the folder"
        self._problems.append(problem("link", name, f"it is {kind}, which is not followed"))
        return False

    def read(self, name: str) -> bytes:
        """See `Source.read`."""
        try:
            with (self._root / name).open("rb") as file:
                _refuse_large_file(size := os.fstat(file.fileno()).st_size, name)
                with turn_for(size):
                    return _bounded(file.read(MAX_FILE_BYTES + 1), name)
        except OSError as error:
            raise Unusable("unreadable", name, f"it cannot be read ({error.strerror})") from error

    def content_hash(self) -> str:
        """See `Source.content_hash`."""
        digest = hashlib.sha256(repr(self.problems).encode())
        for member in self.members:
            if member.size > MAX_FILE_BYTES:  # it is not read, whatever it holds
                digest.update(repr(member).encode())
                continue
            with (self._root / member.name).open("rb") as file:
                digest.update(repr((member.name, hashlib.file_digest(file, "sha256").hexdigest())).encode())
        return digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class ZipSource:
    """The files of a zip, whose table of contents has been checked. Its one handle serves all threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: tuple[Problem, ...] = ()
        self._file = _Archive(io.FileIO(path))
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, MemoryError, *_UNPACKERS_ERRORS) as error:
            self._file.close()
            reason = printable(str(error)) or type(error).__name__
            raise DataError(f"{printable(str(path))} is not a whole zip ({reason}): {EXPECTED}") from error
        except DataError:
            self._file.close()
            raise
        try:
            files = [info for info in _checked(self._zip.infolist(), path) if not info.is_dir()]
        except DataError:
            self.__exit__(None, None, None)
            raise
        self._file.most_bytes = None
        self._infos = {info.filename: info for info in files if not _is_hidden(info.filename)}
        self.members = tuple(Member(name, info.file_size) for name, info in sorted(self._infos.items()))

    def read(self, name: str) -> bytes:
        """See `Source.read`."""
        info = self._infos[name]
        _refuse_large_file(info.file_size, name)
        try:
            with turn_for(info.file_size), self._zip.open(info) as file:
                return _bounded(file.read(MAX_FILE_BYTES + 1), name)
        except MemoryError as error:
            raise Unusable("too-large", name, "there is not enough memory to unpack it") from error
        except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, RuntimeError, *_UNPACKERS_ERRORS) as error:
            reason = printable(str(error)) or type(error).__name__
            raise Unusable("unreadable", name, f"it cannot be unpacked ({reason})") from error

    def content_hash(self) -> str:
        """See `Source.content_hash`."""
        return archive_hash(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()  # which `zipfile` leaves to whom opened it


class _Archive(io.BufferedReader):
    """The file of an archive, which refuses a table of contents that is too large before memory is taken for it.

    most_bytes: of one piece that is read; None once the table has been read.
    """

    most_bytes: int | None = MAX_CONTENTS_BYTES

    def read(self, n_bytes: int | None = -1, /) -> bytes:
        """As of a file. Raises: DataError for too many bytes, or for too many members in them."""
        if self.most_bytes is None:
            return super().read(n_bytes)
        where = printable(str(self.name))
        if n_bytes is not None and n_bytes > self.most_bytes:
            raise DataError(
                f"{where} has a table of contents of {n_bytes} bytes, more than {self.most_bytes}: split the archive"
            )
        content = super().read(n_bytes)
        if (members := content.count(_MEMBER)) > MAX_MEMBERS:
            raise DataError(f"{where} has {members} members, more than {MAX_MEMBERS}: split the archive")
        return content


def archive_hash(path: Path) -> str:
    """SHA-256 in hex of an archive's bytes. Raises: OSError for one that is too large to be hashed, or mostly a hole."""
    about = path.stat()
    on_disk = getattr(about, "st_blocks", about.st_size) * 512
    if about.st_size > MAX_TOTAL_BYTES or (about.st_size > SPARSE_COUNTS_FROM_BYTES and on_disk < about.st_size // 2):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(infos: list[zipfile.ZipInfo], path: Path) -> list[zipfile.ZipInfo]:
    """The table of contents. Raises: DataError if the archive looks malicious."""
    shown = printable(str(path))
    if (total := sum(info.file_size for info in infos)) > MAX_TOTAL_BYTES:
        raise DataError(f"{shown} unpacks to {total} bytes, more than {MAX_TOTAL_BYTES}: split the archive")
    packed = sum(info.compress_size for info in infos)
    if total > TOTAL_RATIO_COUNTS_FROM_BYTES and total > MAX_RATIO * packed:
        raise DataError(f"{shown} unpacks to {total} bytes from {packed}: nothing was read; make the archive anew")
    for info, after in itertools.pairwise(sorted(infos, key=lambda info: info.header_offset)):
        if info.header_offset + LOCAL_HEADER_BYTES + info.compress_size > after.header_offset:
            names = " and ".join(repr(printable(each.orig_filename)) for each in (info, after))
            raise DataError(f"{shown} has members {names} in the same place: nothing was read; make the archive anew")
    seen: set[str] = set()
    for info in infos:
        if reason := _threat(info) or ("is there twice" if info.filename in seen else ""):
            raise DataError(
                f"{shown} has a member {printable(info.orig_filename)!r} that {reason}: nothing was read; "
                "make the archive anew from a folder you trust"
            )
        seen.add(info.filename)
    return infos


def _threat(info: zipfile.ZipInfo) -> str:
    """Why a member must not be read; empty if it may."""
    name = info.orig_filename  # `filename` is already cut at a NUL and has its separators replaced
    suspect = info.file_size > RATIO_COUNTS_FROM_BYTES and info.file_size > MAX_RATIO * info.compress_size
    signs = {
        "has an absolute name": name.startswith("/"),
        "names a drive": name[1:2] == ":" and name[0].isalpha(),
        "has a backslash or a NUL in its name": "\\" in name or "\0" in name,
        "leads out of the archive": ".." in name and ".." in name.split("/"),
        "is a link": stat.S_ISLNK(info.external_attr >> 16),
        "is encrypted": bool(info.flag_bits & 1),
        f"unpacks to {info.file_size} bytes from {info.compress_size}": suspect,
    }
    return next((reason for reason, is_so in signs.items() if is_so), "")


def _is_hidden(name: str) -> bool:
    """Whether the operating system, not a person, put this file into a folder or archive."""
    return bool(_HIDDEN.search(name))


def _refuse_large_file(size: int, name: str) -> None:
    if size > MAX_FILE_BYTES:
        raise Unusable("too-large", name, f"it is larger than {MAX_FILE_BYTES // 2**20} MiB")


def _bounded(data: bytes, name: str) -> bytes:
    _refuse_large_file(len(data), name)
    return data
