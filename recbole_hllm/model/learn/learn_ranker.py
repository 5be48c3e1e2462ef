"""LEARNRanker (LEARN, arXiv 2405.03988, section 3.6): RecBole's rankers with LEARN's vectors among their features."""

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType, InputType, ModelType
from torch import Tensor

from recbole_hllm.config.keys.learn import LEARNKeys, LEARNRankerKeys, LEARNScorerKeys
from recbole_hllm.config.keys.run import LabelledKeys, RunKeys
from recbole_hllm.config.parsing import fast_precision, read_yaml
from recbole_hllm.config.places import recbole_folder
from recbole_hllm.config.renamed import read_saved
from recbole_hllm.errors import ConfigError, did_you_mean
from recbole_hllm.model.base.contract import CatalogueScorer, LabelledScorer, NeedsRuns, Weights
from recbole_hllm.model.base.recbole_models import get_model
from recbole_hllm.model.base.trained_run import check_same_data, settings_of, with_best_weights
from recbole_hllm.model.base.unread_keys import tell_unread
from recbole_hllm.model.learn.learn import LEARN, PART_OF_A_RANKER
from recbole_hllm.nn.fusion import Fusion
from recbole_hllm.nn.tuning import freeze

# Value of `learn_features` -> the field that the ranker reads.
FEATURES = {"user": "learn_user", "item": "learn_item", "middle": "learn_middle"}
# What decides a LEARN: its own keys, and these that every model has; but no run's folder allows itself to run code.
_OF_EVERY_MODEL = ("MAX_ITEM_LIST_LENGTH", "seed", "encoding", "reference")
_OF_LEARN = [name for name, key in LEARNKeys.keys.items() if key is not RunKeys.keys.get(name)]
_KEYS_OF_LEARN = [name for name in (*_OF_LEARN, *_OF_EVERY_MODEL) if name != "trust_remote_code"]
# Metrics that say nothing of a cosine, which would choose an untrained LEARN.
_OF_PROBABILITIES = ("logloss", "mae", "rmse")
# Pairs of a row and an item scored at once where a whole catalogue is scored.
_PAIRS_AT_ONCE = 8192


