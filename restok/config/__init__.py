"""Frozen, strict models that mirror `params/*.yaml`: every field is written out there, none has a default here.

`restok.config.load` reads them.
"""

from restok.config.base import Config
from restok.config.data import Codes, Data
from restok.config.evaluation import DINOV2, FDR6, Classifier, Evaluation
from restok.config.generator import UNGUIDED, Generator, Guidance, GuidanceSearch, Sampling
from restok.config.objective import Alignment, Discriminator, Objective, Perceptual
from restok.config.params import Experiments, Params
from restok.config.site import Choice, Site
from restok.config.tokenizer import CNN, Tokenizer
from restok.config.training import GeneratorTraining, Optimizer, TokenizerTraining, Training
