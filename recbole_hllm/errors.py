"""Errors that are the user's to fix: the command line prints their message without a traceback."""


class UserError(ValueError):
    """What is wrong, where (file, line, key), and what to do about it."""


class ConfigError(UserError):
    """A key, value or name in the configuration is wrong."""


class DataError(UserError):
    """A data file is missing or its content cannot be used."""


class ModelError(UserError):
    """A language model, tokenizer or checkpoint cannot be used."""


class MissingExtra(UserError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, why: str):
        super().__init__(f"{why} needs the package '{package}': pip install 'recbole-hllm[{extra}]'")
