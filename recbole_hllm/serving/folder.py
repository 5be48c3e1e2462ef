"""The folder of an export: what is where, written and read. Safetensors and JSON alone, so nothing in it can run code.

- ``recommender.json``: what recommends and how; written last, so that a folder with it is whole.
- ``items.jsonl``: a line for each item, its id and what is shown of it, in the order of the vectors.
- ``vectors.safetensors``: ``scored`` (N, E) and, where it differs, ``read`` (N, C), without a row for padding.
- ``user_model.safetensors``: weights of what reads a history; ``user_llm/`` has those of its language model.
- ``parts/0/``, ``parts/1/``, and so on: the parts of a blend, each with the files above but for the items.
- ``item_encoder/``: a sentence-transformers folder, of a model that reads texts; see `sentence_folder`.
- ``training.safetensors``: what a training that starts from it needs beside the language models.
- ``vectors/``: of items and users, for other programs; nothing here reads them.
- ``histories.safetensors``: ``items``, ``times`` and ``offsets`` of known users, whose ids are in ``users.txt``.
- ``README.md``: the model card; ``user_model.onnx``: what reads a history, for other programs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbole_hllm.errors import Damaged, DataError, ModelError
from recbole_hllm.nn.user_models.kinds import user_model_class
from recbole_hllm.serving.quantised import packed, unpacked
from recbole_hllm.serving.served import Served, ServedBlend, ServedPairs, ServedVectors
from recbole_hllm.storage.files import read_json, write_json

FORMAT = 1
MANIFEST, ITEMS, VECTORS = "recommender.json", "items.jsonl", "vectors.safetensors"
WEIGHTS, USER_LLM, PARTS, ITEM_ENCODER = "user_model.safetensors", "user_llm", "parts", "item_encoder"
HISTORIES, USERS = "histories.safetensors", "users.txt"
TRAINING, FOR_OTHERS = "training.safetensors", "vectors"
# Of files that an export may have; tokenizers of sentencepiece have a .model, large ONNX models their weights in .data.
_SUFFIXES = (".json", ".jsonl", ".safetensors", ".txt", ".md", ".jinja", ".model", ".faiss", ".onnx", ".data")
# Of those for other programs, which nothing here opens.
_SUFFIXES_FOR_OTHERS = (*_SUFFIXES, ".npy", ".npz", ".parquet")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


# ---- what recommends ----


def write_served(served: Served | ServedPairs, folder: Path, dtype: str = "float32") -> dict[str, Any]:
    """Writes vectors and weights.

    Args:
        folder: made where it is missing.
        dtype: of the vectors, see ``quantised.packed``.

    Returns:
        What ``read_served`` needs beside them, as JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(served, ServedBlend):
        save_file({"mix": served.mix.cpu()}, folder / WEIGHTS)
        parts = [write_served(part, folder / PARTS / str(place), dtype) for place, part in enumerate(served.parts)]
        return {"kind": "Blend", "bounds": served.bounds, "length": served.length, "parts": parts}
    if isinstance(served, ServedPairs):
        arrays = {"popular": served.popular, "pairs": served.pairs, "values": served.values}
        save_file({name: array.cpu().contiguous() for name, array in arrays.items()}, folder / VECTORS)
        return {"kind": "Pairs"}
    tables = {"scored": served.scored} if served.reads_scored else {"scored": served.scored, "read": served.read}
    arrays = {name: array for key, table in tables.items() for name, array in packed(key, table[1:], dtype).items()}
    save_file(arrays, folder / VECTORS)
    user_model = served.user_model
    weights = user_model.own_weights()
    save_file({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, folder / WEIGHTS)
    if user_model.LANGUAGE_MODEL is not None:
        from recbole_hllm.nn.saved import save_without_words

        save_without_words(user_model.get_submodule(user_model.LANGUAGE_MODEL), folder / USER_LLM)
    return {
        "kind": type(user_model).__name__,
        "settings": user_model.settings,
        "cosine": served.cosine,
        "scale": served.scale,
        "length": served.length,
        "dtype": dtype,
    }


def read_served(folder: Path, described: Mapping[str, Any], precision: str = "float32") -> Served | ServedPairs:
    """Reads what ``write_served`` wrote.

    Args:
        described: what it returned.
        precision: of the products inside user models, one of `PRECISIONS`.

    Raises:
        ModelError: a file is missing, or not what is described.
    """
    with _damage(folder):
        if described["kind"] == "Blend":
            return _read_blend(folder, described, precision)
        arrays = load_file(folder / VECTORS)
        if described["kind"] == "Pairs":
            return ServedPairs(arrays["popular"], arrays["pairs"], arrays["values"])
        kind = user_model_class(described["kind"])
        llm = None
        if kind.LANGUAGE_MODEL is not None:  # transformers takes seconds to import, and most models need none
            from recbole_hllm.nn.backbone import BackboneSpec, load_backbone

            llm = load_backbone(BackboneSpec(str(folder / USER_LLM)))
        user_model = kind.build(described["settings"], llm)
        weights = load_file(folder / WEIGHTS)
        if weights.keys() != user_model.own_weights().keys():
            raise ModelError(f"{folder / WEIGHTS} holds other weights than those of a {described['kind']}")
        user_model.load_state_dict(weights, strict=False)
        names = ["scored", "read"] if any(name.startswith("read") for name in arrays) else ["scored"]
        vectors = {name: _with_padding(unpacked(name, arrays)) for name in names}
        return ServedVectors(
            user_model,
            vectors["scored"],
            vectors.get("read"),
            cosine=described["cosine"],
            scale=described["scale"],
            length=described["length"],
            precision=PRECISIONS[precision],
        )


def dtype_of(described: Mapping[str, Any]) -> str:
    """Of the vectors that ``write_served`` wrote; those of all parts of a blend have one."""
    parts: list[Mapping[str, Any]] = described.get("parts", [])
    return next((dtype_of(part) for part in parts if part["kind"] != "Pairs"), described.get("dtype", "float32"))


def _read_blend(folder: Path, described: Mapping[str, Any], precision: str) -> ServedBlend:
    parts = [read_served(folder / PARTS / str(place), part, precision) for place, part in enumerate(described["parts"])]
    of_vectors = [part for part in parts if not isinstance(part, ServedBlend)]
    if len(of_vectors) < len(parts):
        raise ModelError(f"{folder}: a blend of blends")
    return ServedBlend(of_vectors, load_file(folder / WEIGHTS)["mix"], described["bounds"], described["length"])


def _with_padding(vectors: Tensor) -> Tensor:
    return torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """An error that names the folder, for files that are missing or not what they should be."""
    try:
        yield
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise Damaged(f"{folder} is damaged: {error}") from error


# ---- items and histories ----


def write_items(folder: Path, ids: Sequence[str], fields: Sequence[Mapping[str, str]]) -> None:
    """Writes the lines of the items."""
    with (folder / ITEMS).open("w", encoding="utf-8") as lines:
        for item, shown in zip(ids, fields, strict=True):
            lines.write(json.dumps({"id": item, "fields": dict(shown)}, ensure_ascii=False) + "\n")


def read_items(folder: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Ids and fields.

    Raises:
        Damaged: a line is none of an item.
    """
    ids, fields = [], []
    try:
        with (folder / ITEMS).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                item = json.loads(line)
                if not isinstance(item, dict) or not isinstance(item.get("id"), str):
                    raise Damaged(f"{folder / ITEMS}, line {number}: no item")
                ids.append(item["id"])
                fields.append(item.get("fields", {}))
    except (OSError, ValueError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f"{folder / ITEMS} is missing or damaged: {error}") from error
    return ids, fields


@dataclass(frozen=True)
class UserHistories:
    """What known users have.

    Args:
        users: id -> place.
        items: (T,) numbers from 1 of all users' items, one user after the other, each from the oldest on.
        times: (T,) seconds of each.
        offsets: (U + 1,) where each user's begin.
    """

    users: dict[str, int] = field(default_factory=dict)
    items: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    times: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    offsets: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.long))

    @classmethod
    def of(cls, users: Sequence[str], items: Tensor, times: Tensor, offsets: Tensor) -> "UserHistories":
        """Of users in their order."""
        return cls({user: place for place, user in enumerate(users)}, items, times, offsets)

    def of_user(self, user: str) -> tuple[list[int], list[float]]:
        """Numbers and seconds of a user's items.

        Raises:
            DataError: nothing is known of the user.
        """
        if not self.users:
            raise DataError("user: this export holds no histories of users; export with --histories, or give items")
        if user not in self.users:
            raise DataError(f"user: {user!r} has no history in this export; give items")
        place = self.users[user]
        part = slice(*self.offsets[place : place + 2].tolist())
        return self.items[part].tolist(), self.times[part].tolist()


def write_histories(folder: Path, histories: UserHistories) -> None:
    """Writes the histories of known users."""
    arrays = {"items": histories.items, "times": histories.times, "offsets": histories.offsets}
    save_file({name: array.contiguous() for name, array in arrays.items()}, folder / HISTORIES)
    (folder / USERS).write_text("".join(f"{user}\n" for user in histories.users), encoding="utf-8")


def read_histories(folder: Path) -> UserHistories:
    """Reads them; none where the export has none."""
    if not (folder / HISTORIES).is_file():
        return UserHistories()
    with _damage(folder):
        arrays = load_file(folder / HISTORIES)
        users = (folder / USERS).read_text(encoding="utf-8").splitlines()
        return UserHistories.of(users, arrays["items"], arrays["times"], arrays["offsets"])


def write_training(folder: Path, kind: str, weights: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Writes what a training needs, after the language models: a folder with this file has those too.

    Args:
        kind: of the model.
        weights: on the CPU.
        facts: kept beside them.
    """
    save_file(dict(weights), folder / TRAINING, metadata={**facts, "kind": kind})


# ---- the manifest ----


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes it, with the version of the format."""
    write_json(folder / MANIFEST, {"format": FORMAT, **content})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads it.

    Raises:
        ModelError: there is no export in the folder, one of another version, or files that no export has.
    """
    if not (folder / MANIFEST).is_file():
        raise ModelError(f"{folder}: there is no export in it, no {MANIFEST}: recbole-hllm export RUN_DIR {folder}")
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise ModelError(f"{folder / MANIFEST}: format {manifest.get('format')}, and this version reads {FORMAT}")
    _refuse_strangers(folder)
    return manifest


def _refuse_strangers(folder: Path) -> None:
    """Nothing in the folder may be code or a pickle, or lie outside: libraries read what they find beside the rest.

    The Hub's cache has the files of a snapshot in a folder beside it.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots" and (root.parents[1] / "blobs").is_dir():
        root = root.parents[1]
    for path in sorted(folder.rglob("*")):
        if not path.resolve().is_relative_to(root):
            raise ModelError(f"{path} is a link out of the export; copy the file in its place")
        suffixes = _SUFFIXES_FOR_OTHERS if path.parent == folder / FOR_OTHERS else _SUFFIXES
        if path.is_file() and not path.name.startswith(".") and path.suffix not in suffixes:
            known = ", ".join(suffixes)
            raise ModelError(f"{path}: an export has no {path.suffix or 'such'} files, only {known}; remove it")
