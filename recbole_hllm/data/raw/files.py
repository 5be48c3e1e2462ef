"""Raw files as they are downloaded: plain, .gz, .zst, or members of a .zip or .tar; folders of such."""

import gzip
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa

from recbole_hllm.errors import DataError

BLOCK = 1 << 23
_LONGEST_LINE = 1 << 28
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
# What the libraries raise for data that ends too early or is damaged.
_DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, pa.ArrowException)

# Called with the number of bytes read since the last call.
Progress = Callable[[int], object]


@dataclass(frozen=True)
class RawFile:
    """One raw file.

    Attributes:
        path: the file on disk.
        member: its name inside the archive ``path``, empty for a file of its own.
        size: bytes on disk; of a member, when unpacked.
    """

    path: Path
    member: str
    size: int

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def stem(self) -> str:
        """The last part of its name, without the ending of a compression."""
        name = (self.member or self.path.name).rpartition("/")[2]
        return name.removesuffix(".gz").removesuffix(".zst")

    def lines(self, progress: Progress | None = None) -> Iterator[tuple[int, bytes]]:
        """The content in blocks of whole lines, each with the number of its first line; a byte order mark is left out.

        Raises:
            DataError: the file is empty, missing, or its compressed data are damaged or end too early; says after
                which line.
        """
        line, rest = 1, b""
        try:
            for block in self._blocks(progress):
                if line == 1 and not rest:
                    block = block.removeprefix(_BYTE_ORDER_MARK)
                cut = block.rfind(b"\n") + 1
                if cut:
                    block, rest = rest + block[:cut], block[cut:]
                    yield line, block
                    line += block.count(b"\n")
                else:
                    rest += block
                if len(rest) > _LONGEST_LINE:
                    raise DataError(f"{self.name}, line {line}: no line break in {len(rest)} bytes; is it a text file?")
        except _DAMAGED as error:
            raise DataError(f"{self.name}, line {line}: cannot be read further: {problem_of(error)}") from error
        if rest:
            yield line, rest + b"\n"
        elif line == 1:
            raise DataError(f"{self.name} is empty")

    def first_line(self) -> bytes:
        """The first line, or as much of it as a block holds, without line break; nothing of an empty file.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            first = next(self._blocks(None, 1 << 16), b"")
        except _DAMAGED as error:
            raise DataError(f"{self.name}, line 1: cannot be read: {problem_of(error)}") from error
        return first.removeprefix(_BYTE_ORDER_MARK).partition(b"\n")[0].rstrip(b"\r")

    def _blocks(self, progress: Progress | None, size: int = BLOCK) -> Iterator[bytes]:
        with closing(_Stream(self)) as stream:
            while block := stream.read(size):
                if progress is not None:
                    progress(stream.passed())
                yield block


class _Stream:
    """The unpacked bytes of a raw file, and how many of ``RawFile.size`` are read."""

    def __init__(self, file: RawFile) -> None:
        self._open: list[Any] = []
        self._before = 0
        try:
            source = self._member(file) if file.member else self._keep(open(file.path, "rb"))
            self._source, self._stream = source, source
            name = file.member or file.path.name
            if name.endswith(".gz"):
                self._stream = self._keep(gzip.GzipFile(fileobj=source))
            elif name.endswith(".zst"):
                self._stream = self._keep(pa.CompressedInputStream(source, "zstd"))
        except BaseException:
            self.close()
            raise

    def read(self, size: int) -> bytes:
        return bytes(self._stream.read(size))

    def passed(self) -> int:
        """Bytes of the file read since the last call."""
        before, self._before = self._before, self._source.tell()
        return self._before - before

    def close(self) -> None:
        while self._open:
            self._open.pop().close()

    def _member(self, file: RawFile) -> BinaryIO:
        if file.path.suffix == ".zip":
            archive = self._keep(zipfile.ZipFile(file.path))
            return self._keep(archive.open(file.member))
        tar = self._keep(tarfile.open(file.path))
        return self._keep(tar.extractfile(file.member))

    def _keep(self, opened: Any) -> Any:
        self._open.append(opened)
        return opened


def find_files(sources: list[str]) -> list[RawFile]:
    """The files under some paths, members of archives and files of folders included, but none whose name, or that of a
    folder above it, begins with ``.`` or ``_``.

    Raises:
        DataError: a path is missing, an archive is damaged, or nothing is there.
    """
    found: list[RawFile] = []
    for source in sources:
        path = Path(source)
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder")
        paths = sorted(path.rglob("*")) if path.is_dir() else [path]
        inside = [file for file in paths if file.is_file() and (file == path or not _is_hidden(file.relative_to(path)))]
        found += [raw for file in inside for raw in _files_in(file)]
    if not found:
        raise DataError(f"there are no files in {', '.join(sources)}")
    return list(dict.fromkeys(found))


def problem_of(error: Exception) -> str:
    """What is wrong with a file that cannot be read, and, where it is the file itself, what to do."""
    by_system = isinstance(error, OSError) and error.errno is not None  # no such file, no right to read it
    return str(error) if by_system else f"{error}; is the file whole? Download or copy it again"


def sha256_of(path: Path) -> str:
    """The checksum of a file, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _is_hidden(path: PurePath) -> bool:
    """Whether a file, or a folder above it, is one that programs put beside the data, such as Spark's _temporary."""
    return any(name.startswith((".", "_")) for name in path.parts)


def _files_in(path: Path) -> Iterator[RawFile]:
    """The file itself, or the members of an archive."""
    try:
        if not path.name.endswith(_ARCHIVES):
            yield RawFile(path, "", path.stat().st_size)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [(info.filename, info.file_size) for info in archive.infolist() if not info.is_dir()]
            members = [member for member in members if not _is_hidden(PurePosixPath(member[0]))]
            yield from (RawFile(path, *member) for member in members)
        else:
            with tarfile.open(path) as tar:
                members = [(member.name, member.size) for member in tar if member.isfile()]
            members = [member for member in members if not _is_hidden(PurePosixPath(member[0]))]
            yield from (RawFile(path, *member) for member in members)
    except _DAMAGED as error:
        raise DataError(f"{path}: cannot be read: {problem_of(error)}") from error
