"""Processor of M2C: prepares composed queries, gallery images and captions."""

from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.utils import logging

from .images import fit_aspect, open_image
from .prompts import PSEUDO_WORD, TEXT_FIELD, EncodedPrompt, PromptEncoder, check_template, clean_text, context_length


logger = logging.get_logger(__name__)


class M2CProcessorKwargs(ProcessingKwargs, total=False):
    _defaults = {"text_kwargs": {"padding": True}}  # noqa: RUF012


class M2CProcessor(ProcessorMixin):
    r"""
    Prepares inputs of an [`M2CModel`]. What it returns depends on what it is given:

    | given | returned | for |
    |---|---|---|
    | `images` and `text` | `pixel_values`, `input_ids`, `attention_mask`, `pseudo_word_position` | `get_composed_features` |
    | `images` | `pixel_values` | `get_image_features` |
    | `text` | `input_ids`, `attention_mask` | `get_text_features` |

    An empty modification text gives the mapping prompt: a query for the reference image as it is.

    Args:
        image_processor ([`~transformers.CLIPImageProcessor`]): CLIP's image processor.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): CLIP's tokenizer.
        composing_template (`str`, *optional*, defaults to `"a photo of * that {text}"`):
            The prompt of a composed query. `*` stands for the pseudo-word, `{text}` for the modification text.
        mapping_template (`str`, *optional*, defaults to `"a photo of *"`):
            The prompt when there is no modification text; stage 1 trains with it.
        target_pad (`float`, *optional*):
            Pad images whose long side exceeds this many times the short side to a square (1.25 in the literature). `None`,
            the default, leaves CLIP's centre crop as it is.

    Raises:
        ValueError: if a template lacks a field or has one too many.
    """

    def __init__(
        self,
        image_processor,
        tokenizer,
        composing_template: str = "a photo of * that {text}",
        mapping_template: str = "a photo of *",
        target_pad: float | None = None,
    ):
        super().__init__(image_processor, tokenizer)
        check_template(composing_template, "composing_template", (PSEUDO_WORD, TEXT_FIELD))
        check_template(mapping_template, "mapping_template", (PSEUDO_WORD,))
        if target_pad is not None and target_pad < 1:
            raise ValueError(f"target_pad is a ratio of long to short side, at least 1; it is {target_pad}")
        self.composing_template = composing_template
        self.mapping_template = mapping_template
        self.target_pad = target_pad

    def __call__(
        self,
        images=None,
        text: str | list[str] | None = None,
        **kwargs: Unpack[M2CProcessorKwargs],
    ) -> BatchFeature:
        """
        Args:
            images (a picture or a list of pictures, *optional*):
                Anything Pillow opens, in any mode: `PIL.Image.Image`, array, tensor, path or URL.
            text (`str` or `list[str]`, *optional*):
                Modification texts, one for each image; or captions, if there are no images.
            padding (`bool` or `str`, *optional*, defaults to `True`):
                `True` pads to the longest prompt, `"max_length"` to the context length, `False` not at all.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`; lists by default.
            kwargs: further arguments of the image processor. All of them can also come sorted, as `text_kwargs`,
                `images_kwargs` and `common_kwargs`, in the way of transformers' own processors.

        Returns:
            [`~transformers.BatchFeature`] with `pixel_values` of shape `(batch_size, 3, height, width)`, `input_ids` and
            `attention_mask` of shape `(batch_size, sequence_length)` and `pseudo_word_position` of shape `(batch_size,)`,
            as far as they apply.

        Raises:
            ValueError: if there are not as many images as texts, nothing at all, or an image that cannot be read.
            TypeError: if a text is not a string.
        """
        if images is None and text is None:
            raise ValueError("M2CProcessor needs images, text, or both")
        sorted_kwargs = self._merge_kwargs(M2CProcessorKwargs, **kwargs)
        images_kwargs, text_kwargs = sorted_kwargs["images_kwargs"], sorted_kwargs["text_kwargs"]
        images_kwargs.pop("return_tensors", None)  # pictures and texts become tensors together
        data = {}
        if images is not None:
            pictures = [fit_aspect(open_image(image), self.target_pad) for image in _as_list(images)]
            data["pixel_values"] = self.image_processor(pictures, **images_kwargs)["pixel_values"]
        if text is not None:
            texts = _check_texts(text)
            if images is not None and len(pictures) != len(texts):
                raise ValueError(
                    f"a composed query is one image and one text, but there are {len(pictures)} images and {len(texts)} texts; "
                    'repeat the image for several texts, and pass "" where an image has no text'
                )
            data |= self._encode(texts, composed=images is not None, padding=text_kwargs["padding"])
        return BatchFeature(data, tensor_type=text_kwargs.get("return_tensors"))

    def mapping_prompt(self, batch_size: int, return_tensors: str | None = None) -> BatchFeature:
        """The mapping prompt `batch_size` times: `input_ids`, `attention_mask` and `pseudo_word_position`."""
        return self.composed_prompt([""] * batch_size, return_tensors)

    def composed_prompt(self, text: list[str], return_tensors: str | None = None) -> BatchFeature:
        """The text side of composed queries alone, for reference images that are encoded already."""
        return BatchFeature(self._encode(_check_texts(text), composed=True, padding=True), tensor_type=return_tensors)

    def _encode(self, texts: list[str], composed: bool, padding: bool | str) -> dict[str, list]:
        prompts = self._prompts(texts, composed)
        limit = context_length(self.tokenizer)
        cut = sum(prompt.kept_length < prompt.text_length for prompt in prompts)
        if cut:
            logger.warning(
                f"{cut} of {len(texts)} texts are too long for the {limit} tokens of the text tower; their ends were cut off"
            )
        lengths = [len(prompt.input_ids) for prompt in prompts]
        width = limit if padding == "max_length" else max(lengths, default=0)
        padded = padding is not False
        pad_token_id = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        fill = [(width - length) * padded for length in lengths]
        data = {
            "input_ids": [prompt.input_ids + [pad_token_id] * extra for prompt, extra in zip(prompts, fill)],
            "attention_mask": [[1] * length + [0] * extra for length, extra in zip(lengths, fill)],
        }
        if composed:
            data["pseudo_word_position"] = [prompt.pseudo_word_position for prompt in prompts]
        return data

    def _prompts(self, texts: list[str], composed: bool) -> list[EncodedPrompt]:
        if not composed:
            encode = PromptEncoder(self.tokenizer, TEXT_FIELD)
            return [encode(text) for text in texts]
        compose = PromptEncoder(self.tokenizer, self.composing_template)
        mapping = PromptEncoder(self.tokenizer, self.mapping_template)("")
        prompts = [compose(text) for text in texts]
        # A text can also be empty to the tokenizer only, such as one of nothing but punctuation.
        return [prompt if prompt.text_length else mapping for prompt in prompts]

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "pseudo_word_position"]


def _as_list(images) -> list:
    if isinstance(images, (list, tuple)):
        return list(images)
    is_batch = getattr(images, "ndim", 0) == 4
    return list(images) if is_batch else [images]


def _check_texts(text: str | list[str]) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text)
    for item in texts:
        if not isinstance(item, str):
            raise TypeError(f"a text must be a string, not {type(item).__name__}: {item!r}")
    return [clean_text(item) for item in texts]


__all__ = ["M2CProcessor"]
