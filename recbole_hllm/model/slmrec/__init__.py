"""SLMRec (arXiv 2405.17890) and its teacher E4SRec."""
