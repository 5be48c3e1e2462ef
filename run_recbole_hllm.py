"""The command line from a clone that is not installed."""

from recbole_hllm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
