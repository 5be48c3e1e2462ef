"""Tables of item ids that start from vectors: those of a finished run, or of a frozen language model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recbole_hllm.config.keys.baselines import TextKNNKeys
from recbole_hllm.config.keys.item_init import ItemInitKeys
from recbole_hllm.config.keys.language_models import ComputeKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.config.parsing import ROW, fast_precision
from recbole_hllm.errors import ConfigError, did_you_mean, naming
from recbole_hllm.model.base.contract import Factorised, ReadsRuns, Recommender, Weights
from recbole_hllm.model.base.trained_run import read_run
from recbole_hllm.model.base.unread_keys import tell_unread
from recbole_hllm.model.baselines.text_knn import TextKNN
from recbole_hllm.nn.principal import principal_components

# Keys of TextKNN that say how texts are read; its source is `item_init` itself.
_OF_TEXTS = set(TextKNNKeys.keys) - set(RunKeys.keys) - {"item_pretrain_dir", "knn_history", "trust_remote_code"}


class StartsFromVectors(ReadsRuns):
    """A model whose ``item_embedding`` may start as the principal components of item vectors.

    Sequential models gain most from language models this way (LLM2SASRec, arXiv 2402.01339); a correction of bounded
    length keeps what the texts say (arXiv 2507.19473). In use there is no language model: the table is all.

    Attributes:
        item_embedding: the table.
        bound: how far a row may go; None: any way, as in a model that is not trained.
        start: (N, W) where rows start, where their way from there is bounded.
    """

    item_embedding: nn.Embedding
    bound: float | None = None
    start: Tensor

    @classmethod
    def construct(cls, config: Any, dataset: Any, weights: Weights) -> Recommender:
        """The model, its table as the keys say."""
        model, settings = cls(config, dataset), ItemInitKeys.of(config)
        unread = ["item_init_whitened", "item_init_norm", "item_init_bound"]
        if not settings.item_init:
            tell_unread(model.logger, settings, unread, "item_init is empty")
        elif settings.item_init_tuning != "bounded":
            tell_unread(model.logger, settings, unread[-1:], f"item_init_tuning is {settings.item_init_tuning}")
        table = model.item_embedding.weight
        table.requires_grad_(settings.item_init_tuning != "frozen")
        if settings.item_init and weights.are_read:
            with torch.no_grad():
                table.copy_(_first_table(config, dataset, table.shape[1]))
            if settings.item_init_tuning == "bounded":
                model.bound = settings.item_init_bound
                model.register_buffer("start", table.detach().clone(), persistent=False)
        return model

    @torch.no_grad()
    def after_step(self) -> None:
        """Brings rows back that went too far, to the nearest place that is near enough."""
        if self.bound is not None:
            correction = self.item_embedding.weight - self.start
            length = correction.norm(dim=1, keepdim=True)
            correction *= (self.bound / length.clamp(min=1e-30)).clamp(max=1)
            self.item_embedding.weight.copy_(self.start + correction)

    @classmethod
    def run_keys(cls, config: Any) -> tuple[str, ...]:
        """``item_init``, which may name a language model instead."""
        return ("item_init",)

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError or ModelError for values that are wrong whatever the data are."""
        super().check_keys(config)
        settings, run = ItemInitKeys.of(config), RunKeys.of(config)
        if not settings.item_init:
            if settings.item_init_tuning != "free" or settings.item_init_keys:
                key = "item_init_keys" if settings.item_init_keys else "item_init_tuning"
                raise ConfigError(f"{key}: there is nothing to start from; give item_init, or leave it out")
            return
        if settings.item_init_tuning == "bounded" and run.strategy == "deepspeed":
            raise ConfigError(
                "item_init_tuning: bounded needs the whole table after each step, which strategy: deepspeed keeps to "
                "itself; take strategy: ddp, or free"
            )
        if not _is_run(settings.item_init):
            TextKNN.check_keys(_reader_config(config))
        elif settings.item_init_keys:
            raise ConfigError("item_init_keys: are for a language model, and item_init names a run; leave them out")

    @classmethod
    def check_row(cls, config: Any, key: str, row: Any) -> None:
        """Raises ConfigError where a row of the same table has no item vectors.

        Args:
            row: its Config.
        """
        _check_model(row.spec.model, RunKeys.of(row).model)


def _first_table(config: Any, dataset: Any, width: int) -> Tensor:
    """(N, width) float32, the padding item's row 0.

    Raises:
        ConfigError: the vectors are of other items, or have no so many components.
    """
    settings = ItemInitKeys.of(config)
    vectors = _vectors(config, dataset)[1:].float().cpu().numpy()
    try:
        components = principal_components(vectors, width, settings.item_init_whitened)
    except ValueError as error:
        raise ConfigError(
            f"hidden_size: {width}: item_init: {settings.item_init}: {error}; take fewer, or other vectors"
        ) from error
    length = float((components**2).sum(axis=1).mean() ** 0.5)
    if length == 0:
        raise ConfigError(f"item_init: {settings.item_init}: the vectors of all items are the same")
    table = torch.zeros(len(vectors) + 1, width)
    table[1:] = torch.from_numpy(components * (settings.item_init_norm / length))
    return table


def _vectors(config: Any, dataset: Any) -> Tensor:
    """(N, D) of all items, as the run or language model has them."""
    source = ItemInitKeys.of(config).item_init
    assert source, "asked for"
    if not _is_run(source):
        with naming("item_init"), torch.random.fork_rng():
            return TextKNN(_reader_config(config), dataset).item_vectors()
    run = read_run(source, "item_init", config, dataset)
    _check_model(type(run.model), source)
    assert isinstance(run.model, Factorised), "just checked"
    with torch.no_grad():
        run.model.prepare_evaluation()
        return run.model.candidate_vectors()


def _check_model(model: type[Recommender], name: str) -> None:
    if not issubclass(model, Factorised):
        raise ConfigError(
            f"item_init: {name} is a {model.__name__}, which has no item vectors; take HLLM, LEARN, TextKNN or another "
            "that scores users' vectors with items'"
        )


def _is_run(source: str) -> bool:
    """Whether a run is named, and not a language model."""
    return source.startswith(ROW) or (Path(source).expanduser() / "config.yaml").is_file()


def _reader_config(config: Any) -> Any:
    """The Config of the TextKNN whose item vectors are taken.

    Raises:
        ConfigError: ``item_init_keys`` has a key that is none of it.
    """
    settings, run = ItemInitKeys.of(config), RunKeys.of(config)
    given = settings.item_init_keys or {}
    for key in given.keys() - _OF_TEXTS:
        raise ConfigError(f"item_init_keys: '{key}' is no key of how texts are read{did_you_mean(key, _OF_TEXTS)}")
    defaults = {name: TextKNNKeys.keys[name].default for name in _OF_TEXTS}
    own = {
        "item_pretrain_dir": settings.item_init,
        "precision": fast_precision(run.device),
        "trust_remote_code": ComputeKeys.of(config).trust_remote_code or False,
        "model": "item_init",
    }
    return config.with_values({**TextKNNKeys.checked({**defaults, **given}), **own})
