import torch

from recbole_hllm.nn.words import drop_input_embeddings, word_embeddings


def test_words_are_looked_up(tiny):
    model, tokens = tiny("llama"), torch.tensor([[3, 5]])
    with torch.no_grad():
        vectors = word_embeddings(model)(tokens)
        read, looked_up = model(inputs_embeds=vectors), model(input_ids=tokens)
    torch.testing.assert_close(read.last_hidden_state, looked_up.last_hidden_state, rtol=0, atol=0)


@torch.no_grad()
def test_drop_input_embeddings(tiny):
    model, vectors = tiny("llama"), torch.linspace(-1, 1, 80).view(1, 5, 16)
    before = model(inputs_embeds=vectors).last_hidden_state
    drop_input_embeddings(model)
    assert not any("embed_tokens" in name for name in model.state_dict())
    torch.testing.assert_close(model(inputs_embeds=vectors).last_hidden_state, before, rtol=0, atol=0)
