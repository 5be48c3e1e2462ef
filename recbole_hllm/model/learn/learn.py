"""LEARN (arXiv 2405.03988): towers over frozen content vectors, trained to predict what follows a history."""

from logging import Logger
from pathlib import Path
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.language_models import LoraKeys
from recbole_hllm.config.keys.learn import LEARNKeys
from recbole_hllm.data.rows.columns import TARGET_ITEMS
from recbole_hllm.data.texts.item_texts import ItemTexts
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.contract import ReadsWeights, Weights
from recbole_hllm.model.base.item_table import check_heads
from recbole_hllm.model.base.language_models import attention, lora_settings
from recbole_hllm.model.base.llm_fit import check_user_llm
from recbole_hllm.model.base.servable import Servable
from recbole_hllm.model.base.together import stands_in
from recbole_hllm.model.base.trained_run import settings_of, with_best_weights
from recbole_hllm.model.base.two_towers import TwoTowers
from recbole_hllm.model.base.unread_keys import tell_unread
from recbole_hllm.model.learn.content import LANGUAGE_MODELS, build_content, check_content_keys, content_source
from recbole_hllm.model.learn.exported import reader_sizes, served_of, text_side_of
from recbole_hllm.model.learn.together import Targets, targets_of_all
from recbole_hllm.nn.all_action import all_action_over_catalogue, count_pairs, dense_all_action
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone
from recbole_hllm.nn.gathered import of_first
from recbole_hllm.nn.losses import clamp_logit_scale
from recbole_hllm.nn.precision import autocast
from recbole_hllm.nn.preference import CausalTransformer, PreferenceTower, last_places, recency_weights, sample_places
from recbole_hllm.nn.ragged import read_by_length
from recbole_hllm.nn.tuning import tune
from recbole_hllm.nn.user_encoder import UserEncoder
from recbole_hllm.processes import current
from recbole_hllm.serving.sentence_folder import TextSide
from recbole_hllm.serving.served import Served

# Keys that decide what weights compute, and that no shape shows; names and lengths of texts differ between data sets.
_SEEN_IN_NO_SHAPE = (
    "content", "content_pooling", "content_normalised", "item_llm_layers", "item_prompt", "text_field",
    "text_separator", "preference", "n_heads", "position_embedding", "item_tower", "shared_towers",
)  # fmt: skip
_OF_A_TRANSFORMER = ("hidden_size", "n_layers", "n_heads", "inner_size", "dropout", "position_embedding")
# Keys of how texts are written get no warning: a table often gives them to all of its rows.
_OF_TEXTS = ("item_pretrain_dir", "item_llm_layers", "content_pooling", "content_dtype", "content_normalised")
# Where a key has a value -> keys that nothing reads then.
_UNREAD = {
    ("content", "id"): _OF_TEXTS,
    ("content", "random"): _OF_TEXTS,
    ("content", "bert"): ("content_dim",),
    ("content", "llm"): ("content_dim",),
    ("item_tower", "content"): ("shared_towers", "output_size"),
    ("preference", "llm"): _OF_A_TRANSFORMER,
    ("preference", "transformer"): (
        "user_pretrain_dir",
        "user_llm_layers",
        "user_llm_tuning",
        "gradient_checkpointing",
        *LoraKeys.keys,
    ),
    ("negatives", "catalogue"): ("mask_same_items",),
    ("split_by", "position"): ("history_days", "target_days"),
    ("sampling", "uniform"): ("recency_alpha", "recency_beta"),
    ("sampling", "last"): ("recency_alpha", "recency_beta"),
}
# `model` of a LEARN whose vectors a ranker reads; its own run has said what is unread.
PART_OF_A_RANKER = "learn"
# Items of the catalogue encoded at once.
_ITEMS_AT_ONCE = 4096


