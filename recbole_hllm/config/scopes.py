"""Which keys may differ between rows, change later, or decide what a run is: most derived from the schema."""

import recbole_hllm.config.keys.pages  # noqa: F401, it declares every key
from recbole_hllm.config.schema import Scope, names

# All rows of a table have the same value.
SHARED = names(lambda key: key.shared)
# Asked of one call, and kept with no run: a folder that somebody sent must not allow itself to run code.
NOT_SAVED = names(lambda key: key.scope is Scope.CALL)
# Where a run's files lie and what it computes on.
PLACES = names(lambda key: key.scope is Scope.PLACE)
# May change after a stage, or a trial of a search, has finished: where and how it runs.
MAY_CHANGE = names(lambda key: key.scope in (Scope.PLACE, Scope.CALL))
# When a training ends: with another value one that has ended may go on.
LIMITS = frozenset({"epochs", "max_steps", "max_training_minutes", "stopping_step"})
# What the epochs of one training are compared by, and on what: it stays while the training goes on.
OF_VALIDATION = frozenset({"valid_metric", "mask_history", "eval_args", "eval_targets", "eval_users", "data_seed"})
# A search never draws them: what a row may not have of its own, what makes no difference, and luck.
NEVER_SEARCHED = MAY_CHANGE | {"search", "seed", "trials"}
# Of files and folders it is what they hold that counts, not where they lie.
SOURCES = names(lambda key: key.source)
# Another value gives the same weights.
WITHOUT_WEIGHT = names(lambda key: not key.decides_weights)
# How results are computed and written, and what is an error: a finished training stays as it is.
OF_OUTPUT = frozenset(
    {"metric_decimal_place", "strict_data", "item_chunk_tokens", "gradient_checkpointing", "attn_implementation"}
)
# Of the data and how they are evaluated; another value gives other weights, or picks others.
OF_DATA = names(lambda key: key.scope is Scope.PROTOCOL and key.decides_weights)
# A prerequisite run has them from the run that needs it.
INHERITED = names(lambda key: key.scope is Scope.PROTOCOL or key.inherited)
