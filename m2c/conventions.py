"""What each method's authors ask: prompts, and how captions are joined. The pseudo-word is "*" in all of them here."""

from modeling_m2c import M2CConfig


PROMPTS = {
    "m2c": "a photo of * that {text}",
    "pic2word": "a photo of * , {text}",
    "searle": "a photo of * that {text}",
    "lincir": "a photo of * that {text}",
}
# Where a method's own evaluation asks otherwise on a benchmark.
BENCHMARK_PROMPTS = {
    ("m2c", "cirr"): "a photo of * , that {text}",
    ("m2c", "fashioniq"): "a photo of * , that {text}",
}
# FashionIQ has two captions for each query. "both" encodes both orders and averages the unit features.
JOININGS = ("first-second", "second-first", "both")
METHOD_JOININGS = {"m2c": "second-first", "pic2word": "second-first", "searle": "both", "lincir": "both"}


def method_of(config: M2CConfig) -> str:
    """Whose conventions a model follows, from its shape: injection makes M2C, a GELU mapper SEARLE, which asks as LinCIR."""
    if config.injection_layers:
        return "m2c"
    return "searle" if config.mapper_hidden_act == "gelu" else "pic2word"


def prompt_for(method: str, benchmark: str) -> str:
    """The prompt that a method's authors use on a benchmark."""
    return BENCHMARK_PROMPTS.get((method, benchmark), PROMPTS[method])