class LEARN(TwoTowers, ReadsWeights, Servable):
    """A user tower reads the content vectors of a history, an item tower those of targets; scores are cosines.

    Frozen content -> projection -> causal transformer -> online projection, the output at each place a vector of the
    user. Item tower (figure 3): the same over the targets' sequence (``causal``), over each item ``alone``, or the
    ``content`` vector itself. In use, users are the output at their last item, items are read alone.

    Args:
        config: the run's Config; keys are explained in ``properties/model/LEARN.yaml``.
        dataset: the training part of a SequenceDataset, of split rows.
        item_texts: the fields named in ``text_keys`` of every item; read from ``<dataset>.item`` when not given.
        weights: whether those of ``user_pretrain_dir`` and ``pretrained_learn`` are read.

    Raises:
        ConfigError, DataError, ModelError: texts, language models, keys or their sizes do not fit together.
    """

    Keys: ClassVar[type[LEARNKeys]] = LEARNKeys
    settings: LEARNKeys
    DRAWS_NEGATIVES = False  # by a sampler: those of a user are the other users' targets, or the catalogue

    def __init__(
        self, config: Any, dataset: Any, item_texts: ItemTexts | None = None, weights: Weights = Weights.FRESH
    ) -> None:
        self.check_keys(config)
        super().__init__(config, dataset)
        settings = self.settings
        self.drawn = {"history": settings.history_samples, "targets": settings.target_samples}
        self.catalogue_is_negative = settings.negatives == "catalogue"
        self.targets_read = settings.item_tower
        self.text_keys = None if item_texts is None else item_texts.keys  # of texts that are in no file
        self.content = build_content(settings, dataset, item_texts, weights)
        width = self.content.width
        size = width if self.targets_read == "content" else settings.output_size
        self.user_tower = PreferenceTower(width, build_reader(settings, weights), size)
        apart = not settings.shared_towers and self.targets_read != "content"
        self.own_item_tower = PreferenceTower(width, build_reader(settings, weights), size) if apart else None
        if settings.pretrained_learn and weights.are_read:
            _begin_as(self, dataset)
        _log_set_up(self.logger, settings)

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError for values that are wrong whatever the data and the weights are."""
        settings = cls.Keys.of(config)
        check_content_keys(settings)
        lora = lora_settings(settings)
        if settings.recency_beta < settings.recency_alpha:
            raise ConfigError("recency_beta: below recency_alpha it would favour what is long ago")
        if settings.preference == "llm":
            if not settings.user_pretrain_dir:
                raise ConfigError("user_pretrain_dir: name the causal language model of preference: llm")
            lengths = {
                "MAX_ITEM_LIST_LENGTH": settings.MAX_ITEM_LIST_LENGTH,
                "target_length": settings.target_length,
            }
            tuned = lora if settings.user_llm_tuning == "lora" else None
            check_user_llm(_reader_spec(settings), "user_pretrain_dir", tuned, lengths)
        if settings.preference == "transformer":
            check_heads(settings.hidden_size, settings.n_heads)
            if settings.n_layers < 1:
                raise ConfigError("n_layers: 0: a preference module has at least one layer")
        if settings.negatives == "users" and settings.num_negatives is not None:
            raise ConfigError(
                "num_negatives: is of negatives: catalogue; with negatives: users all targets of a batch's "
                "other users are negatives, so their number follows train_batch_size and target_samples"
            )
        if settings.negatives == "users" and settings.train_batch_size < 2:
            raise ConfigError("train_batch_size: 1: the targets of a batch's other rows are the negatives; take more")

    # ---- what the towers compute ----

    @property
    def item_tower(self) -> PreferenceTower:
        """The user tower, unless ``shared_towers`` is False."""
        return self.own_item_tower or self.user_tower

    def read(self, tower: PreferenceTower, items: Tensor) -> Tensor:
        """(B, S) items padded on the right -> (B, S, D) outputs of a tower; those at padding mean nothing."""

        def read(rows: Tensor, longest: int) -> Tensor:
            return tower(self.content(items[rows, :longest]))

        return read_by_length(read, (items != 0).sum(1), items.shape[1])

    def target_vectors(self, targets: Tensor) -> Tensor:
        """(B, T) items padded on the right -> (B, T, D) vectors of targets in training."""
        if self.targets_read == "causal":
            return self.read(self.item_tower, targets)
        distinct, places = torch.unique(targets, return_inverse=True)
        return self.vectors_of(distinct)[places]

    def vectors_of(self, ids: Tensor) -> Tensor:
        """(N,) item ids -> (N, D) vectors of items alone."""
        content = self.content(ids)
        return content if self.targets_read == "content" else self.item_tower.alone(content)

    def catalogue_vectors(self) -> Tensor:
        """(n_items, D) vectors of all items; the padding item's is 0."""
        ids = torch.arange(self.n_items, device=self.logit_scale.device)
        with autocast(ids.device, self.autocast_dtype):
            table = torch.cat([self.vectors_of(block).float() for block in ids.split(_ITEMS_AT_ONCE)])
        table[0] = 0
        return table

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """(B, D) vectors of users at their last item, not normalised.

        Args:
            interaction: ``item_id_list`` (B, L) padded on the right with 0, ``item_length`` (B,).
        """
        last = (interaction[self.ITEM_SEQ_LEN] - 1).clamp(min=0)
        items = interaction[self.ITEM_SEQ][:, : int(last.max()) + 1]
        with autocast(items.device, self.autocast_dtype):
            outputs = self.read(self.user_tower, items)
        return self.gather_indexes(outputs, last).float()

    # ---- for other programs ----

    def served(self) -> Served:
        """The towers, and vectors of content."""
        return served_of(self)

    def text_side(self) -> TextSide | None:
        """The language model of the content; its vectors are what the towers read."""
        return text_side_of(self)

    # ---- training ----

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Dense all-action loss (section 3.3) of places drawn from each history and from its targets.

        With ``negatives: catalogue`` the negatives are items read alone, as by the published code's fine-tuning.

        Args:
            interaction: ``user_id`` (B,), ``item_id_list`` (B, S) and ``target_item_list`` (B, T), both padded on the
                right with 0.

        Returns:
            Scalar loss.
        """
        history, targets = interaction[self.ITEM_SEQ], interaction[TARGET_ITEMS]
        outputs, vectors = self.read(self.user_tower, history), self.target_vectors(targets)
        read, wanted = self._drawn("history", history), self._drawn("targets", targets)
        if stands_in(interaction):
            wanted = torch.zeros_like(wanted)
        scale = clamp_logit_scale(self.logit_scale)
        rows, target_rows = torch.nonzero(read)[:, 0], torch.nonzero(wanted)[:, 0]
        self.loss_parts = count_pairs(rows, target_rows, len(history))
        if self.catalogue_is_negative:
            negatives = self._negatives(targets.device)
            pairs = outputs[read], rows, vectors[wanted], target_rows, scale
            loss = all_action_over_catalogue(*pairs, self.vectors_of(negatives), (negatives, targets))
        else:
            own = Targets(vectors[wanted], target_rows, targets[wanted], interaction[self.USER_ID], targets)
            of, first = targets_of_all(own)
            same_items = (of.items, of.owned) if self.settings.mask_same_items else None
            loss = dense_all_action(outputs[read], rows + first, of.vectors, of.rows, scale, of.users, same_items)
        self.loss_terms = {"all_action": loss.detach(), "logit_scale": scale.detach().exp()}
        return loss

    def positions_read(self, rows: Interaction) -> int:
        """Places of a batch that towers read: of histories, of targets, and items of the catalogue."""
        places = int((rows[self.ITEM_SEQ] != 0).sum())
        if self.targets_read == "content":
            return places
        targets = rows[TARGET_ITEMS]
        read = int((targets != 0).sum()) if self.targets_read == "causal" else len(targets[targets != 0].unique())
        return places + read + (self._number_of_negatives() if self.catalogue_is_negative else 0)

    def scoring_flops(self, rows: Interaction) -> float:
        """Outputs of the drawn places with all drawn targets, and with the items of the catalogue; targets of other
        processes are counted as if each had as many as this one."""

        def drawn(part: str, items: Tensor) -> int:
            return int((items != 0).sum(1).clamp(max=self.drawn[part] or items.shape[1]).sum())

        outputs, targets = drawn("history", rows[self.ITEM_SEQ]), drawn("targets", rows[TARGET_ITEMS])
        further = self._number_of_negatives() if self.catalogue_is_negative else targets * (current().world_size - 1)
        return 6.0 * outputs * (targets + further) * self.user_tower.online_proj.out_features

    def _number_of_negatives(self) -> int:
        return min(self.settings.num_negatives or self.n_items, self.n_items - 1)

    def _negatives(self, device: torch.device) -> Tensor:
        """(N,) ids of all items, or of ``num_negatives`` different ones."""
        number = self.settings.num_negatives
        if number is None:
            return torch.arange(1, self.n_items, device=device)
        drawn = 1 + torch.randperm(self.n_items - 1, device=device)[:number]
        return of_first(drawn) if current().world_size > 1 else drawn

    def _drawn(self, part: str, items: Tensor) -> Tensor:
        """(B, S) which places of the histories or targets are compared."""
        number, lengths, settings = self.drawn[part], (items != 0).sum(1), self.settings
        if settings.sampling == "last":
            return last_places(lengths, items.shape[1], number)
        if settings.sampling == "recent":
            weights = recency_weights(lengths, items.shape[1], settings.recency_alpha, settings.recency_beta)
            return sample_places(weights, number)
        return sample_places((items != 0).float(), number)


def build_reader(settings: LEARNKeys, weights: Weights) -> CausalTransformer | UserEncoder:
    """What stands between the two projections of a tower: a transformer from scratch, or a language model."""
    if settings.preference == "llm":
        reader = UserEncoder(load_backbone(_reader_spec(settings, weights)))
        tune(reader.backbone, settings.user_llm_tuning, lora_settings(settings))
        return reader
    return CausalTransformer(**reader_sizes(settings), dropout=settings.dropout)


def _reader_spec(settings: LEARNKeys, weights: Weights = Weights.FRESH) -> BackboneSpec:
    return BackboneSpec(
        settings.user_pretrain_dir,
        init="pretrained" if weights.are_read else "scratch",
        num_layers=settings.user_llm_layers,
        layers_key="user_llm_layers",
        gradient_checkpointing=settings.gradient_checkpointing,
        attn_implementation=attention(settings),
        trust_remote_code=settings.trust_remote_code,
    )


def _begin_as(model: LEARN, dataset: Any) -> None:
    """The best weights of the run that ``pretrained_learn`` names, of these items or others.

    Raises:
        ConfigError: no finished run of LEARN there, one made unlike this, or one that may have been trained on what is
            to be predicted here.
        ModelError: its weights do not fit.
    """
    settings = model.settings
    folder = Path(settings.pretrained_learn or "").expanduser()
    of_texts = settings.content in LANGUAGE_MODELS  # other vectors belong to the items they were made for
    theirs = settings_of(folder, "pretrained_learn", ["LEARN", "LEARNScorer"], dataset, other_items=of_texts)
    further = {"random": ("seed",)}.get(settings.content, ())
    if settings.preference == "llm":
        further += ("user_pretrain_dir", *(("lora_alpha",) if settings.user_llm_tuning == "lora" else ()))
    for key in (*_SEEN_IN_NO_SHAPE, *further):
        own = getattr(settings, key)
        if key in theirs and theirs[key] != own:
            raise ConfigError(
                f"{key}: the run in pretrained_learn has {theirs[key]!r}, and {own!r} here would make its "
                "weights compute something else; give the same"
            )
    with_best_weights(model, folder, "pretrained_learn").train()


def _log_set_up(logger: Logger, settings: LEARNKeys) -> None:
    for (key, value), unread in _UNREAD.items():
        if getattr(settings, key) == value and settings.model != PART_OF_A_RANKER:
            tell_unread(logger, settings, unread, f"{key} is {value}")
    source = content_source(settings)
    texts = f" of {source}, texts {settings.text_keys or 'every text column'}" if source else ""
    from_scratch = f"{settings.n_layers} layers from scratch"
    reader = settings.user_pretrain_dir if settings.preference == "llm" else from_scratch
    logger.info(
        f"{settings.model}: content {settings.content}{texts}; preference module {reader}, item tower "
        f"{settings.item_tower}; {settings.target_length} targets at most, split by {settings.split_by}"
    )
