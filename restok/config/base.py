"""What every section of a parameter file is made of, and every record of a file that is checked where it is read."""

import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Positives = Annotated[tuple[Positive, ...], Field(min_length=1)]
# Settings, up to what a machine can do.
Bounded = Annotated[int, Field(ge=0, le=10**9)]
Steps = Annotated[int, Field(gt=0, le=10**9)]
Many = Annotated[int, Field(gt=0, le=2**20)]                # such as images at a time
Size = Annotated[int, Field(gt=0, le=2**16)]                # a side of tensors
Sizes = Annotated[tuple[Size, ...], Field(min_length=1)]
Workers = Annotated[int, Field(ge=0, le=256)]
Threads = Annotated[int, Field(gt=0, le=256)]
LARGEST_SEED = 2**43 - 1                                    # seed * 1_000_003 + step stays below 2^63
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Seeds = Annotated[int, Field(gt=0, le=1000)]                # how many
Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Scale = Annotated[float, Field(ge=0, le=1000)]              # of guidance
Place = Annotated[str, Field(pattern=r"^[^{}]+$")]          # Snakemake takes names in braces for wildcards


def composed(text: Any) -> Any:
    """Text in Unicode's NFC: some systems write an accent as a character of its own."""
    return unicodedata.normalize("NFC", text) if isinstance(text, str) else text


def _word(text: str) -> str:
    if not re.fullmatch(r"\w+", text):
        raise PydanticCustomError("word", "take letters, digits and underscores")
    return text


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool | float):
        raise PydanticCustomError("whole", "take a whole number")
    return value


Label = Annotated[str, BeforeValidator(composed), AfterValidator(_word),
                  WithJsonSchema({"type": "string", "pattern": r"^\w+$"})]
Whole = BeforeValidator(_no_bool)                           # of a Literal: true is 1 to Python


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
