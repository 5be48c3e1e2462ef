"""SASRec-NCE: RecBole's SASRec encoder, trained as HLLM is (the ID baseline of arXiv 2409.12740, section 4.4)."""

from typing import Any, ClassVar

from recbole.model.layers import TransformerEncoder
from torch import Tensor, nn

from recbole_hllm.config.keys.baselines import SASRecNCEKeys
from recbole_hllm.model.base.item_table import INITIAL_STD, ItemTableRecommender, check_heads, position_table
from recbole_hllm.model.base.next_item import History
from recbole_hllm.model.baselines.item_init import StartsFromVectors


class SASRecNCE(ItemTableRecommender, StartsFromVectors):
    """A causal transformer over item vectors; every position of a window is a target of the contrastive loss.

    Beside RecBole's SASRec: all positions instead of one row for each prefix, cosines and sampled negatives instead
    of dot products and the softmax over all items. The encoder is the same. Its table may start from vectors of texts.

    Args:
        config: the run's Config; keys are explained in ``properties/model/SASRecNCE.yaml``.
        dataset: the training part of a SequenceDataset.

    Raises:
        ConfigError: sizes that do not fit together.
    """

    Keys: ClassVar[type[SASRecNCEKeys]] = SASRecNCEKeys
    settings: SASRecNCEKeys

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset, self.Keys.of(config).hidden_size)
        settings = self.settings
        check_heads(settings.hidden_size, settings.n_heads)
        self.positions = position_table(settings, INITIAL_STD)
        self.norm = nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps)
        self.dropout = nn.Dropout(settings.hidden_dropout_prob)
        self.encoder = TransformerEncoder(
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
            hidden_size=settings.hidden_size,
            inner_size=settings.inner_size,
            hidden_dropout_prob=settings.hidden_dropout_prob,
            attn_dropout_prob=settings.attn_dropout_prob,
            hidden_act=settings.hidden_act,
            layer_norm_eps=settings.layer_norm_eps,
        )
        self.encoder.apply(_initialise)

    def read_history(self, vectors: Tensor, history: History) -> Tensor:
        """(B, S, D) item vectors -> (B, S, D) predictions."""
        inputs = self.dropout(self.norm(vectors + self.positions(vectors.shape[1])))
        mask = self.get_attention_mask(history.items)
        return self.encoder(inputs, mask, output_all_encoded_layers=False)[-1]


def _initialise(module: nn.Module) -> None:
    """As RecBole's SASRec does; its layer norms start as torch's."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INITIAL_STD)
        nn.init.zeros_(module.bias)
