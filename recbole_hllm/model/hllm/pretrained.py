"""HLLM's weights from elsewhere and for elsewhere: the official code's checkpoints, and Hugging Face folders."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from recbole_hllm.errors import ModelError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.item_vectors import encoder_digest
from recbole_hllm.model.hllm.language_models import REST_OF_HLLM, build_item_encoder, exported_folder, item_llm_source
from recbole_hllm.nn.backbone import load_tokenizer
from recbole_hllm.nn.item_encoder import ItemEncoder, StoredItemVectors
from recbole_hllm.nn.saved import on_cpu, save_llm, save_without_words

_OF_LLMS = ("item_encoder.backbone.", "user_encoder.backbone.")
# What keys of HLLM and HLLMRanker add to the two LLMs.
_ADDED = ("input_features.", "head.", "user_token", "target_ids.", "id_part.")
# Those of them with a row for each id, which is another item's in another data set.
_BY_ID = ("input_features.item.", "input_features.action.", "target_ids.", "id_part.")
# Between the Item LLM and the item vector: what was trained upon one of them cannot go on upon another.
_WHITENING, _HEAD = "item_encoder.whitening.", "item_encoder.projection."
# What a training keeps beside weights, to go on with.
_OF_TRAINING = ("cache.", "further.")
# Of the metadata of an export.
_METHOD = "item_whitening"


# ---- from elsewhere ----


def load_pretrained_hllm(model: Any, path: str | Path) -> None:
    """Loads a checkpoint in the layout of the official code: one flat ``pytorch_model.bin``, weights only.

    Heads, poolers and the User LLM's word embeddings, which HLLM does not use, are left out.

    Args:
        model: an HLLM whose LLMs are not tuned with LoRA and not frozen yet.
        path: the file; or a folder of ``HLLM.export`` whose two LLMs the model is built from, for the rest.

    Raises:
        ModelError: no such file or folder, or its weights do not fit the model.
    """
    own = model.state_dict()
    weights = {name: weight for name, weight in _read(path).items() if name in own or name != "logit_scale"}
    metadata = _metadata_of(path)
    _check_item_part(path, model, weights, own, metadata)
    if metadata.get("ids") != model.ids_digest:
        dropped = [name for name in weights if name.startswith(_BY_ID)]
        weights = {name: weight for name, weight in weights.items() if name not in dropped}
        if dropped:
            names = ", ".join(dropped)
            model.logger.warning(f"pretrained_hllm: {path} is of other items, so {names} start from scratch")
    elsewhere = (*_OF_LLMS, "logit_scale") if exported_folder(path) else ()
    unknown = sorted(weights.keys() - own.keys())
    missing = sorted(name for name in own.keys() - weights.keys() if not name.startswith(elsewhere))
    # What the official code, or an HLLM that ranks, has no weights for starts as it is; and the other way round.
    missing = [name for name in missing if not name.startswith((_HEAD, _WHITENING, *_ADDED, *_OF_TRAINING))]
    unknown = [name for name in unknown if not name.startswith(_ADDED)]
    weights = {name: weight for name, weight in weights.items() if name in own or name in unknown}
    shapes = [name for name in weights.keys() & own.keys() if weights[name].shape != own[name].shape]
    if unknown or missing or shapes:
        raise ModelError(
            f"pretrained_hllm: {path} does not fit the Item LLM, User LLM and item_emb_token_n of this config: "
            f"missing {missing[:3]}, unknown {unknown[:3]}, other shape {shapes[:3]}"
        )
    model.load_state_dict({**own, **weights})


def _read(path: str | Path) -> dict[str, torch.Tensor]:
    """Weights by their names here; of an exported folder those outside the LLMs."""
    folder = exported_folder(path)
    if folder is None:
        return {new: value for name, value in _read_official(path).items() if (new := _our_name(name))}
    try:
        return load_file(folder / REST_OF_HLLM)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"pretrained_hllm: {folder / REST_OF_HLLM} is damaged: {error}") from error


def _metadata_of(path: str | Path) -> dict[str, str]:
    """What an exported folder says beside its weights: ``ids``, which items the numbers in it stand for, and the method
    of whitening."""
    folder = exported_folder(path)
    if folder is None:
        return {}
    with safe_open(folder / REST_OF_HLLM, framework="pt") as file:
        return file.metadata() or {}


def _check_item_part(
    path: str | Path, model: Any, weights: dict[str, Any], own: dict[str, Any], metadata: dict[str, str]
) -> None:
    """Raises ModelError where whitening or head of an export are others than those of the keys; warns where the keys
    leave its part of item ids out."""
    if exported_folder(path) is None:  # the official code has neither
        return
    settings, had = model.settings, metadata.get(_METHOD)
    head = {name: weight.shape for name, weight in weights.items() if name.startswith(_HEAD)}
    wanted = {name: weight.shape for name, weight in own.items() if name.startswith(_HEAD)}
    if had != settings.item_whitening:
        raise ModelError(
            f"pretrained_hllm: item_whitening is {settings.item_whitening or 'empty'}, and {path} was trained with "
            f"{had or 'an empty one'}; give the same"
        )
    if head != wanted:
        hidden = next((shape[0] for name, shape in head.items() if name == f"{_HEAD}0.weight"), None)
        raise ModelError(
            f"pretrained_hllm: item_head_hidden is {settings.item_head_hidden or 'empty'}, and {path} was trained with "
            f"{hidden or 'an empty one'}; give the same"
        )
    if model.id_part is None and any(name.startswith("id_part.") for name in weights):
        model.logger.warning(f"pretrained_hllm: the part of item ids in {path} is left out, as item_id_bound is 0")


def _read_official(path: str | Path) -> dict[str, torch.Tensor]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"pretrained_hllm: {path}: {error.strerror or error}") from error
    except Exception as error:  # torch's message would advise to load it all the same
        raise ModelError(
            f"pretrained_hllm: {path} is damaged or holds more than weights ({type(error).__name__}); give the "
            "pytorch_model.bin of the official code"
        ) from error
    named = isinstance(saved, dict) and all(isinstance(name, str) for name in saved)
    if not named or not all(isinstance(weight, torch.Tensor) for weight in saved.values()):
        raise ModelError(f"pretrained_hllm: {path} is no flat list of named weights, as the official code's is")
    return saved


def _our_name(name: str) -> str | None:
    """A weight's name here, or None where HLLM has no such weight."""
    if name in ("logit_scale",):
        return name
    if name == "item_emb_tokens":
        return "item_encoder.item_emb_tokens"
    part, _, rest = name.partition(".")
    rest = rest.removeprefix("model.")
    unused = rest.startswith(("lm_head.", "pooler.")) or rest.endswith(("inv_freq", "position_ids"))
    if unused or (part == "user_llm" and rest.startswith(("embed_tokens.", "wte."))):
        return None
    return {"item_llm": "item_encoder.backbone.", "user_llm": "user_encoder.backbone."}.get(part, f"{part}.") + rest


