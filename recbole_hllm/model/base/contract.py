"""The model contract: all that the program asks of a recommender, each member with its meaning, shapes and default.

From top to bottom: how weights come to be; ``Recommender``, what every model has; the families, from which a model
derives for what else it can do; and ``adopt``, which makes a Recommender of a class of RecBole's or of a user's. No
other module looks whether a model has a member: it is declared here, with a default, or comes with a family, of which
`servable` has those of exports.

A model names RecBole's class first and its families last: ``class Mine(SequentialRecommender, CatalogueScorer)``.

In shapes B is the number of rows, L the longest history (padded on the right with item 0), N the number of items with
the padding item 0, and D the width of a vector. ``config`` is the run's Config, ``dataset`` the training part of a
SequenceDataset, ``interaction`` or ``rows`` a batch of its rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import InputType, ModelType
from torch import Tensor, nn

from recbole_hllm.config.keys.run import LabelledKeys, RunKeys

# ---- how weights come to be ----


class Weights(Enum):
    """What a model's constructor has to do for its first weights."""

    FRESH = "fresh"
    """Read pretrained ones and those of earlier runs, draw the others."""

    FOLLOW = "follow"
    """Make the shapes only: a checkpoint is loaded at once, so nothing is read that it holds."""

    OUTLINE = "outline"
    """Make the shapes only, on the device ``meta``, without memory: for sizes and checks; nothing is computed."""

    STAND_IN = "stand_in"
    """Make any of the right shapes, in place of those of runs that are not there yet: a step takes the same time."""

    @property
    def are_read(self) -> bool:
        """Whether the sources of weights are read; otherwise all that a checkpoint holds may be anything."""
        return self is Weights.FRESH


# ---- every model ----


@dataclass(frozen=True)
class ItemReading:
    """How the texts of items are read in a step of the training.

    Attributes:
        module: the child of the model that reads them.
        tokens: (N,) number of tokens of each item, [ITEM] included; 0 where stored vectors are looked up.
        memory: tokens of the texts of a step -> bytes of activations at its peak, and how many tokens are computed
            again in the backward pass; None: no language model reads them.
        layers, hidden_size: of the language model, of the layers that are computed; 0 without one.
        most: most distinct items of a batch that are read, the others' vectors being known; None: all.
        left_out: parts of the module that are not computed, what they make of the texts being known.
        of_items: parts of the module that read one vector of each item, not its tokens, and how often they do.
    """

    module: nn.Module
    tokens: np.ndarray
    memory: Callable[[Sequence[int]], tuple[float, int]] | None = None
    layers: int = 0
    hidden_size: int = 0
    most: int | None = None
    left_out: Sequence[nn.Module] = ()
    of_items: Sequence[tuple[nn.Module, int]] = ()


