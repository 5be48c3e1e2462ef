"""Which property file lists which keys; whoever imports this knows every key of this package."""

from recbole_hllm.config.keys.baselines import (
    HSTUKeys,
    LLMIDRecKeys,
    MarkovKeys,
    PromptLLMKeys,
    PromptLLMTunedKeys,
    SASRecNCEKeys,
    TextKNNKeys,
)
from recbole_hllm.config.keys.blend import BlendKeys
from recbole_hllm.config.keys.frozen_text import UniSRecKeys, WhitenRecKeys
from recbole_hllm.config.keys.hllm import HLLMKeys, HLLMRankerKeys
from recbole_hllm.config.keys.item_init import SASRecKeys
from recbole_hllm.config.keys.learn import LEARNKeys, LEARNRankerKeys, LEARNScorerKeys
from recbole_hllm.config.keys.next_item import NextItemKeys
from recbole_hllm.config.keys.run import LabelledKeys, OverallKeys, RunKeys
from recbole_hllm.config.keys.sasrec_losses import SASRecCEKeys, SASRecSSKeys, gSASRecKeys
from recbole_hllm.config.keys.sequence_encoders import FMLPRecKeys, LRURecKeys, eSASRecKeys
from recbole_hllm.config.keys.slmrec import E4SRecKeys, SLMRecKeys
from recbole_hllm.config.keys.user_items import UserItemsKeys
from recbole_hllm.config.schema import Settings

# Property file -> the keys it lists, and those that it leaves out, since another file has them.
PAGES: dict[str, tuple[type[Settings], ...]] = {
    "overall": (OverallKeys,),
    "labelled": (LabelledKeys, RunKeys),
    "model/Blend": (BlendKeys, RunKeys),
    "model/E4SRec": (E4SRecKeys, RunKeys),
    "model/FMLPRec": (FMLPRecKeys, RunKeys),
    "model/HLLM": (HLLMKeys, RunKeys),
    "model/HLLMRanker": (HLLMRankerKeys, HLLMKeys, LabelledKeys),
    "model/HSTU": (HSTUKeys, RunKeys),
    "model/LEARN": (LEARNKeys, RunKeys),
    "model/LEARNRanker": (LEARNRankerKeys, LabelledKeys),
    "model/LEARNScorer": (LEARNScorerKeys, LEARNKeys, LabelledKeys),
    "model/LLMIDRec": (LLMIDRecKeys, RunKeys),
    "model/LRURec": (LRURecKeys, RunKeys),
    "model/Markov": (MarkovKeys, RunKeys),
    "model/NextItemRecommender": (NextItemKeys, RunKeys),
    "model/PromptLLM": (PromptLLMKeys, RunKeys),
    "model/PromptLLMTuned": (PromptLLMTunedKeys, RunKeys),
    "model/SASRec": (SASRecKeys, RunKeys),
    "model/SASRecCE": (SASRecCEKeys, RunKeys),
    "model/SASRecNCE": (SASRecNCEKeys, RunKeys),
    "model/SASRecSS": (SASRecSSKeys, RunKeys),
    "model/SLMRec": (SLMRecKeys, E4SRecKeys),
    "model/ScoresUserItems": (UserItemsKeys, RunKeys),
    "model/TextKNN": (TextKNNKeys, RunKeys),
    "model/UniSRec": (UniSRecKeys, RunKeys),
    "model/WhitenRec": (WhitenRecKeys, RunKeys),
    "model/eSASRec": (eSASRecKeys, RunKeys),
    "model/gSASRec": (gSASRecKeys, RunKeys),
}
