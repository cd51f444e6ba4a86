"""One training run, from a configuration to a folder that `AutoModel` loads."""

import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from m2c.checkpoints import is_m2c, load_model, load_processor, public_name, save_retriever
from m2c.evaluation.metrics import rank_gallery, recall_at_k
from modeling_m2c import M2CModel
from processing_m2c import M2CProcessor

from .adapters import add_composing_adapter
from .checkpointing import load_checkpoint, register_checkpoint_hooks, save_checkpoint
from .config import TrainingConfig
from .data import build_data, encoder
from .features import CachedFeatures
from .grad_cache import GradCache
from .optimization import build_optimizer, build_schedule
from .tasks import ComposingTask, MappingTask


LOG = "log.jsonl"
RECORD = "training.json"


def train(config: TrainingConfig, features: CachedFeatures | None = None) -> tuple[M2CModel, M2CProcessor]:
    """Runs one stage and writes model, processor, log and record to `config.output_dir`.

    Args:
        config: the run.
        features: features of the training data encoded earlier by the same CLIP, to be used instead of reading it.

    Returns:
        The trained model in eval mode, and its processor.

    Raises:
        ValueError: for data, checkpoints or arguments that do not fit; the message names them.
        FileExistsError: if the output folder exists and is not empty. Nothing in it is touched.
    """
    output_dir = prepare_output_dir(config)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed),
    )
    set_seed(config.seed)
    model, processor = build_model(config)
    task = (MappingTask if config.stage == 1 else ComposingTask)(
        model, processor.mapping_prompt(1, return_tensors="pt"), config
    )
    model.to(accelerator.device).eval()
    if accelerator.device.type == "cpu":
        # SDPA's backward pass is slow there.
        model.set_attn_implementation("eager")
    if features is None:
        data, held_out = build_data(config, model, processor)
    else:
        data, held_out = features, None
    run = _Run(config, output_dir, accelerator, task, data, held_out)
    run.fit()
    if accelerator.is_main_process:
        save_retriever(model, processor, output_dir)
        run.write_record()
    accelerator.wait_for_everyone()
    return model.eval(), processor