class Recommender(AbstractRecommender):
    """What the program asks of every model.

    From RecBole and torch come ``state_dict``, ``train`` and ``eval``, and ``other_parameter``: what is named in
    ``other_parameter_name`` (tensors, modules, plain values) is kept in a checkpoint beside the weights.

    Attributes:
        Keys: the keys of the model, typed: ``Keys.of(config).learning_rate``; those of the model it is built on too.
        type: RecBole's kind of model. TRADITIONAL ones count in one pass over the rows and are not trained.
        IMPLEMENTATIONS: value of the key ``implementation`` -> keys whose defaults differ from the
            property file; empty: none.
        AUTOCASTS: it computes under autocast in bf16 or fp16; sparse products, for one, do not.
        DRAWS_NEGATIVES: the loss compares with items that a sampler draws.
        NUMBERED_ROWS: training rows bring their number, in ``row_number``.
        READS_HISTORY: labelled rows bring the history before them.
        READS_NUMBERS: on labelled rows embeddings are multiplied by the columns of ``numerical_features``.
        COUNTERS: attributes that change in training and are in no checkpoint otherwise, plain values or NumPy arrays; a
            training that goes on has them again.
        loss_terms: name -> number of the last batch, for log and TensorBoard: a float, or a tensor of one number, which
            is read later, since reading it waits for a GPU.
        loss_parts: how many numbers the loss of the last batch is the mean of, by which processes that share a batch
            weigh their losses; None: as many as it has rows.
    """

    Keys: ClassVar[type[RunKeys]] = RunKeys
    type: ClassVar[ModelType]
    IMPLEMENTATIONS: ClassVar[Mapping[str, dict[str, Any]]] = MappingProxyType({})
    AUTOCASTS: ClassVar[bool] = True
    DRAWS_NEGATIVES: ClassVar[bool] = True
    NUMBERED_ROWS: ClassVar[bool] = False
    READS_HISTORY: ClassVar[bool] = True
    READS_NUMBERS: ClassVar[bool] = False
    COUNTERS: ClassVar[tuple[str, ...]] = ()
    loss_terms: Mapping[str, Any] = MappingProxyType({})
    loss_parts: int | Tensor | None = None

    # ---- RecBole's: training and scores ----

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """Scalar loss of a batch of training rows, or parts of it, which are added up."""
        raise NotImplementedError

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) score of each row's item, in ``item_id``; a higher one is better."""
        raise NotImplementedError

    # ---- before there is a model ----

    @classmethod
    def construct(cls, config: Any, dataset: Any, weights: Weights) -> "Recommender":
        """The model, with weights of the present random state; ``ReadsWeights`` passes ``weights`` on."""
        return cls(config, dataset)

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises UserError for values that are wrong whatever the data and the weights are; called before any data is
        read. Default: nothing to check."""

    @classmethod
    def check_files(cls, config: Any) -> None:
        """Raises UserError where this data set, or this installation, lacks what the model reads: a sanity row is left
        out then. Default: nothing is needed."""

    @classmethod
    def training_rows(cls, keys: Mapping[str, Any]) -> type | None:
        """The kind of rows (a class of ``data/rows``) that ``keys`` choose, of a model with a key for it; None: that
        of the model table."""
        return None

    @classmethod
    def further_keys(cls, config: Any) -> set[str]:
        """Keys that are read beside those of the property file and of the model's code. Default: none."""
        return set()

    @classmethod
    def fixed_input_type(cls) -> InputType | None:
        """RecBole's ``input_type``; None for those of its models that have none, where ``loss_type`` decides."""
        return getattr(cls, "input_type", None)

    # ---- training ----

    def prepare_evaluation(self) -> None:
        """Called in evaluation mode before rows are scored, in every process of several: what is computed once for all
        rows, and by all processes together. Default: nothing."""

    def pretraining_epochs(self) -> int:
        """How many epochs of pre-training come before those that ``epochs`` counts; no validation follows one of them.
        Default: none."""
        return 0

    def begin_epoch(self, epoch: int) -> None:
        """Called in training mode before the first batch of each epoch, 0 is the first, in every process of several and
        with whole weights. What it sets and a later batch reads is among ``COUNTERS`` or ``other_parameter``, or a
        buffer: a training that goes on inside an epoch does not call it. Default: nothing."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """torch's parameter groups for the optimizer: ``params``, and ``lr`` or ``weight_decay`` where they differ from
        the keys. Default: one group of all."""
        return [{"params": list(self.parameters())}]

    def after_step(self) -> None:
        """Called after each step of the optimizer, in every process. Default: nothing."""

    def watch(self, terms: Mapping[str, float]) -> None:
        """Gets ``loss_terms`` of each training batch as plain numbers, in order, some batches later. Raises ModelError
        where training has failed. Default: nothing is looked at."""

    # ---- costs ----

    def inference_parameters(self) -> int:
        """How many numbers are needed to recommend. Default: all of them."""
        return sum(weight.numel() for weight in self.parameters())

    def positions_read(self, rows: Interaction) -> int | None:
        """Places that a batch of training rows takes in what reads histories; None: one for each item of theirs."""
        return None

    def scoring_flops(self, rows: Interaction) -> float:
        """Of the products of vectors by which the loss scores items for a batch's targets, forward and backward.
        Default: RecBole's sequential models with ``loss_type: CE`` score all items, once a row; for others 0."""
        table, over_all = getattr(self, "item_embedding", None), getattr(self, "loss_type", None) == "CE"
        if self.type != ModelType.SEQUENTIAL or not over_all or not isinstance(table, nn.Embedding):
            return 0.0
        products = 2 + table.weight.requires_grad  # forward, and gradients of both
        return 2.0 * products * len(rows) * table.num_embeddings * table.embedding_dim

    def modules_beside(self) -> Sequence[nn.Module]:
        """Modules of other models that read the histories of a batch of training rows, too. Default: none."""
        return ()

    def item_reading(self) -> ItemReading | None:
        """How the texts of a batch's items are read, for a plan; None: no texts are read in training."""
        return None


# ---- families: what some models can do ----


