"""User models that are language models, against the language model row by row."""

import pytest
import torch
from transformers import AutoModel, LlamaConfig

from recbole_hllm.nn.prompted import PromptedLLM
from recbole_hllm.nn.user_encoder import UserEncoder
from recbole_hllm.nn.user_models.base import Histories
from recbole_hllm.nn.user_models.language import PromptedUser, UserLLM

WIDTH = 8


def backbone():
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1, "vocab_size": 5}
    return AutoModel.from_config(LlamaConfig(hidden_size=WIDTH, intermediate_size=16, **sizes)).eval()


def read_alone(llm, vectors):
    """(S, H) -> (H,) output at the last place."""
    return llm(inputs_embeds=vectors[None]).last_hidden_state[0, -1]


@pytest.fixture
def histories():
    torch.manual_seed(1)
    lengths = torch.tensor([3, 1, 5])
    real = torch.arange(5) < lengths[:, None]
    items = torch.tensor([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [2, 2, 1, 4, 3]])
    times = torch.arange(15, dtype=torch.float64).reshape(3, 5) * 1e7 * real
    at = torch.tensor([4e8, 5e8, 6e8], dtype=torch.float64)
    return Histories(torch.randn(3, 5, WIDTH) * real[..., None], items, lengths, times, at)


@torch.no_grad()
@pytest.mark.parametrize("time_of", ["item", "next"])
def test_a_user_llm_reads_vectors_with_what_is_added(histories, time_of):
    model = UserLLM(UserEncoder(backbone()), WIDTH, n_items=5, time_num=2, time_width=3, time_of=time_of).eval()
    seconds = histories.times if time_of == "item" else histories.next_times()
    inputs = histories.vectors + model.input_features.item(histories.items) + model.input_features.time(seconds)
    wanted = [read_alone(model.user_encoder.backbone, inputs[row, :length]) for row, length in enumerate((3, 1, 5))]
    torch.testing.assert_close(model(histories), torch.stack(wanted), rtol=1e-5, atol=1e-6)
    assert model.reads_times and not any(name.startswith("user_encoder") for name in model.own_weights())


@torch.no_grad()
def test_an_item_without_an_embedding_is_read_by_its_vector(histories):
    model = UserLLM(UserEncoder(backbone()), WIDTH, n_items=4, time_num=0, time_width=0, time_of="item").eval()
    assert histories.items.max() == 4, "an item that came after the training"
    embedded = model.input_features.item(torch.where(histories.items < 4, histories.items, 0))
    inputs = histories.vectors + embedded
    wanted = [read_alone(model.user_encoder.backbone, inputs[row, :length]) for row, length in enumerate((3, 1, 5))]
    torch.testing.assert_close(model(histories), torch.stack(wanted), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_without_features_vectors_alone_are_read(histories):
    model = UserLLM(UserEncoder(backbone()), WIDTH, n_items=0, time_num=0, time_width=0, time_of="item")
    wanted = [
        read_alone(model.user_encoder.backbone, histories.vectors[row, :length]) for row, length in enumerate((3, 1, 5))
    ]
    torch.testing.assert_close(model(histories), torch.stack(wanted), rtol=1e-5, atol=1e-6)
    assert not model.reads_times and model.own_weights() == {}


@torch.no_grad()
@pytest.mark.parametrize(("before", "after"), [([1, 2], [3]), ([], []), ([4], [])])
def test_a_prompted_user_reads_words_around_projected_vectors(histories, before, after):
    model = PromptedUser(PromptedLLM(backbone(), before, after), WIDTH, len(before), len(after)).eval()
    vectors, words = model.input_proj(histories.vectors), model.llm
    wanted = [
        model.score(read_alone(words.backbone, torch.cat([words.before, vectors[row, :length], words.after])))
        for row, length in enumerate((3, 1, 5))
    ]
    torch.testing.assert_close(model(histories), torch.stack(wanted), rtol=1e-5, atol=1e-6)
    again = PromptedUser.build(model.settings, backbone()).eval()
    again.load_state_dict(model.own_weights(), strict=False)
    torch.testing.assert_close(again(histories), model(histories))
