"""Item vectors with words around them: what a plain language model gives for each row alone, without padding."""

import pytest
import torch

from recbole_hllm.errors import ModelError
from recbole_hllm.nn.prompted import PromptedLLM

BEFORE, AFTER = [3, 17, 5], [9, 30]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def prompted(tiny):
    """(kind, before, after, keys) -> a PromptedLLM, and a plain language model of the same weights."""

    def make(kind="llama", before=(), after=(), **keys):
        return PromptedLLM(tiny(kind, "eager", **keys), before, after), tiny(kind, "eager", **keys)

    return make


def plain(llm, before, vectors, after):
    """All hidden states of one row: those that transformers lists, (T, H) each; the last is after the final norm."""
    words = llm.get_input_embeddings().weight
    inputs = torch.cat([words[list(before)], vectors, words[list(after)]])[None]
    return [state[0] for state in llm(inputs_embeds=inputs, output_hidden_states=True).hidden_states]


def rows_of(lengths, width=5, size=16):
    """Random vectors; what is behind a row's length must not matter and is large."""
    torch.manual_seed(1)
    vectors = torch.randn(len(lengths), width, size)
    for row, length in enumerate(lengths):
        vectors[row, length:] = 100.0
    return vectors, torch.tensor(lengths)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("before", [[], BEFORE], ids=["items", "words items"])
def test_outputs_at_every_item(prompted, kind, before):
    ours, llm = prompted(kind, before)
    vectors, lengths = rows_of([5, 1, 3])
    (read,) = ours(vectors)
    assert read.shape == (3, 5, 16)
    for row, length in enumerate(lengths):
        expected = plain(llm, before, vectors[row, :length], [])[-1][len(before) :]
        torch.testing.assert_close(read[row, :length], expected, **TOLERANCE)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("before, after", [([], []), (BEFORE, []), ([], AFTER), (BEFORE, AFTER)])
def test_the_last_output_has_read_everything(prompted, kind, before, after):
    ours, llm = prompted(kind, before, after)
    vectors, lengths = rows_of([2, 5, 1, 4])
    (read,) = ours.last(vectors, lengths)
    assert read.shape == (4, 16)
    for row, length in enumerate(lengths):
        expected = plain(llm, before, vectors[row, :length], after)[-1][-1]
        torch.testing.assert_close(read[row], expected, **TOLERANCE)


def test_an_empty_history_is_the_words_alone(prompted):
    ours, llm = prompted("llama", BEFORE, AFTER)
    vectors, lengths = rows_of([0, 2])
    torch.testing.assert_close(
        ours.last(vectors, lengths)[0][0], plain(llm, BEFORE, vectors[0, :0], AFTER)[-1][-1], **TOLERANCE
    )
    ours, llm = prompted("llama")  # not even words: the vector of padding is read
    vectors[0] = 0.5
    torch.testing.assert_close(
        ours.last(vectors, lengths)[0][0], plain(llm, [], vectors[0, :1], [])[-1][-1], **TOLERANCE
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_states_of_layers_are_those_of_transformers(prompted, kind):
    """0 is what the first layer reads, ``depth`` the outputs after the final norm, in the order asked for."""
    ours, llm = prompted(kind, BEFORE, AFTER)
    assert ours.depth == 2
    vectors, lengths = rows_of([4, 2])
    last = ours.last(vectors, lengths, layers=(2, 0, 1))
    assert len(last) == 4
    for row, length in enumerate(lengths):
        states = [state[-1] for state in plain(llm, BEFORE, vectors[row, :length], AFTER)]
        for read, expected in zip(last, (states[2], states[0], states[1], states[2]), strict=True):
            torch.testing.assert_close(read[row], expected, **TOLERANCE)
    ours, llm = prompted(kind, BEFORE)
    everywhere = ours(vectors, layers=(1,))
    assert len(everywhere) == 2
    expected = [state[len(BEFORE) :] for state in plain(llm, BEFORE, vectors[1, :2], [])]
    torch.testing.assert_close(everywhere[0][1, :2], expected[1], **TOLERANCE)
    torch.testing.assert_close(everywhere[1][1, :2], expected[2], **TOLERANCE)


# Of the largest gradient. GPT-2 computes in the type of its weights, here float64 throughout; Llama's norms and rotary
# tables go through float32 whatever that type is: of its roundings 4 were seen, and 64 are allowed.
@pytest.mark.parametrize("kind, precision", [("gpt2", 1e-12), ("llama", 2**-24 * 64)])
def test_gradients_are_those_of_rows_alone(prompted, kind, precision):
    ours, llm = (part.double() for part in prompted(kind, BEFORE, AFTER))
    vectors, lengths = rows_of([3, 1])
    vectors = vectors.double().requires_grad_()
    weights = torch.randn(16).double()
    (ours.last(vectors, lengths)[0] @ weights).sum().backward()
    alone = vectors.detach().clone().requires_grad_()
    loss = sum(plain(llm, BEFORE, alone[row, :n], AFTER)[-1][-1] @ weights for row, n in enumerate(lengths))
    loss.backward()
    words = llm.get_input_embeddings().weight.grad
    for gradient, expected in (
        (vectors.grad, alone.grad), (ours.before.grad, words[BEFORE]), (ours.after.grad, words[AFTER])
    ):  # fmt: skip
        torch.testing.assert_close(gradient, expected, rtol=0, atol=precision * expected.abs().max().item())
    assert vectors.grad[0, :3].abs().max() > 0.01
    assert vectors.grad[0, 3:].abs().max() == 0 and vectors.grad[1, 1:].abs().max() == 0, "padding"


def test_of_the_word_embeddings_only_those_of_the_texts_are_kept(prompted):
    ours, llm = prompted("llama", BEFORE, AFTER)
    words = llm.get_input_embeddings().weight
    assert torch.equal(ours.before, words[BEFORE]) and torch.equal(ours.after, words[AFTER])
    counted = sum(weight.numel() for weight in llm.parameters()) - words.numel() + (len(BEFORE) + len(AFTER)) * 16
    assert sum(weight.numel() for weight in ours.parameters()) == counted


def test_too_many_positions_are_refused(prompted):
    ours, _ = prompted("gpt2", BEFORE, AFTER)  # 12 positions
    assert ours.last(torch.randn(1, 7, 16), torch.tensor([7]))[0].shape == (1, 16)
    with pytest.raises(ModelError, match="^13 words and items do not fit into the 12 positions .* MAX_ITEM_LIST_LEN"):
        ours.last(torch.randn(1, 8, 16), torch.tensor([1]))
    with pytest.raises(ModelError, match="^14 words and items"):
        ours(torch.randn(1, 11, 16))
    ours, _ = prompted("llama", BEFORE, AFTER)
    assert ours(torch.randn(1, 50, 16))[0].shape == (1, 50, 16)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_bidirectional_model_is_refused(prompted, kind):
    with pytest.raises(ModelError, match=f"a {kind} model cannot read histories here: it is bidirectional"):
        prompted(kind)


def test_words_the_language_model_does_not_know_are_refused(prompted):
    assert len(prompted("llama", [39])[0].before) == 1
    with pytest.raises(ModelError, match="more words than the 40 of the language model"):
        prompted("llama", [1], [40])
