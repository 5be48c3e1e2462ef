"""LLM-ID: a language model from scratch over a table of item ids (SASRec-1B of arXiv 2409.12740, section 4.4)."""

from typing import Any, ClassVar

from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_hllm.config.keys.baselines import LLMIDRecKeys
from recbole_hllm.model.base.item_table import ItemTableRecommender
from recbole_hllm.model.base.llm_fit import check_named, check_user_llm, history_lengths
from recbole_hllm.model.base.next_item import History
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone
from recbole_hllm.nn.tuning import tune
from recbole_hllm.nn.user_encoder import UserEncoder
from recbole_hllm.nn.user_models.language import UserLLM


class LLMIDRec(ItemTableRecommender):
    """HLLM's User LLM with ids in place of texts: what the size of a language model does without its knowledge.

    A table of ids, one projection without bias to the model's width, and a causal language model with random weights;
    targets and negatives go through the same projection.

    Args:
        config: the run's Config; keys are explained in ``properties/model/LLMIDRec.yaml``.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError, ModelError: ``user_llm_config`` does not describe a causal language model.
    """

    Keys: ClassVar[type[LLMIDRecKeys]] = LLMIDRecKeys
    settings: LLMIDRecKeys

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError or ModelError for values that are wrong whatever the data are."""
        settings = cls.Keys.of(config)
        check_user_llm(_scratch(settings), "user_llm_config", None, history_lengths(settings))

    def __init__(self, config: Any, dataset: Any) -> None:
        self.check_keys(config)
        width = self.Keys.of(config).item_embed_dim
        super().__init__(config, dataset, width)
        self.user_encoder = UserEncoder(load_backbone(_scratch(self.settings)))
        tune(self.user_encoder.backbone, "full")
        self.projection = nn.Linear(width, self.user_encoder.hidden_size, bias=False)
        self.use_further_negatives(dataset, self.user_encoder.hidden_size)  # of projected rows

    def vectors_of(self, ids: Tensor) -> Tensor:
        """(N,) item ids -> (N, D) projected rows of the table."""
        return self.projection(super().vectors_of(ids))

    def scoring_flops(self, rows: Interaction) -> float:
        """The projection of the negatives, too, each item once."""
        _, needed, _ = self.negatives_of(rows[self.NEG_ITEM_ID], rows[self.ITEM_SEQ][:, 1:] != 0)
        return super().scoring_flops(rows) + 6.0 * len(needed) * self.projection.weight.numel()

    def read_history(self, vectors: Tensor, history: History) -> Tensor:
        """(B, S, D) item vectors -> (B, S, D) predictions by the language model."""
        return self.user_encoder(vectors)

    def user_model(self) -> UserLLM:
        """The language model, whose inputs have nothing added."""
        nothing: dict[str, Any] = {"n_items": 0, "time_num": 0, "time_width": 0, "time_of": "item"}
        return UserLLM(self.user_encoder, self.user_encoder.hidden_size, **nothing)


def _scratch(settings: LLMIDRecKeys) -> BackboneSpec:
    sizes = settings.user_llm_config
    check_named(None, sizes)
    # On a CPU plain matrix products beat the fused kernel for histories of a few dozen items.
    attention = "eager" if settings.device.type == "cpu" else None
    return BackboneSpec(
        None,
        init="scratch",
        config=sizes,
        gradient_checkpointing=settings.gradient_checkpointing,
        attn_implementation=attention,
    )
