"""RepeatNet: RecBole's, in fp32."""

from typing import ClassVar

from recbole_hllm.model.base.recbole_models import sequential_recommender


class RepeatNet(sequential_recommender.RepeatNet):
    """RecBole's RepeatNet (arXiv 1812.02646). It adds up the chances to repeat an item in a table of fp32, which torch
    does not do with those of bf16."""

    AUTOCASTS: ClassVar[bool] = False
