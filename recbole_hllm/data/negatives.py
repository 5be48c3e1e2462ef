"""Whether ``loss_type`` and ``train_neg_sample_args`` fit a model and each other, and the data has items to draw."""

from typing import Any

import numpy as np
from recbole.utils import InputType, ModelType

from recbole_hllm.data.rows.window import WindowRows
from recbole_hllm.errors import ConfigError, DataError, did_you_mean


def check_loss(name: str, spec: Any, loss: Any) -> None:
    """Raises ConfigError for a ``loss_type`` that a model does not have.

    Args:
        name: of the model.
        spec: its ``ModelSpec``.
        loss: value of ``loss_type``.
    """
    if spec.losses and loss not in spec.losses:
        hint = did_you_mean(str(loss), spec.losses)
        raise ConfigError(f"loss_type: {name} has {' and '.join(spec.losses)}, not {loss!r}{hint}")


def check_negatives(name: str, spec: Any, loss: Any, negatives: Any) -> None:
    """Whether a model that ranks items draws negatives where its loss compares with drawn ones, and only there.

    Args:
        name: of the model.
        spec: its ``ModelSpec``.
        loss: value of ``loss_type``, ignored where the model reads no such key.
        negatives: value of ``train_neg_sample_args``; None for none.

    Raises:
        ConfigError: negatives that are missing, or that the model would read as positives or not at all. Where the
            loss is over all items RecBole itself refuses most of them.
    """
    drawn = negatives not in (None, "None")
    if isinstance(negatives, dict):  # RecBole refuses anything else
        drawn = negatives.get("distribution", "uniform") not in (None, "None")
    needed = compares_with_drawn(spec, loss)
    with_loss = f" with loss_type: {loss}" if spec.losses else ""
    if needed and not drawn:
        raise ConfigError(
            f"train_neg_sample_args: {name}{with_loss} compares with drawn negatives and {negatives} draws none; leave "
            f"it out, or set {name}.train_neg_sample_args to {{'distribution': 'uniform', 'sample_num': 1}}"
        )
    if needed is False and drawn and spec.model.fixed_input_type():  # RecBole refuses them for others
        raise ConfigError(
            f"train_neg_sample_args: {name}{with_loss} compares with all items and would not know that these are "
            "negatives; leave it out, or give it to other models only, such as BPR.train_neg_sample_args"
        )


def unread_parts(name: str, spec: Any, negatives: Any) -> dict[str, str]:
    """Parts of ``train_neg_sample_args`` that a model of windows passes over, each with the reason.

    Args:
        name: of the model.
        spec: its ``ModelSpec``.
        negatives: value of the key.
    """
    if not issubclass(spec.rows, WindowRows) or not isinstance(negatives, dict):
        return {}
    found = {}
    number = negatives.get("sample_num", 1)
    if isinstance(number, int) and number != 1:  # RecBole writes "none" where nothing is drawn
        found["sample_num"] = f"{name} reads the number of its negatives from num_negatives"
    if negatives.get("dynamic"):
        found["dynamic"] = f"{name} compares every position with many items, and picks none by its scores"
    return found


def compares_with_drawn(spec: Any, loss: Any) -> bool | None:
    """Whether a model of RecBole has a loss that compares with drawn negatives; None for other models, those that only
    count and those of labelled rows.

    Args:
        spec: its ``ModelSpec``.
        loss: value of ``loss_type``, ignored where the model reads no such key.
    """
    kind = spec.model.type
    if spec.ours or spec.rows.labelled or kind == ModelType.TRADITIONAL:
        return None
    if not spec.model.DRAWS_NEGATIVES:
        return False
    if spec.losses:
        return loss == "BPR"
    return kind == ModelType.GENERAL or spec.model.fixed_input_type() == InputType.PAIRWISE


def check_drawable(train: Any, counts: np.ndarray | None) -> None:
    """Whether each training row has an item that can be its negative: a sampler looks for one for ever.

    Args:
        train: the training part.
        counts: (n_items,) how often each item stands in the training rows, where the popular ones are drawn; None
            where all items are.

    Raises:
        DataError: a row has none.
    """
    drawable = np.arange(train.item_num) > 0 if counts is None else counts
    whose = train.rows.undrawable(drawable)
    if whose is not None:
        of = "items" if counts is None else "items of the training rows"
        raise DataError(
            f"data set '{train.dataset_name}': no negatives to draw: there are {np.count_nonzero(drawable)} {of} to "
            f"draw from, and {whose}; take a model or loss_type without drawn negatives, or leave such users out with "
            "user_inter_num_interval"
        )
