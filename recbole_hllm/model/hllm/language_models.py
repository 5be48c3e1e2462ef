"""The keys of HLLM's two language models: where each comes from, how it starts, what of it is trained."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from recbole_hllm.config.keys.hllm import HLLMKeys
from recbole_hllm.config.keys.language_models import LLMKeys
from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.contract import Weights
from recbole_hllm.model.base.exported import Exported, exported
from recbole_hllm.model.base.language_models import attention, packed
from recbole_hllm.model.base.llm_fit import check_named
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.probe import is_bidirectional
from recbole_hllm.nn.tuning import set_dropout
from recbole_hllm.nn.words import cut_words
from recbole_hllm.serving.folder import TRAINING

# What an HLLM that an earlier version exported has beside its language models, and where those lie.
_EARLIER = "hllm.safetensors", ("item_llm", "user_llm")
# Of ``TrainingPart.kind``, and of its facts: how many words the Item LLM has.
HLLM_KIND, WORDS = "HLLM", "words"


# ---- where they come from ----


def exported_hllm(pretrained_hllm: str | Path | None) -> Exported | None:
    """The export that a value of ``pretrained_hllm`` names; None where it is empty or a file.

    Raises:
        ModelError: it is another folder.
    """
    folder = Path(pretrained_hllm or "").expanduser()
    if not pretrained_hllm or not folder.is_dir():
        return None
    found = exported(folder, "pretrained_hllm", *_EARLIER)
    if found is None:
        raise ModelError(
            f"pretrained_hllm: the folder {folder} has no {TRAINING}; give one that recbole-hllm export wrote of an "
            "HLLM, or the file pytorch_model.bin of the official code"
        )
    return found


def item_llm_source(settings: HLLMKeys) -> str:
    """Where the Item LLM lies; an exported HLLM brings its own.

    Raises:
        ConfigError: it has no name.
    """
    export = exported_hllm(settings.pretrained_hllm)
    source = str(export.item_llm) if export else settings.item_llm.pretrain_dir
    if not source:
        raise ConfigError("item_pretrain_dir: name the Item LLM; with item_llm_init: False only its sizes are used")
    return source


def item_tokenizer_source(settings: HLLMKeys) -> str:
    """Where its tokenizer lies; errors as of ``item_llm_source``."""
    export = exported_hllm(settings.pretrained_hllm)
    return str(export.item_tokenizer) if export else item_llm_source(settings)


def user_llm_source(settings: HLLMKeys) -> str | None:
    """Where the User LLM lies; None for one that is built from ``user_llm_config``."""
    export = exported_hllm(settings.pretrained_hllm)
    return str(export.user_llm) if export else settings.user_llm.pretrain_dir


def item_spec(settings: HLLMKeys, weights: Weights = Weights.FRESH) -> BackboneSpec:
    """The Item LLM.

    Raises:
        ConfigError: it has no name, or keys contradict each other.
    """
    item = settings.item_llm
    return _spec(settings, item, item_llm_source(settings), item.config, item_llm_is_read(settings, weights))


def user_spec(settings: HLLMKeys, weights: Weights = Weights.FRESH) -> BackboneSpec:
    """The User LLM.

    Raises:
        ConfigError: keys contradict each other, or do not say what is to be built.
    """
    source, user = user_llm_source(settings), settings.user_llm
    if user.init and not source:
        raise ConfigError("user_llm_init: True needs user_pretrain_dir, the pretrained User LLM")
    # Our default is for a User LLM without a folder; a finished run's config.yaml names it as if the user had.
    llm_config = None if source and settings.is_default("user_llm_config") else user.config
    check_named(source, llm_config)
    return _spec(settings, user, source, llm_config, weights.are_read)


def _spec(
    settings: HLLMKeys, llm: LLMKeys, source: str | None, llm_config: dict[str, Any] | None, weights_are_read: bool
) -> BackboneSpec:
    pretrained = is_pretrained(settings, llm)
    if pretrained and llm_config:
        raise ConfigError(
            f"{llm.part}_llm_config: pretrained weights fix these keys; {llm.part}_llm_init: False frees them"
        )
    return BackboneSpec(
        source,
        init="pretrained" if pretrained and weights_are_read else "scratch",
        num_layers=llm.layers,
        layers_key=f"{llm.part}_llm_layers",
        config=llm_config,
        gradient_checkpointing=settings.gradient_checkpointing,
        attn_implementation=attention(settings),
        trust_remote_code=settings.trust_remote_code,
    )


def is_pretrained(settings: HLLMKeys, llm: LLMKeys) -> bool:
    """Whether a language model has pretrained weights of its own; those of the official code come later."""
    return llm.init or exported_hllm(settings.pretrained_hllm) is not None


def item_llm_is_read(settings: HLLMKeys, weights: Weights) -> bool:
    """Whether weights of the Item LLM are read: those of a frozen one are in no checkpoint."""
    return weights.are_read or settings.item_llm_tuning == "frozen" and weights is not Weights.OUTLINE


def pretrained_hllm_needed(settings: HLLMKeys, weights: Weights) -> bool:
    """Whether the weights of ``pretrained_hllm`` are to be read."""
    return bool(settings.pretrained_hllm) and item_llm_is_read(settings, weights)


def export_to_come(settings: HLLMKeys) -> bool:
    """Whether ``pretrained_hllm`` names what is not there, such as what an earlier stage will export."""
    given = settings.pretrained_hllm
    return bool(given) and not Path(given or "").expanduser().exists()


# ---- what of them is trained ----


def check_tuning(settings: HLLMKeys, llm: LLMKeys) -> None:
    """Raises ConfigError for random weights that would never be trained, and for layers without their number."""
    if (settings.item_llm_tuning == "last") != (settings.item_llm_layers_trained is not None):
        raise ConfigError(
            "item_llm_tuning: last and item_llm_layers_trained, the number of trained layers, belong together; "
            "give both or neither"
        )
    key, part = f"{llm.part}_llm_tuning", llm.part
    if llm.tuning != "full" and not llm.init and not settings.pretrained_hllm:
        raise ConfigError(
            f"{key}: {llm.tuning} keeps the weights there are, and {part}_llm_init: False makes them random; take "
            f"pretrained ones ({part}_llm_init: True with {part}_pretrain_dir, or pretrained_hllm) or {key}: full"
        )


# ---- the Item LLM with its pooling ----


def build_item_encoder(settings: HLLMKeys, out_features: int, weights: Weights) -> ItemEncoder:
    """The Item LLM as its keys say, before weights of ``pretrained_hllm`` and before LoRA.

    Args:
        settings: of the run.
        out_features: width of the User LLM.
        weights: whether pretrained ones are read.

    Raises:
        ConfigError, ModelError: the keys contradict each other, or the LLM cannot be used.
    """
    llm = load_backbone(item_spec(settings, weights))
    export = exported_hllm(settings.pretrained_hllm)
    if export and (words := export.metadata(HLLM_KIND).get(WORDS)):
        cut_words(llm, int(words))  # [ITEM] is a weight of its own here
    if settings.item_llm_dropout is not None and settings.item_llm_tuning != "frozen":  # read once, without dropout
        set_dropout(llm, settings.item_llm_dropout)
    return ItemEncoder(
        llm,
        item_emb_token_n=item_emb_token_n(settings, llm),
        out_features=out_features,
        whitening=settings.item_whitening,
        head_hidden=settings.item_head_hidden,
        max_text_length=settings.MAX_TEXT_LENGTH,
        right_aligned_positions="positions" in referenced(settings.reference),
        packed=_packed(settings, llm),
    )


def _packed(settings: HLLMKeys, llm: PreTrainedModel) -> bool:
    """See ``packed``; layers whose states are kept read rows, which are padded."""
    if settings.item_llm_tuning != "last":
        return packed(settings, llm)
    if settings.item_packing == "packed":
        raise ConfigError("item_packing: packed is not for item_llm_tuning: last; take auto")
    return False


def item_emb_token_n(settings: HLLMKeys, llm: PreTrainedModel) -> int:
    """How many [ITEM] tokens the Item LLM reads, 0 or 1: one that nobody trained or will train says nothing, and an
    export has one or has none. Nor is there one where states of texts are kept, in which it would stand.

    Raises:
        ConfigError: there is none, and the key asks for one; or there must be none, and the export has one.
        ModelError: the export is damaged.
    """
    if settings.item_llm_tuning == "last":
        return _no_item_token(settings)
    given, export = settings.item_emb_token_n, exported_hllm(settings.pretrained_hllm)
    if given is None and export:
        return int(_has_item_token(export))
    untrained = settings.item_llm_tuning == "frozen" and not settings.pretrained_hllm
    if given and untrained:
        raise ConfigError(
            "item_emb_token_n: 1 needs a trained [ITEM] token, which a frozen Item LLM (item_llm_tuning: frozen) has "
            "from pretrained_hllm only; give that, or item_emb_token_n: 0 for the mean over the text"
        )
    if given is not None or untrained:
        return given or 0
    return int(not is_bidirectional(llm))


def _no_item_token(settings: HLLMKeys) -> int:
    export = exported_hllm(settings.pretrained_hllm)
    if settings.item_emb_token_n or (export and _has_item_token(export)):
        raise ConfigError(
            "item_llm_tuning: last keeps what the lower layers make of the texts, where a trained [ITEM] token cannot "
            "stand; take item_emb_token_n: 0 and no pretrained_hllm with an [ITEM] token, or another item_llm_tuning"
        )
    return 0


def _has_item_token(export: Exported) -> bool:
    return "item_encoder.item_emb_tokens" in export.weights(HLLM_KIND)
