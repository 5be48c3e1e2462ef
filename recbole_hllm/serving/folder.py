"""The folder of an export: what is where, written and read. Safetensors and JSON alone, so nothing in it can run code.

- ``recommender.json``: what recommends and how; written last, so that a folder with it is whole.
- ``items.jsonl``: a line for each item, its id and what is shown of it, in the order of the vectors.
- ``vectors.safetensors``: ``scored`` (N, E) and, where it differs, ``read`` (N, C), without a row for padding; of pairs
  ``popular``, ``pairs`` and ``values``, of a table of all pairs ``table`` (N, N).
- ``user_model.safetensors``: weights of what reads a history; ``user_llm/`` has those of its language model.
- ``parts/0/``, ``parts/1/``, and so on: the parts of a blend, each with the files above but for the items.
- ``item_encoder/``: a sentence-transformers folder, of a model that reads texts; see `sentence_folder`.
- ``training.safetensors``: what a training that starts from it needs beside the language models.
- ``vectors/``: of items and users, for other programs; nothing here reads them.
- ``histories.safetensors``: ``items``, ``times`` and ``offsets`` of known users, whose ids are in ``users.txt``.
- ``README.md``: the model card; ``user_model.onnx``: what reads a history, for other programs.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbole_hllm.data.texts.template import TextTemplate
from recbole_hllm.errors import ConfigError, Damaged, DataError, ModelError
from recbole_hllm.nn.user_models.base import UserModel
from recbole_hllm.nn.user_models.kinds import user_model_class
from recbole_hllm.serving.checks import are_numbers, checked_pairs, checked_table, damage, whole
from recbole_hllm.serving.quantised import packed, unpacked
from recbole_hllm.serving.rows import Rows
from recbole_hllm.serving.served import Part, Served, ServedBlend, ServedPairs, ServedTable, ServedVectors
from recbole_hllm.serving.served_z_scores import ServedZScores
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
_BLENDS = {"Blend": ServedBlend, "ZScores": ServedZScores}


# ---- what recommends ----


def write_served(served: Served | Part, folder: Path, dtype: str = "float32") -> dict[str, Any]:
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
        kind = next(name for name, blend in _BLENDS.items() if type(served) is blend)
        return {"kind": kind, "bounds": served.bounds, "length": served.length, "parts": parts}
    if isinstance(served, ServedTable):
        save_file(packed("table", served.table[1:, 1:], dtype), folder / VECTORS)
        return {"kind": "Table", "dtype": dtype}
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
        write_user_llm(user_model.get_submodule(user_model.LANGUAGE_MODEL), folder)
    return {
        "kind": type(user_model).__name__,
        "settings": user_model.settings,
        "cosine": served.cosine,
        "scale": served.scale,
        "length": served.length,
        "dtype": dtype,
    }


def write_user_llm(llm: torch.nn.Module, folder: Path) -> None:
    """Writes the language model of a user model, without words."""
    from recbole_hllm.nn.saved import save_without_words  # transformers takes seconds to import, and few write one

    save_without_words(llm, folder / USER_LLM)


def read_served(
    folder: Path, described: Mapping[str, Any], precision: str = "float32", device: torch.device | str = "cpu"
) -> Served | Part:
    """Reads what ``write_served`` wrote.

    Args:
        described: what it returned.
        precision: of the products inside user models, one of `PRECISIONS`.
        device: of all that is read.

    Raises:
        ConfigError: there is no such precision or device.
        ModelError: a file is missing, or not what is described.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: {precision!r} is not one of {', '.join(PRECISIONS)}")
    try:
        device = torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device: {device}: {error}") from error
    with damage(folder):
        if described["kind"] in _BLENDS:
            return _read_blend(folder, described, precision, device)
        arrays = load_file(folder / VECTORS, device=str(device))
        if described["kind"] == "Pairs":
            return checked_pairs(arrays["popular"], arrays["pairs"], arrays["values"])
        if described["kind"] == "Table":
            return checked_table(unpacked("table", arrays))
        return _read_vectors(folder, described, arrays, PRECISIONS[precision])


def _read_vectors(
    folder: Path, described: Mapping[str, Any], arrays: Mapping[str, Tensor], precision: torch.dtype | None
) -> ServedVectors:
    names = ["scored", "read"] if "read" in arrays else ["scored"]
    vectors = {name: unpacked(name, arrays) for name in names}
    served = ServedVectors(
        _read_user_model(folder, described).to(arrays["scored"].device),
        vectors["scored"],
        vectors.get("read"),
        cosine=bool(described["cosine"]),
        scale=float(described["scale"]),
        length=whole(described["length"], 1),
        precision=precision,
        padded=False,
    )
    # Sizes that do not fit each other, and weights that are no numbers, show when one history is read.
    user = served.users(Rows.of([[1]], [[0.0]], [0.0]).to(served.items.device))
    if user.shape != (1, served.items.shape[1]) or not all(map(are_numbers, (user, served.items, served.read))):
        raise ValueError("vectors of users and items do not fit each other, or are no numbers")
    return served