# ---- for elsewhere ----


def export_hllm(model: Any, folder: str | Path) -> None:
    """See ``HLLM.export``.

    Args:
        model: the HLLM.
        folder: a new one.

    Raises:
        ModelError: something is in the folder, or it cannot be written.
    """
    folder, encoder, settings = Path(folder), _item_encoder_of(model), model.settings
    tokenizer = load_tokenizer(item_llm_source(settings), settings.trust_remote_code)
    state = model.state_dict()
    rest = {name: weight for name, weight in state.items() if not name.startswith(_OF_LLMS + _OF_TRAINING)}
    rest.pop("item_encoder.source", None)
    if encoder.item_emb_tokens is not None:
        rest["item_encoder.item_emb_tokens"] = encoder.item_emb_tokens
    with exporting(folder):
        save_llm(encoder.backbone, folder / "item_llm")
        tokenizer.save_pretrained(folder / "item_llm")
        save_without_words(model.user_encoder.backbone, folder / "user_llm")
        # Last, so that a folder with this file is whole.
        rest = {name: on_cpu(weight) for name, weight in rest.items()}
        method = {_METHOD: settings.item_whitening} if settings.item_whitening else {}
        save_file(rest, folder / REST_OF_HLLM, metadata={"ids": model.ids_digest, **method})


@contextmanager
def exporting(folder: Path) -> Iterator[None]:
    """Around everything that is written into the folder of an export.

    Raises:
        ModelError: something is in the folder, or it cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ModelError(f"export: {folder} is not empty; name a new folder")
        yield
    except (OSError, SafetensorError) as error:
        raise ModelError(f"export: cannot write {folder}: {error}") from error


def _item_encoder_of(model: Any) -> ItemEncoder:
    """The model's own; a frozen one, which it let go, is read again."""
    if not isinstance(model.item_encoder, StoredItemVectors):
        return model.item_encoder
    encoder = build_item_encoder(model.settings, model.user_encoder.hidden_size, Weights.FRESH)
    if pretrained := model.settings.pretrained_hllm:
        own = {name: weight for name, weight in _read(pretrained).items() if name.startswith("item_")}
        own = {name.removeprefix("item_encoder."): weight for name, weight in own.items()}
        encoder.load_state_dict({**encoder.state_dict(), **own})
    if encoder_digest(encoder) != model.item_encoder.source_digest:
        raise ModelError("export: the frozen Item LLM has changed on the disk since this model was built")
    return encoder
