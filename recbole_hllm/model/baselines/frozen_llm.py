"""The pretrained language model of the baselines that train nothing of it."""

from typing import Any, ClassVar

import numpy as np

from recbole_hllm.config.keys.baselines import PromptLLMKeys, TextKNNKeys
from recbole_hllm.config.keys.frozen_text import TextSASRecKeys
from recbole_hllm.data.protocol import referenced
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import ReadsWeights, Weights
from recbole_hllm.model.base.frozen_texts import vectors_of_texts
from recbole_hllm.model.base.item_texts import item_file, text_columns
from recbole_hllm.model.base.language_models import attention, packed
from recbole_hllm.model.base.llm_fit import check_text_llm
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_tokenizer
from recbole_hllm.nn.item_encoder import ItemEncoder


class ReadsFrozenTexts(ReadsWeights):
    """Has vectors of all items' texts, of a language model that is read only to compute them.

    Attributes:
        PURPOSE: the language model and what it is for, in the error where it has no name.
    """

    Keys: ClassVar[type[TextKNNKeys] | type[TextSASRecKeys]]
    settings: TextKNNKeys | TextSASRecKeys
    PURPOSE: ClassVar[str]

    @classmethod
    def check_files(cls, config: Any) -> None:
        """Looks for item texts and the language model's tokenizer.

        Raises:
            ConfigError, DataError, ModelError: one of them is missing.
        """
        settings = cls.Keys.of(config)
        source, path = named_source(settings, cls.PURPOSE), item_file(settings)
        if not path.exists():
            raise ConfigError(f"there is no {path} to read item texts from")
        text_columns(path, settings)
        load_tokenizer(source, settings.trust_remote_code)

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError or ModelError where the language model does not fit the keys, whatever the data are."""
        settings = cls.Keys.of(config)
        spec = frozen_spec(settings, named_source(settings, cls.PURPOSE))
        check_text_llm(spec, "item_pretrain_dir", settings.MAX_TEXT_LENGTH)

    def text_vectors(self, dataset: Any, weights: Weights = Weights.FRESH) -> tuple[np.ndarray, str]:
        """Means over the last hidden states of each item's text, as ``vectors_of_texts`` returns them.

        The language model is in no checkpoint: all ``weights`` but ``OUTLINE`` read it.

        Args:
            dataset: the training part.

        Raises:
            ConfigError, DataError, ModelError: texts and language model are missing or do not fit together.
        """
        settings, source = self.settings, named_source(self.settings, self.PURPOSE)
        read = Weights.OUTLINE if weights is Weights.OUTLINE else Weights.FRESH
        llm = load_backbone(frozen_spec(settings, source, read))
        encoder = ItemEncoder(
            llm,
            item_emb_token_n=0,
            max_text_length=settings.MAX_TEXT_LENGTH,
            right_aligned_positions="positions" in referenced(settings.reference),
            packed=packed(settings, llm),
        )
        return vectors_of_texts(settings, encoder, source, dataset, weights)


def named_source(settings: TextKNNKeys | TextSASRecKeys | PromptLLMKeys, purpose: str) -> str:
    """Where the language model and its tokenizer lie.

    Args:
        purpose: what it is for, for the error.

    Raises:
        ConfigError: it has no name.
    """
    if not settings.item_pretrain_dir:
        raise ConfigError(f"item_pretrain_dir: name the {purpose}")
    return settings.item_pretrain_dir


def frozen_spec(
    settings: TextKNNKeys | TextSASRecKeys | PromptLLMKeys, source: str, weights: Weights = Weights.FRESH
) -> BackboneSpec:
    """The language model, as its keys say."""
    return BackboneSpec(
        source,
        init="pretrained" if weights.are_read else "scratch",
        num_layers=settings.item_llm_layers,
        layers_key="item_llm_layers",
        attn_implementation=attention(settings),
        trust_remote_code=settings.trust_remote_code,
    )