def _read_user_model(folder: Path, described: Mapping[str, Any]) -> UserModel:
    kind, llm, weights = user_model_class(described["kind"]), None, load_file(folder / WEIGHTS)
    if kind.LANGUAGE_MODEL is not None:  # transformers takes seconds to import, and most models need none
        from recbole_hllm.nn.backbone import BackboneSpec, load_backbone

        llm = load_backbone(BackboneSpec(str(folder / USER_LLM)))
    # Without memory where that goes: settings may ask for more than the file has.
    with nullcontext() if llm is not None else torch.device("meta"):
        user_model = kind.build(described["settings"], llm)
    if weights.keys() != user_model.own_weights().keys():
        raise ModelError(f"{folder / WEIGHTS} holds other weights than those of a {described['kind']}")
    weights = {name: weight.float() for name, weight in weights.items()}
    user_model.load_state_dict(weights, strict=False, assign=True)
    return user_model


def dtype_of(described: Mapping[str, Any]) -> str:
    """Of the vectors that ``write_served`` wrote; those of all parts of a blend have one."""
    parts: list[Mapping[str, Any]] = described.get("parts", [])
    return next((dtype_of(part) for part in parts if part["kind"] != "Pairs"), described.get("dtype", "float32"))


def _read_blend(folder: Path, described: Mapping[str, Any], precision: str, device: torch.device) -> ServedBlend:
    parts = [
        read_served(folder / PARTS / str(place), part, precision, device)
        for place, part in enumerate(described["parts"])
    ]
    of_vectors = [part for part in parts if not isinstance(part, ServedBlend)]
    if len(of_vectors) < len(parts):
        raise ModelError(f"{folder}: a blend of blends")
    if len({len(part.items) for part in of_vectors}) > 1:
        raise ValueError("parts of different numbers of items")
    mix = load_file(folder / WEIGHTS, device=str(device))["mix"]
    bounds = [whole(bound, 0) for bound in described["bounds"]]
    if mix.shape != (len(bounds) + 1, len(parts)) or bounds != sorted(bounds) or not are_numbers(mix):
        raise ValueError(f"weights of {' x '.join(map(str, mix.shape))} for {len(parts)} parts from {bounds} on")
    return _BLENDS[described["kind"]](of_vectors, mix, bounds, whole(described["length"], 1))


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
                if not _is_item(item):
                    raise Damaged(f"{folder / ITEMS}, line {number}: no item")
                ids.append(item["id"])
                fields.append(item.get("fields", {}))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f"{folder / ITEMS} is missing or damaged: {error}") from error
    if len(set(ids)) < len(ids):
        raise Damaged(f"{folder / ITEMS}: two items have the same id")
    return ids, fields


def _is_item(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("id"), str) and isinstance(line.get("fields", {}), dict)


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

    @property
    def largest(self) -> int:
        """Number of an item."""
        return int(self.items.max()) if len(self.items) else 0

    def of_user(self, user: str) -> tuple[list[int], list[float]]:
        """Numbers and seconds of a user's items.

        Raises:
            DataError: nothing is known of the user.
        """
        user = str(user)
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
    # As bytes: an id may hold what another program takes for the end of a line.
    (folder / USERS).write_bytes("".join(f"{user}\n" for user in histories.users).encode())


def read_histories(folder: Path) -> UserHistories:
    """Reads them; none where the export has none."""
    if not (folder / HISTORIES).is_file():
        return UserHistories()
    with damage(folder):
        arrays = load_file(folder / HISTORIES)
        users = (folder / USERS).read_bytes().decode().split("\n")[:-1]
        items, times, offsets = arrays["items"].long(), arrays["times"].double(), arrays["offsets"].long()
        begins_and_ends = len(offsets) == len(set(users)) + 1 and [0, len(items)] == offsets[[0, -1]].tolist()
        if not begins_and_ends or (offsets.diff() < 0).any() or items.shape != times.shape or (items < 1).any():
            raise ValueError(f"{HISTORIES} does not hold a history of each user in {USERS}")
        return UserHistories.of(users, items, times, offsets)


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
    _refuse_strangers(folder)
    with damage(folder):
        manifest = read_json(folder / MANIFEST)
        if not isinstance(manifest, dict) or "format" not in manifest:
            raise ValueError(f"{MANIFEST} is none of an export")
        if manifest["format"] != FORMAT:
            raise ModelError(
                f"{folder / MANIFEST}: format {manifest['format']!r}, and this version reads {FORMAT}; take the "
                f"version that wrote it ({manifest.get('program')}), or export the run again"
            )
        if manifest.get("template") is not None:
            TextTemplate(**manifest["template"])
        described: dict[str, Any] = {**manifest, "served": manifest["served"]}
    return described


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
        if not path.is_dir() and not path.is_file():
            raise ModelError(f"{path} is neither a file nor a folder; remove it")
        suffixes = _SUFFIXES_FOR_OTHERS if path.parent == folder / FOR_OTHERS else _SUFFIXES
        if path.is_file() and not path.name.startswith(".") and path.suffix not in suffixes:
            known = ", ".join(suffixes)
            raise ModelError(f"{path}: an export has no {path.suffix or 'such'} files, only {known}; remove it")
        if path.name.endswith(".index.json"):
            _check_shards(path)


def _check_shards(index: Path) -> None:
    """The files that a language model's weights are spread over lie beside their list, and are safetensors."""
    listed = read_json(index)
    files = listed.get("weight_map", {}) if isinstance(listed, dict) else {}
    names = set(map(str, files.values())) if isinstance(files, dict) else {""}
    if strangers := sorted(name for name in names if Path(name).name != name or not name.endswith(".safetensors")):
        raise ModelError(f"{index} names {strangers[0]!r}: weights are safetensors in the same folder")
