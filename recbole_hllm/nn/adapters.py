"""Adapters (LoRA and the like) that lie where a language model is looked for."""

import json
from pathlib import Path

from transformers.utils import find_adapter_config_file

from recbole_hllm.errors import ModelError


def refuse_adapter(folder: str, source: str) -> None:
    """transformers loads what an ``adapter_config.json`` says without a word: over weights that may contain it already,
    and with everything else frozen.

    Args:
        folder: or hub id.
        source: what the user calls it.

    Raises:
        ModelError: there is one.
    """
    file = find_adapter_config_file(folder)
    if file is None:
        return
    merge = (
        f"merge it with peft, AutoPeftModelForCausalLM.from_pretrained('{folder}').merge_and_unload()"
        ".save_pretrained('NEW_FOLDER'), and name the new folder with the tokenizer's files in it"
    )
    if (Path(folder) / "config.json").is_file():
        raise ModelError(
            f"language model '{source}' is a model and an adapter at once: where its weights contain the adapter, "
            f"remove adapter_config.json; where they do not, {merge}"
        )
    base = _base(Path(file))
    raise ModelError(f"'{source}' is an adapter{f' of {base}' if base else ''} and no language model: {merge}")


def _base(file: Path) -> str | None:
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return None
