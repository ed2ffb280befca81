"""The operator's settings: a closed TOML file, every limit named. None weakens what a client verified."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from confide_attestation.policy_types import Hex32
from confide_protocol import labels
from confide_protocol.errors import ConfigError
from confide_protocol.keyset import MAX_MODELS
from confide_protocol.settings import MAX_SETTINGS_BYTES, Settings, parse_toml
from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from confide_enclave.defaults import PACKAGED_ANSWERS, AnswerSettings
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.encoder_card import EncoderLimits
from confide_enclave.remote.settings import RemoteSettings

Seconds = Annotated[float, Field(gt=0, le=24 * 3600)]
Count = Annotated[int, Field(ge=1, le=1 << 24)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Platform = Literal["sev-snp", "tdx", "azure-sev-snp", "azure-tdx", "dstack", "simulated-sev-snp", "simulated-tdx"]
SIMULATED = "simulated-"
MIN_SECRET_CHARS = 32
MAX_SECRET_BYTES = 4096


class ModelSettings(Settings):
    """Which model runs. `weights`: a GGUF file or a converted directory; absent: what the model package carries."""

    kind: Literal["torch"] = "torch"
    name: Name = "smollm2-135m-instruct"
    weights: str | None = None
    answers: AnswerSettings = PACKAGED_ANSWERS

    @model_validator(mode="before")
    @classmethod
    def _advised(cls, given: Any) -> Any:  # noqa: ANN401
        """Let what suits the packaged model stand for nothing but that one."""
        answers = given.get("answers", {}) if isinstance(given, dict) else None
        if not isinstance(answers, dict):
            return given
        usual = AnswerSettings() if given.get("weights") else PACKAGED_ANSWERS
        return {**given, "answers": {**dict(usual), **answers}}


def _engine_kind(engine: object) -> object:
    if isinstance(engine, RemoteSettings):
        return engine.kind
    return engine.get("kind", "torch") if isinstance(engine, dict) else "torch"


def _without_kind(engine: object) -> object:
    return {name: value for name, value in engine.items() if name != "kind"} if isinstance(engine, dict) else engine


# The engine of our own, or one in another process.
EngineSettings = Annotated[
    Annotated[EngineLimits, BeforeValidator(_without_kind), Tag("torch")]
    | Annotated[RemoteSettings, Tag("openai")],
    Discriminator(_engine_kind, custom_error_type="kind", custom_error_message='its kind is "torch" or "openai"'),
]


class ServedModelSettings(ModelSettings):
    """A model with the engine that computes it: what [model] and [engine] say of the first one."""

    name: Name
    engine: EngineSettings = EngineLimits()

    @property
    def max_requests(self) -> int:
        """How many requests it holds at once, answered and waiting; the next one is refused."""
        if isinstance(self.engine, RemoteSettings):
            return self.engine.max_requests
        return self.engine.max_sequences + self.engine.max_waiting


class EmbeddingsSettings(EncoderLimits):
    """Which encoder gives embeddings. `weights`: a published directory; absent: what its package carries."""

    name: Name = "all-minilm-l6-v2"
    weights: str | None = None


class KeysetSettings(Settings):
    """How long a keyset lives, grace included, and how long the previous one is still opened."""

    lifetime_s: Annotated[int, Field(ge=2, le=labels.KEYSET_LIFETIME_MAX_S)] = labels.KEYSET_LIFETIME_MAX_S
    grace_s: Annotated[int, Field(ge=1, le=labels.KEYSET_GRACE_S)] = labels.KEYSET_GRACE_S


class Limits(Settings):
    """What ends an oversized, slow, abandoned or unlucky request."""

    # A shape's bucket of 4 MiB, and what sealing adds to it.
    max_request_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = (4 << 20) + (8 << 10)
    header_timeout_s: Seconds = 10.0
    first_byte_timeout_s: Seconds = 10.0
    idle_timeout_s: Seconds = 30.0
    request_timeout_s: Seconds = 120.0
    answer_timeout_s: Seconds = 600.0
    max_concurrent: Count = 32
    max_waiting: Count = 64
    replay_capacity: Count = 1_000_000
    max_quote_waiting: Annotated[int, Field(ge=1, le=1 << 16)] = 1024
    device_timeout_s: Seconds = 10.0
    evidence_timeout_s: Seconds = 30.0
    shutdown_grace_s: Seconds = 30.0


class DialectSettings(Settings):
    """What is answered beside OHTTP, by a key of its own. The manifest says so: no policy accepts it unasked."""

    ehbp: bool = False


class DeviceSettings(Settings):
    """Where the machine's devices are; what is left out is where Linux and the clouds put it.

    Without `ccel` no event log goes with a TDX quote: the profile tdx/gcp demands one, tdx/direct refuses it.
    """

    tsm_root: str | None = None
    sev_guest: str | None = None
    tdx_guest: str | None = None
    ccel: str | None = None
    tpm: str | None = None
    dstack_socket: str | None = None
    imds_url: Annotated[str, Field(pattern=r"^http://[^\s/]+$")] | None = None


class SimulatedGpuRoots(Settings):
    """By which roots the enclave judges SIMULATED GPUs, by SHA-256 of their keys; real ones have NVIDIA's own."""

    nvidia_device_root_spki_sha256: Hex32
    nvidia_rim_root_spki_sha256: Hex32


