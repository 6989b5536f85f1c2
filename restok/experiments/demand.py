"""What a job asks of a machine, by the sizes in the parameters; a profile maps that to its own partitions and limits."""

from restok.config import Params

GPU_FROM = 20_000_000     # parameters: what is smaller trains on a CPU
BYTES = 64                # of main memory a parameter: weights, gradients, moments, average, and a copy of them to be saved
PRETRAINED = 6000         # MB: the sums of a measurement by Inception, and pretrained networks
LEAST = 2000              # MB: a process with its libraries, a batch, and the sums of a measurement


def parameters(params: Params) -> int:
    """Of the larger model, about: 12 width^2 a transformer layer."""
    tokenizer, generator = params.tokenizer, params.generator
    return max(12 * tokenizer.width**2 * (tokenizer.encoder_layers + tokenizer.decoder_layers),
               12 * generator.width**2 * generator.layers)


def large(params: Params) -> bool:
    """Whether the models, or a pretrained network beside them, take a GPU."""
    objective = params.objective
    networks = {objective.alignment.network, objective.perceptual_network.network, objective.discriminator.network,
                params.evaluation.features}
    return parameters(params) >= GPU_FROM or networks != {"digits"}


def memory_mb(params: Params) -> int:
    """Main memory of a job, in MB."""
    return LEAST + (PRETRAINED + BYTES * parameters(params) // 10**6 if large(params) else 0)


def gpus(params: Params) -> int:
    """GPUs of a job that runs a model."""
    return int(large(params))
