"""A Recommender as a folder again, with what was added, changed and removed; and on the Hugging Face Hub."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from recbole_hllm.errors import ModelError
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.catalogue import Catalogue
from recbole_hllm.serving.onnx_model import ONNX
from recbole_hllm.serving.served import Served, ServedBlend
from recbole_hllm.serving.text_encoder import TextEncoder
from recbole_hllm.storage.files import read_json
from recbole_hllm.storage.folders import making

CARD = "README.md"
# Of files that no change of items concerns, beside those written anew: the card, the user model for other programs, and
# weights that a training starts from.
_KEPT = (".md", ".onnx", ".data", ".safetensors")
# What a Recommender reads of a repository; whatever else lies there is not even downloaded.
DOWNLOADED = (
    files.MANIFEST, files.ITEMS, files.VECTORS, files.WEIGHTS, files.HISTORIES, files.USERS, CARD,
    f"{files.USER_LLM}/*.json", f"{files.USER_LLM}/*.safetensors",
    f"{files.PARTS}/*.json", f"{files.PARTS}/*.safetensors",
    *(f"{files.ITEM_ENCODER}/*{suffix}" for suffix in (".json", ".safetensors", ".txt", ".model", ".jinja")),
)  # fmt: skip
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_CHANGED = (
    "Items were added, changed or removed after the export: the figures above are those of the catalogue of the run."
)


class Saved(Protocol):
    """What is written of a Recommender.

    Attributes:
        folder: it was read from; None: it was not.
        is_changed: items were added, changed or removed since.
    """

    served: Served
    catalogue: Catalogue
    manifest: dict[str, Any]
    encoder: TextEncoder | None
    histories: files.UserHistories
    folder: Path | None
    is_changed: bool


def save(recommender: Saved, folder: Path, histories: bool = True) -> Path:
    """Writes a folder that ``from_pretrained`` makes the same Recommender of.

    Vectors keep the dtype of the export while items are those of the export; once there are others all are float32, so
    that none is rounded.

    Args:
        recommender: nothing changes it meanwhile.
        folder: a new or an empty one; it is there once it is whole.
        histories: of known users, too.

    Raises:
        ConfigError: something is in the folder, or it cannot be written.
        ModelError: what the Recommender was read from is no longer there.
    """
    _check_source(recommender)
    catalogue, described = recommender.catalogue, recommender.manifest["served"]
    with making(folder, "save_pretrained") as new:
        # Others are added to vectors alone: the items of a blend stay as they are.
        rounded = isinstance(recommender.served, ServedBlend) or not recommender.is_changed
        dtype = files.dtype_of(described) if rounded else "float32"
        described = files.write_served(recommender.served, new, dtype)
        files.write_items(new, catalogue.ids[1:], catalogue.fields[1:])
        if histories and recommender.histories.users:
            files.write_histories(new, recommender.histories)
        if recommender.encoder is not None:
            shutil.copytree(recommender.encoder.folder, new / files.ITEM_ENCODER)
        for path in recommender.folder.iterdir() if recommender.folder is not None else ():
            if path.suffix in _KEPT and path.name != files.HISTORIES and not (new / path.name).exists():
                shutil.copyfile(path, new / path.name)
        if recommender.is_changed and (new / CARD).is_file():
            _say_changed(new / CARD)
        content = {name: value for name, value in recommender.manifest.items() if name != "format"}
        files.write_manifest(new, {**content, "served": described, "removed": catalogue.removed})
    return folder


def _check_source(recommender: Saved) -> None:
    """The language model and the card lie in the folder still, which another export may have taken the place of."""
    source = recommender.folder
    if source is None:
        return
    if not (source / files.MANIFEST).is_file() or read_json(source / files.MANIFEST) != recommender.manifest:
        raise ModelError(
            f"save_pretrained: {source} is no longer the export that this Recommender was read from; read it again"
        )


def _say_changed(card: Path) -> None:
    text = card.read_text(encoding="utf-8")
    if _CHANGED not in text:
        card.write_text(f"{text.rstrip()}\n\n{_CHANGED}\n", encoding="utf-8")


# ---- the Hub ----


def push(recommender: Saved, repo_id: str, *, private: bool, token: str | None, histories: bool) -> str:
    """Writes a repository, in one commit; files that an earlier export left there are removed.

    Args:
        recommender: nothing changes it meanwhile.
        repo_id: ``user/name``; made where it is missing.
        private: of a repository that is made.
        token: of the Hub; None: the one of ``hf auth login``.
        histories: of known users, too.

    Returns:
        Its address.

    Raises:
        ModelError: the Hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as place, _speaking_to_the_hub(f"push_to_hub: {repo_id}"):
        folder = save(recommender, Path(place) / "export", histories)
        api = HfApi(token=token)
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=f"{recommender.manifest['model']} on {recommender.manifest['dataset']}",
            delete_patterns=[*DOWNLOADED, files.TRAINING, f"{ONNX}*"],
        )
    return str(url)


def local_folder(folder: str | Path) -> Path:
    """The folder of an export: one of this machine, or a copy of a repository of the Hub.

    Args:
        folder: a path, or ``user/name`` where there is no such path.

    Raises:
        ModelError: the repository is not there, or the Hub cannot be reached.
    """
    path = Path(folder).expanduser()
    if path.exists() or not isinstance(folder, str) or not _REPOSITORY.fullmatch(folder):
        return path
    from huggingface_hub import snapshot_download

    with _speaking_to_the_hub(f"{folder}: no folder of this name, and of the Hub"):
        return Path(snapshot_download(folder, allow_patterns=list(DOWNLOADED)))


@contextmanager
def _speaking_to_the_hub(what: str) -> Iterator[None]:
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError

    try:
        yield
    except (HTTPError, HFValidationError, EntryNotFoundError, OSError) as error:
        raise ModelError(f"{what}: {error}") from error