class EnclaveSettings(Settings):
    """One `enclave.toml`. Paths are relative to the file."""

    listen: Annotated[str, Field(pattern=r"^[^\s:]+:\d{1,5}$")] = "127.0.0.1:0"
    gateway_secret_file: str
    platform: Platform
    device_socket: str | None = None
    gpus: bool = False
    endorsements_file: str | None = None
    shapes: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = (
        labels.SHAPE_BUCKETED,
        labels.SHAPE_NONE,
    )
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineLimits()
    more_models: Annotated[tuple[ServedModelSettings, ...], Field(strict=False, max_length=MAX_MODELS - 1)] = ()
    embeddings: EmbeddingsSettings | None = None
    keyset: KeysetSettings = KeysetSettings()
    dialects: DialectSettings = DialectSettings()
    limits: Limits = Limits()
    devices: DeviceSettings = DeviceSettings()
    simulated: SimulatedGpuRoots | None = None

    @field_validator("shapes")
    @classmethod
    def _known_once(cls, shapes: tuple[str, ...]) -> tuple[str, ...]:
        if not set(shapes) <= {labels.SHAPE_BUCKETED, labels.SHAPE_NONE} or len(set(shapes)) != len(shapes):
            raise ValueError(f'name "{labels.SHAPE_BUCKETED}", "{labels.SHAPE_NONE}" or both, each once')
        return shapes

    @field_validator("listen")
    @classmethod
    def _port(cls, listen: str) -> str:
        if int(listen.rpartition(":")[2]) > 65535:
            raise ValueError("the port must be 0 to 65535")
        return listen

    @property
    def models(self) -> tuple[ServedModelSettings, ...]:
        """All that answer by a name of their own, the first one first."""
        return ServedModelSettings(**dict(self.model), engine=self.engine), *self.more_models

    @property
    def is_simulated(self) -> bool:
        return self.platform.startswith(SIMULATED)

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


