"""Keys of Blend."""

from typing import TYPE_CHECKING

import recbole_hllm.config.keys.hllm  # noqa: F401, it declares action_field
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.schema import Scope, Settings, default, key

TRAINING = Scope.TRAINING


class PartsKeys(Settings):
    """What is summed."""

    title = "Parts"

    if not TYPE_CHECKING:  # which takes it for the method of that name: that is the class's, this an object's
        of: list[str] | None = key(
            None,
            "Finished runs of models that rank items: folders, or row:NAME for earlier rows of the same table, such as "
            "[row:HLLM, row:SASRec, row:Markov]. Each scores with its own length of history.",
        )
    blend_scores: str = key(
        "log_probabilities",
        "log_probabilities: of the softmax of each part's scores over the catalogue, at the temperature that the part "
        "was trained with. z_scores: each part's scores of a row less their mean, divided by their standard deviation; "
        "for parts whose scores are no logits, such as TextKNN.",
        choices=("log_probabilities", "z_scores"),
    )
    markov_smoothing: float = key(
        1.0,
        "Of a part that is Markov: how many of the transitions from an item are added, spread over all items as they "
        "are popular. Item j after item i has (c_ij + a q_j) / (c_i + a); c are counts, q_j the share of j in training "
        "with 1 added to the count of every item, a this key.",
        least=1e-6,
    )
    action_field: str | None = default(None, "That of the parts, where they read actions.")
    trust_remote_code: bool = default(False, "Let a hub model of a part run code of its own.")

    @property
    def parts(self) -> list[str]:
        """The value of ``of``; none where it is empty."""
        return self.__dict__["of"] or []


class WeightKeys(Settings):
    """How much each part counts."""

    title = "Weights"

    blend_weights: list[float] | None = key(
        None,
        "A weight for each part. Empty: picked on the validation by valid_metric; of equally good ones the most even.",
        scope=TRAINING, least=0,
    )  # fmt: skip
    blend_step: float = key(
        0.1,
        "Weights to pick from: all multiples of this, a part of 1, that add up to 1.",
        scope=TRAINING, least=0.01, most=1,
    )  # fmt: skip
    blend_lengths: int | list[int] | None = key(
        None,
        "Weights of their own, picked for each length of the history as it is read; a group begins at each number: "
        "[4, 11] is up to 3, 4 to 10, from 11 on. Empty: the same for all.",
        scope=TRAINING, least=1,
    )  # fmt: skip


class BlendKeys(PartsKeys, WeightKeys, RunKeys):
    """Weighted sum of the log-probabilities, or of normalised scores, of finished runs. Trains nothing; its
    checkpoint holds the weights, and the parts stay in their folders.
    """

    MAX_ITEM_LIST_LENGTH: int = default(50, "History length, at least that of each part.")
