"""How the parts of complementary retrieval are put together: the formula of CVSI, and its weights for each benchmark."""

from dataclasses import dataclass, replace

import torch
from torch.nn.functional import normalize


# What is done with the mean of a picture's caption features before it joins the picture's own: nothing, or unit length.
CAPTION_FEATURES = ("mean", "unit")


@dataclass(frozen=True)
class Fusion:
    """Weights of the parts: `Q = alpha f1 + beta f2 + (1 - alpha - beta) f3` and `G = (1 - gamma) g_image + gamma g_captions`.

    Neither Q nor G is brought to unit length, so a score is `Q . G` and not a cosine.

    Args:
        alpha: of f1, the captions of the edited image.
        beta: of f2, the composed query.
        gamma: of the captions of a gallery image; with 0 the gallery needs none.
        caption_feature: one of [`CAPTION_FEATURES`]. The released code takes the mean, of FashionIQ at unit length.

    Raises:
        ValueError: if a weight is negative, or those of the query or of the gallery add up to more than 1.
    """

    alpha: float
    beta: float
    gamma: float
    caption_feature: str = "mean"

    def __post_init__(self):
        if not (self.alpha >= 0 and self.beta >= 0 and self.alpha + self.beta <= 1 + 1e-9 and 0 <= self.gamma <= 1):
            raise ValueError(
                f"weights {self.alpha:g},{self.beta:g},{self.gamma:g} are no mixture: alpha and beta are at least 0 and "
                "together at most 1 (the rest is the reference image's), and gamma is between 0 and 1"
            )
        if self.caption_feature not in CAPTION_FEATURES:
            raise ValueError(f"caption_feature is one of {', '.join(CAPTION_FEATURES)}, not {self.caption_feature!r}")

    def queries(self, edited: torch.Tensor, composed: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Fused queries Q.

        Args:
            edited (`torch.Tensor` of shape `(num_queries, dim)`): f1, the mean of unit features of edited captions.
            composed (`torch.Tensor` of shape `(num_queries, dim)`): f2, unit features of composed queries.
            reference (`torch.Tensor` of shape `(num_queries, dim)`): f3, unit features of reference images.
        """
        return self.alpha * edited + self.beta * composed + (1 - self.alpha - self.beta) * reference

    def gallery(self, images: torch.Tensor, captions: torch.Tensor | None) -> torch.Tensor:
        """The gallery G.

        Args:
            images (`torch.Tensor` of shape `(num_gallery, dim)`): unit features of images.
            captions (`torch.Tensor` of shape `(num_gallery, dim)`): means of unit features of their captions; `None` if gamma
                is 0.

        Raises:
            ValueError: if captions are missing and gamma is not 0.
        """
        if self.gamma == 0:
            return images
        if captions is None:
            raise ValueError(f"gamma is {self.gamma:g}, but the gallery has no captions")
        captions = normalize(captions, dim=-1) if self.caption_feature == "unit" else captions
        return (1 - self.gamma) * images + self.gamma * captions


# Those of CVSI's authors, alike for B/32, L/14 and bigG.
PRESETS = {
    "cirr": Fusion(0.6, 0.4, 0.2),
    "circo": Fusion(0.6, 0.4, 0.2),
    "fashioniq": Fusion(0.2, 0.6, 0.1, "unit"),
}


def fusion_for(benchmark: str, weights: str | None = None, caption_feature: str | None = None) -> Fusion:
    """The weights for a benchmark: its preset, or that of CIRR, where photographs are of anything, if it has none.

    Args:
        benchmark: its name.
        weights: another benchmark, whose preset is meant, or `"alpha,beta,gamma"`; numbers leave the caption feature as the
            benchmark's preset has it.
        caption_feature: one of [`CAPTION_FEATURES`], instead of the preset's.

    Raises:
        ValueError: if weights or caption feature are none.
    """
    fusion = PRESETS.get(benchmark, PRESETS["cirr"]) if weights is None else PRESETS.get(weights)
    if fusion is None:
        try:
            alpha, beta, gamma = map(float, weights.split(","))
        except ValueError as error:
            known = ", ".join(PRESETS)
            raise ValueError(f"weights are {known}, or alpha,beta,gamma such as 0.6,0.4,0.2; not {weights!r}") from error
        fusion = Fusion(alpha, beta, gamma, PRESETS.get(benchmark, PRESETS["cirr"]).caption_feature)
    return fusion if caption_feature is None else replace(fusion, caption_feature=caption_feature)