class CatalogueScorer(Recommender):
    """Ranks the whole catalogue."""

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, N) score of every item for each row, as ``predict`` gives it."""
        raise NotImplementedError

    def factors(self, interaction: Interaction) -> tuple[Tensor, Tensor] | None:
        """(B, E) and (N, E) vectors of the rows and of all items, of which ``full_sort_predict`` is the product: a
        large catalogue is then ranked in blocks. Default, None: the model does not say."""
        return None

    def score_scale(self) -> float:
        """What scores are multiplied by in the softmax that the model was trained with: 1 / temperature, say, of
        cosines. Default: 1."""
        return 1.0


class Picked(CatalogueScorer):
    """Some of its numbers are picked by the validation, once, before it is first evaluated."""

    def options(self) -> int:
        """How many values there are to pick from; 0: nothing is picked."""
        raise NotImplementedError

    def groups(self) -> int:
        """How many groups of rows have a value of their own."""
        raise NotImplementedError

    def group_of(self, interaction: Interaction) -> Tensor:
        """(B,) number of the group of each row."""
        raise NotImplementedError

    def scores_of_options(self, interaction: Interaction) -> Iterator[Tensor]:
        """(B, N) scores under each value in turn; the tensor may be written to again for the next."""
        raise NotImplementedError

    def pick(self, values: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        """Takes the best value of each group.

        Args:
            values: (groups + 1, options) of ``valid_metric``, the more the better; the last line over all rows.
            rows: (groups,) how many rows each group has; of one without rows the values are 0.

        Returns:
            What is kept of it in the run's folder, as JSON.
        """
        raise NotImplementedError


class LabelledScorer(Recommender):
    """Scores labelled rows: ``predict`` is (B,) numbers from 0 to 1, how likely label 1 is. Most score a whole
    catalogue too.

    Attributes:
        Keys: as of every model; those of labelled rows are among them.
    """

    Keys: ClassVar[type[RunKeys]] = LabelledKeys


class Factorised(CatalogueScorer):
    """Scores a user's vector with each item's.

    Attributes:
        similarity: the score is their ``cosine``, their ``dot`` product, or an ``other`` function of the two.
    """

    similarity: Literal["cosine", "dot", "other"] = "cosine"

    def prepare_evaluation(self) -> None:
        """Vectors of all items are computed."""
        self.item_vectors()

    def item_vectors(self) -> Tensor:
        """(N, D) vectors of all items, float32, not normalised; those of the padding item are 0."""
        raise NotImplementedError

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """(B, D) vectors of each row's user, float32, not normalised."""
        raise NotImplementedError

    def candidate_vectors(self) -> Tensor:
        """(N, D) vectors of all items as they are scored, for other programs. Default: ``item_vectors``."""
        return self.item_vectors()

    def beside_vectors(self) -> dict[str, Tensor]:
        """Arrays that scores are made of beside the vectors, for other programs. Default: none."""
        return {}

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, N) the product of ``factors``."""
        factors = self.factors(interaction)
        assert factors is not None, "a similarity that is no product has a full_sort_predict of its own"
        return factors[0] @ factors[1].T


class ReadsWeights(Recommender):
    """Its first weights are read from pretrained models or earlier runs, so its constructor takes ``weights``."""

    @classmethod
    def construct(cls, config: Any, dataset: Any, weights: Weights) -> "Recommender":
        """The model; ``weights`` says what is read."""
        return cls(config, dataset, weights=weights)


class ReadsRuns(ReadsWeights):
    """Reads finished runs of other models, which keys of its own name: each by its folder, or as ``row:NAME`` of the
    same table.

    Attributes:
        RUNS_STAY_NEEDED: who recommends needs these runs, too.
    """

    RUNS_STAY_NEEDED: ClassVar[bool] = False

    @classmethod
    def run_keys(cls, config: Any) -> tuple[str, ...]:
        """The keys that may name runs, one each or a list of them."""
        raise NotImplementedError

    @classmethod
    def check_row(cls, config: Any, key: str, row: Any) -> None:
        """Raises ConfigError where a row of the same table could not be the run that ``key`` names.

        Args:
            row: its Config.
        """


class NeedsRuns(ReadsRuns):
    """Is built on finished runs of other models, each named by a key of its own; where such a key is empty, the run is
    made first, and ``<key>_keys`` are its keys."""

    @classmethod
    def needs(cls, config: Any) -> dict[str, tuple[str, dict[str, Any]]]:
        """Key -> model and keys of the run to be made where the key names none."""
        raise NotImplementedError

    @classmethod
    def run_keys(cls, config: Any) -> tuple[str, ...]:
        """Those of ``needs``."""
        return tuple(cls.needs(config))

    @classmethod
    def made_like(cls, folder: Path) -> dict[str, Any]:
        """What of the keys of the run in ``folder`` is kept in ``<key>_keys``, to build this model without it. Default:
        nothing."""
        return {}


# ---- classes of RecBole's, and of users ----


@cache
def adopt(model: type[AbstractRecommender], family: type[Recommender]) -> type[Recommender]:
    """A class that keeps to the contract: the model itself, or one derived from it, of its name, with the defaults.

    Weights, results and the names of both stay as they are.

    Args:
        model: a recommender in RecBole's manner, built as ``model(config, dataset)``.
        family: ``CatalogueScorer`` or ``LabelledScorer``.
    """
    if issubclass(model, Recommender):
        return model
    own: dict[str, Any] = {name: getattr(model, name) for name in ("__module__", "__qualname__", "__doc__")}
    # RecBole's context-aware models read the columns of a row, and all its models of labelled rows read numbers.
    own |= {"READS_HISTORY": model.type != ModelType.CONTEXT, "READS_NUMBERS": True}
    return type(model.__name__, (model, family), own)
