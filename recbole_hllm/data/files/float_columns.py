"""Columns of numbers: layers of RecBole's models skip one that is not named in ``numerical_features``, for which the
model has a place all the same."""

from typing import Any

from recbole.utils import FeatureSource, FeatureType

from recbole_hllm.errors import ConfigError

_FLOATS = (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
_SIDES = (FeatureSource.USER, FeatureSource.USER_ID, FeatureSource.ITEM, FeatureSource.ITEM_ID)


def reads_numbers(config: Any) -> bool:
    """Whether the model of a run multiplies embeddings by the columns of ``numerical_features``."""
    labelled = config.spec.rows.labelled and config.spec.model.READS_NUMBERS
    return "selected_features" in config.internal_config_dict or labelled


def check_selected(name: str, kinds: dict[str, str], numerical: Any) -> None:
    """Raises ConfigError for a column of ``selected_features`` that a model would not read.

    Args:
        name: of the model.
        kinds: column -> its kind in the header of the file, such as ``float_seq``.
        numerical: value of ``numerical_features``.
    """
    for column, kind in kinds.items():
        if kind == "float_seq" and name == "SASRecF":  # has more places for it than it fills
            raise ConfigError(f"selected_features: SASRecF reads no float_seq column such as '{column}'")
        if kind.startswith("float") and column not in (numerical or []):
            raise ConfigError(
                f"selected_features: '{column}' is a {kind} column, which {name} reads where numerical_features names "
                f"it too: numerical_features: ['{column}']"
            )


def check_numerical(dataset: Any, numerical: Any) -> None:
    """Raises ConfigError for a name in ``numerical_features`` that is not that of a loaded float column.

    Args:
        dataset: a SequenceDataset that is being read.
        numerical: value of ``numerical_features``.
    """
    kinds = dataset.field2type
    for name in numerical or []:
        if kinds.get(name) not in _FLOATS:
            there = ", ".join(field for field, kind in kinds.items() if kind in _FLOATS)
            problem = f"is a {kinds[name].value} column" if name in kinds else "is not loaded"
            raise ConfigError(f"numerical_features: '{name}' {problem}; float columns loaded: {there or 'none'}")


def check_loaded(name: str, dataset: Any, numerical: Any) -> None:
    """Raises ConfigError where the float columns that are loaded do not fit a context-aware model.

    Args:
        name: of the model.
        dataset: a SequenceDataset.
        numerical: value of ``numerical_features``.
    """
    kinds, numerical = dataset.field2type, numerical or []
    if name == "DSSM":
        unnamed = [f for f in dataset.fields(source=_SIDES) if kinds[f] in _FLOATS and f not in numerical]
        if unnamed:
            raise ConfigError(
                f"numerical_features: DSSM has a place for every loaded float column of users and items, and {unnamed} "
                "are not named there; name them too, or leave them out of load_col"
            )
    if name == "FwFM":
        sequences = [field for field in numerical if kinds[field] == FeatureType.FLOAT_SEQ]
        if sequences:
            raise ConfigError(f"numerical_features: FwFM reads no float_seq column: leave out {sequences}")
