"""What every section of a parameter file is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Positives = Annotated[tuple[Positive, ...], Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Place = Annotated[str, Field(pattern=r"^[^{}]+$")]     # Snakemake takes names in braces for wildcards
Label = Annotated[str, Field(pattern=r"^\w+$")]


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
