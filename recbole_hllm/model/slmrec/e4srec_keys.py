"""What the keys of E4SRec mean: the language model, its tuning and its words; and what is wrong with them."""

from recbole_hllm.config.keys.slmrec import E4SRecKeys
from recbole_hllm.errors import ConfigError, did_you_mean, naming
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.language_models import attention, lora_settings
from recbole_hllm.model.base.llm_fit import check_prompted_llm, history_lengths
from recbole_hllm.model.base.trained_run import check_same_data
from recbole_hllm.model.slmrec.export_e4srec import exported_e4srec
from recbole_hllm.nn.backbone import BackboneSpec, load_tokenizer, skeleton_of
from recbole_hllm.nn.prompted import check_words_known
from recbole_hllm.nn.tuning import MODES

_ITEMS = "{items}"


def tuning_mode(config) -> str:
    """``full``, ``lora`` or ``frozen``; empty: LoRA with ``user_llm_init: True``, full otherwise.

    Raises:
        ConfigError: another word, or random weights that would never be trained.
    """
    mode = config["user_llm_tuning"] or ("lora" if config["user_llm_init"] else "full")
    if mode not in MODES:
        raise ConfigError(f"user_llm_tuning: {mode!r} is not one of {', '.join(MODES)}{did_you_mean(str(mode), MODES)}")
    if mode != "full" and not config["user_llm_init"] and not config["pretrained_e4srec"]:
        raise ConfigError(
            f"user_llm_tuning: {mode} keeps the weights there are, and user_llm_init: False makes them random; take "
            "user_llm_init: True with user_pretrain_dir, or user_llm_tuning: full"
        )
    return mode


def llm_spec(config, weights: Weights = Weights.FRESH) -> BackboneSpec:
    """The language model.

    Raises:
        ConfigError: keys contradict each other.
    """
    exported = exported_e4srec(config["pretrained_e4srec"])
    source = str(exported / "llm") if exported else config["user_pretrain_dir"]
    pretrained, sizes = bool(config["user_llm_init"] or exported), config["user_llm_config"]
    if config["user_llm_init"] and not source:
        raise ConfigError("user_llm_init: True needs user_pretrain_dir, the pretrained language model")
    if sizes is not None and not isinstance(sizes, dict):
        raise ConfigError(f"user_llm_config: {sizes!r} is not a dict of keys of the Hugging Face config")
    # Our default is for a language model without a folder.
    if source and sizes == config.internal_config_dict.get("user_llm_config"):
        sizes = None
    if exported and sizes:
        raise ConfigError("user_llm_config: pretrained_e4srec brings its own language model; leave it empty")
    if pretrained and sizes:
        raise ConfigError("user_llm_config: pretrained weights fix these keys; user_llm_init: False frees them")
    return BackboneSpec(
        source,
        init="pretrained" if pretrained and weights.are_read else "scratch",
        num_layers=config["user_llm_layers"],
        layers_key="user_llm_layers",
        config=sizes,
        gradient_checkpointing=config["gradient_checkpointing"],
        attn_implementation=attention(E4SRecKeys.of(config)),
        trust_remote_code=config["trust_remote_code"],
    )


def instruction_texts(config) -> tuple[str, str]:
    """The text before the items and the text after them.

    Raises:
        ConfigError: no place for the items, or no language model whose tokenizer could read it.
    """
    text = config["instruction"]
    if not text:
        return "", ""
    if config["pretrained_e4srec"]:
        raise ConfigError("instruction: pretrained_e4srec brings its own; leave it empty")
    if not isinstance(text, str) or text.count(_ITEMS) != 1:
        raise ConfigError(f"instruction: {text!r} is not a text with one place for the items, {_ITEMS}")
    if not config["user_pretrain_dir"]:
        raise ConfigError(
            "instruction: only the tokenizer of user_pretrain_dir can read it; name one, or leave it empty"
        )
    before, _, after = text.partition(_ITEMS)
    return before, after


def instruction_tokens(config) -> tuple[list[int], list[int]]:
    """Token ids of the two texts; the first begins with the tokenizer's BOS where it has one."""
    before, after = instruction_texts(config)
    if not config["instruction"]:
        return [], []
    tokenizer = load_tokenizer(config["user_pretrain_dir"], config["trust_remote_code"])
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    words = [tokenizer(text, add_special_tokens=False).input_ids if text else [] for text in (before, after)]
    return first + words[0], words[1]


def check_language_model(config, spec: BackboneSpec) -> None:
    """What would otherwise be known after a table was trained for it.

    Raises:
        ConfigError, ModelError: histories, instruction or LoRA do not fit the language model.
    """
    key = "user_pretrain_dir" if spec.source else "user_llm_config"
    settings = E4SRecKeys.of(config)
    lora = lora_settings(settings) if tuning_mode(config) == "lora" else None
    texts, skeleton = instruction_tokens(config), skeleton_of(spec)
    check_prompted_llm(spec, key, lora, history_lengths(settings), sum(map(len, texts)))
    if skeleton is not None:
        with naming(key):
            check_words_known(skeleton, [*texts[0], *texts[1]])


def check_table_keys(config) -> None:
    """Raises ConfigError for values of ``item_table`` and ``item_table_keys`` that no data could make right."""
    keys = config["item_table_keys"]
    if keys is not None and not isinstance(keys, dict):
        raise ConfigError(f"item_table_keys: {keys!r} is not a dict of keys of SASRec")
    if keys and "hidden_size" in keys:
        raise ConfigError("item_table_keys: hidden_size is the item_embed_dim of this model; give that")
    check_same_data(config, "item_table_keys", keys or {})
    if config["item_table"] and config["pretrained_e4srec"]:
        raise ConfigError("item_table: pretrained_e4srec brings its own; leave one of them empty")


def check_text_after(config, after) -> None:
    """Raises ConfigError for text behind the items, ``after``, where each of them is trained on."""
    if len(after) and config["training_rows"] == "positions":
        raise ConfigError(
            "training_rows: positions trains on every item of a history at once, and the instruction's text behind "
            f"{_ITEMS} cannot stand behind each of them; take training_rows: prefix or user, or end with {_ITEMS}"
        )