def prepare_output_dir(config: TrainingConfig) -> Path:
    """Makes the output folder. One that holds anything is accepted only to go on from a checkpoint that lies in it."""
    output_dir = Path(config.output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise FileExistsError(f"{output_dir} is a file; choose another --output_dir")
    is_own = config.resume is not None and output_dir.resolve() in Path(config.resume).resolve().parents
    if output_dir.is_dir() and any(output_dir.iterdir()) and not is_own:
        raise FileExistsError(
            f"{output_dir} exists and is not empty; choose another --output_dir, remove it, or go on from one of its own "
            "checkpoints with --resume"
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    return output_dir


def build_model(config: TrainingConfig) -> tuple[M2CModel, M2CProcessor]:
    """The model as it is before the first step: stage 1 adds new modules to a CLIP, stage 2 new adapters to stage 1."""
    if config.stage == 1:
        model = load_model(
            config.model,
            injection_layers=[] if config.mapper_only else config.injection_layers,
            mapper_hidden_size=config.mapper_hidden_size,
            injection_hidden_size=config.injection_hidden_size,
        )
    else:
        if not is_m2c(config.model):
            raise ValueError(f"stage 2 starts from what stage 1 wrote; {config.model!r} is a plain CLIP. Train --stage 1 first")
        model = load_model(config.model)
        add_composing_adapter(model, config)
    return model, load_processor(config.model)


class _Run:
    """The loop over steps, with its log, validation and checkpoints."""

    def __init__(self, config, output_dir, accelerator, task, data, held_out):
        self.config, self.output_dir, self.accelerator, self.held_out = config, output_dir, accelerator, held_out
        if len(data) < config.batch_size * accelerator.num_processes:
            raise ValueError(
                f"--batch_size {config.batch_size} times {accelerator.num_processes} processes is more than the {len(data)} "
                "rows to train on"
            )
        loader = DataLoader(
            data,
            config.batch_size,
            shuffle=True,
            drop_last=True,
            collate_fn=data.collate,
            num_workers=0 if isinstance(data, CachedFeatures) else config.num_workers,
        )
        self.model, self.place, self.data = task.model, task.place, data
        self.trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
        optimizer = build_optimizer(task, config)
        self.schedule = build_schedule(optimizer, config)
        self.task, self.optimizer, self.loader = accelerator.prepare(task, optimizer, loader)
        self.grad_cache = GradCache(self.task, accelerator, config.chunk_size) if config.chunk_size else None
        register_checkpoint_hooks(accelerator)
        accelerator.register_for_checkpointing(self.schedule)
        self.step = load_checkpoint(accelerator, config) if config.resume else 0
        if accelerator.is_main_process:
            self._forget_log_after(self.step)
        self.validation: dict[str, float] = {}

    def fit(self) -> None:
        started = time.time()
        bar = tqdm(
            total=self.config.max_steps,
            initial=self.step,
            desc=f"stage {self.config.stage}",
            disable=not self.accelerator.is_main_process,
        )
        with bar:
            for batch in self._batches():
                terms = self._train_step(batch)
                self.step += 1
                bar.update()
                if self.step % self.config.log_steps == 0 or self.step == self.config.max_steps:
                    losses = self._log(terms, time.time() - started)
                    bar.set_postfix(loss=f"{losses['loss']:.3f}")
                self._periodically()

    def _batches(self):
        """Batches of the steps that are left, epoch after epoch; a resumed run goes on in the middle of its epoch."""
        per_epoch = len(self.loader)
        while self.step < self.config.max_steps:
            epoch, done = divmod(self.step, per_epoch)
            self.loader.set_epoch(epoch)
            self.data.set_epoch(epoch)
            for batch in skip_first_batches(self.loader, done) if done else self.loader:
                yield batch
                if self.step >= self.config.max_steps:
                    return

    def _train_step(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.task.train()
        # Dropout depends on seed, step and row of the global batch alone, so a resumed run draws what an uninterrupted one
        # would have drawn, and two processes what one would.
        rank = self.accelerator.process_index
        self.place.begin(self.step, rank * self.config.batch_size)
        if not isinstance(self.data, CachedFeatures):
            with self.accelerator.autocast():
                batch = encoder(self.config)(self.model, batch)
        self.optimizer.zero_grad()
        terms = self._backward(batch)
        self.accelerator.clip_grad_norm_(self.trained, self.config.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        return terms

    def _backward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.grad_cache is not None:
            return self.grad_cache.backward(batch)
        with self.accelerator.autocast():
            features = self.task(**batch)
        terms = self.accelerator.unwrap_model(self.task).loss(features, batch)
        self.accelerator.backward(terms["loss"])
        return terms

    def _log(self, terms: dict[str, torch.Tensor], seconds: float) -> dict[str, float]:
        losses = {name: self.accelerator.reduce(value.detach(), "mean").item() for name, value in terms.items()}
        if not math.isfinite(losses["loss"]):
            raise ValueError(f"the loss is {losses['loss']} at step {self.step}; try a lower --learning_rate")
        rate = self.schedule.get_last_lr()[0]
        self._write({"step": self.step, **losses, "learning_rate": rate, "seconds": round(seconds, 1)})
        return losses

    def _periodically(self) -> None:
        config, last = self.config, self.step == self.config.max_steps
        if self.held_out is not None and (self.step % config.eval_steps == 0 or last):
            self.validation = self._validate()
            self._write({"step": self.step, **self.validation})
        if config.checkpoint_steps and (self.step % config.checkpoint_steps == 0 or last):
            save_checkpoint(self.accelerator, config, self.step)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Recall among the held-out rows: of view B in stage 1, of the target image in stage 2."""
        task = self.accelerator.unwrap_model(self.task).eval()
        found = []
        for start in range(0, len(self.held_out), 256):
            batch = self.held_out.__getitems__(list(range(start, min(start + 256, len(self.held_out)))))
            found.append(task.retrieve(**{name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}))
        queries, answers = (torch.cat(parts).cpu() for parts in zip(*found))
        rankings = rank_gallery(queries, answers, k=10)
        return {f"validation_recall@{k}": recall_at_k(rankings, range(len(queries)), k) for k in (1, 5, 10)}

    def _write(self, entry: dict) -> None:
        if self.accelerator.is_main_process:
            with open(self.output_dir / LOG, "a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")

    def _forget_log_after(self, step: int) -> None:
        """A resumed run writes the steps after its checkpoint again."""
        log = self.output_dir / LOG
        if log.exists():
            lines = [
                line for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if json.loads(line)["step"] <= step
            ]
            log.write_text("".join(lines), encoding="utf-8")

    def write_record(self) -> None:
        """What was run: the configuration, the size of data and model, and the last validation."""
        config = asdict(self.config)
        for key in ("output_dir", "resume"):
            del config[key]
        for key in ("model", "dataset"):
            config[key] = public_name(config[key])
        record = {
            "config": config,
            "processes": self.accelerator.num_processes,
            "training_rows": len(self.data),
            "trained_parameters": sum(parameter.numel() for parameter in self.trained),
            **self.validation,
        }
        (self.output_dir / RECORD).write_text(json.dumps(record, indent=2) + "\n")
