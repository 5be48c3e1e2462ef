"""What one process alone computes is refused in several, each of which has other rows."""

import pytest

from recbole_hllm import Config
from recbole_hllm.errors import ConfigError
from recbole_hllm.model.base.further_negatives import check_further


@pytest.mark.parametrize(
    "model, keys, named",
    [
        ("SASRecNCE", {"in_batch_negatives": True}, "in_batch_negatives"),
        ("SASRecNCE", {"cross_batch_negatives": 8}, "cross_batch_negatives"),
        ("HLLM", {"negatives": "cached"}, "negatives: cached"),
        ("HLLMRanker", {"loss_lambda": 0.5}, "loss_lambda: 0.5"),
    ],
)
def test_what_is_of_one_process_is_refused_in_several(model, keys, named, monkeypatch):
    config = Config(model, "ml-100k", config_dict=keys)

    def check():
        if model == "SASRecNCE":  # which looks when it is made
            check_further(config.spec.model.Keys.of(config))
        config.spec.model.check_keys(config)

    check()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=f"{named}.* one process: start it without torchrun or deepspeed; or "):
        check()
