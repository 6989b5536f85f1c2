"""Optimiser groups, the learning rate schedule, one update (scaled, clipped, stepped), and the average of the weights."""

from collections.abc import Iterable
from inspect import unwrap
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from restok import config
from restok.training.state import Stateful


def learning_rate(step: int, optimizer: config.Optimizer, total: int) -> float:
    """Linear from base / warmup at step 0 to base at step warmup - 1, then cosine to the final rate at `total` and after."""
    base, final, warmup = optimizer.learning_rate, optimizer.final_learning_rate, optimizer.warmup_steps
    if step < warmup:
        return base * (step + 1) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return final + (base - final) * (1 + cos(pi * progress)) / 2


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict]:
    """Weights of linear and convolutional layers decay; norms, biases, embeddings, tokens and the codebook do not."""
    decayed, plain = [], []
    for root in modules:
        for module in root.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad:
                    matrix = name == "weight" and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
                    matrix |= name == "original" and isinstance(module, ParametrizationList)     # of the spectral norm
                    (decayed if matrix else plain).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


class AdamW(torch.optim.AdamW):
    """torch's own, less the decorators that import torch's compiler in order to be left alone by it: 2 s a command."""

    add_param_group, zero_grad = unwrap(torch.optim.AdamW.add_param_group), unwrap(torch.optim.AdamW.zero_grad)
    state_dict, load_state_dict = unwrap(torch.optim.AdamW.state_dict), unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class Updater(Stateful):
    """AdamW on some modules with their own schedule; steps are counted from `start` to `total`. An update takes the gradients
    of `backward`, which add."""

    def __init__(self, modules: Iterable[nn.Module], optimizer: config.Optimizer, clip: float, precision: str, total: int,
                 start: int = 0):
        groups = [group for group in parameter_groups(modules, optimizer.weight_decay) if group["params"]]
        self.parameters = [p for group in groups for p in group["params"]]
        self.optimizer = AdamW(groups, lr=optimizer.learning_rate, betas=optimizer.betas, fused=True)
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=precision == "fp16")
        self.config, self.clip, self.start, self.total = optimizer, clip, start, total
        self.steps, self.norms = 0, torch.zeros(2, device=self.parameters[0].device)   # finite norms: their sum and number

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def step(self, step: int) -> None:
        """One update at training step `step`, after which there are no gradients; a clip of 0 is none."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step - self.start, self.config, self.total - self.start)
        self.scaler.unscale_(self.optimizer)
        self.measure(self.clipped())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def clipped(self) -> Tensor:
        """Clips the gradients; their norm before."""
        if self.clip:
            return nn.utils.clip_grad_norm_(self.parameters, self.clip)
        return nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def measure(self, norm: Tensor) -> None:
        finite = norm.isfinite()
        self.norms += torch.stack([norm.masked_fill(~finite, 0.0), finite.to(norm)])
        self.steps += 1

    def measured(self, suffix: str = "") -> dict[str, float]:
        """Of the steps since this was last read, if there were any: the last learning rate, the mean norm of the gradients
        before clipping, and, with a loss scaler, its scale and the share of steps that it skipped, whose norms are infinite."""
        if not self.steps:
            return {}
        total, finite = self.norms.tolist()
        row = {"learning_rate": self.optimizer.param_groups[0]["lr"]}
        if finite:
            row["gradient_norm"] = total / finite
        if self.scaler.is_enabled():
            row |= {"loss_scale": self.scaler.get_scale(), "skipped_share": 1 - finite / self.steps}
        self.steps = 0
        self.norms.zero_()
        return {key + suffix: value for key, value in row.items()}

    def parts(self) -> dict:
        return {"optimizer": self.optimizer, "scaler": self.scaler}


def average_decay(update: int, decay: float, ramp: bool) -> float:
    """How much of the average stays at an update, counted from 0, where it becomes the weights. With the release's ramp it is
    (1 + t) / (10 + t) at first, so that the average forgets the start sooner."""
    if update == 0:
        return 0.0
    return min(decay, (1 + update) / (10 + update)) if ramp else decay


class Average(AveragedModel):
    """The moving average of a model's weights. Its count of updates stays on the CPU, where nobody waits for it."""

    def __init__(self, model: nn.Module, training: config.Training):
        super().__init__(model)
        self.decay, self.ramp = training.ema, training.ema_ramp

    def update_parameters(self, model: nn.Module) -> None:
        """torch's own copies the count to the device, which then has to finish its work first."""
        update = get_ema_multi_avg_fn(average_decay(int(self.n_averaged), self.decay, self.ramp))
        update(list(self.module.parameters()), list(model.parameters()), self.n_averaged)
        self.n_averaged += 1
