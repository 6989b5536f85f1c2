"""How tokenizer and generator are trained (Tables 7 and 8)."""

from typing import Literal, Self

from pydantic import model_validator

from restok.config.base import Beta, Bounded, Config, Fraction, Label, Many, Steps, Weight


class Optimizer(Config):
    learning_rate: Weight
    final_learning_rate: Weight
    warmup_steps: Bounded
    betas: tuple[Beta, Beta]
    weight_decay: Weight


class Training(Config):
    batch_size: Many                       # of one update, whatever the number of processes
    micro_batch: Many | None               # images in one forward on one device; as many as make up the batch; null: all of it
    optimizer: Optimizer
    clip: Weight
    precision: Literal["fp32", "bf16", "fp16"]
    tf32: bool                             # of float32 products on a GPU, 10 bits of each number's fraction count
    channels_last: bool                    # the layout of images in the CNN encoder and the perceptual network
    compile: bool                          # transformer blocks, by torch.compile
    checkpointing: bool                    # blocks compute anew in the backward pass, not keep, what they need there
    ema: Fraction                          # decay of the average of the weights, an update
    ema_ramp: bool                         # decay of (1 + t) / (10 + t) at update t, up to `ema`, as the release's
    log_every: Steps
    save_every: Steps                      # steps between resumable states: the most that a killed run can lose


class TokenizerTraining(Training):
    checkpoints: dict[Label, Steps]        # label: step, increasing
    schedule_steps: Steps | None           # where the learning rate ends; null: with the last checkpoint

    @model_validator(mode="after")
    def check(self) -> Self:
        steps = list(self.checkpoints.values())
        if not steps or steps != sorted(set(steps)):
            raise ValueError("checkpoints: one label or more, with increasing steps")
        if self.schedule_steps is not None and self.schedule_steps < steps[-1]:
            raise ValueError(f"schedule_steps: {self.schedule_steps} ends before the last checkpoint, at {steps[-1]}")
        return self

    @property
    def total(self) -> int:
        """Steps of the learning rate's schedule."""
        return self.schedule_steps or list(self.checkpoints.values())[-1]

    def until(self, label: str) -> Self:
        """What training to a checkpoint depends on: those after it matter only where the learning rate ends with the last."""
        kept = {name: step for name, step in self.checkpoints.items() if step <= self.checkpoints[label]}
        return self.model_copy(update={"checkpoints": kept, "schedule_steps": self.total})


class GeneratorTraining(Training):
    steps: Steps
