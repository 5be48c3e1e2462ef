"""PromptLLM (LEARN, arXiv 2405.03988, Baseline-v1): a frozen language model reads a user's history as one prompt."""

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor
from transformers import PreTrainedModel

from recbole_hllm.config.keys.baselines import PromptLLMKeys, PromptLLMTunedKeys
from recbole_hllm.config.parsing import AUTOCAST_DTYPES
from recbole_hllm.data.texts.prompts import HistoryPrompts
from recbole_hllm.model.base.contract import Factorised, ReadsWeights, Weights
from recbole_hllm.model.base.item_texts import build_catalogue, read_texts
from recbole_hllm.model.base.item_vectors import encode_catalogue, vector_cache
from recbole_hllm.model.base.language_models import chunk_tokens
from recbole_hllm.model.base.llm_fit import check_text_llm, check_words
from recbole_hllm.model.base.training_free import TrainingFree
from recbole_hllm.model.baselines.frozen_llm import frozen_spec, named_source
from recbole_hllm.nn.backbone import load_backbone, load_tokenizer
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.tuning import tune


class PromptReader(SequentialRecommender, Factorised, ReadsWeights):
    """One language model reads the texts of a whole history as one prompt, and the text of each item alone.

    User and item vectors are means over the last hidden states of all tokens; scores are their cosines. A model gives
    ``source(settings)`` and ``load_llm(weights)``.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.
        weights: whether those of the language model are read.

    Attributes:
        settings: the values of the model's keys.

    Raises:
        ConfigError, DataError, ModelError: texts, prompts and language model do not fit together.
    """

    Keys: ClassVar[type[PromptLLMKeys] | type[PromptLLMTunedKeys]]
    settings: PromptLLMKeys | PromptLLMTunedKeys
    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        super().__init__(config, dataset)
        self.settings = settings = self.Keys.of(config)
        self.autocast_dtype, self.token_budget = AUTOCAST_DTYPES[settings.precision], chunk_tokens(settings)
        source, length = self.source(settings), settings.MAX_PROMPT_LENGTH
        tokenizer = load_tokenizer(source, settings.trust_remote_code)
        self.prompts = HistoryPrompts.build(
            build_catalogue(settings, read_texts(settings, dataset), tokenizer, source),
            tokenizer,
            text_before=settings.history_prompt,
            separator=settings.prompt_separator,
            max_length=length,
        )
        llm = self.load_llm(weights)
        # A prompt is read as a long text is.
        self.reader = ItemEncoder(llm, item_emb_token_n=0, max_text_length=length, length_key="MAX_PROMPT_LENGTH")
        check_words(llm, self.prompts.all_tokens(), source)
        self._table: Tensor | None = None

    @staticmethod
    def source(settings: Any) -> str:
        """Where the tokenizer lies."""
        raise NotImplementedError

    def load_llm(self, weights: Weights) -> PreTrainedModel:
        """The language model, without head; ``prompts`` are there already."""
        raise NotImplementedError

    def vectors_kept(self) -> bool:
        """Whether item vectors are looked for in the cache, and kept there."""
        return self.settings.item_vector_cache

    # ---- vectors ----

    def item_vectors(self) -> Tensor:
        """(n_items, D) vectors of length 1; row 0 is the padding item's, zeros. Kept until training goes on."""
        if self._table is None or self.training:
            vectors = encode_catalogue(
                self.reader,
                self.prompts.catalogue,
                precision=self.settings.precision,
                token_budget=self.token_budget,
                cache=vector_cache(self.settings) if self.vectors_kept() else None,
            )
            device = next(self.reader.parameters()).device
            self._table = F.normalize(torch.from_numpy(np.array(vectors)).to(device), dim=-1)
        return self._table

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """(B, D) vectors of length 1 of the users' prompts.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0 and ``item_length`` (B,).
        """
        items, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        tokens, lengths = (part.to(items.device) for part in self.prompts.of_histories(items, lengths))
        with torch.autocast(items.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
            vectors = encode_items(self.reader, tokens, lengths, token_budget=self.token_budget)
        return F.normalize(vectors.float(), dim=-1)

    def train(self, mode: bool = True) -> "PromptReader":
        """Vectors of items are forgotten when training goes on."""
        if mode:
            self._table = None
        return super().train(mode)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Vectors of items are those of the old weights."""
        self._table = None
        return super().load_state_dict(*args, **kwargs)

    # ---- scores ----

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) cosine of each row's user vector and its item's vector."""
        return (self.user_vectors(interaction) * self.item_vectors()[interaction[self.ITEM_ID]]).sum(dim=-1)

    def factors(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """(B, D) and (n_items, D) vectors of length 1, whose product is the cosine."""
        return self.user_vectors(interaction), self.item_vectors()


class PromptLLM(PromptReader, TrainingFree):
    """Baseline-v1 of LEARN's paper: nothing of the pretrained language model is trained.

    Keys are explained in ``properties/model/PromptLLM.yaml``.
    """

    Keys: ClassVar[type[PromptLLMKeys]] = PromptLLMKeys
    settings: PromptLLMKeys

    @staticmethod
    def source(settings: PromptLLMKeys) -> str:
        """The Item LLM's folder.

        Raises:
            ConfigError: it has no name.
        """
        return named_source(settings, "language model that reads the histories")

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError or ModelError where the language model does not fit the keys, whatever the data are."""
        settings = cls.Keys.of(config)
        spec = frozen_spec(settings, cls.source(settings))
        check_text_llm(spec, "item_pretrain_dir", settings.MAX_PROMPT_LENGTH, length_key="MAX_PROMPT_LENGTH")

    def load_llm(self, weights: Weights) -> PreTrainedModel:
        """The pretrained language model, frozen."""
        settings, source = self.settings, self.source(self.settings)
        llm = load_backbone(frozen_spec(settings, source, weights))
        tune(llm, "frozen")
        self.logger.info(
            f"{settings.model}: {source}, frozen, reads prompts of at most {settings.MAX_PROMPT_LENGTH} tokens"
        )
        return llm
