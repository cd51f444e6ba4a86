"""Everything that a training run can be told, with the published values."""

from dataclasses import dataclass, field, fields
from typing import Literal


def _arg(help: str, default=None):
    return field(default=default, metadata={"help": help})


@dataclass
class TrainingConfig:
    """Arguments of `train_accelerate.py` and of [`m2c.training.train`]; each `help` is its documentation.

    Arguments left at `None` take the value of [`PRESETS`] for the stage and the data.
    """

    stage: int = _arg("1 trains token mapper and injection (mapping), 2 trains adapters of the text tower (composing).", 1)
    model: str = _arg(
        "What to start from. Stage 1: any CLIP checkpoint, e.g. openai/clip-vit-large-patch14; 'scenes' is the tiny CLIP that "
        "ships with this package. Stage 2: what stage 1 wrote.",
        "scenes",
    )
    output_dir: str = _arg("Folder for the model, the log and the checkpoints. It must not exist, or be empty.", "m2c-output")

    dataset: str = _arg(
        "A data set of the Hub or a local folder (ImageFolder, parquet, or saved by save_to_disk). 'scenes' draws its own. "
        "Published: CC3M images with generated captions in stage 1, about 32,000 synthetic triplets in stage 2.",
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
    max_samples: int | None = _arg(
        "Train on so many rows. Scenes draws them. (default: all; scenes: 6000 pairs, 2000 triplets)"
    )
    cached_views: int | None = _arg(
        "Encode each image so often, augmented anew each time, before training, and keep the features in memory; 0 encodes in "
        "every step. Stage 2 does not augment: there 1 or 0. (default: 0; scenes: 1)"
    )
    horizontal_flip: float | None = _arg(
        "Stage 1: share of the views A that are mirrored. (published: 0.5; scenes: 0, as left and right carry meaning there)"
    )
    num_workers: int = _arg("Processes that load images.", 0)

    max_steps: int | None = _arg("Optimisation steps. (published: some hundred; default 300; scenes: 160 and 260)")
    batch_size: int | None = _arg(
        "Samples per step and process; negatives come from the batches of all processes. (published: 1024 over all; "
        "scenes: 256 and 128)"
    )
    chunk_size: int | None = _arg(
        "Rows that pass through the model at a time, on each process (GradCache): the gradient of the whole batch at the memory"
        " of a chunk, for more time. (default: the whole batch)"
    )
    learning_rate: float | None = _arg("Peak learning rate, cosine afterwards. (published: 1e-4; scenes: 8e-3 and 3e-3)")
    warmup_steps: int | None = _arg(
        "Linear warm-up. (published: 10000 in stage 1, which is longer than the run, and 100 in stage 2; default: 30 and 100; "
        "scenes: 20; if not given, at most a fifth of the run)"
    )
    weight_decay: float = _arg("Weight decay of AdamW, not applied to biases and norms. (published: 0.1)", 0.1)
    adam_beta1: float = _arg("First beta of AdamW. (published: 0.9)", 0.9)
    adam_beta2: float = _arg("Second beta of AdamW. (published: 0.98)", 0.98)
    adam_epsilon: float = _arg("Epsilon of AdamW. (published: 1e-6)", 1e-6)
    max_grad_norm: float = _arg("Gradients are clipped to this norm. (not published)", 1.0)
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

    injection_layers: list[int] | None = _arg(
        "Stage 1: text blocks (0-based) after which to inject. (published: 3 7 9 of 12; default: those, scaled to the depth; "
        "the CLIP of scenes: 0 1 2)"
    )
    mapper_only: bool = _arg("Stage 1: no injection at all, which is Pic2Word.", False)
    mapper_hidden_size: int | None = _arg("Stage 1: width of the token mapper. (published and default: 512)")
    injection_hidden_size: int | None = _arg("Stage 1: width of the injection. (published and default: 128)")
    lora_rank: int = _arg("Stage 2: rank of the LoRA adapters. (published: residual adapters of rank 128)", 16)
    lora_alpha: int = _arg("Stage 2: LoRA alpha; the adapters are scaled by alpha / rank.", 16)
    lora_dropout: float = _arg("Stage 2: dropout of the LoRA adapters.", 0.0)

    validation_size: int = _arg("Rows held out of training to measure retrieval on; 0 for none.", 0)
    eval_steps: int = _arg("Measure retrieval on the held-out rows every so many steps, and at the end.", 100)
    checkpoint_steps: int = _arg("Write a checkpoint every so many steps; 0 for none.", 0)
    log_steps: int = _arg("Write losses to log.jsonl every so many steps.", 10)
    resume: str | None = _arg("Folder of a checkpoint to continue from, e.g. m2c-output/checkpoints/step_000100.")

    def __post_init__(self):
        """Fills in the presets. Raises `ValueError` for values that make no sense together."""
        if self.stage not in (1, 2):
            raise ValueError(f"--stage is 1 (mapping) or 2 (composing), not {self.stage}")
        if self.mapper_only and self.injection_layers:
            raise ValueError("--mapper_only has no injection; leave --injection_layers out")
        cut_warmup = self.warmup_steps is None
        world = "scenes" if self.dataset == "scenes" else "published"
        for name, value in PRESETS[world, self.stage].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.model == "scenes" and self.injection_layers is None and not self.mapper_only:
            self.injection_layers = list(SCENES_INJECTION_LAYERS)
        if cut_warmup:
            self.warmup_steps = min(self.warmup_steps, self.max_steps // 5)
        positive = ("max_steps", "batch_size", "learning_rate", "tau", "log_steps", "eval_steps", "lora_rank", "chunk_size")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in positive and value is not None and not value > 0:
                raise ValueError(f"--{item.name} must be positive, not {value}")
            if isinstance(value, (int, float)) and value < 0:
                raise ValueError(f"--{item.name} must not be negative: {value}")


# The tiny CLIP has four text blocks; of the published layers only two would be left there.
SCENES_INJECTION_LAYERS = (0, 1, 2)

PRESETS = {
    ("published", 1): {
        "max_steps": 300,
        "batch_size": 1024,
        "learning_rate": 1e-4,
        "warmup_steps": 30,
        "tau": 0.07,
        "cached_views": 0,
        "horizontal_flip": 0.5,
    },
    ("published", 2): {
        "max_steps": 300,
        "batch_size": 1024,
        "learning_rate": 1e-4,
        "warmup_steps": 100,
        "tau": 0.01,
        "cached_views": 0,
        "horizontal_flip": 0.0,
    },
    ("scenes", 1): {
        "max_samples": 6000,
        "max_steps": 160,
        "batch_size": 256,
        "learning_rate": 8e-3,
        "warmup_steps": 20,
        "tau": 0.07,
        "cached_views": 1,
        "horizontal_flip": 0.0,
    },
    ("scenes", 2): {
        "max_samples": 2000,
        "max_steps": 260,
        "batch_size": 128,
        "learning_rate": 3e-3,
        "warmup_steps": 20,
        "tau": 0.05,
        "cached_views": 1,
        "horizontal_flip": 0.0,
    },
}
