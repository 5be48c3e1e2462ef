"""HLLM (arXiv 2409.12740), generative and discriminative."""
