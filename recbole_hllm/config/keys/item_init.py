"""Keys of tables of item ids that start from vectors."""

from typing import Any

from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.schema import Scope, Settings, key

TRAINING = Scope.TRAINING


class ItemInitKeys(Settings):
    """Where the table of items starts."""

    title = "Where item vectors start"

    item_init: str | None = key(
        None,
        "What the rows of the item table start from, their principal components: a finished run that has item vectors "
        "(its folder, or row:HLLM in a table), or an Item LLM, named as TextKNN's item_pretrain_dir, whose frozen "
        "vectors are taken. Empty: random.",
        scope=TRAINING, source=True,
    )  # fmt: skip
    item_init_keys: dict[str, Any] | None = key(
        None,
        "Keys of the TextKNN that reads the texts for an Item LLM, such as {text_keys: [title]}.",
        scope=TRAINING,
    )
    item_init_tuning: str = key(
        "free",
        "free: the table is trained. frozen: it stays as it starts. bounded: no row goes further than item_init_bound "
        "from where it starts.",
        scope=TRAINING, choices=("free", "frozen", "bounded"),
    )  # fmt: skip
    item_init_whitened: bool = key(
        False,
        "Principal components of variance 1 each, so that the first ones do not outweigh the others.",
        scope=TRAINING,
    )
    item_init_norm: float = key(
        1.0, "Length of the rows at the start, as a root mean square.", scope=TRAINING, least=1e-6
    )
    item_init_bound: float = key(
        0.5,
        "Of item_init_tuning: bounded, the longest correction of a row, beside item_init_norm.",
        scope=TRAINING,
        least=0,
    )


class SASRecKeys(ItemInitKeys, RunKeys):
    """SASRec of RecBole, whose keys are its own; beside them, item vectors to start from."""
