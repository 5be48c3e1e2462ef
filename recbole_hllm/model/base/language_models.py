"""The keys of the two language models: where each comes from, how it starts, what of it is trained."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError, ModelError, did_you_mean
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.probe import is_bidirectional
from recbole_hllm.nn.tuning import MODES, LoraSettings, set_dropout

# What an exported HLLM has beside its language models.
REST_OF_HLLM = "hllm.safetensors"


# ---- where they come from ----


def exported_folder(pretrained_hllm: str | Path | None) -> Path | None:
    """The folder of ``HLLM.export`` that a value of ``pretrained_hllm`` names; None where it is empty or a file.

    Raises:
        ModelError: it is another folder.
    """
    folder = Path(pretrained_hllm or "").expanduser()
    if not pretrained_hllm or not folder.is_dir():
        return None
    if not (folder / REST_OF_HLLM).is_file():
        raise ModelError(
            f"pretrained_hllm: the folder {folder} has no {REST_OF_HLLM}; give one that HLLM.export wrote, "
            "or the file pytorch_model.bin of the official code"
        )
    return folder


def llm_source(config, part: str) -> str | None:
    """Where the ``item`` or ``user`` LLM and its tokenizer lie: an exported HLLM brings its own."""
    folder = exported_folder(config["pretrained_hllm"])
    return str(folder / f"{part}_llm") if folder else config[f"{part}_pretrain_dir"]


def named_item_llm(config, purpose: str) -> str:
    """Where the pretrained Item LLM lies, of models that train nothing of it.

    Args:
        purpose: what it is for, for the error.

    Raises:
        ConfigError: it has no name.
    """
    source = llm_source(config, "item")
    if not source:
        raise ConfigError(f"item_pretrain_dir: name the {purpose}")
    return source


def item_spec(config, weights: Weights = Weights.FRESH) -> BackboneSpec:
    """The Item LLM.

    Raises:
        ConfigError: it has no name, or keys contradict each other.
    """
    source = llm_source(config, "item")
    if not source:
        raise ConfigError("item_pretrain_dir: name the Item LLM; with item_llm_init: False only its sizes are used")
    return _spec(config, "item", source, config["item_llm_config"], weights)


def user_spec(config, weights: Weights = Weights.FRESH) -> BackboneSpec:
    """The User LLM.

    Raises:
        ConfigError: keys contradict each other.
    """
    source, llm_config = llm_source(config, "user"), config["user_llm_config"]
    if config["user_llm_init"] and not source:
        raise ConfigError("user_llm_init: True needs user_pretrain_dir, the pretrained User LLM")
    # Our default is for a User LLM without a folder; a finished run's config.yaml names it as if the user had.
    if source and llm_config == config.internal_config_dict.get("user_llm_config"):
        llm_config = None
    return _spec(config, "user", source, llm_config, weights)


def _spec(config, part, source, llm_config, weights) -> BackboneSpec:
    pretrained = config[f"{part}_llm_init"] or exported_folder(config["pretrained_hllm"]) is not None
    if llm_config is not None and not isinstance(llm_config, dict):
        raise ConfigError(f"{part}_llm_config: {llm_config!r} is not a dict of keys of the Hugging Face config")
    if pretrained and llm_config:
        raise ConfigError(f"{part}_llm_config: pretrained weights fix these keys; {part}_llm_init: False frees them")
    return BackboneSpec(
        source,
        init="pretrained" if pretrained and _read(config, part, weights) else "scratch",
        num_layers=config[f"{part}_llm_layers"],
        layers_key=f"{part}_llm_layers",
        config=llm_config,
        gradient_checkpointing=config["gradient_checkpointing"],
        attn_implementation=attention(config),
        trust_remote_code=config["trust_remote_code"],
    )


def _read(config, part, weights: Weights) -> bool:
    """Whether weights are read: those of a frozen Item LLM are in no checkpoint."""
    frozen = (part, config[f"{part}_llm_tuning"]) == ("item", "frozen")
    return weights.are_read or frozen and weights is not Weights.OUTLINE


def llm_key(spec: BackboneSpec, part: str) -> str:
    """The key that says which the ``item`` or ``user`` LLM is."""
    return f"{part}_pretrain_dir" if spec.source else f"{part}_llm_config"


def export_to_come(config) -> bool:
    """Whether ``pretrained_hllm`` names what is not there, such as what an earlier stage will export."""
    return bool(config["pretrained_hllm"]) and not Path(config["pretrained_hllm"]).expanduser().exists()


def pretrained_hllm_needed(config, weights: Weights) -> bool:
    """Whether the weights of ``pretrained_hllm`` are to be read."""
    return bool(config["pretrained_hllm"]) and _read(config, "item", weights)


def attention(config) -> str | None:
    """On a CPU plain matrix products beat the fused kernel for texts and histories of a few dozen tokens."""
    return config["attn_implementation"] or ("eager" if config["device"].type == "cpu" else None)


def chunk_tokens(config) -> int:
    """Padded tokens the Item LLM encodes at once: what a CPU's caches like is too little for a GPU."""
    return config["item_chunk_tokens"] or (2048 if config["device"].type == "cpu" else 8192)


