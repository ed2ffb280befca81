"""The manifest of this installation: release, models, engine settings, shapes, platform."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

from confide_protocol.keyset import Manifest, ServedModel

from confide_enclave.engine import ModelCard
from confide_enclave.settings import EnclaveSettings


def build_manifest(
    settings: EnclaveSettings, cards: Sequence[ModelCard], encoder: ModelCard | None = None
) -> Manifest:
    """Say what runs here; whether with GPUs is nothing that hardware measures, and a policy pins it with the rest.

    Shapes stand in a fixed order, so that the file's order does not change the digest. `cards`: of the models, in
    the settings' order; `encoder`: of embeddings.
    """
    given = zip(cards, settings.models, strict=True)
    card, *more = (replace(each, engine={**each.engine, **served.answers.manifest()}) for each, served in given)
    dialects = {"ehbp": True} if settings.dialects.ehbp else {}
    embeddings: dict[str, str] = {}
    if encoder is not None:
        embeddings = {
            "embeddings": encoder.name,
            "embeddings_weights": encoder.weights_digest.hex(),
            "embeddings_tokenizer": encoder.tokenizer_digest.hex(),
        }
    return Manifest(
        release=version("confide"),
        model=card.name,
        weights_digest=card.weights_digest,
        tokenizer_digest=card.tokenizer_digest,
        engine={**card.engine, "gpus": settings.gpus, **embeddings, **dialects},
        shapes=tuple(sorted(settings.shapes)),
        platform=settings.platform,
        more_models=tuple(
            ServedModel(each.name, each.weights_digest, each.tokenizer_digest, each.engine) for each in more
        ),
    )


def fingerprint(manifest: Manifest) -> str:
    """Name what runs, as OpenAI's answers do."""
    return f"fp_{manifest.digest.hex()[:12]}"
