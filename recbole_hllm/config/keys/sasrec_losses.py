"""Keys of SASRec with stronger losses."""

from recbole_hllm.config.keys.baselines import BaselineLossKeys, SASRecNCEKeys
from recbole_hllm.config.schema import default


class DotLossKeys(BaselineLossKeys):
    """The loss, of dot products."""

    title = "Loss"

    loss: str = default("softmax")
    gbce_t: float = default(0.75)
    similarity: str = default("dot")
    num_negatives: int | None = default(
        512,
        "Negatives shared by a batch, or those of each position. Empty: MAX_ITEM_LIST_LENGTH + 1 for each row of "
        "the batch.",
    )
    negatives: str = default("shared")
    in_batch_negatives: bool = default(False)
    cross_batch_negatives: int | None = default(None)
    cross_batch_correction: bool = default(False)
    temperature: float | None = default(1.0, "Products are divided by it. Empty: learned, from 0.07 on.")
    nce_thres: float | None = default(None)
    min_surviving_negatives: float | None = default(1.0)


class SASRecCEKeys(DotLossKeys, SASRecNCEKeys):
    """SASRec whose loss compares each position's target with the whole catalogue (arXiv 2309.07602): dot products,
    no temperature. RecBole's SASRec has that loss for one position of each row, and so many more rows. Sizes for a
    CPU.
    """

    negatives: str = default("catalogue")


class SASRecSSKeys(DotLossKeys, SASRecNCEKeys):
    """SASRec with sampled softmax: each position's target is compared with items drawn uniformly, by dot products.
    Sizes for a CPU. Published (arXiv 2508.06450) on Amazon Beauty, Sports and Toys 2014: hidden_size 256, n_layers 1,
    n_heads 1, both dropouts 0.2, MAX_ITEM_LIST_LENGTH 50, num_negatives 256, negatives: per_position,
    train_batch_size 128, learning_rate 1e-3
    """


class gSASRecKeys(DotLossKeys, SASRecNCEKeys):
    """gSASRec (arXiv 2308.07192): SASRec with generalised binary cross-entropy, which corrects the overconfidence
    that comes of few negatives. Items share one table for histories and targets. It learns how popular items are
    before it learns anything else, over thousands of steps: so batches are small here, and early stopping late. Sizes
    for a CPU. Published on MovieLens-1M: hidden_size 128, both dropouts 0.5, num_negatives 256, negatives:
    per_position, gbce_t 0.75
    """

    loss: str = default("gbce")
    num_negatives: int | None = default(256)
    train_batch_size: int = default(32)
    stopping_step: float = default(20, "Most validations in a row without a better one; one more stops training.")
