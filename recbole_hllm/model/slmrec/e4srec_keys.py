"""What the keys of E4SRec mean: the language model, its tuning and its words; and what is wrong with them."""

from collections.abc import Sized

from recbole_hllm.config.keys.slmrec import E4SRecKeys
from recbole_hllm.errors import ConfigError, naming
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.language_models import attention, lora_settings
from recbole_hllm.model.base.llm_fit import check_named, check_prompted_llm, history_lengths
from recbole_hllm.model.base.trained_run import check_same_data
from recbole_hllm.model.slmrec.exported import exported_e4srec
from recbole_hllm.nn.backbone import BackboneSpec, load_tokenizer, skeleton_of
from recbole_hllm.nn.prompted import check_words_known

_ITEMS = "{items}"


def tuning_mode(settings: E4SRecKeys) -> str:
    """``full``, ``lora`` or ``frozen``; empty: LoRA with ``user_llm_init: True``, full otherwise.

    Raises:
        ConfigError: random weights that would never be trained.
    """
    mode = settings.user_llm_tuning or ("lora" if settings.user_llm_init else "full")
    if mode != "full" and not settings.user_llm_init and not settings.pretrained_e4srec:
        raise ConfigError(
            f"user_llm_tuning: {mode} keeps the weights there are, and user_llm_init: False makes them random; take "
            "user_llm_init: True with user_pretrain_dir, or user_llm_tuning: full"
        )
    return mode


def llm_spec(settings: E4SRecKeys, weights: Weights = Weights.FRESH) -> BackboneSpec:
    """The language model.

    Raises:
        ConfigError: keys contradict each other, or do not say what is to be built.
    """
    exported = exported_e4srec(settings.pretrained_e4srec)
    source = str(exported.user_llm) if exported else settings.user_pretrain_dir
    pretrained, sizes = bool(settings.user_llm_init or exported), settings.user_llm_config
    if settings.user_llm_init and not source:
        raise ConfigError("user_llm_init: True needs user_pretrain_dir, the pretrained language model")
    # Our default is for a language model without a folder.
    if source and settings.is_default("user_llm_config"):
        sizes = None
    check_named(source, sizes)
    if exported and sizes:
        raise ConfigError("user_llm_config: pretrained_e4srec brings its own language model; leave it empty")
    if pretrained and sizes:
        raise ConfigError("user_llm_config: pretrained weights fix these keys; user_llm_init: False frees them")
    return BackboneSpec(
        source,
        init="pretrained" if pretrained and weights.are_read else "scratch",
        num_layers=settings.user_llm_layers,
        layers_key="user_llm_layers",
        config=sizes,
        gradient_checkpointing=settings.gradient_checkpointing,
        attn_implementation=attention(settings),
        trust_remote_code=settings.trust_remote_code,
    )


def instruction_texts(settings: E4SRecKeys) -> tuple[str, str]:
    """The text before the items and the text after them.

    Raises:
        ConfigError: no place for the items, or no language model whose tokenizer could read it.
    """
    text = settings.instruction
    if not text:
        return "", ""
    if settings.pretrained_e4srec:
        raise ConfigError("instruction: pretrained_e4srec brings its own; leave it empty")
    if text.count(_ITEMS) != 1:
        raise ConfigError(f"instruction: {text!r} is not a text with one place for the items, {_ITEMS}")
    if not settings.user_pretrain_dir:
        raise ConfigError(
            "instruction: only the tokenizer of user_pretrain_dir can read it; name one, or leave it empty"
        )
    before, _, after = text.partition(_ITEMS)
    return before, after


def instruction_tokens(settings: E4SRecKeys) -> tuple[list[int], list[int]]:
    """Token ids of the two texts; the first begins with the tokenizer's BOS where it has one."""
    before, after = instruction_texts(settings)
    if not settings.instruction:
        return [], []
    assert settings.user_pretrain_dir is not None, "instruction_texts"
    tokenizer = load_tokenizer(settings.user_pretrain_dir, settings.trust_remote_code)
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    words = [tokenizer(text, add_special_tokens=False).input_ids if text else [] for text in (before, after)]
    return first + words[0], words[1]


def check_language_model(settings: E4SRecKeys, spec: BackboneSpec) -> None:
    """What would otherwise be known after a table was trained for it.

    Raises:
        ConfigError, ModelError: histories, instruction or LoRA do not fit the language model.
    """
    key = "user_pretrain_dir" if spec.source else "user_llm_config"
    lora = lora_settings(settings) if tuning_mode(settings) == "lora" else None
    texts, skeleton = instruction_tokens(settings), skeleton_of(spec)
    check_prompted_llm(spec, key, lora, history_lengths(settings), sum(map(len, texts)))
    if skeleton is not None:
        with naming(key):
            check_words_known(skeleton, [*texts[0], *texts[1]])


def check_table_keys(settings: E4SRecKeys) -> None:
    """Raises ConfigError for values of ``item_table`` and ``item_table_keys`` that no data could make right."""
    keys = settings.item_table_keys or {}
    if "hidden_size" in keys:
        raise ConfigError("item_table_keys: hidden_size is the item_embed_dim of this model; give that")
    check_same_data(settings, "item_table_keys", keys)
    if settings.item_table and settings.pretrained_e4srec:
        raise ConfigError("item_table: pretrained_e4srec brings its own; leave one of them empty")


def check_text_after(settings: E4SRecKeys, after: Sized) -> None:
    """Raises ConfigError for text after the items, ``after``, where each of them is trained on."""
    if len(after) and settings.training_rows == "positions":
        raise ConfigError(
            "training_rows: positions trains on every item of a history at once, and the instruction's text after "
            f"{_ITEMS} cannot follow each of them; take training_rows: prefix or user, or end with {_ITEMS}"
        )
