"""The weights of timm's networks, in the cache of the Hugging Face Hub: found there without internet, brought by `download`."""

import re
from pathlib import Path
from typing import NamedTuple

from restok.files import sha256_file
from restok.networks.pretrained import BRINGS, FetchError

FILES = "model.safetensors", "pytorch_model.bin"       # what timm looks for, in this order


class Hosted(NamedTuple):
    """A network by its timm name, which timm knows."""

    name: str
    setting: str = "weights"              # that may name a file of its weights

    @property
    def repository(self) -> str | None:
        """On the hub; a few networks are elsewhere."""
        from timm import get_pretrained_cfg
        return get_pretrained_cfg(self.name).hf_hub_id

    @property
    def url(self) -> str | None:
        from timm import get_pretrained_cfg
        repository = self.repository
        return f"https://huggingface.co/{repository}" if repository else get_pretrained_cfg(self.name).url or None

    @property
    def licence(self) -> str:
        from timm import get_pretrained_cfg
        return get_pretrained_cfg(self.name).license or "see there"

    @property
    def place(self) -> Path:
        """The hub's cache, as HF_HOME and HF_HUB_CACHE say."""
        from huggingface_hub import constants
        return Path(constants.HF_HUB_CACHE)

    def found(self) -> Path | None:
        """The file in the cache; no request is made."""
        from huggingface_hub import try_to_load_from_cache
        files = (try_to_load_from_cache(self.repository, name) for name in FILES) if self.repository else ()
        return next((Path(file) for file in files if isinstance(file, str)), None)

    def published(self, file: Path) -> str | None:
        """The sha256 that the hub said of a file of its cache, where it lies under that; None where the hub said none."""
        name = file.resolve().name
        return name if re.fullmatch("[0-9a-f]{64}", name) else None

    def required(self) -> Path:
        """`found`. Raises FetchError with what brings it, and what to do without."""
        if (file := self.found()) is None:
            brings = f"{BRINGS} or " if self.repository else ""
            raise FetchError(f"network: the weights of {self.name} are not there; {brings}{self._elsewhere}")
        return file

    @property
    def _elsewhere(self) -> str:
        where = f"download {self.url}" if self.url else "take weights of its shape"
        return (f"{where} (licence: {self.licence}) and name the file under `{self.setting}`; they are looked for in "
                f"{self.place}")

    def download(self) -> None:
        """Bring the file whole, with the sha256 that the hub says, or leave nothing that passes for it. Raises FetchError."""
        if not self.repository:
            raise FetchError(f"network: {self.name} is not on the hub; {self._elsewhere}")
        try:
            file = self._downloaded()
        except Exception as error:                   # its client raises a dozen kinds, and those of its own client's too
            reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
            raise FetchError(f"network: the weights of {self.name} cannot be downloaded ({reason}); "
                             f"{self._elsewhere}") from error
        published = self.published(file)
        if published and (sha256 := sha256_file(file)) != published:
            for path in (file.resolve(), file):
                path.unlink(missing_ok=True)
            raise FetchError(f"network: the weights of {self.name} came with sha256 {sha256[:12]}, not {published[:12]}; run "
                             f"`restok fetch` again, or {self._elsewhere}")

    def _downloaded(self) -> Path:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        from huggingface_hub.utils import logging
        logging.set_verbosity_error()                # it warns of each of its tries; what matters is in the error
        try:
            # Asked once: without internet the download itself would try for 23 seconds.
            get_hf_file_metadata(hf_hub_url(self.repository, FILES[0]))
            return Path(hf_hub_download(self.repository, FILES[0]))
        except LocalEntryNotFoundError:              # no internet
            raise
        except EntryNotFoundError:
            return Path(hf_hub_download(self.repository, FILES[1]))
