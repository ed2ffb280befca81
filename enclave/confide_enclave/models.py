"""The models that the settings name: where each lies, what is known of it before it runs, and what loads it."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from confide_protocol.errors import ConfigError

from confide_enclave.engine import Embedder, Engine, ModelCard
from confide_enclave.engine.card import EngineLimits, default_weights, read_card
from confide_enclave.engine.directory import Directory
from confide_enclave.engine.encoder_card import default_encoder, read_encoder_card
from confide_enclave.remote.settings import RemoteSettings
from confide_enclave.settings import EmbeddingsSettings, EnclaveSettings, ServedModelSettings, place_of

Cards = tuple[tuple[ModelCard, ...], ModelCard | None]
Loader = Callable[[], Engine | Embedder]


def read_cards(settings: EnclaveSettings) -> Cards:
    """Describe the models in the settings' order, and the encoder, without loading them. Raises: ConfigError."""
    cards = tuple(_card(model, index) for index, model in enumerate(settings.models))
    wanted = settings.embeddings
    return cards, None if wanted is None else read_encoder_card(Directory(_encoder(wanted)), wanted.name)


def make_loaders(file: str, settings: EnclaveSettings) -> list[Loader]:
    """Return what loads each model, then the encoder if one is wanted; `file` names the settings in messages.

    Raises: ConfigError if a model is not there, or torch is not.
    """
    loaders = [_loader(file, model, index) for index, model in enumerate(settings.models)]
    wanted = settings.embeddings
    if wanted is not None:
        _demand_torch(file)
        from confide_enclave.engine.encoder import BertEmbedder

        loaders.append(partial(BertEmbedder, _encoder(wanted), wanted.name, wanted))
    return loaders


def share_cores(file: str, settings: EnclaveSettings) -> EnclaveSettings:
    """Give each engine of our own that names no `threads` an equal part of the cores, one being left to the rest.

    Engines with more threads than there are cores would wait for each other's helpers within every step.
    Raises: ConfigError without torch.
    """
    unnamed = sum(_names_no_threads(model.engine) for model in settings.models)
    if not unnamed:
        return settings
    threads = max(1, (_cores(file) - 1) // unnamed)

    def shared(engine: EngineLimits | RemoteSettings) -> EngineLimits | RemoteSettings:
        return engine.model_copy(update={"threads": threads}) if _names_no_threads(engine) else engine

    more = tuple(model.model_copy(update={"engine": shared(model.engine)}) for model in settings.more_models)
    return settings.model_copy(update={"engine": shared(settings.engine), "more_models": more})


def _names_no_threads(engine: EngineLimits | RemoteSettings) -> bool:
    return isinstance(engine, EngineLimits) and engine.threads == 0 and not engine.is_on_gpu


@cache
def _cores(file: str) -> int:
    # Asked once, before an engine sets it: from then on torch answers with what that one set.
    _demand_torch(file)
    import torch

    return torch.get_num_threads()


def _demand_torch(file: str) -> None:
    try:
        import confide_enclave.engine.torch_engine  # noqa: F401
    except ImportError:
        raise ConfigError(
            file, "model.kind", "torch is missing; install it: pip install 'confide[enclave]'"
        ) from None


def _card(model: ServedModelSettings, index: int) -> ModelCard:
    weights = _weights(model, index)
    if isinstance(model.engine, RemoteSettings):
        from confide_enclave.remote.card import read_card as read_remote_card

        return read_remote_card(weights, model.name, model.engine)
    return read_card(weights, model.name, model.engine)


def _loader(file: str, model: ServedModelSettings, index: int) -> Loader:
    weights = _weights(model, index)
    if isinstance(model.engine, RemoteSettings):
        from confide_enclave.remote.engine import RemoteEngine

        where = file if index == 0 else f"{file}: {place_of(index)}"
        return partial(RemoteEngine.load, weights, model.name, model.engine, where)
    _demand_torch(file)
    from confide_enclave.engine.torch_engine import TorchEngine

    return partial(TorchEngine.load, weights, model.name, model.engine)


def _weights(model: ServedModelSettings, index: int) -> Path:
    """Return where the model lies. Raises: ConfigError if it is not there."""
    if model.weights is None:
        return default_weights()
    weights = Path(model.weights)
    if not weights.exists():
        remedy = "is not there; name a GGUF file or a converted directory"
        raise ConfigError(str(weights), f"{place_of(index)}.weights", remedy)
    return weights


def _encoder(settings: EmbeddingsSettings) -> Path:
    """Return where the encoder lies. Raises: ConfigError if it is not there."""
    if settings.weights is None:
        return default_encoder()
    weights = Path(settings.weights)
    if not weights.is_dir():
        raise ConfigError(str(weights), "embeddings.weights", "is not there; name a published directory")
    return weights
