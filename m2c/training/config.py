"""Everything that a training run can be told, with the published values."""

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from .presets import PRESETS, SCENES_INJECTION_LAYERS


def _arg(help: str, default=None, **parsing):
    return field(default=default, metadata={"help": help, **parsing})


def _list_arg(help: str, *default):
    return field(default_factory=lambda: list(default), metadata={"help": help})


# `--resume` without a folder.
LATEST = "latest"

POSITIVE = (
    "max_steps",
    "batch_size",
    "learning_rate",
    "tau",
    "log_steps",
    "eval_steps",
    "lora_rank",
    "chunk_size",
    "shuffle_buffer",
    "keep_checkpoints",
)


@dataclass
class TrainingConfig:
    """Arguments of `train_accelerate.py` and of [`m2c.training.train`]; each `help` is its documentation.

    Arguments left at `None` take the value of [`PRESETS`] for stage, objective and data.
    """

    stage: int = _arg("1 trains token mapper and injection (mapping), 2 trains adapters of the text tower (composing).", 1)
    objective: Literal["image_text", "text_only"] = _arg(
        "Stage 1: image_text trains on images with captions; text_only trains the token mapper alone, on captions without any "
        "image (LinCIR, arXiv 2312.01998).",
        "image_text",
    )
    model: str = _arg(
        "What to start from. Stage 1: any CLIP checkpoint, e.g. openai/clip-vit-large-patch14; 'scenes' is the tiny CLIP that "
        "ships with this package. Stage 2: what stage 1 wrote.",
        "scenes",
    )
    output_dir: str = _arg(
        "Folder for the model, the log and the checkpoints. It must not exist, or be empty, or hold a run that --resume goes "
        "on with, or starts that ended before the first step.",
        "m2c-output",
    )

    dataset: str = _arg(
        "A data set of the Hub or a local folder (ImageFolder, parquet, WebDataset, or saved by save_to_disk). 'scenes' draws "
        "its own. Published: CC3M images with generated captions in stage 1, about 32,000 synthetic triplets in stage 2; "
        "text_only: captions of CC3M and prompts of Stable Diffusion and Midjourney.",
        "scenes",
    )
    dataset_config: str | None = _arg("Configuration of the data set, if it has several.")
    dataset_split: str = _arg("Split to train on.", "train")
    image_column: str = _arg("Stage 1: column of the images.", "image")
    caption_column: str = _arg("Stage 1: column of the captions.", "caption")
    reference_column: str = _arg("Stage 2: column of the reference images.", "reference")
    target_column: str = _arg("Stage 2: column of the target images.", "target")
    modification_column: str = _arg("Stage 2: column of the modification texts.", "modification")
    reference_caption_column: str = _arg("Stage 2: column of the captions of the reference images.", "reference_caption")
    streaming: bool = _arg(
        "Read the data set as a stream, without downloading or indexing it: for sets that do not fit on disk. Hub "
        "repositories, folders of parquet or WebDataset .tar shards, or such files themselves ('shards/*.tar'). A resumed run "
        "reads again what came before.",
        False,
    )
    shuffle_buffer: int = _arg(
        "Rows that each worker shuffles when streaming, besides the order of shards; their images are in memory, undecoded.",
        1000,
    )
    max_samples: int | None = _arg(
        "Train on so many rows. Scenes draws them. (default: all; scenes: 6000 pairs, 2000 triplets)"
    )
    cached_views: int | None = _arg(
        "Encode each image so often, augmented anew each time, before training, and store the features for this and other "
        "runs; 0 encodes in every step. Stage 2 and text_only do not augment: there 1 or 0. (default: 0; scenes: 1)"
    )
    cache_dir: str | None = _arg(
        "Where features are stored. (default: ~/.cache/m2c, or the folder that M2C_CACHE in the environment names)"
    )
    cache_limit_gb: float | None = _arg("End the run before it stores features of more than this. (default: no limit)")
    horizontal_flip: float | None = _arg(
        "Stage 1: share of the views A that are mirrored. (published: 0.5; scenes: 0, as left and right carry meaning there)"
    )
    num_workers: int = _arg("Processes that load images.", 0)

    max_steps: int | None = _arg(
        "Optimisation steps. (published: some hundred; default 300; scenes: 160 and 260; text_only, published: 20000; "
        "scenes: 200)"
    )
    batch_size: int | None = _arg(
        "Samples per step and process; negatives come from the batches of all processes. (published: 1024 over all; "
        "scenes: 256 and 128; text_only, published: 512; scenes: 256)"
    )
    chunk_size: int | None = _arg(
        "Rows that pass through the model at a time, on each process (GradCache): the gradient of the whole batch at the memory"
        " of a chunk, for more time. (default: the whole batch)"
    )
    learning_rate: float | None = _arg(
        "Peak learning rate. (published: 1e-4; scenes: 8e-3 and 3e-3; text_only, published: 1e-4; scenes: 8e-3)"
    )
    learning_rate_schedule: Literal["cosine", "constant_with_warmup"] | None = _arg(
        "After the warm-up the learning rate falls to zero along a cosine, or stays. (published: cosine; text_only: "
        "constant_with_warmup; scenes: cosine)"
    )
    warmup_steps: int | None = _arg(
        "Linear warm-up. (published: 10000 in stage 1, which is longer than the run, and 100 in stage 2; default: 30 and 100; "
        "scenes: 20; text_only, published: 0; if not given, at most a fifth of the run)"
    )
    weight_decay: float | None = _arg(
        "Weight decay of AdamW, not applied to biases and norms. (published: 0.1; text_only: 0.01)"
    )
    adam_beta1: float = _arg("First beta of AdamW. (published: 0.9)", 0.9)
    adam_beta2: float | None = _arg("Second beta of AdamW. (published: 0.98; text_only: 0.999; scenes: 0.98)")
    adam_epsilon: float | None = _arg("Epsilon of AdamW. (published: 1e-6; text_only: 1e-8; scenes: 1e-6)")
    max_grad_norm: float = _arg("Gradients are clipped to this norm; 0 for none. (not published)", 1.0)
    mixed_precision: Literal["no", "bf16", "fp16"] = _arg("Precision of the forward pass. (published: mixed)", "no")
    gradient_checkpointing: bool = _arg("Save memory by computing activations of the text tower again.", False)
    seed: int = _arg("Of weights, data order and augmentation.", 0)

    tau: float | None = _arg("Temperature. (published: 0.07 in stage 1, 0.01 in stage 2; scenes: 0.07 and 0.05)")
    soft_weight: float = _arg("Weight of soft text alignment. (published: 0.2)", 0.2)
    view_a_weight: float = _arg("Stage 1: weight of the loss on view A. (published: 1.0)", 1.0)
    mapping_weight: float = _arg("Stage 2: weight of the mapping loss. (published: 1.0)", 1.0)
    soft_teacher: Literal["reference", "target"] = _arg(
        "Stage 2: images that soft alignment pairs with the reference captions. (published code: target, which looks like an "
        "oversight)",
        "reference",
    )
    hard_negatives: int = _arg("Stage 2: mixed hard negatives per query, 0 for none. (published: 10)", 10)
    scale_hard_negatives: bool = _arg(
        "Stage 2: divide their logits by tau. (published code: no, which leaves them without effect)", True
    )
    reference_negatives: bool = _arg(
        "Stage 2: make the reference image one more negative of its own query. (not in the paper; it helps on scenes)", False
    )

    noise_scale: float | None = _arg(
        "text_only: the embedding of a caption gets noise before it is mapped: this, times a uniform number of 0..1 for each "
        "caption, times a standard normal one for each value. (published and scenes: 1)"
    )
    mapping_prompt_weight: float | None = _arg(
        "text_only: weight of the loss of the mapping prompt, which masks a caption as a whole. (published: 0, as it is not in "
        "the paper; scenes: 4, without which a pseudo-word that stands alone says little there)"
    )

    injection_layers: list[int] | None = _arg(
        "Stage 1: text blocks (0-based) after which to inject. (published: 3 7 9 of 12; default: those, scaled to the depth; "
        "the CLIP of scenes: 0 1 2)"
    )
    mapper_only: bool = _arg("Stage 1: no injection at all, which is Pic2Word; text_only has none.", False)
    patch_grid: int | None = _arg(
        "Stage 1: average the patches of an image to a grid of this side before the injection, which takes less memory, disk "
        "and time; it must divide the side of the patch grid. (published and default: as they are)"
    )
    mapper_hidden_size: int | None = _arg(
        "Stage 1: width of the token mapper. (published and default: 512; text_only: four times that of the image embedding)"
    )
    injection_hidden_size: int | None = _arg("Stage 1: width of the injection. (published and default: 128)")
    lora_rank: int = _arg("Stage 2: rank of the LoRA adapters. (published: residual adapters of rank 128)", 16)
    lora_alpha: int = _arg("Stage 2: LoRA alpha; the adapters are scaled by alpha / rank.", 16)
    lora_dropout: float = _arg("Stage 2: dropout of the LoRA adapters.", 0.0)

    validation_size: int = _arg("Rows held out of training to measure retrieval on; 0 for none.", 0)
    validation_benchmark: Literal["cirr", "circo", "fashioniq", "genecis", "scenes", "own"] | None = _arg(
        "Measure on this benchmark during training, as m2c evaluate does; features of its images are stored."
    )
    validation_root: str | None = _arg("Folder of the benchmark's files, as its owners ship them; scenes needs none.")
    eval_steps: int = _arg("Measure on held-out rows and benchmark every so many steps, and at the end.", 100)
    early_stopping: int = _arg(
        "End the run after so many measurements without a better one, of the benchmark's main figure if there is a benchmark, "
        "else of recall@1 on the held-out rows; 0 for never.",
        0,
    )
    checkpoint_steps: int | None = _arg(
        "Write a checkpoint every so many steps, and at the end; 0 only when the run is asked to end, by Ctrl-C or SIGTERM. "
        "(default: 100; scenes: 0)"
    )
    keep_checkpoints: int = _arg("How many of the newest checkpoints to keep.", 2)
    log_steps: int = _arg("Write losses to log.jsonl every so many steps.", 10)
    report_to: list[str] = _list_arg(
        "Also send what log.jsonl gets to tensorboard, trackio or both: pip install 'm2c[tracking]'.", "none"
    )
    dry_run: bool = _arg("Check data and model, take a step, say what a run would do and cost, and write nothing.", False)
    resume: str | None = _arg(
        "Go on from the newest checkpoint in --output_dir, or begin if there is none yet; with a folder, from that checkpoint.",
        nargs="?",
        const=LATEST,
    )

    def __post_init__(self):
        """Fills in the presets. Raises `ValueError` for values that make no sense together."""
        if self.stage not in (1, 2):
            raise ValueError(f"--stage is 1 (mapping) or 2 (composing), not {self.stage}")
        self._check_objective()
        if self.mapper_only and self.injection_layers:
            raise ValueError("--mapper_only has no injection; leave --injection_layers out")
        cut_warmup = self.warmup_steps is None
        world = "scenes" if self.dataset == "scenes" else "published"
        for name, value in PRESETS[world, self.stage if self.objective == "image_text" else self.objective].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.model == "scenes" and self.injection_layers is None and not self.mapper_only:
            self.injection_layers = list(SCENES_INJECTION_LAYERS)
        if cut_warmup:
            self.warmup_steps = min(self.warmup_steps, self.max_steps // 5)
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in POSITIVE and value is not None and not value > 0:
                raise ValueError(f"--{item.name} must be positive, not {value}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"--{item.name} must be a number, not {value}")
            if isinstance(value, (int, float)) and value < 0:
                raise ValueError(f"--{item.name} must not be negative: {value}")
        self._check_streaming()
        self._check_validation()
        if self.report_to != ["none"] and not set(self.report_to) <= set(TRACKERS):
            raise ValueError(f"--report_to is none, or one or more of {', '.join(TRACKERS)}; not {' '.join(self.report_to)}")

    def _check_objective(self):
        is_text_only = self.objective == "text_only"
        if is_text_only and self.stage == 2:
            raise ValueError("--objective text_only is one of stage 1; stage 2 needs triplets")
        self.mapper_only = self.mapper_only or is_text_only
        if (is_text_only or self.stage == 2) and (self.cached_views or 0) > 1:
            raise ValueError(
                f"--cached_views {self.cached_views} would store the same again: only pairs of stage 1 are augmented"
            )
        for name in OPTIONS_OF["image_text" if is_text_only else "text_only"]:
            if getattr(self, name) is not None:
                raise ValueError(f"--{name} has no effect with --objective {self.objective}; leave it out")

    def _check_streaming(self):
        if not self.streaming:
            return
        if self.dataset == "scenes":
            raise ValueError("--streaming needs a --dataset to stream; scenes are drawn")
        if self.cached_views:
            raise ValueError("--streaming goes without --cached_views: features are stored of data sets that have an index")
        if self.max_samples is not None:
            raise ValueError("--streaming reads all of a data set; leave out --max_samples, or name fewer files in --dataset")

    def _check_validation(self):
        has_files = self.validation_benchmark not in (None, "scenes")
        if has_files and self.validation_root is None:
            raise ValueError(f"--validation_root is missing: the folder with the files of {self.validation_benchmark}")
        if not has_files and self.validation_root is not None:
            raise ValueError("--validation_root is for a --validation_benchmark that has files")
        if self.early_stopping and not self.validation_size and self.validation_benchmark is None:
            raise ValueError("--early_stopping needs something to measure: --validation_size or --validation_benchmark")


# Options of one objective that say nothing to the other.
OPTIONS_OF = {
    "image_text": ("injection_layers", "injection_hidden_size", "patch_grid", "horizontal_flip", "tau"),
    "text_only": ("noise_scale", "mapping_prompt_weight"),
}

# Where a run can be followed, besides its log.
TRACKERS = ("tensorboard", "trackio")
