"""Keys of models that know a user by a row of items alone."""

from typing import Any

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.schema import key


class UserItemsKeys(RunKeys):
    """EASE, ItemKNN, AsymKNN, SLIMElastic, MultiVAE, MultiDAE, MacridVAE, RecVAE, DiffRec and LDiffRec of RecBole,
    which score a user's row of items. Their other keys are RecBole's.
    """

    title = "Users"

    score_from: str = key(
        "training",
        "The items that an evaluation scores a user from: training (RecBole's), those in training, or history, all "
        "that the user had before the target, as a sequential model knows them. Weights come from training either way.",
        choices=("training", "history"),
    )  # fmt: skip


def scores_histories(config: Any) -> bool:
    """Whether rows to score bring all that their users had: the model has the key, and it asks for them."""
    return issubclass(config.spec.model.Keys, UserItemsKeys) and UserItemsKeys.of(config).score_from == "history"