def load_settings(path: Path) -> EnclaveSettings:
    """Read settings and resolve their paths against the file's folder. Raises: ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SETTINGS_BYTES + 1)
    except OSError as fault:
        raise ConfigError(str(path), "file", f"cannot be read ({fault.strerror}); check --config") from None
    settings = parse_toml(data, EnclaveSettings, str(path))
    for field, remedy in _contradictions(settings):
        raise ConfigError(str(path), field, remedy)
    folder = path.parent

    def resolve(name: str | None) -> str | None:
        return None if name is None else str(folder / name)

    given = settings.devices.model_dump()
    devices = {name: value if name == "imds_url" else resolve(value) for name, value in given.items()}
    embeddings = settings.embeddings
    if embeddings is not None:
        embeddings = embeddings.model_copy(update={"weights": resolve(embeddings.weights)})
    return settings.model_copy(
        update={
            "gateway_secret_file": str(folder / settings.gateway_secret_file),
            "device_socket": resolve(settings.device_socket),
            "endorsements_file": resolve(settings.endorsements_file),
            "devices": DeviceSettings(**devices),
            "model": settings.model.model_copy(update={"weights": resolve(settings.model.weights)}),
            "engine": _beside(settings.engine, resolve),
            "more_models": tuple(
                model.model_copy(
                    update={"weights": resolve(model.weights), "engine": _beside(model.engine, resolve)}
                )
                for model in settings.more_models
            ),
            "embeddings": embeddings,
        }
    )


def _beside(
    engine: EngineLimits | RemoteSettings, resolve: Callable[[str | None], str | None]
) -> EngineLimits | RemoteSettings:
    if isinstance(engine, RemoteSettings):
        return engine.beside(resolve)
    return engine.model_copy(update={"draft": resolve(engine.draft)})


def _contradictions(settings: EnclaveSettings) -> Iterator[tuple[str, str]]:
    """Name each field that does not go with another, and the remedy."""
    if settings.keyset.grace_s >= settings.keyset.lifetime_s:
        yield "keyset.grace_s", "must be less than keyset.lifetime_s"
    yield from _contradicting_models(settings)
    platform = settings.platform
    if settings.is_simulated:
        if settings.device_socket is None:
            yield "device_socket", f"is missing; {platform} asks a confide-sim process, name its socket"
        if settings.devices != DeviceSettings():
            yield "devices", f"are those of real hardware; remove them, {platform} has none"
        if settings.gpus and settings.simulated is None:
            yield "simulated", "is missing; simulated GPUs are judged by the roots that confide-sim printed"
    else:
        if settings.device_socket is not None:
            yield "device_socket", f"belongs to simulated hardware; remove it, the platform is {platform}"
        if settings.simulated is not None:
            yield "simulated", f"trusts simulated roots; remove it, the platform is {platform}"


def place_of(index: int) -> str:
    """Name a model's table as the file does."""
    return "model" if index == 0 else f"more_models.{index - 1}"


def _contradicting_models(settings: EnclaveSettings) -> Iterator[tuple[str, str]]:
    names = set() if settings.embeddings is None else {settings.embeddings.name}
    for index, model in enumerate(settings.models):
        place = place_of(index)
        if isinstance(model.engine, RemoteSettings) and model.weights is None:
            yield f"{place}.weights", "is missing; name what the server reads, a published directory or a GGUF file"
        if isinstance(model.engine, EngineLimits) and model.engine.is_on_gpu and not settings.gpus:
            engine = "engine" if place == "model" else f"{place}.engine"
            yield f"{engine}.device", "is a GPU, which must be attested as well: prompts go there; set gpus = true"
        if model.name in names:
            yield (
                f"{place}.name",
                f"{model.name} is named twice; every model, the encoder too, has a name of its own",
            )
        names.add(model.name)
    if settings.more_models:
        # A request's model is sealed: before it is opened, all share these places.
        encoder = 0 if settings.embeddings is None else settings.embeddings.max_waiting + 1
        needed = sum(model.max_requests for model in settings.models) + encoder
        if settings.limits.max_concurrent < needed:
            yield (
                "limits.max_concurrent",
                f"lets one model take the places of another; set it to {needed} or more, which is what all may hold"
                " (max_sequences + max_waiting, or max_requests), or lower theirs",
            )


def load_gateway_secret(path: Path, field: str = "gateway_secret_file") -> bytes:
    """Read the bearer secret that only the gateway may know; a file that others can read is refused.

    `field` names the setting in messages: other secrets are read so too. Raises: ConfigError. Does not check: how
    random the secret is.
    """

    def wrong(remedy: str) -> ConfigError:
        return ConfigError(str(path), field, remedy)

    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as fault:
        raise wrong(f"cannot be read ({fault.strerror}); write a random secret into it, mode 0600") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise wrong("is not a regular file; name a file that holds the secret")
        if status.st_mode & 0o077:
            raise wrong(f"others may read it (mode {stat.S_IMODE(status.st_mode):04o}); run: chmod 600 {path}")
        secret = os.read(handle, MAX_SECRET_BYTES + 1).strip()
    finally:
        os.close(handle)
    if len(secret) > MAX_SECRET_BYTES or not all(0x21 <= byte <= 0x7E for byte in secret):
        raise wrong("must be one line of visible ASCII")
    if len(secret) < MIN_SECRET_CHARS:
        raise wrong(f"is shorter than {MIN_SECRET_CHARS} characters; use e.g. openssl rand -hex 32")
    return secret
