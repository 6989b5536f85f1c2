"""What a job asks of a machine, by the sizes in the parameters; a profile maps that to its own partitions and limits."""

from restok.config import Params

GPU_FROM = 20_000_000     # parameters: what is smaller trains on a CPU
BYTES = 64                # of main memory a parameter: weights, gradients, moments, average, and a copy of them to be saved
LEAST = 2000              # MB: a process with its libraries, a batch, and the sums of a measurement


def parameters(params: Params) -> int:
    """Of the larger model, about: 12 width^2 a transformer layer."""
    tokenizer, generator = params.tokenizer, params.generator
    return max(12 * tokenizer.width**2 * (tokenizer.encoder_layers + tokenizer.decoder_layers),
               12 * generator.width**2 * generator.layers)


def memory_mb(params: Params) -> int:
    """Main memory of a job, in MB."""
    size = parameters(params)
    return LEAST + (BYTES * size // 10**6 if size >= GPU_FROM else 0)


def gpus(params: Params) -> int:
    """GPUs of a job that runs a model."""
    return int(parameters(params) >= GPU_FROM)
