"""Whether two exports are the same: a short name of what is in a folder."""

from hashlib import sha256
from pathlib import Path

# Of files that what is recommended depends on.
_SUFFIXES = (".json", ".jsonl", ".safetensors", ".txt", ".model")
# A file of more than all samples is read at so many places, so many bytes at each.
_SAMPLES, _BYTES = 64, 4096
_DIGITS = 12


def fingerprint(folder: Path) -> str:
    """12 hexadecimal digits that differ between exports of different trainings or catalogues.

    Of large files samples are read, from the beginning to the end: vectors of another training differ everywhere.
    """
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _SUFFIXES and not path.name.startswith("."):
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
            with path.open("rb") as file:
                if size <= _SAMPLES * _BYTES:
                    digest.update(file.read())
                    continue
                for place in range(_SAMPLES):
                    file.seek((size - _BYTES) * place // (_SAMPLES - 1))
                    digest.update(file.read(_BYTES))
    return digest.hexdigest()[:_DIGITS]
