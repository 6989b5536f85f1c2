"""The verb that goes between the authors' released weights and ours."""

from pathlib import Path

from restok.cli.base import argument, option, say, verb
from restok.config.load import ConfigError

Tokenizer = argument(Path, "With --from, a file of weights (.safetensors, .bin, .pt, .pth) or the folder with it; "
                     "with --to, a folder of ours.")
Generator = argument(str, "The same of the generator; - for none.")
Out = argument(Path, "Folder to write; replaced whole, where it holds what this wrote before.")
From = option(str | None, "release: write OUT/tokenizer and OUT/generator, for every other verb.", "--from", metavar="FORMAT")
To = option(str | None, "release: write OUT/tokenizer.safetensors and OUT/generator.safetensors under the authors' names, with "
            "their configuration as .json.", "--to", metavar="FORMAT")
TokenizerSettings = option(Path | None, "The authors' configuration (JSON or YAML), where it is not beside the weights as "
                           "config.json; without one it is inferred.")
GeneratorSettings = option(Path | None, "The same of the generator.")


@verb
def convert(tokenizer: Tokenizer, generator: Generator, out: Out, source: From = None, target: To = None,
            tokenizer_config: TokenizerSettings = None, generator_config: GeneratorSettings = None) -> None:
    """Turn the authors' released weights into ours (--from release), or ours into theirs (--to release)."""
    if {source, target} != {"release", None}:
        raise ConfigError("convert: name one of --from release and --to release")
    if target and (tokenizer_config or generator_config):
        raise ConfigError("--tokenizer-config and --generator-config describe released weights; leave them out with --to")
    if generator == "-" and generator_config:
        raise ConfigError("--generator-config: there is no generator; name its weights in the place of -")
    from restok.stages.released import from_release, to_release
    generator = None if generator == "-" else Path(generator)
    if target:
        to_release(tokenizer, generator, out)
        return
    for kind, facts in from_release(tokenizer, generator, out, tokenizer_config, generator_config).items():
        about = facts["source"]
        taken = f"{about['file']}, {about['key']}" if about["key"] else about["file"]
        say(f"{kind}: {facts['parameters']:,} parameters from {taken} (sha256 {about['sha256'][:12]})")
        say(f"  settings: {about['settings'] or 'none found, so names and shapes were read'}")
        if about["assumed"]:
            say(f"  assumed as published: {', '.join(f'{key} {value}' for key, value in about['assumed'].items())}")
