"""The report of a table: what its folder says, as pages to read, to print and to compute with."""

from recbole_hllm.report.write import write_report

__all__ = ["write_report"]
