"""SASRec-NCE: RecBole's SASRec encoder, trained as HLLM is (the ID baseline of arXiv 2409.12740, section 4.4)."""

from typing import Any, ClassVar

from recbole_hllm.config.keys.baselines import SASRecNCEKeys
from recbole_hllm.model.base.item_table import ItemTableRecommender
from recbole_hllm.model.base.sasrec_encoder import ReadsAsSASRec
from recbole_hllm.model.baselines.item_init import StartsFromVectors


class SASRecNCE(ReadsAsSASRec, ItemTableRecommender, StartsFromVectors):
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
        self.build_encoder()
