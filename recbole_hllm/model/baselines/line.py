"""LINE: RecBole's, where every item has a user to compare with."""

from typing import Any

from recbole.model.general_recommender import LINE as RecBoleLINE

from recbole_hllm.errors import DataError


class LINE(RecBoleLINE):
    """RecBole's LINE, which also draws users who do not have an item, and looks for one for ever where all have it.

    Args:
        config: the run's Config.
        dataset: the training part of a SequenceDataset.

    Raises:
        DataError: an item that every user has in training.
    """

    COUNTERS = ("random_pr", "random_list")  # users to compare with, and how many of them are used up

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        for item, users in enumerate(self.used_ids):
            if len(users) >= self.n_users - 1:
                raise DataError(
                    f"data set '{dataset.dataset_name}': LINE compares the users of an item with others, and all have "
                    f"item '{dataset.id2token(dataset.iid_field, item)}' in training; take another model, or leave the "
                    "item out with item_inter_num_interval"
                )
