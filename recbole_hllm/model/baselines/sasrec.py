"""SASRec: RecBole's, whose item table may start from vectors of texts."""

from recbole_hllm.config.keys.item_init import SASRecKeys
from recbole_hllm.model.base.contract import CatalogueScorer
from recbole_hllm.model.base.recbole_models import sequential_recommender
from recbole_hllm.model.baselines.item_init import StartsFromVectors


class SASRec(sequential_recommender.SASRec, StartsFromVectors, CatalogueScorer):
    """RecBole's SASRec; with ``item_init`` empty it is the same to the last bit.

    Args:
        config: the run's Config; keys beside RecBole's are explained in ``properties/model/SASRec.yaml``.
        dataset: the training part of a SequenceDataset.
    """

    Keys = SASRecKeys
    READS_NUMBERS = True  # as every model of RecBole's
