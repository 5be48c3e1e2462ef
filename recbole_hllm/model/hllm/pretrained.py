"""HLLM's weights from elsewhere: the official code's checkpoints, and exports."""

from pathlib import Path
from typing import Any

import torch

from recbole_hllm.errors import ModelError
from recbole_hllm.model.hllm.language_models import HLLM_KIND, exported_hllm

OF_LLMS = ("item_encoder.backbone.", "user_encoder.backbone.")
# What keys of HLLM and HLLMRanker add to the two LLMs.
_ADDED = ("input_features.", "head.", "user_token", "target_ids.", "id_part.")
# Those of them with a row for each id, which is another item's in another data set.
_BY_ID = ("input_features.item.", "input_features.action.", "target_ids.", "id_part.")
# Between the Item LLM and the item vector: what was trained upon one of them cannot go on upon another.
_WHITENING, _HEAD = "item_encoder.whitening.", "item_encoder.projection."
# What a training keeps beside weights, to go on with.
OF_TRAINING = ("cache.", "further.")
# Of the facts of a training part.
METHOD = "item_whitening"


# ---- from elsewhere ----


def load_pretrained_hllm(model: Any, path: str | Path) -> None:
    """Loads a checkpoint in the layout of the official code: one flat ``pytorch_model.bin``, weights only.

    Heads, poolers and the User LLM's word embeddings, which HLLM does not use, are left out.

    Args:
        model: an HLLM whose LLMs are not tuned with LoRA and not frozen yet.
        path: the file; or the folder of an export whose two LLMs the model is built from, for the rest.

    Raises:
        ModelError: no such file or folder, or its weights do not fit the model.
    """
    own = model.state_dict()
    weights = {name: weight for name, weight in read_pretrained(path).items() if name in own or name != "logit_scale"}
    metadata = _metadata_of(path)
    _check_item_part(path, model, weights, own, metadata)
    if metadata.get("ids") != model.ids_digest:
        dropped = [name for name in weights if name.startswith(_BY_ID)]
        weights = {name: weight for name, weight in weights.items() if name not in dropped}
        if dropped:
            names = ", ".join(dropped)
            model.logger.warning(f"pretrained_hllm: {path} is of other items, so {names} start from scratch")
    elsewhere = (*OF_LLMS, "logit_scale") if exported_hllm(path) else ()
    unknown = sorted(weights.keys() - own.keys())
    missing = sorted(name for name in own.keys() - weights.keys() if not name.startswith(elsewhere))
    # What the official code, or an HLLM that ranks, has no weights for starts as it is; and the other way round.
    missing = [name for name in missing if not name.startswith((_HEAD, _WHITENING, *_ADDED, *OF_TRAINING))]
    unknown = [name for name in unknown if not name.startswith(_ADDED)]
    weights = {name: weight for name, weight in weights.items() if name in own or name in unknown}
    shapes = [name for name in weights.keys() & own.keys() if weights[name].shape != own[name].shape]
    if unknown or missing or shapes:
        raise ModelError(
            f"pretrained_hllm: {path} does not fit the Item LLM, User LLM and item_emb_token_n of this config: "
            f"missing {missing[:3]}, unknown {unknown[:3]}, other shape {shapes[:3]}"
        )
    model.load_state_dict({**own, **weights})


def read_pretrained(path: str | Path) -> dict[str, torch.Tensor]:
    """Weights by their names here; of an export those outside the LLMs."""
    export = exported_hllm(path)
    if export is not None:
        return export.weights(HLLM_KIND)
    return {new: value for name, value in _read_official(path).items() if (new := _our_name(name))}


def _metadata_of(path: str | Path) -> dict[str, str]:
    """What an export says beside its weights: ``ids``, which items the numbers in it stand for, and the method of
    whitening."""
    export = exported_hllm(path)
    return {} if export is None else export.metadata(HLLM_KIND)


def _check_item_part(
    path: str | Path, model: Any, weights: dict[str, Any], own: dict[str, Any], metadata: dict[str, str]
) -> None:
    """Raises ModelError where whitening or head of an export are others than those of the keys; warns where the keys
    leave its part of item ids out."""
    if exported_hllm(path) is None:  # the official code has neither
        return
    settings, had = model.settings, metadata.get(METHOD)
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