# ---- what of them is trained ----


def tuning_mode(config, part: str) -> str:
    """``full``, ``lora`` or ``frozen``, for the ``item`` or ``user`` LLM.

    Raises:
        ConfigError: another word, or random weights that would never be trained.
    """
    key, mode = f"{part}_llm_tuning", config[f"{part}_llm_tuning"]
    if mode not in MODES:
        raise ConfigError(f"{key}: {mode!r} is not one of {', '.join(MODES)}{did_you_mean(str(mode), MODES)}")
    if mode != "full" and not config[f"{part}_llm_init"] and not config["pretrained_hllm"]:
        raise ConfigError(
            f"{key}: {mode} keeps the weights there are, and {part}_llm_init: False makes them random; take "
            f"pretrained ones ({part}_llm_init: True with {part}_pretrain_dir, or pretrained_hllm) or {key}: full"
        )
    return mode


def lora_settings(config) -> LoraSettings:
    """The LoRA of either LLM.

    Raises:
        ConfigError: ``lora_target_modules`` are no names.
    """
    names = config["lora_target_modules"] or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"lora_target_modules: {names!r} is not a list of names of linear layers")
    return LoraSettings(config["lora_r"], config["lora_alpha"], config["lora_dropout"], tuple(names))


# ---- the Item LLM with its pooling ----


def build_item_encoder(config, out_features: int, weights: Weights) -> ItemEncoder:
    """The Item LLM as its keys say, before weights of ``pretrained_hllm`` and before LoRA.

    Args:
        config: the run's Config.
        out_features: width of the User LLM.
        weights: whether pretrained ones are read.

    Raises:
        ConfigError, ModelError: the keys contradict each other, or the LLM cannot be used.
    """
    llm = load_backbone(item_spec(config, weights))
    if config["item_llm_dropout"] is not None and config["item_llm_tuning"] != "frozen":  # read once, without dropout
        set_dropout(llm, config["item_llm_dropout"])
    return ItemEncoder(
        llm,
        item_emb_token_n=item_emb_token_n(config, llm),
        out_features=out_features,
        max_text_length=config["MAX_TEXT_LENGTH"],
        right_aligned_positions="positions" in referenced(config),
    )


def item_emb_token_n(config, llm: PreTrainedModel) -> int:
    """How many [ITEM] tokens the Item LLM reads, 0 or 1: one that nobody trained or will train says nothing, and an
    export has one or has none.

    Raises:
        ConfigError: there is none, and the key asks for one.
        ModelError: the export is damaged.
    """
    given, export = config["item_emb_token_n"], exported_folder(config["pretrained_hllm"])
    if given is None and export:
        return int(_has_item_token(export / REST_OF_HLLM))
    untrained = config["item_llm_tuning"] == "frozen" and not config["pretrained_hllm"]
    if given and untrained:
        raise ConfigError(
            "item_emb_token_n: 1 needs a trained [ITEM] token, which a frozen Item LLM (item_llm_tuning: frozen) has "
            "from pretrained_hllm only; give that, or item_emb_token_n: 0 for the mean over the text"
        )
    if given is not None or untrained:
        return given or 0
    return int(not is_bidirectional(llm))


def _has_item_token(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt") as saved:
            return "item_encoder.item_emb_tokens" in saved.keys()
    except (OSError, SafetensorError) as error:
        raise ModelError(f"pretrained_hllm: {file} is damaged: {error}") from error
