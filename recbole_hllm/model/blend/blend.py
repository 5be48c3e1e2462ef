"""Blend: the weighted sum of the log-probabilities, or of normalised scores, of finished runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_hllm.config.keys.blend import BlendKeys
from recbole_hllm.config.keys.run import RunKeys
from recbole_hllm.errors import ConfigError, ModelError
from recbole_hllm.model.base.contract import Factorised, Picked, ReadsRuns, Weights
from recbole_hllm.model.base.servable import Servable
from recbole_hllm.model.base.trained_run import read_run
from recbole_hllm.model.base.training_free import TrainingFree
from recbole_hllm.model.base.unread_keys import tell_unread
from recbole_hllm.model.blend.parts import MarkovPart, Part, check_part, part_of
from recbole_hllm.model.blend.weights import bounds_of, check_weights, names_of_groups, simplex
from recbole_hllm.serving.served import ServedBlend
from recbole_hllm.serving.served_z_scores import ServedZScores, z_scores
from recbole_hllm.storage.cache import file_digest


class Blend(TrainingFree, Factorised, ReadsRuns, Picked, Servable):
    """Score of an item: the sum over parts of weight x log-probability of the item, or weight x z-score.

    The log-probability is that of the softmax over all items of the catalogue; what is masked is left out of a list
    afterwards. Its denominator is the same for all items of a row, so it is not computed: the scores are less by a
    number that changes no order. So the weighted sum of parts that are products of vectors is the product of their
    vectors side by side, those of users multiplied by weight and 1 / temperature.

    Args:
        config: the run's Config; keys are explained in ``properties/model/Blend.yaml``.
        dataset: the training part of a SequenceDataset.
        weights: whether there are parts.

    Attributes:
        parts: of the runs in ``of``; none without weights.
        mix: (G, P) the weight of each part in each group of history lengths.
        part_digests, digests_read: of the weights of the parts, as the checkpoint has them and as they were read.

    Raises:
        ConfigError: the keys contradict each other, or a run is not there, or of other data.
        ModelError: a run is damaged.
    """

    Keys: ClassVar[type[BlendKeys]] = BlendKeys
    settings: BlendKeys
    RUNS_STAY_NEEDED = True
    similarity = "dot"
    # RecBole's name for what a checkpoint holds besides weights.
    other_parameter_name = ["part_digests"]

    def __init__(self, config: Any, dataset: Any, weights: Weights = Weights.FRESH) -> None:
        self.check_keys(config)
        super().__init__(config, dataset)
        settings = self.settings
        self.folders = [Path(folder).expanduser() for folder in settings.parts]
        self.bounds = bounds_of(settings)
        given = settings.blend_weights or [1 / len(self.folders)] * len(self.folders)
        self.register_buffer("mix", torch.tensor([given] * self.groups(), dtype=torch.float32))
        # In a plain list: a part is no part of this model's checkpoint, and stays in its own.
        self.parts: list[Part] = []
        self.part_digests: list[str] = []
        self.digests_read: list[str] = []
        if weights in (Weights.FRESH, Weights.FOLLOW):
            self._read_parts(config, dataset)
        if settings.blend_weights:
            tell_unread(self.logger, settings, ["blend_step"], "blend_weights are given")

    def _read_parts(self, config: Any, dataset: Any) -> None:
        runs = [read_run(folder, "of", config, dataset) for folder in self.folders]
        names = map(str, self.folders)
        self.parts = [part_of(run, name, self.settings) for run, name in zip(runs, names, strict=True)]
        files = (folder / "best" / "weights.safetensors" for folder in self.folders)
        self.digests_read = self.part_digests = list(map(file_digest, files))
        # Vectors of items are the same with any row.
        self.a_row = dataset.latest_rows(dataset.latest_sequences()[1][:1], whole=True)
        if not any(isinstance(part, MarkovPart) for part in self.parts):
            tell_unread(self.logger, self.settings, ["markov_smoothing"], "no part is Markov")

    @classmethod
    def check_keys(cls, config: Any) -> None:
        """Raises ConfigError for values that are wrong whatever the parts are."""
        settings = cls.Keys.of(config)
        of = settings.parts
        if not isinstance(of, list) or len(of) < 2 or not all(isinstance(name, str) for name in of):
            raise ConfigError(
                f"of: {of!r}: name two or more finished runs by their folders, or earlier rows of a table, such as "
                "[row:HLLM, row:SASRec]"
            )
        if len(set(of)) < len(of):
            raise ConfigError(f"of: {', '.join(of)} names a run twice; give it a larger weight")
        check_weights(settings, len(of))

    @classmethod
    def run_keys(cls, config: Any) -> tuple[str, ...]:
        """``of``."""
        return ("of",)

    @classmethod
    def check_row(cls, config: Any, key: str, row: Any) -> None:
        """Raises ConfigError where a row of the same table could not be a part.

        Args:
            row: its Config.
        """
        check_part(row, RunKeys.of(row).model, cls.Keys.of(config))

    def inference_parameters(self) -> int:
        """Those of the parts, and the weights."""
        return self.mix.numel() + sum(part.model.inference_parameters() for part in self.parts)

    # ---- evaluation ----

    def prepare_evaluation(self) -> None:
        """Makes the parts ready.

        Raises:
            ModelError: a part was trained again after its weight was picked.
        """
        if self.part_digests != self.digests_read:
            pairs = zip(self.folders, self.part_digests, self.digests_read, strict=False)
            changed = [str(folder) for folder, before, now in pairs if before != now]
            raise ModelError(
                f"of: {', '.join(changed) or 'the number of parts'} changed after the weights of this blend were "
                "picked; make the blend again"
            )
        for part in self.parts:
            part.model.prepare_evaluation()

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """(B, N) float32 score of every item.

        Args:
            interaction: rows of ``WholeRows``.
        """
        weights = self.mix[self.group_of(interaction)]
        products = self._products(interaction)
        known = {place: product for place, product in enumerate(products) if product is not None}
        scores = torch.zeros(len(weights), self.n_items, device=weights.device)
        if known:
            users, items = _side_by_side(weights[:, list(known)], list(known.values()))
            scores = users @ items.T
        for place, part in enumerate(self.parts):
            if place in known:
                part.add_beside(scores, interaction, weights[:, place])
            else:
                scores += weights[:, place, None] * self._table(part, interaction)
        return scores

    def predict(self, interaction: Interaction) -> Tensor:
        """(B,) score of each row's item."""
        return self.full_sort_predict(interaction).gather(1, interaction[self.ITEM_ID][:, None])[:, 0]

    def _products(self, interaction: Interaction) -> list[tuple[Tensor, Tensor] | None]:
        """Of each part, as far as its scores are products of vectors."""
        if self.settings.blend_scores == "z_scores":
            return [None] * len(self.parts)
        return [part.product(interaction) for part in self.parts]

    def _table(self, part: Part, interaction: Interaction) -> Tensor:
        """(B, N) what a part says."""
        logits = part.logits(interaction)
        return z_scores(logits) if self.settings.blend_scores == "z_scores" else logits

    # ---- vectors ----

    def factors(self, interaction: Interaction) -> tuple[Tensor, Tensor] | None:
        """(B, E) and (N, E) vectors of the parts side by side; None where they are not all of the scores."""
        products = self._products(interaction)
        if None in products or any(part.beside(0) for part in self.parts):
            return None
        return _side_by_side(self.mix[self.group_of(interaction)], products)

    def item_vectors(self) -> Tensor:
        """(N, E) vectors of all items, those of the parts side by side.

        Raises:
            ModelError: scores of a part are no product.
        """
        row = self.a_row.to(self.mix.device)
        table = _side_by_side(self.mix[self.group_of(row)], self._all_products(row))[1]
        table[0] = 0  # RecBole leaves random numbers there
        return table

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """(B, E) vectors of each row's user, multiplied by the weights of the parts.

        Raises:
            ModelError: scores of a part are no product.
        """
        return _side_by_side(self.mix[self.group_of(interaction)], self._all_products(interaction))[0]

    def beside_vectors(self) -> dict[str, Tensor]:
        """What scores have beside the product of the vectors: Markov's table, where it is a part."""
        arrays: dict[str, Tensor] = {}
        column = 0
        for part, (users, _) in zip(self.parts, self._all_products(self.a_row.to(self.mix.device)), strict=True):
            arrays |= part.beside(column)
            column += users.shape[1]
        return arrays

    def _all_products(self, interaction: Interaction) -> list[tuple[Tensor, Tensor]]:
        if self.settings.blend_scores == "z_scores":
            raise ModelError("blend_scores: z_scores are divided by a number of each user, so the blend has no vectors")
        products = []
        for part, product in zip(self.parts, self._products(interaction), strict=True):
            if product is None:
                raise ModelError(f"this blend has no vectors: scores of {part.name} are no product of them")
            products.append(product)
        return products

    def served(self) -> ServedBlend:
        """The parts, and their weights.

        Raises:
            ModelError: a part cannot stand alone.
        """
        self.prepare_evaluation()
        parts = [part.served() for part in self.parts]
        blend = ServedZScores if self.settings.blend_scores == "z_scores" else ServedBlend
        return blend(parts, self.mix, self.bounds, self.settings.MAX_ITEM_LIST_LENGTH)

    # ---- weights ----

    def groups(self) -> int:
        """Groups of history lengths."""
        return len(self.bounds) + 1

    def group_of(self, interaction: Interaction) -> Tensor:
        """(B,) the group of each row's history, as it is read."""
        lengths = interaction[self.ITEM_SEQ_LEN]
        return torch.bucketize(lengths, lengths.new_tensor(self.bounds), right=True)

    def options(self) -> int:
        """How many weights there are to pick from; 0 where they are given."""
        return 0 if self.settings.blend_weights else len(self._grid())

    def _grid(self) -> np.ndarray:
        return simplex(len(self.folders), self.settings.blend_step)

    def scores_of_options(self, interaction: Interaction) -> Iterator[Tensor]:
        """(B, N) scores under each of the weights in turn; what the parts say is computed once."""
        tables = [self._table(part, interaction) for part in self.parts]
        scores = torch.empty_like(tables[0])
        for weights in self._grid().tolist():
            torch.mul(tables[0], weights[0], out=scores)
            for table, weight in zip(tables[1:], weights[1:], strict=True):
                if weight:
                    scores.add_(table, alpha=weight)
            yield scores

    def pick(self, values: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        """Takes the best weights of each group, and for one without rows those of all rows.

        Args:
            values: (groups + 1, options) of ``valid_metric``; the last line over all rows.
            rows: (groups,) how many rows each group has.

        Returns:
            The parts, the weights of each group with its value, and every value that was seen, of each group and of
            all rows.
        """
        grid, metric, picked = self._grid(), self.settings.valid_metric, []
        for group, name in enumerate(names_of_groups(self.bounds)):
            line = values[group if rows[group] else -1]
            best = int(line.argmax())
            self.mix[group] = torch.from_numpy(grid[best])
            weights = [round(weight, 6) for weight in grid[best].tolist()]
            picked.append({"length": name, "rows": int(rows[group]), "weights": weights, metric: float(line[best])})
            self.logger.info(
                f"blend: history of length {name}, {rows[group]} rows: weights {weights}, {metric} {line[best]:.5f}; "
                f"alone {self._alone(line)}"
            )
        tried = [
            {"weights": [round(weight, 6) for weight in weights], metric: value}
            for weights, value in zip(grid.tolist(), values.T.tolist(), strict=True)
        ]
        return {"of": list(map(str, self.folders)), "picked": picked, "tried": tried}

    def _alone(self, line: np.ndarray) -> str:
        """The values of the parts alone."""
        places = [int((self._grid()[:, part] == 1).argmax()) for part in range(len(self.folders))]
        return ", ".join(f"{folder.name} {line[place]:.5f}" for folder, place in zip(self.folders, places, strict=True))


def _side_by_side(weights: Tensor, products: Any) -> tuple[Tensor, Tensor]:
    """(B, E) and (N, E) vectors of parts, those of users multiplied by (B, P) weights."""
    users = [weights[:, place, None] * users for place, (users, _) in enumerate(products)]
    return torch.cat(users, dim=1), torch.cat([items for _, items in products], dim=1)
