"""How images are measured."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from restok.config.base import Config, Many, Place, Sizes, Steps, Weight


class Evaluation(Config):
    features: Literal["digits", "inception", "dinov2"]      # of the network whose metrics bear the field's plain names
    also: tuple[Literal["dinov2"], ...]    # further networks, over the same images
    weights: str | None                    # of the Inception network: a file instead of what `restok fetch` brings
    dinov2_weights: str | None             # of DINOv2: a file instead of what `restok fetch` brings
    lpips: bool                            # whether reconstructions are measured by LPIPS-Alex
    lpips_weights: str | None              # of its AlexNet: a file instead of what `restok fetch` brings
    reference: Place | None                # of samples: images or statistics; null: the workflow's validation split
    samples_per_class: Many
    neighbours: Many                       # k of precision and recall
    distances: Annotated[tuple[Literal["exact", "adm-fp16"], ...], Field(min_length=1)]   # of precision and recall
    batch_size: Many
    save_every: Steps                      # images between resumable states: about the most that a killed run can lose

    @property
    def networks(self) -> tuple[str, ...]:
        """All whose features are measured."""
        return self.features, *self.also

    @model_validator(mode="after")
    def check(self) -> Self:
        if len({self.features, *self.also}) <= len(self.also):
            raise ValueError(f"also: {', '.join(self.also)} beside features: {self.features}; name each network once")
        if "exact" not in self.distances or len(set(self.distances)) != len(self.distances):
            raise ValueError("distances: 'exact', which the reports show, and each at most once")
        return self


class Classifier(Config):
    """The demo's feature network, trained on the training split."""

    channels: Sizes
    steps: Steps
    batch_size: Many
    learning_rate: Weight
