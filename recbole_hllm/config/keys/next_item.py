"""Keys of models that predict the next item at every position, and of their loss."""

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.schema import Scope, Settings, default, key

TRAINING = Scope.TRAINING


class TableSizeKeys(Settings):
    """Size of a table of item ids."""

    item_embed_dim: int = key(64, "Size of a row of the table.", least=1)


class HistoryKeys(RunKeys):
    """Histories in training and evaluation."""

    title = "Histories"

    data_split: bool = key(
        True,
        "Cut long histories into chunks, each position a target once. False: the last chunk only.",
        scope=TRAINING,
    )
    MAX_ITEM_LIST_LENGTH_TEST: int | None = key(
        None,
        "History length in evaluation. Empty: MAX_ITEM_LIST_LENGTH.",
        least=1,
    )

    @property
    def longest_history(self) -> int:
        """Most items of a history that are read in evaluation."""
        return self.MAX_ITEM_LIST_LENGTH_TEST or self.MAX_ITEM_LIST_LENGTH


class TwoTowerKeys(RunKeys):
    """Keys of models that score by a cosine."""

    temperature: float | None = key(None, "Of the loss. Empty: learned, from 0.07 on.", scope=TRAINING, least=1e-3)


class NextItemLossKeys(TwoTowerKeys):
    """The contrastive loss (arXiv 2409.12740, section 3.2)."""

    title = "Loss (arXiv 2409.12740, section 3.2)"

    loss: str = key(
        "softmax",
        "softmax: cross-entropy of the target among its negatives. gbce: binary cross-entropy of each, corrected for "
        "drawing few negatives (arXiv 2308.07192).",
        scope=TRAINING, choices=("softmax", "gbce"),
    )  # fmt: skip
    gbce_t: float = key(
        0.75,
        "With loss: gbce: how far it corrects, from 0 (not at all) to 1 (as if all items were negatives).",
        scope=TRAINING, least=0, most=1,
    )  # fmt: skip
    similarity: str = key(
        "cosine",
        "What a prediction and an item's vector are compared by, in training and in scores: cosine or dot, their "
        "product.",
        choices=("cosine", "dot"),
    )  # fmt: skip
    num_negatives: int | None = key(
        512,
        "Negatives shared by a batch. Empty: MAX_ITEM_LIST_LENGTH + 1 for each row of the batch. 0: none are drawn, "
        "with in_batch_negatives.",
        scope=TRAINING, least=0,
    )  # fmt: skip
    negatives: str = key(
        "shared",
        "shared: the same for the whole batch. per_position: num_negatives for each target, all of them texts to "
        "encode: as costly as the catalogue, in every step. cached, of an HLLM whose Item LLM is trained: every item, "
        "with the vector that was computed last (cache_refresh_steps); gradients go into those of the batch and into "
        "num_negatives drawn ones, weighted so that they stand for all others. catalogue: all items, the full softmax, "
        "computed in blocks; num_negatives and train_neg_sample_args have no part in it.",
        scope=TRAINING, choices=("shared", "per_position", "cached", "catalogue"),
    )  # fmt: skip
    in_batch_negatives: bool = key(
        False,
        "The targets of the batch are negatives for all its positions, their logits corrected by the logarithm of how "
        "often each is in the training data (logQ, Yi et al. 2019). They cost nothing to encode.",
        scope=TRAINING,
    )
    cross_batch_negatives: int | None = key(
        None,
        "So many negatives of earlier batches are negatives again, with the vectors they had then and without "
        "gradients (cross-batch memory, arXiv 1912.06798); train/memory_age in the log is their mean age in steps. "
        "Empty: none.",
        scope=TRAINING, least=1,
    )  # fmt: skip
    cross_batch_correction: bool = key(
        False,
        "Bring those vectors to where items are now: their mean and standard deviation become those of the batch's "
        "negatives (Adaptive Cross Batch Normalization, Ajanthan et al. 2023).",
        scope=TRAINING,
    )
    temperature: float | None = default(None)
    nce_thres: float | None = key(
        0.99,
        "Drop negatives whose cosine to the target is above this. Empty: only the target's own id is dropped.",
        scope=TRAINING, least=-1, most=1,
    )  # fmt: skip
    min_surviving_negatives: float | None = key(
        1.0,
        "Stop the run when fewer negatives than this are left per target for 10 batches in a row: item vectors "
        "have collapsed.",
        scope=TRAINING, least=0,
    )  # fmt: skip


class NextItemKeys(NextItemLossKeys, HistoryKeys):
    """Every next-item model (docs/extending/next-item.md), unless it has a default of its own."""
