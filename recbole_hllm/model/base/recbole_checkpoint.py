"""RecBole's own checkpoints: pickles, which could hold commands, read without running anything that is in them."""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recbole_hllm.errors import ModelError

_DTYPES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
           "DoubleStorage": torch.float64}  # fmt: skip


def read_recbole_weight(file: str | Path, name: str, key: str) -> Tensor | None:
    """One weight of the model in a checkpoint that RecBole 1.2 wrote (``saved/<model>-<time>.pth``).

    Args:
        file: the checkpoint.
        name: of the weight in the model's state.
        key: the key of the config that names the file, for errors.

    Returns:
        the weight in its own type; None where the model has none of that name.

    Raises:
        ModelError: the file is damaged or something else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            (root,) = {Path(member).parts[0] for member in archive.namelist()}
            saved = _Reader(io.BytesIO(archive.read(f"{root}/data.pkl"))).load()
            found = saved["state_dict"].get(name)
            if not isinstance(found, _StoredTensor):
                return None
            content = bytearray(archive.read(f"{root}/data/{found.member}"))
            return torch.frombuffer(content, dtype=found.dtype).as_strided(found.size, found.stride, found.offset)
    except Exception as error:  # damaged bytes make zipfile and pickle raise almost anything
        raise ModelError(f"{key}: {file} is damaged, or no checkpoint of RecBole 1.2 ({error})") from error


class _StoredTensor(NamedTuple):
    """Where a tensor lies in the archive, and its shape."""

    dtype: torch.dtype
    member: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _stored_tensor(
    storage: tuple[torch.dtype, str], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> _StoredTensor:
    dtype, member = storage
    return _StoredTensor(dtype, member, offset, size, stride)


class _Inert:
    """Stands for every object of a checkpoint that is no tensor: it takes whatever is done to it and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    add = append


class _Reader(pickle.Unpickler):
    """Imports nothing: names of a checkpoint stand for what is in this file, and all but tensors is inert."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _stored_tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        return known.get((module, name), _Inert)

    def persistent_load(self, pid: Any) -> tuple[torch.dtype, str]:
        _, dtype, member, _, _ = pid
        return dtype, member
