"""SASRec with the losses that later work found stronger: the whole catalogue, sampled softmax, and gBCE."""

from typing import ClassVar

from recbole_hllm.config.keys.sasrec_losses import SASRecCEKeys, SASRecSSKeys, gSASRecKeys
from recbole_hllm.model.baselines.sasrec_nce import SASRecNCE


class SASRecCE(SASRecNCE):
    """Cross-entropy over all items at every position, of dot products (arXiv 2309.07602).

    The keys are explained in ``properties/model/SASRecCE.yaml``.
    """

    Keys: ClassVar[type[SASRecCEKeys]] = SASRecCEKeys


class SASRecSS(SASRecNCE):
    """Cross-entropy over the target and uniformly drawn items at every position, of dot products (arXiv 2508.06450).

    The keys are explained in ``properties/model/SASRecSS.yaml``.
    """

    Keys: ClassVar[type[SASRecSSKeys]] = SASRecSSKeys


class gSASRec(SASRecNCE):
    """Generalised binary cross-entropy of the target and uniformly drawn items at every position (arXiv 2308.07192).

    The keys are explained in ``properties/model/gSASRec.yaml``.
    """

    Keys: ClassVar[type[gSASRecKeys]] = gSASRecKeys