class LEARNRanker(LabelledScorer, CatalogueScorer, NeedsRuns):
    """A context-aware model of RecBole that reads, beside its own features, vectors of a frozen LEARN.

    The user's vector is computed from each row's own history, the item's once; a fusion of both, trained by an
    auxiliary loss on the label, gives the middle vector. All three are dense features of the ranker.

    Args:
        config: the run's Config; keys are explained in ``properties/model/LEARNRanker.yaml``.
        dataset: the training part of a LabelledDataset.
        weights: whether those of LEARN are read.

    Attributes:
        settings: the values of the model's keys.

    Raises:
        ConfigError: an unknown feature, or a LEARN of other data.
        ModelError: LEARN's weights are damaged.
    """

    Keys: ClassVar[type[LEARNRankerKeys]] = LEARNRankerKeys
    settings: LEARNRankerKeys
    type = ModelType.CONTEXT
    input_type = InputType.POINTWISE
    READS_NUMBERS = True  # the ranker does

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        self.check_keys(config)
        super().__init__()
        self.settings = settings = self.Keys.of(config)
        self.n_items, self.ITEM_ID, self.LABEL = dataset.item_num, settings.ITEM_ID_FIELD, settings.LABEL_FIELD
        self.item_columns, self.features = dataset.item_feat, settings.learn_features
        self.learn: LEARN | None = None
        if self.features:
            with torch.random.fork_rng():  # the ranker starts as it would alone
                self.learn = _learn(config, dataset, weights)
            freeze(self.learn)
        size = self.learn.user_tower.online_proj.out_features if self.learn else 0
        sizes = {"user": size, "item": size, "middle": _middle_size(settings.fusion_hidden)}
        fields = {FEATURES[name]: sizes[name] for name in self.features}
        made = _RankerConfig(config, {"numerical_features": [*settings.numerical_features, *fields]})
        self.ranker = get_model(settings.ranker)(made, _with_fields(dataset, fields))
        self.fusion = Fusion(size, size, settings.fusion_hidden) if "middle" in self.features else None
        if not self.features:
            tell_unread(self.logger, settings, ("learn", "learn_keys"), "learn_features is empty")
        if not self.fusion:
            tell_unread(self.logger, settings, ("fusion_hidden", "fusion_weight"), "learn_features has no middle")
        self.logger.info(f"LEARNRanker: {settings.ranker} with LEARN's {', '.join(self.features) or 'nothing'}")

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError for values that are wrong whatever the data are."""
        settings = cls.Keys.of(config)
        names = settings.learn_features
        known = isinstance(names, list) and all(isinstance(name, str) and name in FEATURES for name in names)
        if not known or len(set(names)) < len(names):
            raise ConfigError(f"learn_features: {names!r} is not a list of {', '.join(FEATURES)}")
        if settings.weights == "bf16":
            raise ConfigError("weights: bf16: LEARNRanker reads a finished LEARN as it was trained; leave it out")
        check_same_data(settings, "learn_keys", settings.learn_keys or {})
        _ranker_keys(config)

    @classmethod
    def further_keys(cls, config: Any) -> set[str]:
        """Keys that are read beside those of the property file: the ranker's."""
        return set(_ranker_keys(config))

    @classmethod
    def needs(cls, config: Any) -> dict[str, tuple[str, dict[str, Any]]]:
        """A LEARN trained on the same labelled rows' past."""
        settings = cls.Keys.of(config)
        if not settings.learn_features:
            return {}
        keys = settings.learn_keys or {}
        if settings.valid_metric.lower() in _OF_PROBABILITIES:
            keys = {"valid_metric": "AUC", "metrics": ["AUC"], **keys}
        return {"learn": ("LEARNScorer", keys)}

    @classmethod
    def made_like(cls, folder: Path) -> dict[str, Any]:
        """The keys that a LEARN was made with; kept in ``learn_keys``, they let a ranker be read without its folder.

        Args:
            folder: of its run.
        """
        settings = read_saved(folder / "config.yaml") if (folder / "config.yaml").is_file() else {}
        return {key: settings[key] for key in _KEYS_OF_LEARN if key in settings}

    def train(self, mode: bool = True) -> "LEARNRanker":
        """LEARN stays as it is."""
        super().train(mode)
        if self.learn:
            self.learn.eval()
        return self

    # ---- what the ranker reads ----

    def learn_vectors(self, rows: Interaction) -> tuple[Tensor, Tensor]:
        """(B, D) of each row's user, from its own history, and of its item; both of length 1."""
        assert self.learn is not None, "learn_features"
        with torch.no_grad():
            users = self.learn.user_vectors(rows)
            items = self.learn.item_vectors()[rows[self.ITEM_ID]]
        return F.normalize(users, dim=-1), F.normalize(items, dim=-1)

    def _with_features(self, rows: Interaction) -> tuple[Interaction, Tensor | None]:
        """The rows with LEARN's fields, and (B,) logits of the fusion."""
        if not self.features:
            return rows, None
        users, items = self.learn_vectors(rows)
        middle, logits = self.fusion(users, items) if self.fusion else (None, None)
        vectors: dict[str, Any] = {"user": users, "item": items, "middle": middle}
        fields = {FEATURES[name]: as_float_sequence(vectors[name]) for name in self.features}
        return Interaction({**rows.interaction, **fields}), logits

    # ---- training and scores ----

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The ranker's loss, and ``fusion_weight`` times the cross-entropy of the fusion.

        Args:
            interaction: labelled rows with ``item_id_list`` (B, L) padded on the right with 0 and ``item_length`` (B,)
                from 0 on.
        """
        rows, logits = self._with_features(interaction)
        loss = self.ranker.calculate_loss(rows)
        self.loss_terms = {"ranker_loss": loss.detach()}
        if logits is not None:
            fusion = F.binary_cross_entropy_with_logits(logits.float(), interaction[self.LABEL].float())
            self.loss_terms["fusion_loss"] = fusion.detach()
            loss = loss + self.settings.fusion_weight * fusion
        return loss

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) probability of label 1; features of the item are looked up by its id."""
        rows = Interaction({**interaction.interaction, **self._columns_of(interaction[self.ITEM_ID])})
        return self.ranker.predict(self._with_features(rows)[0])

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, n_items) the same of every item."""
        parts, count = [], len(interaction)
        for ids in torch.arange(self.n_items, device=interaction[self.ITEM_ID].device).split(
            max(1, _PAIRS_AT_ONCE // count)
        ):
            rows = {name: values.repeat_interleave(len(ids), 0) for name, values in interaction.interaction.items()}
            rows[self.ITEM_ID] = ids.repeat(count)
            parts.append(self.predict(Interaction(rows)).view(count, len(ids)))
        return torch.cat(parts, dim=1)

    def _columns_of(self, ids: Tensor) -> dict[str, Tensor]:
        if self.item_columns is None:
            return {}
        at = ids.cpu()
        return {name: values[at].to(ids.device) for name, values in self.item_columns.interaction.items()}


def as_float_sequence(vectors: Tensor) -> Tensor:
    """(B, D) vectors in the form of RecBole's float sequences, (B, D, 2): value and number of its weight, from 1 on.

    RecBole takes the mean over the D places, so values are multiplied by D: what the ranker reads is the sum of each
    value times a learned vector.
    """
    vectors, size = vectors.float(), vectors.shape[1]  # half precision has no whole numbers above 256
    numbers = torch.arange(1, size + 1, device=vectors.device, dtype=vectors.dtype).expand_as(vectors)
    return torch.stack([vectors * size, numbers], dim=-1)


def _learn(config: Any, dataset: Any, weights: Weights) -> LEARN:
    """The LEARN that ``learn`` names, with its best weights; without them where a checkpoint, or nothing, follows."""
    settings = LEARNRankerKeys.of(config)
    folder = Path(settings.learn or "").expanduser()
    if not weights.are_read:  # made as learn_keys say; those of a run say everything
        theirs = LEARNRanker.made_like(folder) if settings.learn else {}
        made = _defaults_of_learn() | theirs | (settings.learn_keys or {})
    else:
        made = settings_of(folder, "learn", ["LEARNScorer"], dataset)
    own = LEARNKeys.checked({key: made[key] for key in _KEYS_OF_LEARN if key in made})
    if own["precision"] == "auto":
        own["precision"] = fast_precision(settings.device)
    made_config = config.with_values({**own, "model": PART_OF_A_RANKER})
    _check_length(settings, LEARNKeys.of(made_config))
    if weights.are_read:
        return with_best_weights(LEARN(made_config, dataset, weights=Weights.FOLLOW), folder, "learn")
    return LEARN(made_config, dataset, weights=weights).eval()


def _defaults_of_learn() -> dict[str, Any]:
    """Those of a LEARNScorer's keys that are not every model's of labelled rows."""
    theirs = {**LEARNKeys.keys, **LEARNScorerKeys.keys}
    return {name: key.default for name, key in theirs.items() if key is not LabelledKeys.keys.get(name)}


def _check_length(settings: LEARNRankerKeys, made: LEARNKeys) -> None:
    length, positions = settings.MAX_ITEM_LIST_LENGTH, made.MAX_ITEM_LIST_LENGTH
    if made.position_embedding and length > positions:
        raise ConfigError(
            f"MAX_ITEM_LIST_LENGTH: {length}: the positions of {settings.learn} end at {positions}; give at most that"
        )


def _middle_size(hidden: list[int]) -> int:
    return hidden[-1] if len(hidden) > 1 else 2 * hidden[0]


class _RankerConfig:
    """The keys of the run, over them RecBole's defaults for the ranker unless the user gave others, and ours."""

    def __init__(self, config: Any, own: dict[str, Any]) -> None:
        self.config, self.own = config, {**_ranker_keys(config), **own}

    def __getitem__(self, key: str) -> Any:
        return self.own[key] if key in self.own else self.config[key]


def _ranker_keys(config: Any) -> dict[str, Any]:
    settings = LEARNRankerKeys.of(config)
    ranker, given = settings.ranker, settings.ranker_keys or {}
    defaults = read_yaml(recbole_folder() / "properties" / "model" / f"{ranker}.yaml")
    for key in given.keys() - defaults.keys():
        raise ConfigError(f"ranker_keys: {ranker} has no key '{key}'{did_you_mean(key, defaults)}")
    of_the_run = {key: config[key] for key in defaults if key in config.external_config_dict}
    return {**defaults, **of_the_run, **given}


def _with_fields(dataset: Any, sizes: dict[str, int]) -> Any:
    """The data set as if its interactions had these columns of float sequences."""
    view = copy.copy(dataset)
    view.field2type = {**dataset.field2type, **dict.fromkeys(sizes, FeatureType.FLOAT_SEQ)}
    view.field2source = {**dataset.field2source, **dict.fromkeys(sizes, FeatureSource.INTERACTION)}
    # Number 0 is no place, which RecBole leaves out of the mean.
    view.field2seqlen = {**dataset.field2seqlen, **{name: size + 1 for name, size in sizes.items()}}
    return view
