"""Keys of how a training is spread over processes, and in which precision its weights are kept."""

from recbole_hllm.config.schema import Scope, Settings, key


class EngineKeys(Settings):
    """Processes."""

    title = "Processes"

    strategy: str | None = key(
        None,
        "How the processes that torchrun or deepspeed started train together: ddp (each has all weights) or deepspeed "
        "(ZeRO, see stage). single is one process. Empty: ddp in several processes, else single.",
        scope=Scope.PLACE,
    )  # fmt: skip
    stage: int | None = key(
        None,
        "ZeRO of strategy: deepspeed: 0 shares nothing, 1 the state of the optimizer, 2 gradients too, 3 weights too. "
        "Empty: what deepspeed_config says, else 2.",
        scope=Scope.PLACE, least=0, most=3,
    )  # fmt: skip
    offload: bool = key(
        False,
        "With strategy: deepspeed, keep the state of the optimizer, and with stage 3 the weights, in the memory of the "
        "CPU.",
        scope=Scope.PLACE,
    )  # fmt: skip
    deepspeed_config: str | None = key(
        None,
        "A JSON file of DeepSpeed's settings, with strategy: deepspeed; its \"auto\" is filled from the keys, and what "
        "contradicts them is refused. Empty: made from the keys.",
        scope=Scope.PLACE, source=True,
    )  # fmt: skip
    weights: str | None = key(
        None,
        "How the weights that are trained are kept: fp32, or bf16, which halves their memory; the optimizer then keeps "
        "its own copy in fp32, so that small steps are not lost. Empty: fp32.",
        scope=Scope.TRAINING, choices=("fp32", "bf16"),
    )  # fmt: skip
