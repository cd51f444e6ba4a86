"""Weights of complementary retrieval learned from validation queries."""

from collections.abc import Callable, Iterable, Iterator

from tqdm.auto import tqdm

from m2c.encoding import processes

from .fusion import CAPTION_FEATURES, Fusion


# Alpha and beta are tried in these parts of 1.
PARTS = 10
GAMMAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def tune_fusion(score: Callable[[Fusion], float], has_captions: bool) -> tuple[Fusion, float]:
    """The best weights on a grid. Three numbers need no gradient, and a figure of retrieval has none.

    Args:
        score: what is to be high, on validation queries, which must not be those that are reported.
        has_captions: whether the gallery has captions.

    Returns:
        The weights and their score; of equal ones those with the least weight on captions of the gallery, which cost most.
    """
    scores = {fusion: score(fusion) for fusion in _progress(list(_grid(has_captions)))}
    best = max(scores, key=scores.get)  # the first of equal ones
    return best, scores[best]


def _progress(grid: list[Fusion]) -> Iterable[Fusion]:
    return tqdm(grid, desc="tuning weights", disable=not processes().is_main_process)


def _grid(has_captions: bool) -> Iterator[Fusion]:
    for gamma in GAMMAS if has_captions else GAMMAS[:1]:
        for caption_feature in CAPTION_FEATURES if gamma else CAPTION_FEATURES[:1]:
            for alpha in range(PARTS + 1):
                for beta in range(PARTS + 1 - alpha):
                    yield Fusion(alpha / PARTS, beta / PARTS, gamma, caption_feature)
